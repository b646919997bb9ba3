"""The tempered sampler on the bandit: actions, and estimates beside exact values."""

import copy
from typing import Any

import numpy as np
import torch as th

from sb3_lql.benchmark.bandit.landscape import Landscape
from sb3_lql.benchmark.tables import markdown_table
from sb3_lql.envs.multimodal_bandit import BOUND
from sb3_lql.langevin.particles import ValueAndGradient
from sb3_lql.langevin.tempered_sampler import TemperedChain, TemperedSampler
from sb3_lql.saving.random_states import random_states_kept

#: Adaptations of step sizes to a landscape and a ``w``, and chains in each.
N_ADAPTATIONS, ADAPTATION_BATCH = 100, 16
#: Chains that run side by side, to bound the memory.
BATCH = 1_000


@th.no_grad()
def temper(sampler: TemperedSampler, landscape: Landscape, n_actions: int, seed: int) -> TemperedChain:
    """
    :param sampler: with adapted steps
    :param landscape: whose last level is Q
    :param n_actions: number of chains, each of which draws an action
    :param seed: of all draws, on the CPU
    :return: their ends, together
    """
    sampler, value_and_gradient = copy.deepcopy(sampler).cpu(), values_and_gradients(landscape)
    with random_states_kept():
        th.manual_seed(seed)
        sizes = [min(BATCH, n_actions - first) for first in range(0, n_actions, BATCH)]
        chains = [sampler(value_and_gradient, sampler.draw(size)) for size in sizes]
    last = chains[-1]
    by_row = {
        name: th.cat([getattr(chain, name) for chain in chains])
        for name in ("actions", "particles", "log_weights", "q_values", "log_z", "effective_share")
    }
    chain: TemperedChain = last._replace(**by_row)
    return chain


@th.no_grad()
def adapted(sampler: TemperedSampler, landscape: Landscape, inverse_temperature: float, seed: int) -> TemperedSampler:
    """
    :return: a copy of the sampler at another ``w``, its steps adapted to it and to Q
    """
    sampler = copy.deepcopy(sampler).cpu()
    sampler.target_entropy = None
    sampler.inverse_temperature = inverse_temperature
    sampler.n_adaptations.zero_()
    value_and_gradient = values_and_gradients(landscape)
    with random_states_kept():
        th.manual_seed(seed)
        for _ in range(N_ADAPTATIONS):
            sampler.adapt(sampler(value_and_gradient, sampler.draw(ADAPTATION_BATCH)))
    return sampler


def values_and_gradients(landscape: Landscape) -> ValueAndGradient:
    """Q at the landscape's last level, and its gradient."""
    level = landscape.last_level

    def value_and_gradient(actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        flat = actions.flatten(0, -2)
        values, gradients = landscape.q_value(flat, level), landscape.score(flat, level)
        return values.view(actions.shape[:-1]), gradients.view_as(actions)

    return value_and_gradient


def actions_of(chain: TemperedChain) -> np.ndarray:
    """In the environment's units, shape (n_actions, 2)."""
    actions: np.ndarray = BOUND * chain.actions.numpy()
    return actions


def estimates(chain: TemperedChain, q_values: np.ndarray) -> dict[str, dict[str, float]]:
    """
    What chains estimate of their law, and what it is.

    :param chain: as of :func:`temper`
    :param q_values: Q on the grid, shape (400, 400)
    :return: ``exact`` value, ``mean`` and ``std`` over the chains of ``log_z`` (relative to the uniform law),
        ``mean_q`` and ``entropy`` (of actions in [-1, 1]²)
    """
    w = chain.inverse_temperature.item()
    energies = w * th.as_tensor(q_values, dtype=th.float64).flatten()
    log_z = energies.logsumexp(dim=0).item() - np.log(len(energies))
    mean_q = (energies.softmax(dim=0) * energies).sum().item() / w
    exact = {"log_z": log_z, "mean_q": mean_q, "entropy": 2 * np.log(2.0) + log_z - w * mean_q}
    found = {"log_z": chain.log_z, "mean_q": chain.mean_q, "entropy": chain.entropy}
    return {
        name: {"exact": exact[name], "mean": found[name].mean().item(), "std": found[name].std().item()}
        for name in exact
    }


def estimate_table(distances: list[dict[str, Any]]) -> str:
    """Estimates beside exact values as a Markdown table: a row for each tempered sampler and ``w``."""
    columns = {"log_z": "log Z(w) / Z(0)", "mean_q": "mean Q", "entropy": "entropy"}
    rows = [
        [
            f"{distance['sampler']}, {distance['steps']} rungs",
            f"{distance['inverse_temperature']:g}",
            *(
                f"{values['exact']:.3f} \\| {values['mean']:.3f} ± {values['std']:.3f}"
                for values in (distance["estimates"][name] for name in columns)
            ),
        ]
        for distance in distances
        if "estimates" in distance
    ]
    return markdown_table(["sampler", "w", *columns.values()], rows)
