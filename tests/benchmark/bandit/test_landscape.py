"""The exact landscape is equation 7; the learned one is what a policy's chain climbs."""

from typing import Any, cast

import numpy as np
import pytest
import torch as th

from sb3_lql import LQL, NCLQL
from sb3_lql.benchmark.bandit.distributions import grid
from sb3_lql.benchmark.bandit.landscape import exact_landscape, learned_landscape, smoothed_reward
from sb3_lql.envs.multimodal_bandit import reward
from sb3_lql.networks.layers import EnsembleLinear

ACTIONS = th.as_tensor(np.random.default_rng(0).uniform(-1, 1, (50, 2)))


@pytest.mark.parametrize("sigma", [0.1, 0.3, 1.0])
def test_smoothed_reward_is_the_posterior_mean_of_equation_7(sigma: float) -> None:
    """Against the sum over a fine grid of clean actions, each with the weight of its noise density."""
    clean = grid().reshape(-1, 2)
    distances = np.square(ACTIONS.numpy()[:, None] - clean / 2).sum(axis=-1)
    weights = np.exp(-distances / (2 * sigma**2))
    expected = weights @ reward(clean) / weights.sum(axis=1)
    np.testing.assert_allclose(smoothed_reward(ACTIONS, sigma), expected, rtol=1e-3)


def test_smoothed_reward_without_noise_is_the_reward() -> None:
    np.testing.assert_allclose(smoothed_reward(ACTIONS, 0.0), reward(2 * ACTIONS.numpy()), rtol=1e-12)


def test_exact_landscape_is_smooth_at_all_levels_but_the_last() -> None:
    landscape = exact_landscape(th.tensor([0.3, 0.2, 0.1], dtype=th.float64))
    assert landscape.last_level == 2
    for level, sigma in enumerate([0.3, 0.2, 0.0]):
        th.testing.assert_close(landscape.q_value(ACTIONS, level), smoothed_reward(ACTIONS, sigma))
    np.testing.assert_allclose(landscape.on_grid(2), reward(grid()), atol=1e-6)


def test_score_of_the_exact_landscape_is_its_gradient() -> None:
    landscape = exact_landscape(th.tensor([0.3, 0.1], dtype=th.float64))
    step = 1e-6
    for level in range(2):
        differences = [
            (landscape.q_value(ACTIONS + shift, level) - landscape.q_value(ACTIONS - shift, level)) / (2 * step)
            for shift in step * th.eye(2, dtype=th.float64)
        ]
        th.testing.assert_close(landscape.score(ACTIONS, level), th.stack(differences, dim=1), atol=1e-7, rtol=1e-5)


def test_learned_landscape_is_the_sum_of_the_critics_and_its_gradient(algorithm: Any, tiny: dict[str, Any]) -> None:
    policy = algorithm("MlpPolicy", "MultimodalBandit-v0", **tiny).policy
    landscape = learned_landscape(policy)
    levels = range(10) if algorithm is NCLQL else [0]
    assert landscape.last_level == levels[-1]
    for level in levels:
        actions = ACTIONS.float().requires_grad_()
        noise_level = level if algorithm is NCLQL else None
        q_values = policy.critic(th.zeros(len(actions), 1), actions, noise_level).sum(dim=0).squeeze(1)
        th.testing.assert_close(landscape.q_value(actions, level), q_values)
        (gradient,) = th.autograd.grad(q_values.sum(), actions)
        th.testing.assert_close(landscape.score(actions.detach(), level), gradient)


def test_learned_landscape_of_a_tempered_policy_is_the_smallest_critic(tiny: dict[str, Any]) -> None:
    policy = LQL("MlpPolicy", "MultimodalBandit-v0", sampler="tempered", **tiny).policy
    landscape = learned_landscape(policy)
    actions = ACTIONS.float().requires_grad_()
    q_values = policy.critic(th.zeros(len(actions), 1), actions).amin(dim=0).squeeze(1)
    th.testing.assert_close(landscape.q_value(actions, 0), q_values)
    (gradient,) = th.autograd.grad(q_values.sum(), actions)
    th.testing.assert_close(landscape.score(actions.detach(), 0), gradient)


def test_learned_landscape_of_a_plain_chain_with_a_schedule_has_one_level(tiny: dict[str, Any]) -> None:
    model = LQL("MlpPolicy", "MultimodalBandit-v0", langevin_step_size=(1.0, 1e-4), **tiny)
    assert learned_landscape(model.policy).last_level == 0


def test_grid_of_a_landscape_has_the_first_coordinate_first() -> None:
    model = LQL("MlpPolicy", "MultimodalBandit-v0", policy_kwargs=dict(net_arch=[], n_critics=1), device="cpu")
    with th.no_grad():
        layer = cast(EnsembleLinear, model.critic.layers[0])
        layer.weight.copy_(th.tensor([[[0.0], [3.0], [1.0]]]))  # observation, first, second
    np.testing.assert_allclose(
        learned_landscape(model.policy).on_grid(0), grid() @ np.array([1.5, 0.5]), rtol=1e-5, atol=1e-6
    )
