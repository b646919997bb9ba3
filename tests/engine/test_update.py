"""What an update does and when; `tests/benchmark/test_naive.py` compares it with a straightforward one."""

import json
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import ReplayBufferSamples

OBS_DIM, ACTION_DIM, BATCH = 10, 2, 16


def random_batch() -> ReplayBufferSamples:
    return ReplayBufferSamples(
        observations=th.randn(BATCH, OBS_DIM),
        actions=(th.rand(BATCH, ACTION_DIM) * 4 - 2).clamp(-1, 1),  # half of them on the border
        next_observations=th.randn(BATCH, OBS_DIM),
        dones=(th.rand(BATCH, 1) < 0.3).float(),
        rewards=10 * th.randn(BATCH, 1),
    )


def make_model(model_class: Any, **kwargs: Any) -> Any:
    arguments = dict(seed=1, buffer_size=10, policy_kwargs=dict(net_arch=[32, 32])) | kwargs
    model = model_class("MlpPolicy", "Reacher-v5", **arguments)
    model._setup_learn(1)  # for the logger
    return model


def test_targets_move_every_target_update_interval_updates_by_tau(algorithm: Any) -> None:
    model = make_model(algorithm, learning_starts=5, target_update_interval=3, tau=0.5)
    model.learn(6)  # one update
    start = deepcopy(model.critic_target.state_dict())
    model.train(gradient_steps=1, batch_size=4)
    assert all(th.equal(start[name], value) for name, value in model.critic_target.state_dict().items())
    model.train(gradient_steps=1, batch_size=4)
    for name, online in model.critic.state_dict().items():
        th.testing.assert_close(model.critic_target.state_dict()[name], (start[name] + online) / 2)


def test_target_bootstraps_where_the_episode_goes_on_and_only_there(algorithm: Any) -> None:
    model = make_model(algorithm, tau=0.0)
    data = random_batch()._replace(rewards=th.zeros(BATCH, 1))
    target = model._backup(data, model._next_actions(data))
    ended = data.dones.bool()
    assert ended.any()
    assert target[ended].eq(0).all()
    assert target[~ended].ne(0).all()


@pytest.mark.parametrize("optimizer_class", [th.optim.Adam, th.optim.SGD])
@pytest.mark.parametrize(("poison", "loss"), [(np.nan, "nan"), (np.inf, "inf"), (1e30, "inf")])
def test_non_finite_loss_stops_and_leaves_the_last_good_parameters(
    algorithm: Any, optimizer_class: Any, poison: float, loss: str
) -> None:
    model = make_model(algorithm, learning_starts=20, policy_kwargs=dict(net_arch=[8], optimizer_class=optimizer_class))
    model.learn(25)
    model.replay_buffer.rewards[:] = poison
    good = deepcopy(model.get_parameters())
    with pytest.raises(ValueError, match=rf"update {model._n_updates + 1} critic_loss was {loss}"):
        model.train(gradient_steps=3, batch_size=8)
    assert all(th.equal(value, model.policy.state_dict()[name]) for name, value in good["policy"].items())
    # and learning can go on from there
    model.replay_buffer.rewards[:] = 0.0
    model.train(gradient_steps=1, batch_size=8)
    assert any(not th.equal(value, model.policy.state_dict()[name]) for name, value in good["policy"].items())
    assert all(value.isfinite().all() for value in model.policy.state_dict().values())


def test_changed_temperature_takes_effect_at_once(algorithm: Any) -> None:
    model = make_model(algorithm)
    model.inverse_temperature = 1e-3
    assert model.policy.sampler.inverse_temperature == 1e-3
    with pytest.raises(ValueError, match="inverse_temperature=0"):
        model.inverse_temperature = 0


@pytest.mark.parametrize("setting", ["tau", "gamma", "reward_scale"])
def test_settings_spoilt_later_stop_before_they_reach_a_parameter(algorithm: Any, setting: str) -> None:
    model = make_model(algorithm, learning_starts=5).learn(10)
    setattr(model, setting, np.nan)
    with pytest.raises(ValueError, match=f"{setting}=nan"):
        model.train(gradient_steps=1, batch_size=4)
    assert all(value.isfinite().all() for value in model.policy.state_dict().values())


def test_learning_rate_that_a_schedule_spoils_stops_before_it_reaches_a_parameter(algorithm: Any) -> None:
    model = make_model(algorithm, learning_starts=5, learning_rate=lambda left: 1e-3 if left > 0.5 else np.nan)
    with pytest.raises(ValueError, match="learning_rate=nan"):
        model.learn(20)
    assert all(value.isfinite().all() for value in model.policy.state_dict().values())


def test_optimiser_state_of_another_implementation_is_learned_on_with(algorithm: Any) -> None:
    plain, fused = (
        make_model(algorithm, policy_kwargs=dict(net_arch=[8], optimizer_kwargs=kwargs), learning_starts=5).learn(10)
        for kwargs in (dict(fused=False), None)
    )
    fused.set_parameters(plain.get_parameters())
    fused.train(gradient_steps=1, batch_size=4)
    assert fused._n_updates == 6


def test_evaluation_logs_hold_the_losses_too(algorithm: Any, tmp_path: Any) -> None:
    model = make_model(algorithm, learning_starts=5)
    model.set_logger(configure(str(tmp_path), ["json"]))
    evaluation = EvalCallback(Monitor(gym.make("Reacher-v5")), eval_freq=10, n_eval_episodes=1, verbose=0)
    model.learn(10, callback=evaluation, log_interval=None)
    (logged,) = map(json.loads, (tmp_path / "progress.json").read_text().splitlines())
    assert {"eval/mean_reward", "train/critic_loss", "train/n_updates"} <= logged.keys()
