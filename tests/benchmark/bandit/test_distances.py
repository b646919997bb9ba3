"""Samplers are measured against the distribution that they should have."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_lql.benchmark.bandit.distances import distance_table, measure_distances, step_size
from sb3_lql.benchmark.bandit.distributions import (
    boltzmann_distribution,
    draw_cells,
    histogram,
    total_variation,
)
from sb3_lql.benchmark.bandit.landscape import Landscape, landscape_of, smoothed_reward
from sb3_lql.benchmark.bandit.tempering import actions_of, adapted, estimate_table, temper
from sb3_lql.langevin.tempered_sampler import TemperedSampler

STIFFNESS = 4.0


def quadratic(sigmas: list[float]) -> Landscape:
    """Q = -k |a|² / 2 at all levels: its distribution is N(0, I / (w k)), well within the box for w = 5."""
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
        # That of a chain with steps alpha has variance 1 / (w k (1 - alpha w k / 4)): half a per cent too much
        assert variation == pytest.approx(floor, rel=0.25)
        assert divergence == pytest.approx(floor_divergence, rel=0.5)


def test_short_chains_and_normalised_scores_miss_the_distribution() -> None:
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
    expected |= {("tempered, 16 particles", 20), ("tempered, 64 particles", 29)}
    assert set(measured(quadratic([0.2, 0.1]), n_actions=10)) == expected


def test_landscape_without_noise_levels_has_plain_chains_only() -> None:
    assert not any("annealed" in sampler for sampler, _ in measured(quadratic([0.0]), n_actions=10))


def test_normal_starts_alone_are_off_by_their_known_distance() -> None:
    """Chains that hardly move (by 0.006 a step) keep N(0, I), clipped: a known distance from uniform."""
    stats = pytest.importorskip("scipy.stats")
    still = Landscape(
        q_value=lambda actions, level: th.zeros(len(actions)),
        score=lambda actions, level: th.zeros_like(actions),
        sigmas=th.zeros(1, dtype=th.float64),
    )
    distances = measure_distances(still, 100_000, 0, [500.0], chain_lengths=[1], longest_plain_chain=1, tempered=())
    (one_step,) = (d for d in distances if d["sampler"] == "plain, score as it is")
    cell = np.diff(stats.norm.cdf(np.linspace(-2, 2, 21)))
    cell[[0, -1]] += stats.norm.cdf(-2)
    distribution = np.outer(cell, cell)
    assert one_step["total_variation"] == pytest.approx(0.5 * np.abs(distribution - 1 / 400).sum(), abs=0.01)
    assert one_step["kl_divergence"] == pytest.approx((distribution * np.log(400 * distribution)).sum(), abs=0.01)
    # Half of what was clipped to the border is there still, after one step of noise without drift
    outside = 1 - (1 - 2 * stats.norm.cdf(-2)) ** 2
    assert 0.4 * outside < one_step["on_border"] < 0.8 * outside


def test_annealed_chains_go_through_the_levels_and_plain_ones_stay_on_the_last() -> None:
    sigmas = th.tensor([0.4, 0.2, 0.1], dtype=th.float64)
    levels: list[int] = []

    def score(actions: th.Tensor, level: int) -> th.Tensor:
        levels.append(level)
        return th.zeros_like(actions)

    still = Landscape(lambda actions, level: th.zeros(len(actions)), score, sigmas)
    seen: dict[tuple[str, int], list[int]] = {}
    for distance in measure_distances(still, 10, 0, [5.0], chain_lengths=[3, 6], longest_plain_chain=9):
        seen[distance["sampler"], distance["steps"]] = levels.copy()
        levels.clear()
    for name in ("annealed, score as it is", "annealed, score normalised"):
        assert seen[name, 3] == [0, 1, 2]
        assert seen[name, 6] == [0, 0, 1, 1, 2, 2]
    # One chain, looked at on its way
    assert [seen["plain, score as it is", steps] for steps in (3, 6, 9)] == [[2] * 3] * 3


def test_step_is_small_beside_the_curvature_and_beside_the_box() -> None:
    assert step_size(500) == pytest.approx(1e-5)
    assert step_size(1) == 5e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(n_actions=0), "n_actions=0 is not positive"),
        (dict(inverse_temperatures=[0.0]), "inverse_temperatures holds 0.0: pass values above 0 and up to 500"),
        (dict(inverse_temperatures=[1.0, 501.0]), "inverse_temperatures holds 501.0"),
        (dict(chain_lengths=[0]), "hold 0: pass multiples of the 2 noise levels"),
        (dict(chain_lengths=[20, 33]), "hold 33: pass multiples of the 2 noise levels"),
        (dict(longest_plain_chain=41), "hold 41: pass multiples of the 2 noise levels"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = dict(
        n_actions=10, seed=0, inverse_temperatures=[1.0], chain_lengths=[20], longest_plain_chain=20
    )
    with pytest.raises(ValueError, match=message):
        next(measure_distances(quadratic([0.2, 0.1]), **valid | arguments))


def test_table_has_a_row_for_each_sampler_and_length_in_order() -> None:
    distances = list(measure_distances(quadratic([0.2, 0.1]), 10, 0, [5.0, 1.0], [20, 40], 80))
    lines = distance_table(distances).splitlines()
    assert lines[0] == "| sampler | steps | w = 1 | w = 5 |"
    assert lines[2].startswith("| independent draws |  | ")
    assert [line.split(" | ")[1] for line in lines[3:]] == [
        "20",
        "40",
        "80",
        "20",
        "40",
        "20",
        "40",
        "20",
        "40",
        "20",
        "29",
    ]
    (first,) = (d for d in distances if d["steps"] == 80 and d["inverse_temperature"] == 1.0)
    assert f"{first['total_variation']:.3f}, {first['kl_divergence']:.3g}" in lines[5]


def test_tempered_samplers_have_the_law_and_their_estimates_its_constants() -> None:
    """Of N(0, I / (w k)): Z(w) / Z(0) = 2 pi / (w k) / 4, the mean of Q is -1 / w, the entropy log(2 pi e / (w k))."""
    w, n = 5.0, 2_000
    distances = list(measure_distances(quadratic([0.0]), n, 0, [w], chain_lengths=[20], longest_plain_chain=20))
    floor = distances[0]["total_variation"]
    tempered = [distance for distance in distances if "estimates" in distance]
    assert len(tempered) == 2
    exact = {
        "log_z": math.log(2 * math.pi / (w * STIFFNESS) / 4),
        "mean_q": -1 / w,
        "entropy": math.log(2 * math.pi * math.e / (w * STIFFNESS)),
    }
    for distance in tempered:
        assert distance["total_variation"] < floor + 0.03
        for name, value in exact.items():
            found = distance["estimates"][name]
            assert found["exact"] == pytest.approx(value, abs=0.01)  # the box cuts 2 in 10,000 off
            assert found["mean"] == pytest.approx(value, abs=0.06)
    table = estimate_table(distances).splitlines()
    assert table[2].startswith("| tempered, 16 particles, 20 rungs | 5 | -2.5")
    assert len(table) == 4


def test_a_tempered_sampler_has_the_law_of_a_learned_critic() -> None:
    """Whose modes are of unequal height: 64 particles, 29 rungs, within 0.05 of independent draws."""
    landscape = learned_critic()
    n_actions, w = 2_000, 100.0
    law = boltzmann_distribution(landscape.on_grid(0), w)
    floor = total_variation(draw_cells(law, n_actions, 0), law)
    sampler = adapted(TemperedSampler(2, n_rungs=29, n_particles=64), landscape, w, seed=0)
    shares = histogram(actions_of(temper(sampler, landscape, n_actions, seed=0)))
    assert total_variation(shares, law) < floor + 0.05


def learned_critic() -> Landscape:
    """A network that has been fitted to the bandit's reward for as long as its modes differ in height."""
    th.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 64), nn.Mish(), nn.Linear(64, 64), nn.Mish(), nn.Linear(64, 1))
    optimizer = th.optim.Adam(network.parameters(), 5e-3)
    decay = th.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=3_000)
    for _ in range(3_000):
        actions = 2 * th.rand(512, 2) - 1
        loss = (network(actions).squeeze(1) - smoothed_reward(actions, 0.0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    network.requires_grad_(False)

    def q_value(actions: th.Tensor, level: int) -> th.Tensor:
        values: th.Tensor = network(actions).squeeze(1)
        return values

    landscape = landscape_of(q_value, th.zeros(1, dtype=th.float64))
    peaks = landscape.on_grid(0)
    highest = sorted(part.max() for part in (peaks[:, 300:], peaks[300:], peaks[:, :100], peaks[:100]))
    assert highest[-1] - highest[0] > 0.01
    return landscape
