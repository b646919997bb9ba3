"""Same seed, same training; same observation, same deterministic action."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_lql import NCLQL
from sb3_lql.networks.matmul import BLOCK_ROWS
from tests.operations import CountedOperations


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


class Spaces(gym.Env[Any, np.ndarray]):
    """Nothing but spaces: no step is ever taken."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, spaces.Box(-1.0, 1.0, (3,))


class OddFeatures(BaseFeaturesExtractor):
    """Learned, of sizes at which matrix products treat the rows of a batch in different ways."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, features_dim=6)
        self.net = nn.Sequential(nn.Linear(observation_space.shape[0], 33), nn.ELU(), nn.Linear(33, 6))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.net(observations)
        return features


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets PyTorch's number of threads for a test."""
    before = th.get_num_threads()
    yield th.set_num_threads
    th.set_num_threads(before)


VECTORS = spaces.Box(-1.0, 1.0, (11,))
IMAGES = spaces.Box(0, 255, (3, 36, 36), np.uint8)

#: Policy, observations, ``policy_kwargs`` and ``n_action_samples``.
KINDS: dict[str, tuple[str, spaces.Space[Any], dict[str, Any], int]] = {
    "vectors": ("MlpPolicy", VECTORS, dict(net_arch=[64, 64]), 1),
    "several chains": ("MlpPolicy", VECTORS, dict(net_arch=[64]), 4),
    "wide": ("MlpPolicy", VECTORS, dict(net_arch=[256, 256]), 1),
    "odd sizes": ("MlpPolicy", VECTORS, dict(net_arch=[33, 17], n_critics=5), 3),
    "no closed form": ("MlpPolicy", VECTORS, dict(net_arch=[50, 33], activation_fn=nn.GELU), 3),
    "parameters of its own": ("MlpPolicy", VECTORS, dict(net_arch=[32, 32], activation_fn=nn.PReLU), 1),
    "layer norm": ("MlpPolicy", VECTORS, dict(net_arch=[12, 12], activation_fn=partial(nn.LayerNorm, 12)), 2),
    "learned features": ("MlpPolicy", VECTORS, dict(net_arch=[32], features_extractor_class=OddFeatures), 1),
    "images": ("CnnPolicy", IMAGES, dict(net_arch=[32]), 1),
    "dictionary": ("MultiInputPolicy", spaces.Dict(one=VECTORS, two=IMAGES), dict(net_arch=[32]), 4),
}


# With two threads only once: they wait for each other, and for the other workers of the suite, most of the time
@pytest.mark.parametrize(("kind", "n_threads"), [*((kind, 1) for kind in KINDS), ("several chains", 2)])
def test_a_deterministic_action_depends_on_its_observation_only(
    algorithm: Any, tiny: dict[str, Any], kind: str, n_threads: int, threads: Callable[[int], None]
) -> None:
    """To the last bit, at every place of a block, and in batches of up to two blocks and one."""
    threads(n_threads)
    policy, space, policy_kwargs, n_action_samples = KINDS[kind]
    env = Spaces(space)
    model = small_model(algorithm, tiny, policy, env, policy_kwargs=policy_kwargs, n_action_samples=n_action_samples)
    n = 2 * BLOCK_ROWS + 1
    observations = batch_of(space, n)
    alone = np.stack([model.predict(rows(observations, i), deterministic=True)[0] for i in range(n)])
    assert len(np.unique(alone, axis=0)) == n
    model.predict(observations, deterministic=False)
    th.manual_seed(123)
    np.random.seed(123)
    orders = [np.arange(size) for size in (1, 2, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1)]
    # Rows of the first block are at each of its places in turn
    orders += [np.roll(np.arange(BLOCK_ROWS), shift) for shift in range(1, BLOCK_ROWS)]
    orders += [np.arange(n)[::-1], np.random.permutation(n)]
    for order in orders:
        actions, _ = model.predict(rows(observations, order), deterministic=True)
        np.testing.assert_array_equal(actions, alone[order])


def test_five_deterministic_actions_take_as_many_operations_as_one(algorithm: Any, tiny: dict[str, Any]) -> None:
    """As many as a block holds run side by side: in time, five may cost little more than one."""
    model = small_model(algorithm, tiny, "MlpPolicy", "Pendulum-v1")
    observations = batch_of(model.observation_space, 5)
    model.predict(observations, deterministic=True)  # what is made once and kept
    n_operations = []
    for batch in (observations[:1], observations):
        with CountedOperations() as counted:
            model.predict(batch, deterministic=True)
        n_operations.append(counted.n)
    assert n_operations[0] == n_operations[1] > 100


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
