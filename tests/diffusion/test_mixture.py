"""Mixtures of Gaussians against those that the points came from."""

import math

import pytest
import torch as th

from sb3_lql.diffusion.mixture import fit_mixtures, mixture_entropies


def test_the_entropy_is_that_of_a_known_mixture() -> None:
    """d = 2, weights (0.5, 0.25, 0.25), log determinants (-2, -4, -6): 2.1276."""
    covariances = th.stack([math.exp(half) * th.eye(2) for half in (-1.0, -2.0, -3.0)])
    assert mixture_entropies(th.tensor([0.5, 0.25, 0.25]), covariances).item() == pytest.approx(2.1276, abs=5e-5)
    one = th.tensor([1.0, 0.0, 0.0])
    assert mixture_entropies(one, covariances).item() == pytest.approx(math.log(2 * math.pi * math.e) - 1, abs=1e-6)


def test_a_mixture_that_points_came_from_is_found_again() -> None:
    """Two sets at once; tolerances are five standard errors of 4,000 points."""
    th.manual_seed(0)
    n, weights = 4_000, th.tensor([0.5, 0.3, 0.2])
    centres = th.tensor([[[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], [[-4.0, 1.0], [4.0, 1.0], [0.0, -6.0]]])
    factor = th.tensor([[1.0, 0.0], [0.6, 0.8]])
    kinds = th.multinomial(weights, 2 * n, replacement=True).view(2, n)
    points = centres.gather(1, kinds[..., None].expand(-1, -1, 2)) + 0.5 * th.randn(2, n, 2) @ factor.mT
    found = fit_mixtures(points, 3)
    order = found.weights.argsort(dim=1, descending=True)
    th.testing.assert_close(found.weights.gather(1, order).float(), weights.expand(2, 3), atol=5 * 0.5 / n**0.5, rtol=0)
    for index in range(2):
        means, covariances = found.means[index, order[index]].float(), found.covariances[index, order[index]].float()
        th.testing.assert_close(means, centres[index], atol=5 * 0.5 / (0.2 * n) ** 0.5, rtol=0)
        expected = (0.25 * factor @ factor.mT).expand(3, 2, 2)
        th.testing.assert_close(covariances, expected, atol=5 * 0.25 * (2 / (0.2 * n)) ** 0.5, rtol=0)


def test_points_that_all_lie_on_the_border_have_a_low_but_finite_entropy() -> None:
    """As clipped actions may: nothing is singular."""
    mixtures = fit_mixtures(th.ones(2, 50, 3), 3)
    entropies = mixture_entropies(mixtures.weights, mixtures.covariances)
    assert entropies.isfinite().all()
    assert (entropies < -10).all()
