"""One update of both algorithms, against a straightforward re-implementation."""

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
from torch import nn

from sb3_lql import NCLQL
from sb3_lql.common.critics import sinusoidal_levels
from tests.common.plain_chain import plain_chain

OBS_DIM, ACTION_DIM, BATCH = 10, 2, 16


class PlainCritic(nn.Module):
    """One of a model's networks, built of ordinary layers."""

    def __init__(self, critic: Any, member: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self._linear(layer, member) for layer in critic.layers)
        encoder = critic.level_encoder
        self.encoder = encoder and nn.Sequential(
            self._linear(encoder.net[0], member), nn.Mish(), self._linear(encoder.net[2], member)
        )

    @staticmethod
    def _linear(layer: Any, member: int) -> nn.Linear:
        linear = nn.Linear(layer.weight.shape[1], layer.weight.shape[2])
        linear.weight.data = layer.weight.data[member].T.clone()
        linear.bias.data = layer.bias.data[member, 0].clone()
        return linear

    def forward(self, obs: th.Tensor, actions: th.Tensor, level: th.Tensor) -> th.Tensor:
        x = th.cat([obs, actions], dim=1)
        if self.encoder is not None:
            x = th.cat([x, self.encoder(sinusoidal_levels(10)[level])], dim=1)
        for layer in self.layers[:-1]:
            x = nn.functional.mish(layer(x))
        q: th.Tensor = self.layers[-1](x)
        return q


class PlainLearner:
    """The update as the authors' code does it: two critics, each with an Adam of its own."""

    def __init__(self, model: Any) -> None:
        self.critics = [PlainCritic(model.critic, member) for member in range(2)]
        self.targets = deepcopy(self.critics)
        self.optimizers = [th.optim.Adam(critic.parameters(), lr=1e-4) for critic in self.critics]
        self.last_level = th.full((BATCH,), 9)

    def update(self, model: Any, data: ReplayBufferSamples) -> None:
        # The draws come in the order: initial actions, noise of the chain, smoothing levels, smoothing noise
        initial = th.empty(BATCH, ACTION_DIM).uniform_(-1, 1)
        next_actions = plain_chain(model, data.next_observations, initial, th.randn(20, BATCH, ACTION_DIM))
        with th.no_grad():
            next_q = [target(data.next_observations, next_actions, self.last_level) for target in self.targets]
            td_target = 0.2 * data.rewards + 0.99 * (1 - data.dones) * th.min(*next_q)
            clean = [critic(data.observations, data.actions, self.last_level) for critic in self.critics]
            smoothing_target = (clean[0] + clean[1]) / 2
        self.regress(data.observations, data.actions, self.last_level, td_target)
        if isinstance(model, NCLQL):
            level = th.randint(9, (BATCH,))
            sigma = (2.0 * 0.01 ** (level / 9))[:, None]
            noisy = data.actions + sigma * th.randn(BATCH, ACTION_DIM)
            self.regress(data.observations, noisy, level, smoothing_target)
        for critic, target in zip(self.critics, self.targets, strict=True):
            for parameter, target_parameter in zip(critic.parameters(), target.parameters(), strict=True):
                target_parameter.data = 0.995 * target_parameter.data + 0.005 * parameter.data

    def regress(self, obs: th.Tensor, actions: th.Tensor, level: th.Tensor, target: th.Tensor) -> None:
        for critic, optimizer in zip(self.critics, self.optimizers, strict=True):
            optimizer.zero_grad()
            (critic(obs, actions, level) - target).square().mean().backward()
            optimizer.step()


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


def test_updates_are_those_of_the_plain_learner(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Wide smoothing, so that noisy actions lie far outside the box: they are not clipped
    model = make_model(algorithm, **(dict(sigma_max=2.0, sigma_min=0.02) if algorithm is NCLQL else {}))
    learner = PlainLearner(model)
    obs, actions = th.randn(50, OBS_DIM), th.rand(50, ACTION_DIM) * 2 - 1
    before = model.critic(obs, actions).detach()
    for seed in range(5):
        data = random_batch()
        monkeypatch.setattr(model.replay_buffer, "sample", lambda *args, data=data, **kwargs: data)
        th.manual_seed(seed)
        learner.update(model, data)  # first, as its chain runs on the model's critic
        th.manual_seed(seed)
        model.train(gradient_steps=1, batch_size=BATCH)

    with th.no_grad():
        levels = th.arange(50) % 10
        for member in range(2):
            for ours, plain in ((model.critic, learner.critics), (model.critic_target, learner.targets)):
                q_values = ours(obs, actions, levels if algorithm is NCLQL else None)[member]
                th.testing.assert_close(q_values, plain[member](obs, actions, levels), atol=2e-5, rtol=0)
    assert (model.critic(obs, actions) - before).abs().max() > 1e-3  # something was learned that could differ


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
    target, _ = model._td_target(data)
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
