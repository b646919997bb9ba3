"""What goes wrong outside of a model: what its user is told, and that nothing is lost or spoilt."""

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_lql import LQL
from sb3_lql.common import memory, validation
from sb3_lql.common.buffers import Float32ReplayBuffer
from sb3_lql.common.device_buffers import DeviceReplayBuffer

#: In the middle of an episode of ten steps.
BROKEN_AT = 37


class Counter(gym.Env[Any, Any]):
    """
    Observes how many steps were taken in all, and breaks at one of them: every transition that was stored shows whether
    it is one.
    """

    def __init__(self, fault: Callable[[], tuple[Any, float]] | None = None, is_dict: bool = False) -> None:
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict({"count": box}) if is_dict else box
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.is_dict, self.fault, self.steps = is_dict, fault, 0

    def observe(self, count: float) -> Any:
        observation = np.array([count, 1.0])
        return {"count": observation} if self.is_dict else observation

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observe(self.steps), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        count, reward = float(self.steps), 1.0
        if self.fault is not None and self.steps == BROKEN_AT:
            count, reward = self.fault()
        return self.observe(count), reward, False, self.steps % 10 == 0, {}


def fails() -> tuple[float, float]:
    raise RuntimeError("the robot fell off the table")


def interrupts() -> tuple[float, float]:
    raise KeyboardInterrupt


FAULTS: list[Any] = [
    pytest.param(lambda: (np.nan, 1.0), (ValueError, r"observation.* is nan"), id="NaN observation"),
    pytest.param(lambda: (np.inf, 1.0), (ValueError, r"observation.* is inf"), id="infinite observation"),
    pytest.param(lambda: (1e300, 1.0), (ValueError, r"observation.* is 1e\+300"), id="observation beyond float32"),
    pytest.param(lambda: (1.0, np.nan), (ValueError, r"reward\[0\] is nan"), id="NaN reward"),
    pytest.param(lambda: (1.0, -np.inf), (ValueError, r"reward\[0\] is -inf"), id="infinite reward"),
    pytest.param(lambda: (1e10, 1.0), (ValueError, r"observation.* is 10000000000"), id="huge observation"),
    pytest.param(lambda: (1.0, 1e30), (ValueError, r"reward\[0\] is 1.*e\+30.*scale or clip"), id="reward of 1e30"),
    pytest.param(fails, (RuntimeError, "the robot fell off the table"), id="environment raises"),
    pytest.param(interrupts, (KeyboardInterrupt, None), id="Ctrl-C"),
]


def check_transitions(model: Any) -> None:
    """Every stored step leads from one count to the next."""
    buffer = model.replay_buffer
    fields = [buffer.observations, buffer.next_observations]
    counts, next_counts = (field["count"] if isinstance(field, dict) else field for field in fields)
    size = buffer.size()
    np.testing.assert_array_equal(next_counts[:size, 0, 0], counts[:size, 0, 0] + 1)
    np.testing.assert_array_equal(buffer.rewards[:size], 1.0)


@pytest.mark.parametrize("setting", ["", "dict normalized", "normalized overlap"])
@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_nothing_is_lost_or_spoilt(tiny: dict[str, Any], tmp_path: Path, fault: Any, error: Any, setting: str) -> None:
    is_dict = "dict" in setting
    env: Any = make_vec_env(lambda: Counter(fault, is_dict))
    if "normalized" in setting:
        env = VecNormalize(env)
    policy = "MultiInputPolicy" if is_dict else "MlpPolicy"
    kwargs = tiny | dict(learning_starts=20, n_langevin_steps=1)
    model = LQL(policy, env, overlap_updates="overlap" in setting, **kwargs)
    kind, message = error
    with pytest.raises(kind, match=message):
        model.learn(100)
    assert model.replay_buffer is not None
    assert model.num_timesteps == model.replay_buffer.size() == BROKEN_AT - 1
    check_transitions(model)
    if "normalized" in setting:
        rms = env.obs_rms["count"] if is_dict else env.obs_rms
        # Seen were the observation of the reset, and one for each step
        assert rms.count == pytest.approx(BROKEN_AT, abs=0.01)
        assert rms.mean[0] == pytest.approx(np.mean(range(BROKEN_AT)), abs=0.01)
        assert 0 < env.ret_rms.var < 100
    updates = model._n_updates
    assert updates > 0
    # Two ways to go on: in another process, and here
    model.save(tmp_path / "model")
    assert LQL.load(tmp_path / "model")._n_updates == updates
    model.learn(30, reset_num_timesteps=False)
    assert model._n_updates > updates
    assert model.replay_buffer.size() == BROKEN_AT - 1 + 30
    check_transitions(model)


@pytest.mark.parametrize(
    "value",
    [(validation.LARGEST_OBSERVATION, 1.0), (1.0, validation.LARGEST_REWARD / 0.2)],
    ids=["observation", "reward"],
)
def test_the_largest_values_that_are_stored_can_be_learned_from(
    algorithm: Any, tiny: dict[str, Any], value: tuple[float, float]
) -> None:
    """By networks of the usual size, which make them larger, and at the usual scale of rewards."""
    kwargs = tiny | dict(policy_kwargs=None, learning_starts=BROKEN_AT, batch_size=256)
    model = algorithm("MlpPolicy", Counter(lambda: value), **kwargs)
    assert model.reward_scale == 0.2
    assert model.learn(BROKEN_AT + 10)._n_updates == 10


@pytest.mark.parametrize("normalized", [False, True])
def test_first_observation_is_checked_too(tiny: dict[str, Any], normalized: bool) -> None:
    class BrokenReset(Counter):
        def observe(self, count: float) -> Any:
            return super().observe(np.nan if count == 0 else count)

    env: Any = make_vec_env(BrokenReset)
    if normalized:
        env = VecNormalize(env)
        mean = env.obs_rms.mean.copy()
    model = LQL("MlpPolicy", env, **tiny)
    with pytest.raises(ValueError, match=r"observation\[0, 0\] is nan. Fix the environment"):
        model.learn(10)
    if normalized:
        np.testing.assert_array_equal(env.obs_rms.mean, mean)


def test_terminal_observation_is_checked_too(tiny: dict[str, Any]) -> None:
    env = Counter(lambda: (np.nan, 1.0))
    env.steps = BROKEN_AT - 10  # the episode's last step will be the broken one
    model = LQL("MlpPolicy", make_vec_env(lambda: gym.wrappers.TimeLimit(env, 10)), **tiny)
    with pytest.raises(ValueError, match=r"observation\[0(, 0)?\] is nan"):
        model.learn(20)
    check_transitions(model)


def test_actions_that_are_no_numbers_do_not_reach_the_robot(tiny: dict[str, Any]) -> None:
    env = Counter()
    noise = NormalActionNoise(np.array([np.nan]), np.array([0.1]))
    model = LQL("MlpPolicy", env, action_noise=noise, **tiny)
    with pytest.raises(ValueError, match=r"action\[0, 0\] is nan.*check action_noise"):
        model.learn(10)
    assert env.steps == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_no_action_follows_from_an_observation_that_is_no_number(
    algorithm: Any, tiny: dict[str, Any], value: float
) -> None:
    model = algorithm("MlpPolicy", Counter(), **tiny)
    observation = np.array([1.0, value])
    with pytest.raises(ValueError, match=r"observation\[1\] is .*look at where observations come from"):
        model.predict(observation)
    with pytest.raises(ValueError, match=r"observation\[1\] is"):
        model.q_value(observation, np.zeros(1))


# Processes


def slow_env() -> gym.Env[Any, Any]:
    return Counter()


@pytest.mark.slow
def test_environment_process_that_dies(tiny: dict[str, Any], tmp_path: Path) -> None:
    env = SubprocVecEnv([slow_env, slow_env], start_method="fork")
    model = LQL("MlpPolicy", env, **tiny | dict(learning_starts=20))

    def kill(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        if model.num_timesteps == 60:
            env.processes[1].kill()
            env.processes[1].join()
        return True

    with pytest.raises(RuntimeError, match=r"process has died.*set_env"):
        model.learn(100, callback=kill)
    checkpoint = model.save_checkpoint(tmp_path / "checkpoints")
    env.processes[0].kill()
    assert LQL.load_checkpoint(checkpoint, make_vec_env(slow_env, 2)).learn(20, reset_num_timesteps=False)
    updates = model._n_updates
    assert model.replay_buffer is not None
    assert (model.num_timesteps, model.replay_buffer.pos) == (60, 30)
    model.save(tmp_path / "model")
    model.set_env(make_vec_env(slow_env, 2))
    model.learn(40, reset_num_timesteps=False)
    assert model._n_updates > updates
    assert model.num_timesteps == 100


def test_the_largest_reward_follows_the_scale(tiny: dict[str, Any]) -> None:
    model = LQL("MlpPolicy", Counter(lambda: (float(BROKEN_AT), 1e14)), **tiny).learn(1)
    model.reward_scale = 100.0
    with pytest.raises(ValueError, match="Rewards beyond 1e\\+13"):
        model.learn(BROKEN_AT, reset_num_timesteps=False)


#: Learns until it is interrupted, twice, and checks what it has.
INTERRUPTED = """
import signal
import sys
from sb3_lql import LQL
from tests.test_faults import Counter, check_transitions
# Where the suite runs in the background, it ignores Ctrl-C, and so would its children
signal.signal(signal.SIGINT, signal.default_int_handler)
kwargs = dict(learning_starts=20, batch_size=8, buffer_size=10**5, policy_kwargs=dict(net_arch=[8]), compile=False)
model = LQL("MlpPolicy", Counter(), **kwargs)
steps = 0
for _ in range(3):
    try:
        print("learning", flush=True)
        model.learn(10**6, reset_num_timesteps=False)
    except KeyboardInterrupt:
        pass
    assert model.num_timesteps > steps
    steps = model.num_timesteps
    check_transitions(model)
model.save(sys.argv[1])
print("whole", LQL.load(sys.argv[1]).num_timesteps == steps)
"""


@pytest.mark.slow
def test_ctrl_c_at_any_moment(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-c", INTERRUPTED, str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for delay in (2.0, 1.3, 0.7):
            assert process.stdout.readline() == "learning\n"
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "whole True\n"
    assert process.returncode == 0


def test_gradients_that_an_interrupt_left_off_are_put_back(tiny: dict[str, Any]) -> None:
    """As Ctrl-C does on the way into or out of ``torch.no_grad``."""
    model = LQL("MlpPolicy", Counter(), **tiny)

    def interrupt(*_: Any) -> bool:
        th.set_grad_enabled(False)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.learn(20, callback=interrupt)
    assert th.is_grad_enabled()
    model.learn(20, reset_num_timesteps=False)
    with th.no_grad():
        model.learn(20, reset_num_timesteps=False)


# What does not fit


def test_model_for_another_environment(tiny: dict[str, Any], tmp_path: Path) -> None:
    model = LQL("MlpPolicy", "Pendulum-v1", **tiny)
    model.save(tmp_path / "model")
    other = make_vec_env("MountainCarContinuous-v0")
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        LQL.load(tmp_path / "model", env=other)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(other)
    assert model.learn(60)._n_updates == 10


def test_replay_buffer_for_another_environment(tiny: dict[str, Any], tmp_path: Path) -> None:
    mine = LQL("MlpPolicy", "Pendulum-v1", **tiny).learn(30)
    before = mine.replay_buffer
    others = {
        "observation_space": LQL("MlpPolicy", "MountainCarContinuous-v0", **tiny),
        "action_space": LQL(
            "MlpPolicy", gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1)), **tiny
        ),
    }
    for name, other in others.items():
        other.save_replay_buffer(tmp_path / name)
        with pytest.raises(ValueError, match=f"The replay buffer has {name}=.*, the model"):
            mine.load_replay_buffer(tmp_path / name)
        assert mine.replay_buffer is before
    mine.learn(30, reset_num_timesteps=False)
    assert mine.num_timesteps == 60


def test_buffer_that_memory_cannot_hold(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pendulum's transition: two observations of 3, an action and 3 scalars, of four bytes each."""
    with pytest.raises(ValueError, match=r"buffer_size=1000000000000000 takes 40000000.0 GB, 40 bytes a transition"):
        LQL("MlpPolicy", "Pendulum-v1", **tiny | dict(buffer_size=10**15))
    monkeypatch.setattr(memory, "memory", lambda device: 40 * 1_000)
    LQL("MlpPolicy", "Pendulum-v1", **tiny | dict(buffer_size=1_000))
    with pytest.raises(ValueError, match="pass a buffer_size below 1000, or optimize_memory_usage=True"):
        LQL("MlpPolicy", "Pendulum-v1", **tiny | dict(buffer_size=1_001))


class SmallBuffer(ReplayBuffer):
    """Of whatever size it is said to be, it keeps ten steps."""

    def __init__(self, buffer_size: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(10, *args, **kwargs)


def test_memory_is_only_asked_of_buffers_whose_size_is_known(
    algorithm: Any, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory", lambda device: 40 * 1_000)
    for known in (None, ReplayBuffer, DeviceReplayBuffer):
        with pytest.raises(ValueError, match="pass a buffer_size below"):
            algorithm("MlpPolicy", "Pendulum-v1", replay_buffer_class=known, **tiny)
    model = algorithm("MlpPolicy", "Pendulum-v1", replay_buffer_class=SmallBuffer, **tiny)
    assert model.learn(20).replay_buffer.size() == 10


@pytest.mark.parametrize(
    ("space", "once", "size"),
    [
        (spaces.Box(-1, 1, (5,), np.float64), False, 2 * 20),
        (spaces.Box(-1, 1, (5,), np.float64), True, 20),
        (spaces.Box(0, 255, (3, 8, 8), np.uint8), False, 2 * 192),
        (spaces.Discrete(4), False, 2 * 8),
        (
            spaces.Dict({"a": spaces.Box(-1, 1, (5,), np.float64), "b": spaces.Box(0, 255, (4,), np.uint8)}),
            False,
            2 * 24,
        ),
    ],
)
def test_size_of_a_transition(space: Any, once: bool, size: int) -> None:
    """Two actions, reward, end and time-out of four bytes each besides."""
    actions = spaces.Box(-1.0, 1.0, (2,), np.float64)
    assert memory.transition_bytes(Float32ReplayBuffer, space, actions, once) == size + 8 + 12


def test_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CONTAINER_LIMIT", limit)
    whole = memory.memory(th.device("cpu"))
    limit.write_text("max\n")
    assert memory.memory(th.device("cpu")) == whole
    limit.write_text("1000000\n")
    assert memory.memory(th.device("cpu")) == 1_000_000


# Disks that fill


@pytest.mark.parametrize("what", ["save", "save_replay_buffer"])
def test_disk_that_fills_leaves_the_old_file(tiny: dict[str, Any], tmp_path: Path, what: str) -> None:
    """The system refuses files above a size, as a full disk does."""
    model = LQL("MlpPolicy", "Pendulum-v1", **tiny | dict(policy_kwargs=dict(net_arch=[200, 200]))).learn(60)
    path = tmp_path / "file.zip"
    getattr(model, what)(path)
    content = path.read_bytes()
    model.learn(10, reset_num_timesteps=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(OSError, match="File too large"):
            getattr(model, what)(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    getattr(model, what)(path)
    assert path.read_bytes() != content
