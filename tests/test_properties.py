"""What must hold whatever a model is made of: bounds, types, shapes, determinism and finite numbers."""

import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_lql import LQL, NCLQL

N_TIMESTEPS = 24


class RandomWalk(gym.Env[Any, Any]):
    """Episodes of five steps that show whatever the space holds."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Box) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.left = 5
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.left -= 1
        return self.observation_space.sample(), float(self.np_random.normal()), self.left == 0, False, {}


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Numbers of all magnitudes between two positive ones."""
    return st.floats(np.log(low), np.log(high)).map(lambda exponent: float(np.exp(exponent).clip(low, high)))


@st.composite
def action_spaces(draw: st.DrawFn) -> spaces.Box:
    shape = draw(st.sampled_from([(1,), (3,), (2, 2)]))
    dtype: Any = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    largest = 1e3 if dtype is np.float16 else 1e12
    middle = draw(st.sampled_from([0.0, 1.0, -0.5])) * (half := draw(numbers(1e-2, largest)))
    low, high = np.full(shape, middle - half, dtype), np.full(shape, middle + half, dtype)
    return spaces.Box(low, high, dtype=dtype)


simple_spaces: st.SearchStrategy[spaces.Space[Any]] = st.sampled_from(
    [
        spaces.Box(-1.0, 1.0, (4,), np.float32),
        spaces.Box(-1e6, 1e6, (2,), np.float64),
        spaces.Box(0.0, 1.0, (2, 3), np.float32),
        spaces.Box(0, 255, (5,), np.uint8),
        spaces.Discrete(3),
        spaces.MultiDiscrete([2, 4]),
        spaces.MultiBinary(3),
    ]
)
observation_spaces = st.one_of(
    simple_spaces, st.dictionaries(st.sampled_from("abc"), simple_spaces, min_size=1).map(spaces.Dict)
)


@st.composite
def arguments(draw: st.DrawFn, algorithm: type[LQL | NCLQL]) -> dict[str, Any]:
    """Arguments of the constructor."""
    kwargs: dict[str, Any] = dict(
        learning_rate=draw(numbers(1e-6, 1e-2)),
        buffer_size=draw(st.integers(1, 100)),
        learning_starts=draw(st.integers(0, 10)),
        batch_size=draw(st.integers(1, 16)),
        tau=draw(st.floats(0.0, 1.0)),
        gamma=draw(st.floats(0.0, 1.0)),
        train_freq=draw(st.integers(1, 3)),
        gradient_steps=draw(st.sampled_from([-1, 1, 2])),
        n_langevin_steps=draw(st.integers(1, 3)),
        inverse_temperature=draw(numbers(1e-3, 1e5)),
        normalize_score=draw(st.booleans()),
        reward_scale=draw(numbers(1e-3, 1e2)),
        target_update_interval=draw(st.integers(1, 3)),
        n_action_samples=draw(st.integers(1, 3)),
        bfloat16_chain=draw(st.booleans()),
        overlap_updates=draw(st.booleans()),
        policy_kwargs=dict(
            net_arch=draw(st.lists(st.integers(1, 8), max_size=3)),
            n_critics=draw(st.integers(1, 3)),
            activation_fn=draw(st.sampled_from([nn.Mish, nn.ReLU, nn.SiLU, nn.Tanh, nn.ELU])),
        ),
        seed=draw(st.integers(0, 1000)),
    )
    if algorithm is NCLQL:
        sigma_min = draw(numbers(1e-4, 1.0))
        kwargs |= dict(
            n_noise_levels=draw(st.integers(1, 4)),
            sigma_min=sigma_min,
            sigma_max=sigma_min * draw(numbers(1.0, 1e3)),
            langevin_step_size=draw(numbers(1e-7, 1e-1)),
        )
    return kwargs


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [LQL, NCLQL])
@given(data=st.data())
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_always_holds(algorithm: Any, data: st.DataObject) -> None:
    observation_space = data.draw(observation_spaces)
    action_space = data.draw(action_spaces())
    kwargs = data.draw(arguments(algorithm))
    n_envs = data.draw(st.integers(1, 3))
    is_dict = isinstance(observation_space, spaces.Dict)
    if not is_dict:
        kwargs["n_steps"] = data.draw(st.integers(1, 3))
    env: Any = DummyVecEnv([lambda: RandomWalk(observation_space, action_space)] * n_envs)
    if isinstance(observation_space, spaces.Box) and data.draw(st.booleans()):
        env = VecNormalize(env)
    model = algorithm("MultiInputPolicy" if is_dict else "MlpPolicy", env, device="cpu", **kwargs)
    model.learn(N_TIMESTEPS)

    assert N_TIMESTEPS <= model.num_timesteps < N_TIMESTEPS + n_envs * kwargs["train_freq"]
    assert model._n_updates > 0
    assert all(value.isfinite().all() for value in model.policy.state_dict().values())
    observations = env.reset()
    actions, _ = model.predict(observations, deterministic=True)
    check_actions(actions, action_space, n_envs)
    check_actions(model.predict(observations)[0], action_space, n_envs)
    first = {key: value[0] for key, value in observations.items()} if is_dict else observations[0]
    np.testing.assert_array_equal(model.predict(first, deterministic=True)[0], actions[0])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / "model")
        model.save_safe(folder / "model")
        checkpoint = model.save_checkpoint(folder / "checkpoints")
        copies = [
            algorithm.load(folder / "model", device="cpu"),
            algorithm.load_safe(folder / "model", device="cpu"),
            algorithm.load_checkpoint(checkpoint, env, device="cpu"),
        ]
    th.manual_seed(0)
    drawn = model.predict(observations)[0]
    for copy in copies:
        np.testing.assert_array_equal(copy.predict(observations, deterministic=True)[0], actions)
        th.manual_seed(0)
        np.testing.assert_array_equal(copy.predict(observations)[0], drawn)


def check_actions(actions: np.ndarray, space: spaces.Box, n_envs: int) -> None:
    assert actions.shape == (n_envs, *space.shape)
    assert actions.dtype == space.dtype
    assert ((space.low <= actions) & (actions <= space.high)).all()
