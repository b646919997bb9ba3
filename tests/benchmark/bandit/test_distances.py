"""Samplers are measured against the law that they should have."""

import numpy as np
import pytest
import torch as th

from sb3_lql.benchmark.bandit.distances import distance_table, measure_distances
from sb3_lql.benchmark.bandit.landscape import Landscape

STIFFNESS = 4.0


def quadratic(sigmas: list[float]) -> Landscape:
    """Q = -k |a|² / 2 at all levels: its law is a Gaussian of variance 1 / (w k), well within the box for w = 5."""
    return Landscape(
        q_value=lambda actions, level: -0.5 * STIFFNESS * actions.square().sum(dim=1),
        score=lambda actions, level: -STIFFNESS * actions,
        sigmas=th.tensor(sigmas, dtype=th.float64),
    )


def measured(
    landscape: Landscape, n_actions: int = 2_000, w: float = 5.0
) -> dict[tuple[str, int], tuple[float, float]]:
    distances = measure_distances(landscape, n_actions, 0, [w], chain_lengths=[20, 1_000], longest_plain_chain=2_000)
    return {
        (d["sampler"], d["steps"]): (d["total_variation"], d["kl_divergence"])
        for d in distances
        if d["inverse_temperature"] == w
    }


def test_long_chains_with_the_score_as_it_is_are_as_close_as_independent_draws() -> None:
    distances = measured(quadratic([0.2, 0.1]))
    floor, floor_divergence = distances["independent draws", 0]
    for name in ("plain", "annealed"):
        variation, divergence = distances[f"{name}, score as it is", 1_000]
        # The law of a chain with steps alpha has variance 1 / (w k (1 - alpha w k / 4)): half a per cent too much
        assert variation == pytest.approx(floor, rel=0.25)
        assert divergence == pytest.approx(floor_divergence, rel=0.5)


def test_short_chains_and_normalised_scores_miss_the_law() -> None:
    distances = measured(quadratic([0.2, 0.1]))
    floor, _ = distances["independent draws", 0]
    assert distances["plain, score as it is", 20][0] > 2 * floor
    # Noise 0.01 against a pull of 0.5 * 1e-4 * 5 whatever the distance: far too narrow in the end
    for name in ("plain", "annealed"):
        assert distances[f"{name}, score normalised", 1_000][0] > 2 * floor


def test_samplers_and_lengths_are_all_there() -> None:
    names = [
        "plain, score as it is",
        "plain, score normalised",
        "annealed, score as it is",
        "annealed, score normalised",
    ]
    expected = {("independent draws", 0), (names[0], 2_000)} | {(name, n) for name in names for n in (20, 1_000)}
    assert set(measured(quadratic([0.2, 0.1]), n_actions=10)) == expected


def test_landscape_without_noise_levels_has_plain_chains_only() -> None:
    assert not any("annealed" in sampler for sampler, _ in measured(quadratic([0.0]), n_actions=10))


def test_normal_starts_alone_are_off_by_their_known_distance() -> None:
    """Chains that do not move keep N(0, I), clipped: of a uniform law, they miss what the closed form says."""
    stats = pytest.importorskip("scipy.stats")
    still = Landscape(
        q_value=lambda actions, level: th.zeros(len(actions)),
        score=lambda actions, level: th.zeros_like(actions),
        sigmas=th.zeros(1, dtype=th.float64),
    )
    variation, divergence = measured(still, n_actions=100_000, w=1e9)["plain, score as it is", 20]
    cell = np.diff(stats.norm.cdf(np.linspace(-2, 2, 21)))
    cell[[0, -1]] += stats.norm.cdf(-2)
    law = np.outer(cell, cell)
    assert variation == pytest.approx(0.5 * np.abs(law - 1 / 400).sum(), abs=0.01)
    assert divergence == pytest.approx((law * np.log(400 * law)).sum(), abs=0.01)


def test_table_has_a_row_for_each_sampler_and_length_in_order() -> None:
    distances = list(measure_distances(quadratic([0.2, 0.1]), 10, 0, [5.0, 1.0], [20, 40], 80))
    lines = distance_table(distances).splitlines()
    assert lines[0] == "| sampler | steps | w = 1 | w = 5 |"
    assert lines[2].startswith("| independent draws |  | ")
    assert [line.split(" | ")[1] for line in lines[3:]] == ["20", "40", "80", "20", "40", "20", "40", "20", "40"]
    (first,) = (d for d in distances if d["steps"] == 80 and d["inverse_temperature"] == 1.0)
    assert f"{first['total_variation']:.2f}, {first['kl_divergence']:.2f}" in lines[5]
