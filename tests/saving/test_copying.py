"""Copies of models: by ``copy.deepcopy``, ``pickle`` and ``cloudpickle``, after and within ``learn``."""

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import (
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from sb3_lql import LQL, NCLQL
from sb3_lql.common.device_buffers import DeviceReplayBuffer

DUPLICATES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "cloudpickle": lambda model: cloudpickle.loads(cloudpickle.dumps(model)),
}


@pytest.fixture(params=DUPLICATES)
def duplicate(request: pytest.FixtureRequest) -> Any:
    """Each way to copy a model."""
    return DUPLICATES[request.param]


def pendulum(n_envs: int = 2) -> VecEnv:
    return make_vec_env("Pendulum-v1", n_envs)


def bit_flipping() -> Any:
    return BitFlippingEnv(n_bits=3, continuous=True, max_steps=4)


class BatchNormExtractor(FlattenExtractor):
    """Has statistics that a model knows by a name of its own."""

    def __init__(self, observation_space: Any) -> None:
        super().__init__(observation_space)
        self.norm = th.nn.BatchNorm1d(self.features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        normalized: th.Tensor = self.norm(super().forward(observations))
        return normalized


class Locked(VecEnvWrapper):
    """A wrapper of a user, who says what can be copied of it."""

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        self.lock = threading.Lock()

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        with self.lock:
            return self.venv.step_wait()

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("lock", "venv", "class_attributes")
        return {name: value for name, value in vars(self).items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.Lock())


#: What is copied besides networks and numbers: policy, environments, arguments.
KINDS: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "printed log": ("MlpPolicy", lambda: "Pendulum-v1", dict(verbose=1)),
    "normalised": ("MlpPolicy", lambda: VecNormalize(VecFrameStack(pendulum(), 2)), dict(overlap_updates=True)),
    "own wrapper": ("MlpPolicy", lambda: Locked(pendulum()), dict(n_steps=3)),
    "images": (
        "CnnPolicy",
        lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=3, discrete=False),
        dict(policy_kwargs=dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=4)), buffer_size=100),
    ),
    "hindsight": (
        "MultiInputPolicy",
        bit_flipping,
        dict(replay_buffer_class=HerReplayBuffer),
    ),
    "on the device": ("MlpPolicy", pendulum, dict(replay_buffer_class=DeviceReplayBuffer)),
    "batch normalisation": (
        "MlpPolicy",
        pendulum,
        dict(policy_kwargs=dict(net_arch=[8], features_extractor_class=BatchNormExtractor)),
    ),
}


def tensors(model: Any) -> list[th.Tensor]:
    """All that updates of a model read and write."""
    buffer = model.replay_buffer
    stored = buffer.observations if isinstance(buffer.observations, dict) else {"": buffer.observations}
    arrays = [*stored.values(), buffer.actions, buffer.rewards]
    return [
        *(part for part in model._update_state() if isinstance(part, th.Tensor)),
        *model._statistics,
        *(th.as_tensor(array) for array in arrays),
    ]


def addresses(model: Any) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors(model) if tensor.numel()}


def contents(model: Any) -> list[np.ndarray]:
    return [tensor.detach().numpy().copy() for tensor in tensors(model)]


def observe(model: Any) -> Any:
    return model.observation_space.sample()


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@pytest.mark.parametrize("kind", KINDS)
def test_copy_acts_the_same_learns_on_and_leaves_the_original_alone(tiny: dict[str, Any], way: str, kind: str) -> None:
    duplicate = DUPLICATES[way]
    policy, make_env, settings = KINDS[kind]
    model = LQL(policy, make_env(), seed=0, **tiny | settings | dict(batch_size=8)).learn(60)
    twin = duplicate(model)
    observation = observe(model)
    before, action = contents(model), model.predict(observation, deterministic=True)[0]
    np.testing.assert_array_equal(twin.predict(observation, deterministic=True)[0], action)
    for one, other in zip(before, contents(twin), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not addresses(model) & addresses(twin)
    steps, updates = model.num_timesteps, model._n_updates
    twin.learn(20, reset_num_timesteps=False)
    assert twin._n_updates > updates > 0
    assert (model.num_timesteps, model._n_updates) == (steps, updates)
    for one, other in zip(before, contents(model), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not all(np.array_equal(*pair) for pair in zip(before, contents(twin), strict=True))
    model.learn(20, reset_num_timesteps=False)


def test_copy_computes_what_the_original_would(algorithm: Any, tiny: dict[str, Any], duplicate: Any) -> None:
    """Environments, minibatches, chains and normalisation included."""
    env = VecNormalize(pendulum())
    model = algorithm("MlpPolicy", env, seed=0, **tiny).learn(60)
    twin = duplicate(model)
    assert twin.env is not env
    results = []
    for each in (model, twin):
        np.random.seed(0)
        th.manual_seed(0)
        each.learn(20, reset_num_timesteps=False)
        normalize = each.get_vec_normalize_env()
        results.append([*contents(each), normalize.obs_rms.mean, normalize.ret_rms.var, normalize.returns])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_parts_of_a_copy_are_its_own(algorithm: Any, tiny: dict[str, Any], duplicate: Any) -> None:
    """What has another name within the model, and functions that know their object."""
    twin = duplicate(algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(60))
    policy = twin.policy
    assert twin.critic is policy.critic
    assert twin.critic_target is policy.critic_target
    optimized = [id(parameter) for group in policy.optimizer.param_groups for parameter in group["params"]]
    assert optimized == [id(parameter) for parameter in policy.critic.parameters()]
    graphed = twin._graphed_update
    assert all(part.__self__ is twin for part in (graphed.function, graphed.state, graphed.constants))
    assert not graphed._signatures
    graphed = policy._graphed_run
    assert all(part.__self__ is policy for part in (graphed.function, graphed.state, graphed.constants))
    assert twin._vec_normalize_env is None


class KeepCopies(BaseCallback):
    """Copies the model at every tenth step, as training against former selves does."""

    def __init__(self, duplicate: Any) -> None:
        super().__init__()
        self.duplicate = duplicate
        self.kept: list[Any] = []

    def _on_step(self) -> bool:
        if self.n_calls % 10 == 0:
            self.kept.append(self.duplicate(self.model))
        return True


@pytest.mark.parametrize("overlap_updates", [False, True])
def test_model_may_be_copied_within_learn(algorithm: Any, tiny: dict[str, Any], overlap_updates: bool) -> None:
    def train(callback: KeepCopies | None) -> Any:
        env = VecNormalize(make_vec_env("Pendulum-v1", 2, seed=0))
        model = algorithm("MlpPolicy", env, seed=0, overlap_updates=overlap_updates, **tiny)
        return model.learn(80, callback=callback)

    callback = KeepCopies(copy.deepcopy)
    model = train(callback)
    for one, other in zip(contents(model), contents(train(None)), strict=True):
        np.testing.assert_array_equal(one, other)  # the training has not noticed
    assert [kept.num_timesteps for kept in callback.kept] == [20, 40, 60, 80]
    twin = callback.kept[2]
    updates = twin._n_updates
    assert 0 < updates < model._n_updates
    assert not twin._learning
    assert twin.predict(observe(twin))[0].shape == (1,)
    assert twin._last_obs is None  # it will reset: the step that was being made is not in the replay buffer
    twin.learn(10, reset_num_timesteps=False)
    assert twin._n_updates == updates + 5


def test_callback_that_keeps_the_variables_of_learn_is_copied(tiny: dict[str, Any]) -> None:
    """Modules are among them, which only cloudpickle takes."""
    callback = KeepCopies(copy.copy)
    LQL("MlpPolicy", VecNormalize(pendulum()), **tiny).learn(60, callback=callback)
    assert callback.locals["env"] is callback.model._checked_env  # type: ignore[attr-defined]
    twin = DUPLICATES["cloudpickle"](callback)
    assert twin.locals["env"].num_envs == 2
    assert twin.model.num_timesteps == 60


def test_updates_that_a_model_has_put_off_are_made_by_its_copy_too(tiny: dict[str, Any], duplicate: Any) -> None:
    class AtRolloutStart(KeepCopies):
        def _on_rollout_start(self) -> None:
            self._on_step()

    callback = AtRolloutStart(duplicate)
    LQL("MlpPolicy", pendulum(), overlap_updates=True, **tiny).learn(80, callback=callback)
    twin = next(kept for kept in callback.kept if kept._postponed)
    updates = twin._n_updates
    twin.learn(10, reset_num_timesteps=False)
    assert twin._n_updates == updates + 1 + 5


def test_copy_has_a_log_of_its_own(tiny: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model = LQL("MlpPolicy", "Pendulum-v1", tensorboard_log=str(tmp_path), **tiny).learn(60)
    before = {path: path.stat().st_size for path in tmp_path.rglob("events*")}
    assert len(before) == 1
    copy.deepcopy(model).learn(60)
    after = {path: path.stat().st_size for path in tmp_path.rglob("events*")}
    assert len(after) == 2
    assert after.items() > before.items()


def test_copy_of_a_model_with_processes_has_no_environments(tiny: dict[str, Any], duplicate: Any) -> None:
    env = VecNormalize(SubprocVecEnv([lambda: gym.make("Pendulum-v1")] * 2, start_method="fork"))
    try:
        model: Any = LQL("MlpPolicy", env, **tiny).learn(60)
        twin = duplicate(model)
        assert twin.env is None
        observation = observe(model)
        np.testing.assert_array_equal(*(each.predict(observation, deterministic=True)[0] for each in (model, twin)))
        np.testing.assert_array_equal(
            *(each.get_vec_normalize_env().normalize_obs(observation) for each in (model, twin))
        )
        model.learn(10, reset_num_timesteps=False)
    finally:
        env.close()
    twin.set_env(VecNormalize(pendulum()))
    assert twin.learn(10, reset_num_timesteps=False).num_timesteps == 70


def test_hindsight_asks_the_environments_that_a_copy_is_given(tiny: dict[str, Any]) -> None:
    env = SubprocVecEnv([bit_flipping], start_method="fork")
    try:
        settings: dict[str, Any] = dict(replay_buffer_class=HerReplayBuffer)
        twin = copy.deepcopy(LQL("MultiInputPolicy", env, **settings, **tiny).learn(60))
    finally:
        env.close()
    twin.set_env(bit_flipping())
    assert isinstance(twin.replay_buffer, HerReplayBuffer)
    assert twin.replay_buffer.env is twin.env
    assert twin.learn(10, reset_num_timesteps=False).num_timesteps == 70


def test_model_without_environments_is_copied(tiny: dict[str, Any], tmp_path: Path, duplicate: Any) -> None:
    NCLQL("MlpPolicy", VecNormalize(pendulum()), **tiny).save_safe(tmp_path / "model")
    model: Any = NCLQL.load_safe(tmp_path / "model", device="cpu")
    twin = duplicate(model)
    observation = observe(model)
    np.testing.assert_array_equal(*(each.get_vec_normalize_env().normalize_obs(observation) for each in (model, twin)))
    np.testing.assert_array_equal(*(each.predict(observation, deterministic=True)[0] for each in (model, twin)))


def test_wrappers_of_a_copy_are_whole(tiny: dict[str, Any], duplicate: Any) -> None:
    camera = FakeImageEnv(screen_height=36, screen_width=36, n_channels=3, discrete=False)
    policy_kwargs = dict(net_arch=[8], features_extractor_kwargs=dict(features_dim=4))
    twin: Any = duplicate(LQL("CnnPolicy", camera, **tiny | dict(policy_kwargs=policy_kwargs, buffer_size=20)))
    assert isinstance(twin.env, VecTransposeImage)
    assert twin.env.getattr_depth_check("envs", already_found=False) is None
    first: Any = twin.env.reset()
    assert first.shape == (1, 3, 36, 36)
