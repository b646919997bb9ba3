"""Same seed, same training; same observation, same deterministic action."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.noise import NormalActionNoise

from sb3_lql import NCLQL


def final_weights(algorithm: Any, tiny: dict[str, Any], seed: int, **kwargs: Any) -> th.Tensor:
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=seed, **tiny, **kwargs)
    model.learn(60)
    return th.nn.utils.parameters_to_vector(model.critic.parameters())


@pytest.mark.parametrize("noisy", [False, True])
def test_the_seed_decides_the_training(algorithm: Any, tiny: dict[str, Any], noisy: bool) -> None:
    kwargs = dict(action_noise=NormalActionNoise(np.zeros(1), np.full(1, 0.1))) if noisy else {}
    weights = final_weights(algorithm, tiny, seed=0, **kwargs)
    assert th.equal(weights, final_weights(algorithm, tiny, seed=0, **kwargs))
    assert not th.equal(weights, final_weights(algorithm, tiny, seed=1, **kwargs))


def small_model(algorithm: Any, tiny: dict[str, Any], policy: str, env: Any, **kwargs: Any) -> Any:
    """
    An untrained model whose chains end inside the box: in a corner many different computations would agree.

    Its steps are short and as long as the score, which differs between observations.
    """
    gentle = dict(normalize_score=False, inverse_temperature=0.3 if algorithm is NCLQL else 300.0)
    return algorithm(policy, env, seed=0, **(tiny | gentle | dict(buffer_size=10) | kwargs))


def batch_of(space: spaces.Space[Any], n: int) -> Any:
    space.seed(0)
    samples = [space.sample() for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    return np.stack(samples)


def rows(batch: Any, index: Any) -> Any:
    return {key: value[index] for key, value in batch.items()} if isinstance(batch, dict) else batch[index]


POLICIES: dict[str, Any] = {
    "MlpPolicy": lambda: "Pendulum-v1",
    "CnnPolicy": lambda: FakeImageEnv(screen_height=36, screen_width=36, discrete=False),
    "MultiInputPolicy": lambda: SimpleMultiObsEnv(discrete_actions=False),
}


@pytest.mark.parametrize("n_action_samples", [1, 4])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_deterministic_action_depends_on_its_observation_only(
    algorithm: Any, tiny: dict[str, Any], policy: str, n_action_samples: int
) -> None:
    model = small_model(algorithm, tiny, policy, POLICIES[policy](), n_action_samples=n_action_samples)
    observations = batch_of(model.observation_space, 7)
    alone = np.stack([model.predict(rows(observations, i), deterministic=True)[0] for i in range(7)])
    assert len(np.unique(alone, axis=0)) == 7
    model.predict(observations, deterministic=False)
    th.manual_seed(123)
    np.random.seed(123)
    for size in (1, 2, 3, 7):
        actions, _ = model.predict(rows(observations, slice(0, size)), deterministic=True)
        np.testing.assert_array_equal(actions, alone[:size])
    backwards, _ = model.predict(rows(observations, list(range(7))[::-1]), deterministic=True)
    np.testing.assert_array_equal(backwards[::-1], alone)


def test_a_deterministic_action_leaves_the_random_generators_alone(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = small_model(algorithm, tiny, "MlpPolicy", "Pendulum-v1", n_action_samples=4)
    before = th.get_rng_state()
    model.predict(model.observation_space.sample(), deterministic=True)
    assert th.equal(th.get_rng_state(), before)


@pytest.mark.parametrize("n_action_samples", [1, 4])
def test_a_stochastic_action_is_drawn_anew_at_each_call(
    algorithm: Any, tiny: dict[str, Any], n_action_samples: int
) -> None:
    model = small_model(algorithm, tiny, "MlpPolicy", "Pendulum-v1", n_action_samples=n_action_samples)
    obs = np.repeat(model.observation_space.sample()[None], 5, axis=0)
    first, _ = model.predict(obs, deterministic=False)
    second, _ = model.predict(obs, deterministic=False)
    assert not np.array_equal(first, second)
    assert len(np.unique(first)) > 1


def test_the_torch_seed_decides_stochastic_actions(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = small_model(algorithm, tiny, "MlpPolicy", "Pendulum-v1")
    obs = batch_of(model.observation_space, 3)
    draws = []
    for _ in range(2):
        th.manual_seed(0)
        draws.append(model.predict(obs, deterministic=False)[0])
    np.testing.assert_array_equal(*draws)
