"""How close Langevin samplers come to the Boltzmann distribution that they name."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_lql.benchmark.bandit.chains import normal_starts
from sb3_lql.benchmark.bandit.distributions import (
    boltzmann_distribution,
    draw_cells,
    histogram,
    kl_divergence,
    total_variation,
)
from sb3_lql.benchmark.bandit.landscape import Landscape
from sb3_lql.benchmark.bandit.tempering import actions_of, adapted, estimates, temper
from sb3_lql.benchmark.tables import markdown_table
from sb3_lql.envs.multimodal_bandit import BOUND
from sb3_lql.langevin.sampler import LangevinSampler, annealed_step_sizes
from sb3_lql.langevin.tempered_sampler import TemperedSampler

#: The largest ``w`` whose distribution the grid resolves with its ``POINTS_PER_CELL``.
LARGEST_W = 500

#: Names of the samplers, by whether they are annealed and whether they normalise the score.
SAMPLERS = {
    (False, False): "plain, score as it is",
    (False, True): "plain, score normalised",
    (True, False): "annealed, score as it is",
    (True, True): "annealed, score normalised",
}
#: Particles and rungs of tempered samplers.
TEMPERED = ((16, 20), (64, 29))


def step_size(inverse_temperature: float, normalize_score: bool = False) -> float:
    """
    (Last) step size of chains: that of table 6 for those that normalise the score; for those that do not, small enough
    for the chain's distribution to be near exp(w * Q).

    Small beside the curvature of w * Q: a step of 0.005 / w takes 0.005 / 2 / 0.15² = 11 % of the way to the centre of
    a high mode. And small beside the box: whatever the noise of a step takes out of it is put on its border.
    """
    return 1e-4 if normalize_score else min(0.005 / inverse_temperature, 0.0005)


def measure_distances(
    landscape: Landscape,
    n_actions: int,
    seed: int,
    inverse_temperatures: Sequence[float],
    chain_lengths: Sequence[int],
    longest_plain_chain: int,
    tempered: Sequence[tuple[int, int]] = TEMPERED,
) -> Iterator[dict[str, Any]]:
    """
    Draw actions from a_0 ~ N(0, I) with each sampler at each ``w``, and compare them with exp(w * Q) / Z. The first
    distance at each ``w`` is that of independent draws; ``on_border`` is the share of actions on the border of the box.

    Plain chains climb Q itself; annealed ones, where there are noise levels, Q(a, sigma_l) from level to level. Lengths
    are multiples of the number of levels; only plain chains with the score as it is run to ``longest_plain_chain``.
    Particles of ``tempered`` samplers, of so many particles and rungs, begin uniform; their ``estimates`` are those of
    :func:`~sb3_lql.benchmark.bandit.tempering.estimates`.
    """
    n_levels = len(landscape.sigmas)
    if n_actions < 1:
        raise ValueError(f"n_actions={n_actions} is not positive: pass a number of actions.")
    for w in inverse_temperatures:
        if not 0 < w <= LARGEST_W:
            raise ValueError(f"inverse_temperatures holds {w}: pass values above 0 and up to {LARGEST_W}.")
    for length in (*chain_lengths, longest_plain_chain):
        if length < 1 or length % n_levels:
            raise ValueError(
                f"chain_lengths and longest_plain_chain hold {length}: pass multiples of the {n_levels} noise levels."
            )
    starts = th.as_tensor(normal_starts(n_actions, seed) / BOUND, dtype=th.float32).clamp(-1, 1)
    q_values = landscape.on_grid(landscape.last_level)
    for w in sorted(set(inverse_temperatures)):
        distribution = boltzmann_distribution(q_values, w)
        shares = draw_cells(distribution, n_actions, seed)
        yield _distance("independent draws", 0, w, shares, distribution, on_border=0.0)
        for (annealed, normalized), name in SAMPLERS.items():
            if annealed and landscape.last_level == 0:
                continue
            lengths = set(chain_lengths)
            if not (annealed or normalized):
                lengths.add(longest_plain_chain)
            chains = _annealed_chains if annealed else _plain_chains
            for steps, actions in chains(landscape, starts, sorted(lengths), w, normalized, seed):
                on_border = float((actions.abs() == 1).any(dim=1).double().mean())
                yield _distance(name, steps, w, histogram(BOUND * actions.numpy()), distribution, on_border)
        for n_particles, n_rungs in tempered:
            sampler = adapted(TemperedSampler(2, n_rungs, n_particles), landscape, w, seed)
            chain = temper(sampler, landscape, n_actions, seed)
            name = f"tempered, {n_particles} particles"
            distance = _distance(name, n_rungs, w, histogram(actions_of(chain)), distribution, on_border=0.0)
            yield distance | {"estimates": estimates(chain, q_values)}


def _distance(
    sampler: str, steps: int, w: float, shares: np.ndarray, distribution: np.ndarray, on_border: float
) -> dict[str, Any]:
    return {
        "sampler": sampler,
        "steps": steps,
        "inverse_temperature": w,
        "total_variation": total_variation(shares, distribution),
        "kl_divergence": kl_divergence(shares, distribution),
        "on_border": on_border,
    }


def _plain_chains(
    landscape: Landscape, actions: th.Tensor, lengths: list[int], w: float, normalized: bool, seed: int
) -> Iterator[tuple[int, th.Tensor]]:
    """One long chain, looked at after each of the lengths."""
    # A few steps at a time, so that the noise of all does not have to be held
    block = math.gcd(*lengths)
    sampler = LangevinSampler(
        th.tensor([step_size(w, normalized)], dtype=th.float64),
        block,
        inverse_temperature=w,
        normalize_score=normalized,
    )
    generator = th.Generator().manual_seed(seed)
    for steps in range(block, lengths[-1] + 1, block):
        noise = th.randn((block, *actions.shape), generator=generator)
        actions = sampler(lambda a, _: landscape.score(a, landscape.last_level), actions, noise).actions
        if steps in lengths:
            yield steps, actions


def _annealed_chains(
    landscape: Landscape, starts: th.Tensor, lengths: list[int], w: float, normalized: bool, seed: int
) -> Iterator[tuple[int, th.Tensor]]:
    """A chain for each of the lengths, which are spread evenly over the levels."""
    step_sizes = annealed_step_sizes(step_size(w, normalized), landscape.sigmas)
    for length in lengths:
        sampler = LangevinSampler(step_sizes, length // len(step_sizes), landscape.sigmas, w, normalized)
        noise = th.randn((sampler.chain_length, *starts.shape), generator=th.Generator().manual_seed(seed))
        yield length, sampler(landscape.score, starts, noise).actions


def distance_table(distances: list[dict[str, Any]]) -> str:
    """
    Total variation and KL divergence as a Markdown table: a row for each sampler and length, a column for each ``w``.
    """
    columns = dict.fromkeys(f"w = {distance['inverse_temperature']:g}" for distance in distances)
    cells: dict[tuple[str, int], list[str]] = {}
    for distance in distances:
        cell = f"{distance['total_variation']:.3f}, {distance['kl_divergence']:.3g}"
        cells.setdefault((distance["sampler"], distance["steps"]), []).append(cell)
    rows = [[sampler, f"{steps:,}" if steps else "", *values] for (sampler, steps), values in cells.items()]
    return markdown_table(["sampler", "steps", *columns], rows)
