"""Recorded chains are the policy's own."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC

from sb3_lql import LQL
from sb3_lql.baselines import MVP, QSM, SDAC
from sb3_lql.baselines.compared import ComparedQSM
from sb3_lql.benchmark.bandit.chains import best_of, normal_starts, trajectories

ENV_ID = "MultimodalBandit-v0"
#: One of them outside the box.
STARTS = np.array([(0.0, 0.0), (1.0, -1.5), (3.0, -0.5)])


def test_starts_are_standard_normal_in_the_environments_coordinates() -> None:
    starts = normal_starts(100_000, seed=0)
    five_errors = 5 / np.sqrt(len(starts))
    np.testing.assert_allclose(starts.mean(axis=0), 0, atol=five_errors)
    np.testing.assert_allclose(np.cov(starts.T), np.eye(2), atol=np.sqrt(2) * five_errors)
    np.testing.assert_array_equal(normal_starts(3, seed=1), normal_starts(3, seed=1))
    assert not np.array_equal(normal_starts(3, seed=1), normal_starts(3, seed=2))


def test_trajectory_of_a_langevin_policy_ends_where_sample_actions_does(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", ENV_ID, seed=0, **tiny)
    visited = trajectories(model, STARTS, seed=7)
    length = model.policy.sampler.chain_length
    assert visited.shape == (length + 1, 3, 2)
    assert visited.dtype == np.float32
    np.testing.assert_allclose(visited[0], STARTS.clip(-2, 2), atol=1e-6)
    noise = th.randn((length, 3, 2), generator=th.Generator().manual_seed(7))
    initial = th.as_tensor(STARTS.clip(-2, 2) / 2, dtype=th.float32)
    actions = model.policy.sample_actions(th.zeros(3, 1), initial_actions=initial, noise=noise)
    np.testing.assert_allclose(visited[-1], 2 * actions.numpy(), atol=1e-6)


def test_trajectory_is_repeatable_and_depends_on_its_seed(algorithm: Any, tiny: dict[str, Any]) -> None:
    model = algorithm("MlpPolicy", ENV_ID, seed=0, **tiny)
    visited = trajectories(model, STARTS, seed=7)
    np.testing.assert_array_equal(visited, trajectories(model, STARTS, seed=7))
    assert not np.array_equal(visited, trajectories(model, STARTS, seed=8))


@pytest.mark.parametrize("rival", [SDAC, QSM, MVP, ComparedQSM])
def test_trajectory_of_a_denoising_chain_ends_where_the_policys_does(rival: Any) -> None:
    model = rival("MlpPolicy", ENV_ID, seed=0, policy_kwargs=dict(net_arch=[8]), device="cpu")
    policy = model.policy
    visited = trajectories(model, STARTS, seed=7)
    assert visited.shape == (policy.chain_length + 1, 3, 2)
    assert visited.dtype == np.float32
    start = policy.start_scale * th.as_tensor(STARTS, dtype=th.float32)
    np.testing.assert_allclose(visited[0], 2 * start.numpy())
    noise = th.randn((policy.process.n_noises, 3, 2), generator=th.Generator().manual_seed(7))
    actions = policy.run(policy.features(th.zeros(3, 1)), start, noise)
    np.testing.assert_allclose(visited[-1], 2 * actions.numpy(), atol=1e-6)


def test_the_best_of_candidates_is_the_critics_choice() -> None:
    policy: Any = SDAC("MlpPolicy", ENV_ID, seed=0, policy_kwargs=dict(net_arch=[8]), device="cpu").policy
    policy.critic.q_values = lambda features, actions: -(actions[:, :1] - 0.3).square().expand(2, -1, -1)
    candidates = np.array([[[0.0, 1.0], [0.5, 2.0]], [[-2.0, 0.5], [2.0, -0.5]]], np.float32)
    np.testing.assert_allclose(best_of(policy, candidates), [[0.5, 2.0], [2.0, -0.5]])


def test_trajectory_of_sac_is_its_reparametrised_gaussian() -> None:
    model = SAC("MlpPolicy", ENV_ID, policy_kwargs=dict(net_arch=[8]), seed=0, device="cpu")
    start, final = trajectories(model, STARTS, seed=0)
    np.testing.assert_array_equal(start, STARTS.astype(np.float32))
    assert final.dtype == np.float32
    mode, _ = model.predict(np.zeros(1, np.float32), deterministic=True)
    np.testing.assert_allclose(final[0], mode, atol=1e-6)
    # The distribution of many is that of predict: same mean, within five standard errors of the difference
    drawn = trajectories(model, normal_starts(20_000, seed=0), seed=0)[-1]
    predicted, _ = model.predict(np.zeros((20_000, 1), np.float32))
    five_errors = 5 * np.sqrt(2 / 20_000) * drawn.std(axis=0).max()
    assert drawn.mean(axis=0) == pytest.approx(predicted.mean(axis=0), abs=five_errors)
    assert drawn.std(axis=0) == pytest.approx(predicted.std(axis=0), abs=five_errors)


def test_trajectory_on_another_score_climbs_that(tiny: dict[str, Any]) -> None:
    """A constant pull of 0.5 * 1e-4 * 500 = 0.025 to the right in every step, in [-1, 1], with noise of 0.01."""
    model = LQL("MlpPolicy", ENV_ID, seed=0, **tiny)
    visited = trajectories(model, np.zeros((1_000, 2)), seed=0, score=lambda a, _: th.tensor([[7.0, 0.0]]).expand_as(a))
    mean = visited[-1].mean(axis=0)
    np.testing.assert_allclose(mean, [2 * 2 * 0.025, 0], atol=5 * 2 * np.sqrt(2) * 0.01 / np.sqrt(1_000))
