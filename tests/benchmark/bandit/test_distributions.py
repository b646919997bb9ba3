"""Laws on a grid, and distances from them, against cases with a known answer."""

import numpy as np
import pytest

from sb3_lql.benchmark.bandit.distributions import (
    boltzmann_distribution,
    draw_cells,
    grid,
    histogram,
    kl_divergence,
    total_variation,
)

HALF, QUARTER = np.array([0.5, 0.5, 0.0, 0.0]), np.full(4, 0.25)


def test_distribution_of_a_flat_landscape_is_uniform() -> None:
    np.testing.assert_allclose(boltzmann_distribution(np.full((400, 400), 7.0), 3.0), np.log(1 / 400))


def test_distribution_of_a_slope_is_the_integral_of_its_exponential() -> None:
    slope, w = 0.8, 2.5
    edges = np.exp(w * slope * np.linspace(-2, 2, 21))
    of_row = np.diff(edges) / (edges[-1] - edges[0])
    distribution = np.exp(boltzmann_distribution(slope * grid()[..., 0], w))
    np.testing.assert_allclose(distribution, np.outer(of_row, np.full(20, 1 / 20)), rtol=1e-3)


def test_distribution_of_a_sharp_peak_stays_finite() -> None:
    """exp(500 * Q) alone would overflow, and vanish far from the peak."""
    q_values = 100 - np.square(grid() - 0.1).sum(axis=-1)
    distribution = boltzmann_distribution(q_values, 500.0)
    assert np.isfinite(distribution).all()
    np.testing.assert_allclose(np.exp(distribution).sum(), 1)
    assert np.exp(distribution)[10, 10] > 0.99  # the cell from 0 to 0.2


def test_histogram_counts_cells_with_the_first_coordinate_first() -> None:
    shares = histogram(np.array([(-2, -2), (-2, 2), (1.99, -2), (2, 2)]))
    assert shares.shape == (20, 20)
    assert [shares[0, 0], shares[0, -1], shares[-1, 0], shares[-1, -1]] == [0.25] * 4


@pytest.mark.parametrize(
    ("shares", "distribution", "variation", "divergence"),
    [
        (QUARTER, QUARTER, 0.0, 0.0),
        (HALF, QUARTER, 0.5, np.log(2)),
        (np.array([0.7, 0.3]), np.array([0.4, 0.6]), 0.3, 0.7 * np.log(7 / 4) + 0.3 * np.log(1 / 2)),
        (np.array([1.0, 0.0]), np.array([1e-300, 1.0]), 1.0, 300 * np.log(10)),
    ],
)
def test_distances_have_their_closed_form(
    shares: np.ndarray, distribution: np.ndarray, variation: float, divergence: float
) -> None:
    assert total_variation(shares, np.log(distribution)) == pytest.approx(variation, abs=1e-12)
    assert kl_divergence(shares, np.log(distribution)) == pytest.approx(divergence, abs=1e-12)


def test_independent_draws_are_as_far_from_their_distribution_as_chance_has_it() -> None:
    """A share's mean absolute error is sqrt(2 p (1 - p) / (pi n)); twice the KL divergence times n is chi-squared."""
    n, p = 1_000_000, 1 / 400
    distribution = np.full((20, 20), np.log(p))
    shares = draw_cells(distribution, n, seed=0)
    assert shares.sum() == pytest.approx(1)
    expected = 0.5 * 400 * np.sqrt(2 * p * (1 - p) / (np.pi * n))
    assert total_variation(shares, distribution) == pytest.approx(expected, rel=0.2)  # five standard errors: 0.19
    assert 2 * n * kl_divergence(shares, distribution) == pytest.approx(399, rel=5 * np.sqrt(2 / 399))
