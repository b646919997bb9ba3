"""The tempered sampler against laws in closed form, and on the bandit's exact reward."""

import math

import numpy as np
import pytest
import torch as th
from scipy.optimize import brentq

from sb3_lql.benchmark.bandit.distributions import (
    boltzmann_distribution,
    draw_cells,
    grid,
    histogram,
    total_variation,
)
from sb3_lql.benchmark.bandit.landscape import exact_landscape, smoothed_reward
from sb3_lql.benchmark.bandit.tempering import values_and_gradients
from sb3_lql.envs.multimodal_bandit import BOUND
from sb3_lql.langevin.particles import Particles, ValueAndGradient, effective_share, fold, langevin_move, systematic
from sb3_lql.langevin.tempered_sampler import TARGET_ACCEPTANCE, TemperedSampler


@pytest.fixture(autouse=True)
def seeded() -> None:
    th.manual_seed(0)


def linear(slope: float) -> ValueAndGradient:
    """Q(a) = slope * (a_1 + ... + a_d)."""
    return lambda actions: (slope * actions.sum(dim=-1), th.full_like(actions, slope))


def quadratic(actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Q(a) = -|a - 0.3|^2 / 2."""
    return -0.5 * (actions - 0.3).square().sum(dim=-1), 0.3 - actions


#: The bandit's, and its gradient.
reward = values_and_gradients(exact_landscape(th.zeros(1)))


def adapted(sampler: TemperedSampler, look: ValueAndGradient, n: int = 100) -> TemperedSampler:
    for _ in range(n):
        sampler.adapt(sampler(look, sampler.draw(64)))
    return sampler


def test_fold_reflects_as_often_as_needed() -> None:
    points = th.tensor([-5.5, -3.5, -1.25, -1.0, 0.5, 1.0, 1.25, 3.5, 5.5])
    folded, slope = fold(points)
    assert folded.tolist() == pytest.approx([-0.5, 0.5, -0.75, -1.0, 0.5, 1.0, 0.75, -0.5, 0.5])
    inside = points.abs() != 1
    # Its slope is its derivative
    leaf = points[inside].clone().requires_grad_()
    (derivative,) = th.autograd.grad(fold(leaf)[0].sum(), leaf)
    assert th.equal(derivative, slope[inside])


@pytest.mark.parametrize("step", [0.05, 4.0])
def test_a_move_keeps_detailed_balance(step: float) -> None:
    """
    From exp(u Q), as many moves lead from one part of the box to another as back. Q(a) = 2 a, whose law has a closed
    form; of the long steps nearly all are reflected.
    """
    n, u = 400_000, th.tensor(0.8)
    generator = th.Generator().manual_seed(0)
    rate = 2.0 * u.item()
    share = th.rand(n, generator=generator, dtype=th.float64)
    start = (share * (math.exp(2 * rate) - 1) + 1).log() / rate - 1  # the inverse of the distribution function
    actions = start.float().view(n, 1)
    look = linear(2.0)
    noise, uniform = th.randn(n, 1, generator=generator), th.rand(n, generator=generator)
    moved, probability = langevin_move(look, Particles(actions, *look(actions)), u, th.tensor([step]), noise, uniform)
    assert 0.2 < probability.mean() < 0.999
    before, after = (((x[:, 0] + 1) * 4).long().clamp(max=7) for x in (actions, moved.actions))
    flows = th.bincount(8 * before + after, minlength=64).view(8, 8).double()
    errors = (flows - flows.T).abs() / (flows + flows.T).sqrt().clamp(min=1.0)
    assert errors.max() < 4.5  # standard errors, of 28 pairs
    assert (flows - flows.diag().diag()).sum() > 0.1 * n


def test_systematic_resampling_takes_each_as_often_as_its_weight_says() -> None:
    weights = th.tensor([[0.5, 0.25, 0.125, 0.125], [0.0, 0.0, 1.0, 0.0]])
    for uniform in (0.0, 0.3, 0.999):
        chosen = systematic(weights.log(), th.full((2, 1), uniform))
        counts = th.stack([th.bincount(row, minlength=4) for row in chosen])
        assert (counts - 4 * weights).abs().max() < 1
    assert effective_share(weights.log().clamp(min=-1e3)).tolist() == pytest.approx([1 / (4 * 0.34375), 0.25])


def test_the_mean_weight_is_unbiased() -> None:
    """Of few particles and rungs: the mean of exp(log Z) is the integral over the box."""
    sampler = TemperedSampler(1, n_rungs=3, n_particles=2, inverse_temperature=6.0)
    adapted(sampler, quadratic)
    log_z = sampler(quadratic, sampler.draw(100_000)).log_z.double()
    points = th.linspace(-1, 1, 100_001, dtype=th.float64)
    exact = th.trapezoid((6.0 * quadratic(points[:, None])[0]).exp(), points) / 2
    estimates = log_z.exp()
    assert estimates.mean().item() == pytest.approx(exact.item(), abs=4 * estimates.std().item() / math.sqrt(100_000))
    assert log_z.mean() < exact.log()  # Jensen's inequality: the estimate is one


@pytest.mark.parametrize("action_dim", [1, 3])
def test_divergence_and_entropy_of_a_linear_q_are_those_in_closed_form(action_dim: int) -> None:
    """exp(c a) on [-1, 1]: log Z / Z_0 = log(sinh c / c), E[a] = coth c - 1 / c."""
    sampler = adapted(TemperedSampler(action_dim, 20, 64, inverse_temperature=5.0), linear(0.8))
    chain = sampler(linear(0.8), sampler.draw(2_000))
    c = 0.8 * 5.0
    log_z = math.log(math.sinh(c) / c)
    divergence = c * (1 / math.tanh(c) - 1 / c) - log_z
    assert chain.log_z.mean().item() == pytest.approx(action_dim * log_z, abs=0.02 * action_dim)
    assert chain.divergence.mean().item() == pytest.approx(action_dim * divergence, abs=0.02 * action_dim)
    entropy = action_dim * (math.log(2) - divergence)
    assert chain.entropy.mean().item() == pytest.approx(entropy, abs=0.02 * action_dim)
    mean = chain.actions.mean().item()
    assert mean == pytest.approx(1 / math.tanh(c) - 1 / c, abs=5 / math.sqrt(2_000 * action_dim))


def test_steps_adapt_to_the_wanted_acceptance() -> None:
    sampler = TemperedSampler(2, 10, 16, inverse_temperature=100.0)
    adapted(sampler, reward, n=300)
    acceptance = th.stack([sampler(reward, sampler.draw(64)).acceptance for _ in range(10)]).mean(dim=0)
    # The first rungs are nearly uniform: there the longest steps are accepted
    assert acceptance[5:].tolist() == pytest.approx([TARGET_ACCEPTANCE] * 5, abs=0.03)
    assert sampler.n_adaptations == 300


@pytest.mark.parametrize("first", [1.0, 1_000.0])
def test_a_learned_temperature_finds_the_law_of_the_target_entropy(first: float) -> None:
    """
    Of Q(a) = 0.8 a, from 1 and from 1,000; and again when rewards grow tenfold. The entropy is log(2 sinh(c) / c) - c
    coth(c) + 1 with c = 0.8 w.
    """
    sampler = TemperedSampler(1, 20, 32, inverse_temperature=first, target_entropy=-1.0)

    def learned(slope: float) -> float:
        found = []
        for update in range(600):
            sampler.adapt(sampler(linear(slope), sampler.draw(64)))
            if update >= 400:
                found.append(sampler.inverse_temperature)
        return float(np.mean(found))

    def entropy(c: float) -> float:
        # log(2 sinh c / c) without overflow
        return c + math.log1p(-math.exp(-2 * c)) - math.log(c) - c / math.tanh(c) + 1

    exact = brentq(lambda c: entropy(c) + 1.0, 1.0, 100.0)  # type: ignore[no-untyped-call]
    assert learned(0.8) == pytest.approx(exact / 0.8, rel=0.05)
    assert learned(8.0) == pytest.approx(exact / 8.0, rel=0.05)


@pytest.mark.parametrize("w", [1.0, 5.0, 20.0, 100.0, 500.0])
def test_actions_of_the_bandit_are_drawn_from_the_law(w: float) -> None:
    """10,000 of them: within 0.03 of the total variation that as many independent draws have."""
    sampler = adapted(TemperedSampler(2, 20, 16, inverse_temperature=w), reward)
    chain = sampler(reward, sampler.draw(10_000))
    points = th.as_tensor(grid().reshape(-1, 2) / BOUND, dtype=th.float32)
    q_values = smoothed_reward(points, 0.0).numpy().reshape(400, 400)
    law = boltzmann_distribution(q_values, w)
    floor = total_variation(draw_cells(law, 10_000, 0), law)
    assert total_variation(histogram(BOUND * chain.actions.numpy()), law) < floor + 0.03
    largest = w * q_values.max()
    exact = largest + np.log(np.mean(np.exp(w * q_values.astype(float) - largest)))
    estimates = chain.log_z.double()
    mean = largest + (estimates - largest).exp().mean().log().item()
    assert mean == pytest.approx(exact, abs=0.1)
