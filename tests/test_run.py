"""Learning runs with the settings that Stable-Baselines3's off-policy algorithms accept."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.utils import LinearSchedule

from sb3_lql import NCLQL
from tests.operations import NoSynchronisation

#: What an update of either algorithm logs; NC-LQL adds train/smoothing_loss.
LOGGED = {"critic_loss", "q_mean", "score_norm", "next_action_std", "next_action_at_bound", "n_updates"}


def weights(model: Any) -> dict[str, th.Tensor]:
    """A copy of the online critic's parameters."""
    return {name: value.clone() for name, value in model.critic.state_dict().items()}


def changed(before: dict[str, th.Tensor], after: dict[str, th.Tensor]) -> bool:
    return any(not th.equal(before[name], after[name]) for name in before)


def test_learn_updates_the_critic_from_a_pendulum(algorithm: Any) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", learning_starts=10, buffer_size=1_000, batch_size=16, device="cpu")
    before = weights(model)
    assert model.learn(20) is model
    assert model.num_timesteps == 20
    assert model._n_updates == 10
    after = weights(model)
    assert changed(before, after)
    assert all(th.isfinite(value).all() for value in after.values())


def test_no_update_is_made_before_learning_starts(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    before = weights(model)
    model.learn(tiny["learning_starts"])
    assert model._n_updates == 0
    assert not changed(before, weights(model))


def test_gradient_steps_minus_one_makes_one_update_per_step_of_an_episode(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", gradient_steps=-1, train_freq=(1, "episode"), **tiny)
    model.learn(1)
    assert model.num_timesteps == model._n_updates == 200  # one episode of Pendulum


def test_gradient_steps_minus_one_makes_one_update_per_transition_of_several_envs(
    algorithm: Any, tiny: dict[str, Any]
) -> None:
    env = make_vec_env("Pendulum-v1", n_envs=3)
    model = algorithm("MlpPolicy", env, gradient_steps=-1, train_freq=2, **(tiny | dict(learning_starts=0)))
    model.learn(12)
    assert model.num_timesteps == model._n_updates == 12
    assert model.replay_buffer.size() == 4
    actions, _ = model.predict(env.reset())
    assert actions.shape == (3, 1)


def test_learn_takes_a_float_number_of_steps(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", train_freq=10, **tiny)
    model.learn(1e2)
    assert model.num_timesteps == 100


def test_the_learning_rate_schedule_reaches_the_optimizer(algorithm: Any, tiny: dict[str, Any]) -> None:
    schedule = LinearSchedule(start=1e-2, end=1e-3, end_fraction=1.0)
    model = algorithm("MlpPolicy", "Pendulum-v1", learning_rate=schedule, **tiny)
    assert model.policy.optimizer.param_groups[0]["lr"] == 1e-2
    model.learn(80)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize("noise_class", [NormalActionNoise, OrnsteinUhlenbeckActionNoise])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_action_noise_is_added_and_stays_in_the_box(
    algorithm: Any, tiny: dict[str, Any], noise_class: Any, n_envs: int
) -> None:
    env = make_vec_env("Pendulum-v1", n_envs=n_envs)
    # The Ornstein-Uhlenbeck process starts at 0 and climbs by 0.15 * 0.01 of its mean at the first step: to 15
    always_up = noise_class(mean=np.full(1, 1e4), sigma=np.zeros(1))
    model = algorithm("MlpPolicy", env, action_noise=always_up, **(tiny | dict(learning_starts=0)))
    model.learn(6)
    assert isinstance(model.action_noise, VectorizedActionNoise) == (n_envs > 1)
    assert (model.replay_buffer.actions[: model.replay_buffer.pos] == 1.0).all()


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("noise_class", [NormalActionNoise, OrnsteinUhlenbeckActionNoise])
def test_action_noise_follows_the_number_of_environments(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, noise_class: Any, before: int, after: int
) -> None:
    noise = VectorizedActionNoise(noise_class(mean=np.zeros(1), sigma=np.ones(1)), before)
    model = algorithm("MlpPolicy", make_vec_env("Pendulum-v1", before), action_noise=noise, **tiny)
    model.learn(2 * before).save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", after), device="cpu")
    loaded.learn(4 * after)
    assert loaded.action_noise().shape == (after, 1)
    assert loaded.replay_buffer.actions[:4].std() > 0.0


def read_progress(folder: Path) -> list[dict[str, str]]:
    with open(folder / "progress.csv") as file:
        return list(csv.DictReader(file))


def test_every_documented_number_is_logged_and_finite(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(55)
    model.dump_logs()
    row = read_progress(tmp_path)[-1]
    expected = LOGGED | ({"smoothing_loss"} if algorithm is NCLQL else set())
    logged = {name.removeprefix("train/") for name in row if name.startswith("train/")}
    assert logged == expected | {"learning_rate"}
    assert all(math.isfinite(float(row[f"train/{name}"])) for name in logged)
    assert 0.0 <= float(row["train/next_action_at_bound"]) <= 1.0
    assert float(row["train/n_updates"]) == 5


def test_logged_losses_are_means_since_the_last_log(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(50)
    losses: list[float] = []
    update = model._update

    def recorded(*args: Any) -> Any:
        values = update(*args)
        losses.append(values["critic_loss"].item())
        return values

    model._update = recorded
    for _ in range(2):
        losses.clear()
        model.train(gradient_steps=3, batch_size=8)
        model.dump_logs()
        assert float(read_progress(tmp_path)[-1]["train/critic_loss"]) == pytest.approx(np.mean(losses), rel=1e-5)


def test_logged_losses_are_means_over_updates_however_they_are_shared_out(algorithm: Any, tiny: dict[str, Any]) -> None:
    """With a step of nothing the minibatches alone make the difference: one by one, or four and two."""

    def logged(*gradient_steps: int) -> dict[str, float]:
        model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, learning_rate=0.0, **tiny).learn(50)
        for steps in gradient_steps:
            model.train(steps, batch_size=8)
        return {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}

    assert logged(1, 1, 1, 1, 1, 1) == pytest.approx(logged(4, 2), rel=1e-5)
    assert logged(1)["train/critic_loss"] != pytest.approx(logged(4, 2)["train/critic_loss"])


def test_updates_by_hand_are_in_the_log_at_once(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(50)
    logger = configure(str(tmp_path), ["csv"])
    model.set_logger(logger)
    model.train(gradient_steps=2, batch_size=8)
    logger.dump()  # which was never asked of the model
    assert float(read_progress(tmp_path)[-1]["train/critic_loss"]) > 0.0
    assert model.logger is logger
    assert not logger.name_to_value


def test_a_call_of_train_fetches_numbers_once(
    algorithm: Any, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(50)
    fetched: list[int] = []
    tolist = th.Tensor.tolist

    def counted(tensor: th.Tensor) -> Any:
        fetched.append(tensor.numel())
        return tolist(tensor)

    monkeypatch.setattr(th.Tensor, "tolist", counted)
    with NoSynchronisation():  # type: ignore[no-untyped-call]
        model.train(gradient_steps=3, batch_size=8)
    assert len(fetched) == 1


def test_tensorboard_files_carry_the_algorithms_name(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model = algorithm("MlpPolicy", "Pendulum-v1", tensorboard_log=str(tmp_path), **tiny)
    model.learn(5)
    assert list((tmp_path / f"{algorithm.__name__}_1").glob("events.out.tfevents.*"))


def test_a_progress_bar_reaches_its_end(
    algorithm: Any, tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    pytest.importorskip("rich")
    algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(60, progress_bar=True)
    captured = capsys.readouterr()
    assert "60/60" in captured.out + captured.err


def test_target_critics_wait_for_their_interval(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", target_update_interval=3, **tiny)
    model.learn(50)
    before = {name: value.clone() for name, value in model.critic_target.state_dict().items()}
    model.train(gradient_steps=2, batch_size=8)
    assert not changed(before, model.critic_target.state_dict())
    model.train(gradient_steps=1, batch_size=8)
    assert changed(before, model.critic_target.state_dict())


def test_a_new_tau_takes_effect_at_the_next_update(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", tau=0.0, **tiny)
    model.learn(52)
    before = {name: value.clone() for name, value in model.critic_target.state_dict().items()}
    assert changed(before, model.critic.state_dict())
    model.train(gradient_steps=1, batch_size=8)
    assert not changed(before, model.critic_target.state_dict())
    model.tau = 1.0
    model.train(gradient_steps=1, batch_size=8)
    assert not changed(model.critic_target.state_dict(), model.critic.state_dict())


def test_a_new_temperature_takes_effect_at_the_next_action(algorithm: Any, tiny: dict[str, Any]) -> None:
    """With a normalised score in one dimension, each step of a noise-free chain is 0.5 * step size * temperature."""
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, **tiny)
    total = model.policy.sampler.step_sizes.sum().item() * tiny["n_langevin_steps"]
    for temperature in (0.01, 0.02):
        model.inverse_temperature = temperature
        action, _ = model.predict(np.ones(3, np.float32), deterministic=True)
        assert abs(action.item()) / model.action_space.high == pytest.approx(0.5 * total * temperature, rel=1e-3)


def test_gsde_is_refused_because_there_is_no_actor(algorithm: Any, tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"use_sde.*actor"):
        algorithm("MlpPolicy", "Pendulum-v1", use_sde=True, **tiny)


def test_nclql_with_a_single_noise_level_has_no_smoothing_loss(tiny: dict[str, Any], tmp_path: Path) -> None:
    """With one level there is nothing to smooth: NC-LQL then learns by TD alone."""
    model = NCLQL("MlpPolicy", "Pendulum-v1", n_noise_levels=1, **tiny)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(52)
    model.dump_logs()
    assert "train/smoothing_loss" not in read_progress(tmp_path)[-1]
