"""Replay buffers of float32, and on the device."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_lql import NCLQL
from sb3_lql.common import device_buffers
from sb3_lql.common.buffers import (
    Float32DictReplayBuffer,
    Float32HerReplayBuffer,
    Float32NStepReplayBuffer,
    Float32ReplayBuffer,
    default_replay_buffer_class,
    float32_space,
    upload,
)
from sb3_lql.common.device_buffers import DeviceDictReplayBuffer, DeviceReplayBuffer, check_replay_buffer
from tests.operations import NoSynchronisation

DEVICES = ["cpu", *(["cuda"] if th.cuda.is_available() else [])]
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float64)
FLOAT64 = spaces.Box(-np.inf, np.inf, (3,), np.float64)
IMAGE = spaces.Box(0, 255, (2, 4, 4), np.uint8)
SPACES: dict[str, spaces.Space[Any]] = {
    "float64": FLOAT64,
    "float32": spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
    "image": IMAGE,
    "dict": spaces.Dict({"vector": FLOAT64, "image": IMAGE, "discrete": spaces.Discrete(5)}),
}
GOALS = spaces.Dict({"observation": FLOAT64, "achieved_goal": FLOAT64, "desired_goal": FLOAT64})
#: SB3's class, ours, the observations and further arguments
FLOAT32_CASES: dict[str, tuple[type[ReplayBuffer], type[ReplayBuffer], spaces.Space[Any], dict[str, Any]]] = {
    "Box": (ReplayBuffer, Float32ReplayBuffer, FLOAT64, {}),
    "optimize_memory_usage": (
        ReplayBuffer,
        Float32ReplayBuffer,
        FLOAT64,
        dict(optimize_memory_usage=True, handle_timeout_termination=False),
    ),
    "n-step": (NStepReplayBuffer, Float32NStepReplayBuffer, FLOAT64, dict(n_steps=3, gamma=0.9)),
    "Dict": (DictReplayBuffer, Float32DictReplayBuffer, SPACES["dict"], {}),
    "HER": (HerReplayBuffer, Float32HerReplayBuffer, GOALS, {}),
}


class SpaceEnv(gym.Env[Any, np.ndarray]):
    """Observations of any space, episodes of five steps, and the reward of a goal."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observation_space.sample(), float(action[0]), False, self.steps == 5, {}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, infos: Any) -> np.ndarray:
        return -np.asarray(np.linalg.norm(achieved_goal - desired_goal, axis=-1))


def vec_env(space: spaces.Space[Any], n_envs: int = 1) -> DummyVecEnv:
    return DummyVecEnv([lambda: SpaceEnv(space)] * n_envs)


def observations(space: spaces.Space[Any], n: int, rng: np.random.Generator) -> Any:
    """A batch, as a vectorised environment returns it."""
    if isinstance(space, spaces.Dict):
        return {key: observations(subspace, n, rng) for key, subspace in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return rng.integers(0, space.n, n)
    assert isinstance(space, spaces.Box)
    return (5 + 3 * rng.normal(size=(n, *space.shape))).astype(space.dtype)


def normalizer(space: spaces.Space[Any], **kwargs: Any) -> VecNormalize:
    """``VecNormalize`` that has seen something, and cuts something off."""
    if space is SPACES["dict"]:
        kwargs = dict(norm_obs_keys=["vector"]) | kwargs
    env = VecNormalize(vec_env(space), clip_obs=1.0, clip_reward=0.2, **kwargs)
    rng = np.random.default_rng(1)
    seen = observations(space, 50, rng)
    if isinstance(env.obs_rms, dict):
        for key, rms in env.obs_rms.items():
            rms.update(seen[key])
    else:
        env.obs_rms.update(seen)
    env.ret_rms.update(4 * rng.normal(size=50))
    return env


def fill(some_buffers: list[ReplayBuffer], space: spaces.Space[Any], n_steps: int, seed: int = 0) -> None:
    """Adds the same random steps to all of them. Episodes take three steps, and every other meets a time limit."""
    rng = np.random.default_rng(seed)
    n_envs = some_buffers[0].n_envs
    for step in range(1, n_steps + 1):
        obs, next_obs = observations(space, n_envs, rng), observations(space, n_envs, rng)
        action, reward = rng.uniform(-1, 1, (n_envs, 2)), rng.normal(size=n_envs)
        done = np.full(n_envs, step % 3 == 0)
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": step % 6 == 0}] * n_envs
        for buffer in some_buffers:
            buffer.add(obs, next_obs, action, reward, done, infos)


def sample(buffer: ReplayBuffer, env: VecNormalize | None = None, batch_size: int = 64) -> dict[str, th.Tensor]:
    """A minibatch after seeding, with the parts of Dict observations by ``name.key``."""
    np.random.seed(3)
    named = buffer.sample(batch_size, env=env)._asdict()
    parts = [part for name, value in named.items() for part in device_buffers._flat(name, value).items()]
    return {name: value for name, value in parts if value is not None}


def assert_same(ours: dict[str, th.Tensor], theirs: dict[str, th.Tensor], exact: bool = True) -> None:
    """Equal up to float32: in the last digits too, unless something was computed from the stored values."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        dtype = th.float32 if expected.dtype == th.float64 else expected.dtype
        assert (ours[name].dtype, ours[name].shape) == (dtype, expected.shape), name
        rtol, atol = (0.0, 0.0) if exact else (1e-5, 2e-6)
        th.testing.assert_close(ours[name].cpu(), expected.to(dtype), rtol=rtol, atol=atol)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Any:
    return request.param


# Float32 storage


def test_only_float64_boxes_become_float32_and_bounds_and_order_stay() -> None:
    box = spaces.Box(np.array([-1.0, -np.inf]), np.array([0.5, np.finfo(np.float64).max]), dtype=np.float64)
    space = float32_space(spaces.Dict([("z", box), ("image", IMAGE), ("discrete", spaces.Discrete(3))]))
    assert isinstance(space, spaces.Dict)
    assert list(space.spaces) == ["z", "image", "discrete"]
    assert space["image"] is IMAGE
    assert space["discrete"] == spaces.Discrete(3)
    narrow = space["z"]
    assert isinstance(narrow, spaces.Box)
    assert narrow.dtype == np.float32
    np.testing.assert_array_equal(narrow.low, np.array([-1.0, -np.inf], np.float32))
    np.testing.assert_array_equal(narrow.high, np.array([0.5, np.inf], np.float32))


@pytest.mark.parametrize("case", FLOAT32_CASES)
def test_float64_observations_take_half_the_bytes(case: str) -> None:
    sb3_class, our_class, space, kwargs = FLOAT32_CASES[case]
    if case == "HER":
        kwargs = dict(env=vec_env(space))
    theirs, ours = (cls(100, space, ACTIONS, device="cpu", **kwargs) for cls in (sb3_class, our_class))
    assert isinstance(ours, sb3_class)
    for name in ["observations", "next_observations"][: 1 if case == "optimize_memory_usage" else 2]:
        expected = device_buffers._flat(name, getattr(theirs, name))
        for key, array in device_buffers._flat(name, getattr(ours, name)).items():
            was_float64 = expected[key].dtype == np.float64
            assert array.dtype == (np.float32 if was_float64 else expected[key].dtype)
            assert array.nbytes * (2 if was_float64 else 1) == expected[key].nbytes


@pytest.mark.parametrize("normalized", [False, True], ids=["raw", "VecNormalize"])
@pytest.mark.parametrize("n_steps", [6, 17], ids=["part", "full"])
@pytest.mark.parametrize("case", FLOAT32_CASES)
def test_samples_are_those_of_sb3_rounded_to_float32(case: str, n_steps: int, normalized: bool) -> None:
    sb3_class, our_class, space, kwargs = FLOAT32_CASES[case]
    if case == "HER":
        kwargs = dict(env=vec_env(space, 2))
    theirs, ours = (cls(20, space, ACTIONS, device="cpu", n_envs=2, **kwargs) for cls in (sb3_class, our_class))
    fill([theirs, ours], space, n_steps)
    assert ours.full == (n_steps == 17)
    env = normalizer(space) if normalized else None
    # Hindsight rewards are distances between stored goals
    assert_same(sample(ours, env), sample(theirs, env), exact=not normalized and case != "HER")


def test_the_default_class_is_the_float32_variant_of_sb3s_choice() -> None:
    assert default_replay_buffer_class(FLOAT64, 1) is Float32ReplayBuffer
    assert default_replay_buffer_class(FLOAT64, 3) is Float32NStepReplayBuffer
    assert default_replay_buffer_class(SPACES["dict"], 1) is Float32DictReplayBuffer


def test_a_float32_hindsight_buffer_is_learned_from_saved_and_loaded(tiny: dict[str, Any], tmp_path: Path) -> None:
    model = NCLQL("MultiInputPolicy", vec_env(GOALS), replay_buffer_class=Float32HerReplayBuffer, **tiny).learn(57)
    model.save_replay_buffer(tmp_path / "buffer")
    before = model.replay_buffer
    with pytest.warns(UserWarning, match="truncated"):
        model.load_replay_buffer(tmp_path / "buffer")
    assert before is not None
    assert isinstance(model.replay_buffer, Float32HerReplayBuffer)
    for key, array in model.replay_buffer.observations.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, before.observations[key])
    assert model.learn(5)._n_updates == 7 + 5


# Storage on the device


def device_class(space: spaces.Space[Any]) -> type[DeviceReplayBuffer]:
    return DeviceDictReplayBuffer if isinstance(space, spaces.Dict) else DeviceReplayBuffer


def both(space: spaces.Space[Any], device: str, n_envs: int = 2, **kwargs: Any) -> tuple[Any, Any]:
    """SB3's buffer and the one on the device, for ten steps."""
    sb3_class = DictReplayBuffer if isinstance(space, spaces.Dict) else ReplayBuffer
    theirs = sb3_class(10 * n_envs, space, ACTIONS, device="cpu", n_envs=n_envs, **kwargs)  # type: ignore[arg-type]
    return theirs, device_class(space)(10 * n_envs, space, ACTIONS, device=device, n_envs=n_envs, **kwargs)


@pytest.mark.parametrize("n_steps", [6, 17], ids=["part", "full"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("kind", SPACES)
def test_minibatches_on_the_device_are_those_of_sb3(kind: str, n_envs: int, n_steps: int, device: str) -> None:
    space = SPACES[kind]
    theirs, ours = both(space, device, n_envs)
    fill([theirs, ours], space, n_steps)
    assert (ours.pos, ours.full, ours.size()) == (theirs.pos, theirs.full, theirs.size())
    assert theirs.timeouts.any()
    batch = sample(ours)
    assert all(part.device.type == device for part in batch.values())
    assert_same(batch, sample(theirs))


@pytest.mark.parametrize(("norm_obs", "norm_reward"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("kind", SPACES)
def test_minibatches_on_the_device_are_normalised_as_by_sb3(
    kind: str, norm_obs: bool, norm_reward: bool, device: str
) -> None:
    space = SPACES[kind]
    theirs, ours = both(space, device)
    fill([theirs, ours], space, 17)
    env = normalizer(space, norm_reward=norm_reward)
    env.norm_obs = norm_obs
    batch = sample(ours, env)
    assert_same(batch, sample(theirs, env), exact=False)
    key = "observations.vector" if kind == "dict" else "observations"
    assert (batch[key].abs().max() <= 1.0) == norm_obs
    assert (batch["rewards"] != sample(ours)["rewards"]).any() == norm_reward


@pytest.mark.parametrize("n_steps", [6, 10, 17])
@pytest.mark.parametrize("kwargs", [dict(), dict(optimize_memory_usage=True)], ids=["plain", "optimize_memory_usage"])
def test_time_limits_may_be_ignored_and_memory_saved_on_the_device(
    kwargs: dict[str, Any], n_steps: int, device: str
) -> None:
    theirs, ours = both(FLOAT64, device, handle_timeout_termination=False, **kwargs)
    fill([theirs, ours], FLOAT64, n_steps)
    assert hasattr(ours, "next_observations") == (not kwargs)
    assert_same(sample(ours), sample(theirs))
    env = normalizer(FLOAT64)
    assert_same(sample(ours, env), sample(theirs, env), exact=False)


@pytest.mark.parametrize("kind", SPACES)
def test_stored_values_have_the_shapes_and_values_of_sb3s_arrays(kind: str, device: str) -> None:
    theirs, ours = both(SPACES[kind], device)
    fill([theirs, ours], SPACES[kind], 13)
    for name in ["observations", "next_observations", "actions", "rewards", "dones", "timeouts"]:
        stored = device_buffers._flat(name, getattr(ours, name))
        for key, array in device_buffers._flat(name, getattr(theirs, name)).items():
            np.testing.assert_array_equal(stored[key].cpu(), array.astype(np.float32), err_msg=key)


def test_a_device_buffer_is_extended_and_reset_as_sb3s(device: str) -> None:
    theirs, ours = both(FLOAT64, device, n_envs=1)
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, 4, 1, 3))
    infos: list[list[dict[str, Any]]] = [[{}]] * 4
    for buffer in (theirs, ours):
        buffer.extend(obs, next_obs, obs[..., :2], obs[..., 0], np.zeros((4, 1)), infos)
    assert ours.size() == 4
    assert_same(sample(ours), sample(theirs))
    ours.reset()
    assert (ours.size(), ours.pos, ours.full) == (0, 0, False)


def test_dict_observations_may_have_keys_that_the_space_has_not(device: str) -> None:
    ours = DeviceDictReplayBuffer(4, spaces.Dict({"vector": FLOAT64}), ACTIONS, device=device)
    fill([ours], SPACES["dict"], 2)
    assert sample(ours).keys() == {"observations.vector", "next_observations.vector", "actions", "dones", "rewards"}


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of what was sent to the device. On CUDA, whatever would wait for the device is an error."""
    shapes: list[tuple[int, ...]] = []

    def recorded(array: np.ndarray, device: th.device) -> th.Tensor:
        shapes.append(array.shape)
        return upload(array, device)

    monkeypatch.setattr(device_buffers, "upload", recorded)
    if th.cuda.is_available():
        th.cuda.set_sync_debug_mode("error")
    with NoSynchronisation():  # type: ignore[no-untyped-call]
        yield shapes
    if th.cuda.is_available():
        th.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("optimize", [False, True])
def test_a_sample_sends_its_indices_once_and_waits_for_nothing(
    optimize: bool, device: str, uploads: list[tuple[int, ...]]
) -> None:
    _, ours = both(FLOAT64, device, optimize_memory_usage=optimize, handle_timeout_termination=False)
    fill([ours], FLOAT64, 12)
    uploads.clear()
    ours.sample(7)
    assert uploads == [(7,)]
    uploads.clear()
    ours.sample(7, env=normalizer(FLOAT64))
    assert uploads == [(7,), (2, 3)]  # and the mean and the deviation of the observations


def test_a_step_is_sent_once_for_each_dtype(device: str, uploads: list[tuple[int, ...]]) -> None:
    for kind, dtypes in dict(float64=1, image=2, dict=3).items():
        _, ours = both(SPACES[kind], device)
        uploads.clear()
        fill([ours], SPACES[kind], 1)
        assert len(uploads) == dtypes


@pytest.mark.parametrize("kind", SPACES)
def test_a_device_buffer_is_the_same_after_pickling(kind: str, device: str) -> None:
    space = SPACES[kind]
    _, ours = both(space, device)
    fill([ours], space, 7)
    copy = pickle.loads(pickle.dumps(ours))
    assert type(copy) is type(ours)
    assert copy.device.type == ours.device.type
    assert_same(sample(copy), sample(ours))
    fill([copy, ours], space, 7, seed=1)  # past the end
    assert_same(sample(copy), sample(ours))
    # The views and the table are one memory, as before
    copy.rewards.zero_()
    assert not sample(copy)["rewards"].any()
    assert sample(ours)["rewards"].any()


def test_a_buffer_from_a_machine_with_gpus_loads_on_one_without() -> None:
    _, ours = both(FLOAT64, "cpu")
    fill([ours], FLOAT64, 7)
    expected = sample(ours)
    ours._device = th.device("cuda:63")
    pickled = pickle.dumps(ours)
    assert b"_rebuild_tensor" not in pickled
    loaded = pickle.loads(pickled)
    assert loaded.device.type == get_device("auto").type
    assert_same({name: part.cpu() for name, part in sample(loaded).items()}, expected)


def test_setting_the_device_moves_everything_that_is_stored(device: str) -> None:
    theirs, ours = both(SPACES["dict"], "cpu")
    fill([theirs, ours], SPACES["dict"], 7)
    ours.device = device
    assert_same(sample(ours), sample(theirs))
    ours.device = th.device("meta")
    stored = [*ours.observations.values(), *ours.next_observations.values(), ours.actions, ours.rewards, ours.dones]
    assert {tensor.device.type for tensor in stored} == {"meta"}


def test_a_model_learns_the_same_from_a_device_buffer(device: str) -> None:
    def parameters(replay_buffer_class: type[ReplayBuffer]) -> list[th.Tensor]:
        model = NCLQL(
            "MlpPolicy",
            VecNormalize(make_vec_env("Pendulum-v1", n_envs=2, seed=0)),
            replay_buffer_class=replay_buffer_class,
            learning_starts=20,
            policy_kwargs=dict(net_arch=[16]),
            batch_size=16,
            n_langevin_steps=2,
            buffer_size=60,
            seed=0,
            device=device,
        ).learn(70)
        assert type(model.replay_buffer) is replay_buffer_class
        assert model._n_updates > 20
        return list(model.policy.parameters())

    pairs = zip(parameters(ReplayBuffer), parameters(DeviceReplayBuffer), strict=True)
    for expected, parameter in pairs:
        th.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-4)


def test_a_model_saves_and_loads_its_device_buffer_and_goes_on(tiny: dict[str, Any], tmp_path: Path) -> None:
    env = vec_env(spaces.Dict({"vector": FLOAT64, "discrete": spaces.Discrete(5)}))
    model = NCLQL("MultiInputPolicy", env, replay_buffer_class=DeviceDictReplayBuffer, **tiny)
    before = model.learn(55).replay_buffer
    model.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer")
    assert model.replay_buffer is not before
    assert isinstance(model.replay_buffer, DeviceDictReplayBuffer)
    assert isinstance(before, DeviceDictReplayBuffer)
    assert model.replay_buffer.device == model.device
    assert_same(sample(model.replay_buffer), sample(before))
    assert model.learn(5)._n_updates == 5 + 5


def test_sb3_may_end_the_last_episode_of_a_memory_saving_device_buffer(tiny: dict[str, Any]) -> None:
    model = NCLQL(
        "MlpPolicy",
        "Pendulum-v1",
        replay_buffer_class=DeviceReplayBuffer,
        optimize_memory_usage=True,
        replay_buffer_kwargs=dict(handle_timeout_termination=False),
        **tiny,
    ).learn(52)
    with pytest.warns(UserWarning, match="truncated"):
        model.learn(1)
    assert isinstance(model.replay_buffer, DeviceReplayBuffer)
    assert model.replay_buffer.dones[:53, 0].nonzero().tolist() == [[51]]


@pytest.mark.parametrize("cls", [DeviceReplayBuffer, DeviceDictReplayBuffer])
def test_n_step_returns_are_refused_with_a_device_buffer(cls: type[ReplayBuffer]) -> None:
    with pytest.raises(ValueError, match=rf"replay_buffer_class={cls.__name__} .*n_steps=3: leave .* out, or"):
        check_replay_buffer(cls, {}, 3)
    check_replay_buffer(cls, dict(handle_timeout_termination=False), 1)
    for other in (None, ReplayBuffer, Float32NStepReplayBuffer):
        check_replay_buffer(other, dict(n_steps=3), 3)


def test_arguments_of_other_buffers_are_refused_with_a_device_buffer(algorithm: Any) -> None:
    for kwargs in (dict(n_steps=3, gamma=0.9), dict(n_sampled_goal=4)):
        with pytest.raises(ValueError, match=f"takes no {', '.join(sorted(kwargs))}"):
            algorithm("MlpPolicy", "Pendulum-v1", replay_buffer_class=DeviceReplayBuffer, replay_buffer_kwargs=kwargs)


def test_what_a_device_buffer_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="use DeviceDictReplayBuffer"):
        DeviceReplayBuffer(10, SPACES["dict"], ACTIONS)
    with pytest.raises(ValueError, match="use DeviceReplayBuffer"):
        DeviceDictReplayBuffer(10, FLOAT64, ACTIONS)
    with pytest.raises(ValueError, match="optimize_memory_usage=True is not supported for Dict"):
        DeviceDictReplayBuffer(10, SPACES["dict"], ACTIONS, optimize_memory_usage=True)
    with pytest.raises(ValueError, match="handle_timeout_termination"):
        DeviceReplayBuffer(10, FLOAT64, ACTIONS, optimize_memory_usage=True)
