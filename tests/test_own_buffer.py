"""Replay buffers of the user's own, and models that have none yet."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql.collecting import replay
from sb3_lql.common.buffers import Float32NStepReplayBuffer
from sb3_lql.common.device_buffers import DeviceReplayBuffer


class ListBuffer(ReplayBuffer):
    """Keeps transitions in a list: it has none of SB3's arrays, and as long as it is empty it is false."""

    def __init__(self, buffer_size: int, *args: Any, optimize_memory_usage: bool = False, **kwargs: Any) -> None:
        BaseBuffer.__init__(self, buffer_size, *args, **kwargs)
        self.rows: list[Any] = []

    def size(self) -> int:
        return len(self.rows) // self.n_envs

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: Any) -> None:
        self.rows += zip(obs, action, next_obs, done[:, None], reward[:, None], strict=True)

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        chosen = [self.rows[i] for i in np.random.randint(len(self.rows), size=batch_size)]
        columns = (th.as_tensor(np.stack(column).astype(np.float32)) for column in zip(*chosen, strict=True))
        return ReplayBufferSamples(*columns)


class BareBuffer(ListBuffer):
    """Has not even the numbers that SB3's buffers keep."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.rows: list[Any] = []


class FileBuffer(ReplayBuffer):
    """Keeps observations in sparse files."""

    folder: Path

    def __init__(self, buffer_size: int, *args: Any, n_envs: int = 1, **kwargs: Any) -> None:
        super().__init__(n_envs, *args, **kwargs | dict(n_envs=n_envs))
        self.buffer_size = buffer_size // n_envs
        folder = tempfile.mkdtemp(dir=self.folder)
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
            one = getattr(self, name)
            shape = (self.buffer_size, *one.shape[1:])
            setattr(self, name, np.memmap(Path(folder) / name, one.dtype, "w+", shape=shape))


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("buffer_class", [ListBuffer, BareBuffer, FileBuffer])
def test_learning_goes_on_with_a_buffer_of_ones_own(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, buffer_class: Any, n_envs: int
) -> None:
    buffer_class.folder = tmp_path
    model = algorithm("MlpPolicy", make_vec_env("Pendulum-v1", n_envs), replay_buffer_class=buffer_class, **tiny)
    buffer = model.replay_buffer
    for n_steps, reset_num_timesteps in ((54, True), (6, True), (6, False)):
        model.learn(n_steps, reset_num_timesteps=reset_num_timesteps)
    assert model.replay_buffer is buffer
    assert model._n_updates > 0
    stored = buffer.pos * n_envs if buffer_class is FileBuffer else len(buffer)
    assert stored == 54 + 6 + 6


@pytest.mark.parametrize("buffer_class", [ListBuffer, BareBuffer, FileBuffer])
def test_a_buffer_of_ones_own_is_in_the_checkpoint(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, buffer_class: Any
) -> None:
    buffer_class.folder = tmp_path
    large = tiny | dict(buffer_size=200_000)
    model = algorithm("MlpPolicy", "Pendulum-v1", replay_buffer_class=buffer_class, **large).learn(60)
    path = model.save_checkpoint(tmp_path / "checkpoints")
    assert sum(part.stat().st_size for part in path.iterdir()) < 1_000_000  # what was written to, not all
    again = algorithm.load_checkpoint(path, "Pendulum-v1", device="cpu")
    assert type(again.replay_buffer) is buffer_class
    for each in (model, again):
        np.random.seed(0)
        each.sampled = each.replay_buffer.sample(20)
    for mine, others in zip(model.sampled[:5], again.sampled[:5], strict=True):
        assert th.equal(mine, others)
    again.learn(5, reset_num_timesteps=False)
    stored = again.replay_buffer.pos if buffer_class is FileBuffer else len(again.replay_buffer)
    assert stored == 65


BUFFERS: dict[str, dict[str, Any]] = {
    "default": {},
    "hindsight": dict(replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=dict(n_sampled_goal=2)),
    "observations once": dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False)),
    "several steps": dict(n_steps=3),
    "of one's own": dict(replay_buffer_class=ListBuffer),
    "device": dict(replay_buffer_class=DeviceReplayBuffer),
}


def environments(case: str, n_envs: int = 2) -> VecEnv:
    if case == "hindsight":
        return make_vec_env(BitFlippingEnv, n_envs, env_kwargs=dict(n_bits=4, continuous=True))
    return make_vec_env("Pendulum-v1", n_envs)


def saved(algorithm: Any, tiny: dict[str, Any], case: str, folder: Path) -> Any:
    policy = "MultiInputPolicy" if case == "hindsight" else "MlpPolicy"
    model = algorithm(policy, environments(case), **tiny, **BUFFERS[case]).learn(60)
    model.save(folder / "model")
    model.save_safe(folder / "model")
    return model


def loaded(model: Any, folder: Path, safe: bool, **kwargs: Any) -> Any:
    """The model again, without environments."""
    if not safe:
        return type(model).load(folder / "model", device="cpu", **kwargs)
    code = {"replay_buffer_class": ListBuffer} if model.replay_buffer_class is ListBuffer else None
    return type(model).load_safe(folder / "model", device="cpu", custom_objects=code, **kwargs)


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("case", BUFFERS)
def test_a_model_without_environments_acts_without_a_buffer_and_makes_one_to_learn(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, safe: bool
) -> None:
    model = saved(algorithm, tiny, case, tmp_path)
    made: list[type[ReplayBuffer]] = []
    monkeypatch.setattr(replay, "check_buffer_fits", lambda _, buffer_class: made.append(buffer_class))
    again = loaded(model, tmp_path, safe)
    observations = model.env.reset()
    np.testing.assert_array_equal(
        again.predict(observations, deterministic=True)[0], model.predict(observations, deterministic=True)[0]
    )
    assert not made
    again.set_env(environments(case))
    again.learn(60)
    assert made == [type(model.replay_buffer)] == [type(again.replay_buffer)]
    assert again.replay_buffer.size() == 30
    assert getattr(again.replay_buffer, "n_steps", 1) == model.n_steps


@pytest.mark.parametrize("case", BUFFERS)
def test_a_model_without_environments_keeps_its_arguments_when_it_is_saved_again(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, case: str
) -> None:
    model = saved(algorithm, tiny, case, tmp_path)
    loaded(model, tmp_path, safe=False).save(tmp_path / "model")
    again = loaded(model, tmp_path, safe=False)
    for name in ("replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage", "n_steps", "n_envs"):
        assert getattr(again, name) == getattr(model, name)
    again.set_env(environments(case))
    assert type(again.learn(10).replay_buffer) is type(model.replay_buffer)


def test_a_model_without_environments_learns_from_what_is_loaded_or_added(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    model = saved(algorithm, tiny, "several steps", tmp_path)
    model.save_replay_buffer(tmp_path / "buffer")
    again = loaded(model, tmp_path, safe=False)
    again.load_replay_buffer(tmp_path / "buffer")
    again.train(gradient_steps=2, batch_size=8)
    assert again._n_updates == model._n_updates + 2
    with pytest.raises(ValueError, match="The replay buffer has n_steps=3, the model's own 4"):
        loaded(model, tmp_path, safe=False, n_steps=4).load_replay_buffer(tmp_path / "buffer")
    again = loaded(model, tmp_path, safe=False)
    assert type(again.replay_buffer) is Float32NStepReplayBuffer
    for _ in range(10):
        again.replay_buffer.add(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 1)), np.ones(2), np.zeros(2), [{}, {}])
    again.train(gradient_steps=2, batch_size=8)


def test_a_model_without_environments_says_what_it_lacks(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    for case, what in (("default", "no environments to learn in"), ("hindsight", "needs environments to compute")):
        again = loaded(saved(algorithm, tiny, case, tmp_path), tmp_path, safe=False)
        with pytest.raises(ValueError, match=f"{what}.*call set_env first"):
            again.learn(10)


def test_hindsight_asks_the_environments_that_were_set_last(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    model = saved(algorithm, tiny, "hindsight", tmp_path)
    env = environments("hindsight")
    model.set_env(env)
    assert model.replay_buffer.env is env
    model.learn(10, reset_num_timesteps=False)


def test_a_replay_buffer_can_be_deleted_to_make_room(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(60)
    del model.replay_buffer
    model.save(tmp_path / "model")
    assert model.learn(5, reset_num_timesteps=False).replay_buffer.size() == 5
