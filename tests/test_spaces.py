"""Action boxes of any shape, bounds and dtype; observations of any kind; a clear refusal of everything else."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv


class AnySpaces(gym.Env[Any, Any]):
    """Samples of its observation space, episodes of ten steps; insists on valid actions."""

    def __init__(self, action_space: spaces.Space[Any], observation_space: spaces.Space[Any] | None = None) -> None:
        self.action_space = action_space
        self.observation_space = observation_space or spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), (action, self.action_space)
        self.steps += 1
        return self.observation_space.sample(), float(self.steps), False, self.steps == 10, {}


def box(low: Any, high: Any, dtype: Any = np.float32) -> spaces.Box:
    low, high = np.broadcast_arrays(np.array(low, dtype), np.array(high, dtype))
    return spaces.Box(low.copy(), high.copy(), dtype=dtype)


ACTION_BOXES = {
    "asymmetric": box([-0.3], [7.0]),
    "tiny": box([-1e-6] * 2, [1e-6] * 2),
    "huge": box([-3e38] * 2, [3e38] * 2),
    "per-coordinate": box([-1.0, 10.0, -1e-3, -3e38], [1.0, 11.0, 1e3, -1e38]),
    "matrix": box(np.full((2, 2), -2.0), np.arange(4.0).reshape(2, 2)),
    "float16": box([-0.1, -6e4], [0.3, 6e4], np.float16),
    "float64": box([-0.1, -1e300], [0.3, 1e300], np.float64),
}


@pytest.fixture(params=ACTION_BOXES)
def action_box(request: pytest.FixtureRequest) -> spaces.Box:
    return ACTION_BOXES[request.param]


def test_actions_stay_in_the_box_while_learning(algorithm: Any, tiny: dict[str, Any], action_box: spaces.Box) -> None:
    model = algorithm("MlpPolicy", AnySpaces(action_box), **(tiny | dict(learning_starts=12)))
    model.learn(30)
    stored = model.replay_buffer.actions[:30]
    assert (np.abs(stored) <= 1.0).all()
    assert stored.std(axis=0).min() > 0.0
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
    for deterministic in (False, True):
        action, _ = model.predict(model.observation_space.sample(), deterministic=deterministic)
        assert action.dtype == action_box.dtype
        assert action.shape == action_box.shape
        assert action_box.contains(action)


def test_scaling_an_action_and_back_changes_nothing(
    algorithm: Any, tiny: dict[str, Any], action_box: spaces.Box
) -> None:
    policy = algorithm("MlpPolicy", AnySpaces(action_box), **tiny).policy
    corners = np.stack([action_box.low, action_box.high])
    np.testing.assert_array_equal(policy.scale_action(corners), [-np.ones(action_box.shape), np.ones(action_box.shape)])
    np.testing.assert_array_equal(policy.unscale_action(policy.scale_action(corners)), corners)
    scaled = np.random.default_rng(0).uniform(-1.0, 1.0, (50, *action_box.shape))
    # One rounding to the box's dtype, whose spacing counts at its largest bound and against its width
    width = action_box.high.astype(np.float64) - action_box.low
    spacing = np.spacing(np.maximum(np.abs(action_box.low), np.abs(action_box.high))) / width
    error = np.abs(policy.scale_action(policy.unscale_action(scaled)) - scaled)
    assert (error <= 2.0 * spacing + np.finfo(np.float32).eps).all()


def test_actions_fill_the_whole_box(algorithm: Any, tiny: dict[str, Any]) -> None:
    policy = algorithm("MlpPolicy", AnySpaces(box([-0.3], [7.0])), **tiny).policy
    np.testing.assert_allclose(policy.unscale_action(np.array([[-1.0], [0.0], [1.0]])), [[-0.3], [3.35], [7.0]])


@pytest.mark.parametrize(
    ("action_space", "reason"),
    [
        (spaces.Discrete(3), "Discrete"),
        (spaces.MultiDiscrete([2, 3]), "MultiDiscrete"),
        (spaces.MultiBinary(3), "MultiBinary"),
        (spaces.Box(-np.inf, np.inf, (2,)), "unbounded"),
        (spaces.Box(np.array([-np.inf, -1.0], np.float32), np.ones(2, np.float32)), "unbounded"),
        (spaces.Box(-3, 3, (2,), np.int64), "int64"),
        (spaces.Box(np.zeros(2, np.float32), np.array([0.0, 1.0], np.float32)), "no room"),
        (spaces.Box(np.zeros(1), np.array([5e-324]), dtype=np.float64), "no room"),
        (spaces.Box(-1.0, 1.0, (0,)), "no coordinates"),
    ],
    ids=str,
)
def test_other_action_spaces_are_refused_by_name(
    algorithm: Any, tiny: dict[str, Any], action_space: spaces.Space[Any], reason: str
) -> None:
    for env in (AnySpaces(action_space), DummyVecEnv([lambda: AnySpaces(action_space)])):
        with pytest.raises(ValueError, match=rf"action_space=.*{reason}"):
            algorithm("MlpPolicy", env, **tiny)


OBSERVATION_SPACES: dict[str, tuple[str, spaces.Space[Any]]] = {
    "float64": ("MlpPolicy", spaces.Box(-1.0, 1.0, (3,), np.float64)),
    "odd shape": ("MlpPolicy", spaces.Box(-1.0, 1.0, (2, 3, 1, 2), np.float32)),
    "unbounded": ("MlpPolicy", spaces.Box(-np.inf, np.inf, (1,), np.float32)),
    "discrete": ("MlpPolicy", spaces.Discrete(5)),
    "multi-binary": ("MlpPolicy", spaces.MultiBinary(4)),
    "multi-discrete": ("MlpPolicy", spaces.MultiDiscrete([2, 3])),
    "discrete, from 7": ("MlpPolicy", spaces.Discrete(5, start=7)),
    "discrete, from -2": ("MlpPolicy", spaces.Discrete(3, start=-2)),
    "multi-discrete, not from 0": ("MlpPolicy", spaces.MultiDiscrete([2, 3], start=[-1, 200], dtype=np.int16)),
    "image, channel last": ("CnnPolicy", spaces.Box(0, 255, (36, 40, 3), np.uint8)),
    "image, channel first": ("CnnPolicy", spaces.Box(0, 255, (3, 36, 40), np.uint8)),
}


@pytest.mark.parametrize("name", OBSERVATION_SPACES)
def test_observations_of_any_kind_are_learned_from(algorithm: Any, tiny: dict[str, Any], name: str) -> None:
    policy, observation_space = OBSERVATION_SPACES[name]
    env = AnySpaces(box([-1.0], [1.0]), observation_space)
    kwargs = tiny | dict(learning_starts=12, buffer_size=50, batch_size=4)
    model = algorithm(policy, env, **kwargs).learn(14)
    assert model._n_updates == 2
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
    # One observation as the environment gives it, and a batch of them
    for shape, observation in [((1,), observation_space.sample()), ((2, 1), [observation_space.sample()] * 2)]:
        action, _ = model.predict(np.array(observation), deterministic=True)
        assert action.shape == shape
        assert env.action_space.contains(action.reshape(-1, 1)[0])


def test_images_are_scaled_to_the_unit_interval_before_they_reach_the_critic(
    algorithm: Any, tiny: dict[str, Any]
) -> None:
    env = AnySpaces(box([-1.0], [1.0]), spaces.Box(0, 255, (3, 36, 36), np.uint8))
    model = algorithm("CnnPolicy", env, **(tiny | dict(buffer_size=10)))
    seen: list[th.Tensor] = []
    model.critic.features_extractor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.predict(np.full((3, 36, 36), 255, np.uint8))
    assert th.equal(seen[0], th.ones(1, 3, 36, 36))


@pytest.mark.parametrize(
    ("policy", "from_zero", "start"),
    [
        ("MlpPolicy", spaces.Discrete(3), 7),
        ("MlpPolicy", spaces.MultiDiscrete([2, 3]), [-1, 5]),
        ("MultiInputPolicy", spaces.Dict(a=spaces.Discrete(3), b=spaces.MultiDiscrete([2, 2])), dict(a=-4, b=[1, 0])),
    ],
)
def test_counts_mean_the_same_wherever_they_start(
    algorithm: Any, tiny: dict[str, Any], policy: str, from_zero: Any, start: Any
) -> None:
    def moved(space: Any, by: Any) -> spaces.Space[Any]:
        if isinstance(space, spaces.Dict):
            return spaces.Dict({key: moved(part, by[key]) for key, part in space.spaces.items()})
        return spaces.Discrete(space.n, start=by) if np.ndim(by) == 0 else spaces.MultiDiscrete(space.nvec, start=by)

    def shifted(observation: Any, by: Any) -> Any:
        if isinstance(by, dict):
            return {key: shifted(observation[key], by[key]) for key in by}
        return np.asarray(observation) + np.asarray(by)

    models = [
        algorithm(policy, AnySpaces(box([-1.0], [1.0]), space), seed=0, **tiny)
        for space in (from_zero, moved(from_zero, start))
    ]
    from_zero.seed(0)
    observations = [from_zero.sample() for _ in range(10)]
    for observation in observations:
        actions = [
            model.predict(each, deterministic=True)[0]
            for model, each in zip(models, (observation, shifted(observation, start)), strict=True)
        ]
        np.testing.assert_array_equal(*actions)
    assert len({float(models[0].q_value(observation, np.zeros(1, np.float32))) for observation in observations}) > 1
