"""How close Langevin samplers come to the Boltzmann law that they name."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_lql.benchmark.bandit.chains import normal_starts
from sb3_lql.benchmark.bandit.landscape import Landscape
from sb3_lql.benchmark.bandit.laws import boltzmann_law, draw_cells, histogram, kl_divergence, total_variation
from sb3_lql.benchmark.tables import markdown_table
from sb3_lql.common.langevin import LangevinSampler, annealed_step_sizes
from sb3_lql.envs.multimodal_bandit import BOUND

#: (Last) step size of chains that do not normalise the score, times ``w``. It must be small beside the curvature of
#: w * Q: a step takes 0.005 / 2 / 0.15² = 11 % of the way to the centre of a high mode.
STEP_SIZE_TIMES_W = 0.005
#: (Last) step size of chains that do (table 6).
NORMALIZED_STEP_SIZE = 1e-4

#: Names of the samplers, by whether they are annealed and whether they normalise the score.
SAMPLERS = {
    (False, False): "plain, score as it is",
    (False, True): "plain, score normalised",
    (True, False): "annealed, score as it is",
    (True, True): "annealed, score normalised",
}


def measure_distances(
    landscape: Landscape,
    n_actions: int,
    seed: int,
    inverse_temperatures: Sequence[float],
    chain_lengths: Sequence[int],
    longest_plain_chain: int,
) -> Iterator[dict[str, Any]]:
    """
    Draw actions from a_0 ~ N(0, I) with each sampler at each ``w``, and compare them with exp(w * Q) / Z.

    Plain chains climb Q itself; annealed ones, where there are noise levels, Q(a, sigma_l) from level to level.

    :param landscape: Q
    :param n_actions: number of actions
    :param seed: seed of all draws
    :param inverse_temperatures: ``w`` of the laws
    :param chain_lengths: steps of a chain, multiples of the first one and of the number of noise levels
    :param longest_plain_chain: steps that plain chains with the score as it is are measured after, too
    :return: one dictionary for each distance: ``sampler``, ``steps``, ``inverse_temperature``, ``total_variation``,
        ``kl_divergence``; the first ones are of independent draws from the law itself
    """
    starts = th.as_tensor(normal_starts(n_actions, seed) / BOUND, dtype=th.float32).clamp(-1, 1)
    q_values = landscape.on_grid(landscape.last_level)
    for w in inverse_temperatures:
        law = boltzmann_law(q_values, w)
        yield _distance("independent draws", 0, w, draw_cells(law, n_actions, seed), law)
        for (annealed, normalized), name in SAMPLERS.items():
            if annealed and landscape.last_level == 0:
                continue
            lengths = set(chain_lengths)
            if not (annealed or normalized):
                lengths.add(longest_plain_chain)
            chains = _annealed_chains if annealed else _plain_chains
            for steps, actions in chains(landscape, starts, sorted(lengths), w, normalized, seed):
                yield _distance(name, steps, w, histogram(BOUND * actions.numpy()), law)


def _distance(sampler: str, steps: int, w: float, shares: np.ndarray, law: np.ndarray) -> dict[str, Any]:
    return {
        "sampler": sampler,
        "steps": steps,
        "inverse_temperature": w,
        "total_variation": total_variation(shares, law),
        "kl_divergence": kl_divergence(shares, law),
    }


def _plain_chains(
    landscape: Landscape, actions: th.Tensor, lengths: list[int], w: float, normalized: bool, seed: int
) -> Iterator[tuple[int, th.Tensor]]:
    """One long chain, looked at after each of the lengths."""
    # Of so few steps at a time that the noise of all does not have to be held
    block = lengths[0]
    step_size = NORMALIZED_STEP_SIZE if normalized else STEP_SIZE_TIMES_W / w
    sampler = LangevinSampler(
        th.tensor([step_size], dtype=th.float64), block, inverse_temperature=w, normalize_score=normalized
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
    step_size = NORMALIZED_STEP_SIZE if normalized else STEP_SIZE_TIMES_W / w
    step_sizes = annealed_step_sizes(step_size, landscape.sigmas)
    for length in lengths:
        sampler = LangevinSampler(step_sizes, length // len(step_sizes), landscape.sigmas, w, normalized)
        noise = th.randn((sampler.chain_length, *starts.shape), generator=th.Generator().manual_seed(seed))
        yield sampler.chain_length, sampler(landscape.score, starts, noise).actions


def distance_table(distances: list[dict[str, Any]]) -> str:
    """
    :param distances: of one landscape, from :func:`measure_distances`
    :return: a Markdown table: a row for each sampler and chain length, a column for each ``w``
    """
    temperatures = sorted({distance["inverse_temperature"] for distance in distances})
    cells: dict[tuple[str, int], list[str]] = {}
    for distance in sorted(distances, key=lambda distance: distance["inverse_temperature"]):
        cell = f"{distance['total_variation']:.2f}, {distance['kl_divergence']:.2f}"
        cells.setdefault((distance["sampler"], distance["steps"]), []).append(cell)
    rows = [
        [sampler, f"{steps:,}" if steps else "", *values]
        for (sampler, steps), values in sorted(cells.items(), key=_table_order)
    ]
    return markdown_table(["sampler", "steps", *(f"w = {w:g}" for w in temperatures)], rows)


def _table_order(cell: tuple[tuple[str, int], Any]) -> tuple[int, int]:
    (sampler, steps), _ = cell
    return ["independent draws", *SAMPLERS.values()].index(sampler), steps
