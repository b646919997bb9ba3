"""The schedules and the chain, against numbers of the paper, a plain loop and a closed form."""

from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_lql import LQL, NCLQL
from sb3_lql.langevin.sampler import LangevinSampler, annealed_step_sizes, geometric_schedule
from tests.langevin.plain_chain import plain_chain


def paper_step_sizes() -> th.Tensor:
    return annealed_step_sizes(1e-4, geometric_schedule(0.1, 0.001, 10))


def test_step_sizes_of_the_paper_go_from_one_to_eps_by_a_constant_ratio() -> None:
    step_sizes = paper_step_sizes()
    assert step_sizes[0].item() == 1.0
    assert step_sizes[-1].item() == pytest.approx(1e-4)
    np.testing.assert_allclose(step_sizes[:-1] / step_sizes[1:], 10 ** (4 / 9), rtol=1e-5)


def test_drift_lengths_of_the_paper() -> None:
    drifts = 0.5 * paper_step_sizes() * 500
    published = [250, 89.8, 32.3, 11.6, 4.17, 1.50, 0.54, 0.19, 0.070, 0.025]
    np.testing.assert_allclose(drifts, published, rtol=0.02)


def test_schedule_of_one_value_is_the_last_one() -> None:
    assert geometric_schedule(0.1, 0.001, 1).tolist() == pytest.approx([0.001])


@pytest.mark.parametrize(
    ("model_class", "arguments", "levels"),
    [
        (NCLQL, {}, (10, 2)),
        (NCLQL, dict(n_noise_levels=1, n_langevin_steps=3), (1, 3)),
        (LQL, {}, (1, 20)),
        (LQL, dict(langevin_step_size=(1.0, 1e-4)), (20, 1)),
    ],
)
def test_sampler_has_one_entry_per_level(model_class: Any, arguments: dict[str, Any], levels: tuple[int, int]) -> None:
    sampler = model_class("MlpPolicy", "Pendulum-v1", buffer_size=10, **arguments).policy.sampler
    assert (len(sampler.sigmas), sampler.n_steps) == levels
    assert len(sampler.step_sizes) == sampler.n_levels == levels[0]
    assert sampler.chain_length == levels[0] * levels[1]


def test_pair_of_step_sizes_is_the_schedule_of_nclql_when_it_has_its_ends() -> None:
    lql = LQL("MlpPolicy", "Pendulum-v1", buffer_size=10, langevin_step_size=(1.0, 1e-4), n_langevin_steps=10)
    th.testing.assert_close(lql.policy.sampler.step_sizes, paper_step_sizes().float())


@pytest.mark.parametrize("normalize_score", [True, False])
@pytest.mark.parametrize(
    ("model_class", "arguments"),
    [(NCLQL, {}), (LQL, {}), (LQL, dict(langevin_step_size=(0.1, 1e-4)))],
)
@pytest.mark.parametrize("activation_fn", [th.nn.Mish, th.nn.GELU])
def test_chain_is_that_of_a_plain_loop(
    model_class: Any, arguments: dict[str, Any], normalize_score: bool, activation_fn: Any
) -> None:
    model = model_class(
        "MlpPolicy",
        "Reacher-v5",
        seed=3,
        buffer_size=10,
        inverse_temperature=20.0,
        normalize_score=normalize_score,
        policy_kwargs=dict(net_arch=[32, 32], activation_fn=activation_fn),
        **arguments,
    )
    obs = th.randn(7, 10)
    initial = th.rand(7, 2) * 2 - 1
    noise = th.randn(20, 7, 2)
    actions = model.policy.sample_actions(obs, initial_actions=initial, noise=noise)
    th.testing.assert_close(actions, plain_chain(model, obs, initial, noise), atol=1e-4, rtol=0)


def test_chain_never_leaves_the_box_between_steps() -> None:
    visited = []

    def outward(actions: th.Tensor, level: int) -> th.Tensor:
        visited.append(actions)
        return actions.sign()

    sampler = LangevinSampler(paper_step_sizes(), n_steps=2)
    chain = sampler(outward, th.rand(50, 3) - 0.5, th.randn(20, 50, 3))
    assert len(visited) == 20
    assert all(actions.abs().max() <= 1 for actions in [*visited, chain.actions])


def test_score_norm_is_measured_before_normalisation() -> None:
    sampler = LangevinSampler(paper_step_sizes(), n_steps=1)
    chain = sampler(lambda actions, level: th.full_like(actions, 3.0), th.zeros(5, 4), None)
    assert chain.score_norms.tolist() == [[[6.0]] * 5] * sampler.chain_length  # the norm of (3, 3, 3, 3)


def test_vanishing_score_leaves_a_noise_free_chain_where_it_is() -> None:
    sampler = LangevinSampler(paper_step_sizes(), n_steps=2)
    start = th.rand(5, 2)
    th.testing.assert_close(sampler(lambda actions, level: th.zeros_like(actions), start, None).actions, start)


def test_unnormalised_chain_has_the_boltzmann_law_of_a_quadratic_q() -> None:
    # Q(a) = -(a - m)' P (a - m) / 2, so exp(w Q) is the normal law with mean m and covariance (w P)^-1
    th.manual_seed(0)
    w, step_size, n_chains = 50.0, 1e-4, 20_000
    mean = th.tensor([0.2, -0.1])
    precision = th.tensor([[2.5, 1.5], [1.5, 2.5]])  # eigenvalues 1 and 4
    sampler = LangevinSampler(th.tensor([step_size]), 200, inverse_temperature=w, normalize_score=False)

    actions = th.zeros(n_chains, 2)
    for _ in range(20):  # 4,000 steps are 10 relaxation times of the slower direction; in parts, for memory's sake
        actions = sampler(lambda a, level: -(a - mean) @ precision, actions, th.randn(200, n_chains, 2)).actions

    covariance = th.linalg.inv(w * precision)
    variances = covariance.diagonal()
    # Five standard errors of n independent chains; the finite step adds alpha * w * 4 / 4 = 0.5 % of variance at most
    mean_tolerance = 5 * (variances / n_chains).sqrt()
    assert ((actions.mean(dim=0) - mean).abs() < mean_tolerance).all()
    entry_variance = (covariance.square() + variances[:, None] * variances) / n_chains
    covariance_tolerance = 5 * entry_variance.sqrt() + 0.005 * covariance.abs()
    assert ((actions.T.cov() - covariance).abs() < covariance_tolerance).all()


@pytest.mark.parametrize("overflow", [dict(sigma_max=1e30, sigma_min=1e-30), dict(inverse_temperature=1e39)])
def test_steps_that_overflow_are_refused(overflow: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="inverse_temperature"):
        NCLQL("MlpPolicy", "Pendulum-v1", buffer_size=10, **overflow)  # type: ignore[arg-type]


@pytest.mark.parametrize("draws", [dict(noise=th.zeros(20, 1, 1)), dict(initial_actions=th.zeros(1))])
def test_draws_of_another_shape_are_refused(draws: dict[str, th.Tensor]) -> None:
    policy = NCLQL("MlpPolicy", "Pendulum-v1", buffer_size=10).policy
    with pytest.raises(ValueError, match=next(iter(draws))):
        policy.sample_actions(th.zeros(3, 3), **draws)
