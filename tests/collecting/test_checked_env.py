"""What environments may return, what is refused, and that nothing else is asked of them."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper, VecMonitor, VecNormalize

from sb3_lql import LQL

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float32)
INTEGERS = spaces.Box(-(2**63), 2**63 - 1, (3,), np.int64)
ACTIONS = spaces.Box(-1.0, 1.0, (2,), np.float32)
#: In the middle of an episode of ten steps, and at the end of one.
MIDDLE, END = 15, 20


class Scripted(gym.Env[Any, Any]):
    """
    Observes and pays what it is told to, at one step; small numbers at the others.

    :param at: the step
    :param observation: made at that step
    :param reward: paid at that step
    :param scale: factor on the other observations and rewards
    """

    action_space = ACTIONS

    def __init__(
        self,
        at: int = MIDDLE,
        observation: Any = None,
        reward: Any = None,
        scale: float = 1.0,
        space: spaces.Space[Any] = BOX,
    ) -> None:
        self.observation_space = space
        self.at, self.observation, self.reward, self.scale, self.steps = at, observation, reward, scale, 0

    def observe(self) -> Any:
        if self.steps == self.at and self.observation is not None:
            return self.observation
        if isinstance(self.observation_space, spaces.Dict):
            return {key: np.ones(3, np.float32) for key in self.observation_space}
        return (self.scale * self.np_random.normal(size=3)).astype(self.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        # The observation that ends an episode is the one in question, not the one after it
        return np.ones(3, BOX.dtype) if self.steps == self.at else self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward: Any = -self.scale * float(np.square(action).sum())
        if self.steps == self.at and self.reward is not None:
            reward = self.reward[0]
        return self.observe(), reward, False, self.steps % 10 == 0, {}


def make(processes: bool, normalized: bool = False, **kwargs: Any) -> Any:
    functions: list[Callable[[], Any]] = [lambda: Scripted(**kwargs)]
    env = SubprocVecEnv(functions, start_method="fork") if processes else DummyVecEnv(functions)
    return VecNormalize(env) if normalized else env


def refuses(tiny: dict[str, Any], env: Any, at: int, message: str, policy: str = "MlpPolicy") -> None:
    """It stops at that step, has stored all before it and nothing of it, and learns on."""
    model = LQL(policy, env, **tiny | dict(learning_starts=5, n_langevin_steps=1))
    with pytest.raises(ValueError, match=message):
        model.learn(40)
    buffer = model.replay_buffer
    assert buffer is not None
    assert model.num_timesteps == buffer.size() == at - 1
    assert (np.abs(buffer.rewards) < 1e3).all()
    fields = (buffer.observations, buffer.next_observations)
    assert all((np.abs(values) < 1e3).all() for field in fields for values in _arrays(field))
    assert model.learn(10, reset_num_timesteps=False).num_timesteps == at - 1 + 10
    env.close()


def _arrays(field: Any) -> Any:
    return field.values() if isinstance(field, dict) else [field]


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("at", [MIDDLE, END])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e12, 1e30])
def test_values_that_are_no_observation_are_refused_also_at_the_end_of_an_episode(
    tiny: dict[str, Any], value: float, at: int, normalized: bool
) -> None:
    """``VecNormalize`` would clip them."""
    observation = np.array([1.0, value, 1.0], np.float32)
    env = make(False, normalized, at=at, observation=observation)
    refuses(tiny, env, at, r"observation\[(0, )?1\] is (-?inf|nan|9.99|1000|1.0)")


@pytest.mark.parametrize("keys", [["a"], ["a", "b"]])
@pytest.mark.parametrize("at", [MIDDLE, END])
def test_every_part_of_an_observation_is_checked_normalized_or_not(
    tiny: dict[str, Any], at: int, keys: list[str]
) -> None:
    class Parts(Scripted):
        def reset(self, **kwargs: Any) -> Any:
            return {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}, {}

    broken = {"a": np.ones(3, np.float32), "b": np.full(3, np.inf, np.float32)}
    space = spaces.Dict({"a": BOX, "b": BOX})
    env = VecNormalize(DummyVecEnv([lambda: Parts(at, broken, space=space)]), norm_obs_keys=keys)
    refuses(tiny, env, at, r"observation\['b'\].* is inf", "MultiInputPolicy")


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("reward", [None, 10**30, 10**18, "much", 1j, np.float128(1e30)], ids=repr)
def test_rewards_that_are_no_number_or_too_large_are_refused_whatever_their_type(
    tiny: dict[str, Any], reward: Any, normalized: bool
) -> None:
    refuses(tiny, make(True, normalized, reward=[reward]), MIDDLE, r"^reward(\[0\])? is ")


@pytest.mark.parametrize(
    ("observation", "space"),
    [
        (np.full(3, 3 * 10**9), INTEGERS),
        (np.full(3, 10**18), INTEGERS),
        (np.full(3, -(2**63)), INTEGERS),
        (np.array([np.nan, 0.0, 0.0], object), BOX),
        (np.array([None, 0.0, 0.0], object), BOX),
        (np.array(["a", "b", "c"]), BOX),
        (np.array([np.inf, 1.0, 1.0], np.float16), spaces.Box(-10.0, 10.0, (3,), np.float16)),
        (np.array([-np.inf, 1.0, 1.0], np.float16), spaces.Box(-10.0, 10.0, (3,), np.float16)),
    ],
    ids=repr,
)
def test_observations_that_are_no_number_or_too_large_are_refused_whatever_their_type(
    tiny: dict[str, Any], observation: np.ndarray, space: spaces.Box
) -> None:
    refuses(tiny, make(True, observation=observation, space=space), MIDDLE, r"^observation(\[0, 0\])? is ")


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(
    ("shape", "at"), [*((shape, at) for shape in [(), (1,), (4,)] for at in (MIDDLE, END)), ((1, 3), MIDDLE)]
)
def test_an_observation_of_another_shape_is_refused_rather_than_broadcast(
    tiny: dict[str, Any], shape: tuple[int, ...], at: int, normalized: bool
) -> None:
    env = make(True, normalized, at=at, observation=np.ones(shape, np.float32))
    refuses(tiny, env, at, r"observation has shape \(.*, but the space has \(.*3,?\)")


@pytest.mark.parametrize("normalized", [False, True])
def test_values_that_float32_cannot_square_are_refused_from_the_first_step(
    tiny: dict[str, Any], normalized: bool
) -> None:
    env: Any = make_vec_env(lambda: Scripted(scale=1e30))
    with pytest.raises(ValueError, match=r"observation\[0, 0\] is"):
        LQL("MlpPolicy", VecNormalize(env) if normalized else env, **tiny).learn(10)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(("size", "shape"), [(1, ()), (3, (1, 3))])
def test_what_numpy_fits_into_the_space_is_stored(
    tiny: dict[str, Any], size: int, shape: tuple[int, ...], normalized: bool
) -> None:
    """A bare number for a ``Box`` of one, say: ``DummyVecEnv`` fits all but the last observation of an episode."""

    class Fits(Scripted):
        def observe(self) -> Any:
            return np.full(shape, self.steps, np.float32)

        def reset(self, **kwargs: Any) -> Any:
            return self.observe(), {}

    env: Any = DummyVecEnv([lambda: Fits(space=spaces.Box(-np.inf, np.inf, (size,), np.float32))])
    model = LQL("MlpPolicy", VecNormalize(env) if normalized else env, **tiny | dict(learning_starts=10)).learn(25)
    assert model.replay_buffer.size() == 25
    if not normalized:
        np.testing.assert_array_equal(model.replay_buffer.next_observations[:25, 0, 0], np.arange(1, 26))


def test_statistics_that_are_not_learned_have_a_scale(tiny: dict[str, Any]) -> None:
    env = DummyVecEnv([lambda: Scripted(END, np.full(3, 1e12, np.float32))])
    refuses(tiny, VecNormalize(env, training=False), END, "terminal_observation")


def test_an_observation_that_misses_a_key_is_refused(tiny: dict[str, Any]) -> None:
    class Parts(Scripted):
        def reset(self, **kwargs: Any) -> Any:
            return {"a": np.ones(3, np.float32), "b": np.ones(3, np.float32)}, {}

    missing = {"a": np.ones(3, np.float32)}
    env = SubprocVecEnv([lambda: Parts(END, missing, space=spaces.Dict({"a": BOX, "b": BOX}))], start_method="fork")
    refuses(tiny, env, END, "terminal_observation lacks the key 'b'", "MultiInputPolicy")


# What is large, and becomes small


@pytest.mark.parametrize("scale", [1e10, 1e16])
def test_what_vec_normalize_brings_down_is_learned_from(tiny: dict[str, Any], scale: float) -> None:
    env = VecNormalize(make_vec_env(lambda: Scripted(scale=scale), n_envs=2))
    model = LQL("MlpPolicy", env, **tiny | dict(learning_starts=10)).learn(60)
    assert model._n_updates == 25
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())


@pytest.mark.parametrize(
    ("normalize", "message"),
    [(dict(norm_obs=False), r"observation\[0, \d\] is"), (dict(norm_reward=False), r"reward\[0\] is")],
)
def test_what_it_leaves_as_it_is_has_limits(tiny: dict[str, Any], normalize: dict[str, Any], message: str) -> None:
    env = VecNormalize(make_vec_env(lambda: Scripted(scale=1e17)), **normalize)
    with pytest.raises(ValueError, match=message):
        LQL("MlpPolicy", env, **tiny).learn(20)


# Environments that only step and reset


class OwnVecEnv(VecEnv):
    """Answers no question, and calls no constructor that asks some."""

    def __init__(self, rewards: Callable[[np.ndarray], Any]) -> None:
        self.num_envs, self.observation_space, self.action_space = 2, BOX, ACTIONS
        self.rewards, self.steps = rewards, 0

    def reset(self) -> Any:
        return np.zeros((2, 3), np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        self.steps += 1
        observations, done = np.full((2, 3), self.steps % 10, np.float32), self.steps % 10 == 0
        infos = [dict(terminal_observation=each) if done else {} for each in observations]
        return observations, self.rewards(-np.square(self.actions).sum(axis=1)), np.full(2, done), infos

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(name)

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False, False]

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    close = seed = get_attr = set_attr = env_method = has_attr = _refuse


REWARDS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda rewards: rewards,
    "list": lambda rewards: rewards.tolist(),
    "tuple": tuple,
    "tensor": th.from_numpy,
    "column": lambda rewards: rewards[:, None],
}


@pytest.mark.parametrize("kind", REWARDS)
def test_a_vec_env_needs_to_step_and_reset_only_and_may_pay_in_any_container(
    algorithm: Any, tiny: dict[str, Any], kind: str
) -> None:
    model = algorithm("MlpPolicy", OwnVecEnv(REWARDS[kind]), **tiny | dict(learning_starts=10)).learn(60)
    assert model.num_timesteps == 60
    assert (model.replay_buffer.rewards[:30] < 0).all()


def test_a_reward_for_each_environment_is_missed(tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"reward has shape \(3,\): return one for each of 2 environments"):
        LQL("MlpPolicy", OwnVecEnv(lambda rewards: np.zeros(3)), **tiny).learn(10)


class Simulator:
    """Steps several environments at once, and is no ``VecEnv``."""

    num_envs, observation_space, action_space, render_mode, steps = 2, BOX, ACTIONS, None, 0

    def reset(self) -> np.ndarray:
        return np.zeros((2, 3), np.float32)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.steps += 1
        return (
            np.full((2, 3), self.steps % 10, np.float32),
            -np.square(actions).sum(1),
            np.full(2, self.steps % 10 == 0),
        )


class Adapter(VecEnvWrapper):
    """Around a simulator that is no ``VecEnv``, as SB3's documentation adapts EnvPool."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        observations, rewards, dones = self.venv.step(self.actions)  # type: ignore[misc]
        pairs = zip(observations, dones, strict=True)
        return observations, rewards, dones, [dict(terminal_observation=each) if done else {} for each, done in pairs]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        raise AttributeError(attr_name)


@pytest.mark.parametrize("wrapper", [None, VecMonitor, VecNormalize])
def test_a_wrapper_may_adapt_what_is_no_vec_env(algorithm: Any, tiny: dict[str, Any], wrapper: Any) -> None:
    env: Any = Adapter(Simulator())  # type: ignore[arg-type]
    env = env if wrapper is None else wrapper(env)
    assert algorithm("MlpPolicy", env, **tiny | dict(learning_starts=10)).learn(60).num_timesteps == 60
