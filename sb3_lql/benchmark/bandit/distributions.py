"""The Boltzmann distribution exp(w * Q) / Z on a grid over the actions, and how far samples are from it."""

import numpy as np
import torch as th

from sb3_lql.envs.multimodal_bandit import BOUND

#: Cells of a histogram along either axis: each is 0.2 wide, two thirds of a mode's standard deviation.
N_CELLS = 20
#: Points in a cell along either axis at which a density is evaluated: they resolve the narrowest distribution (w = 500:
#: a standard deviation of 0.013).
POINTS_PER_CELL = 20


def grid() -> np.ndarray:
    """Where densities are evaluated, shape (400, 400, 2); the first axis is the first coordinate."""
    n_points = N_CELLS * POINTS_PER_CELL
    axis = BOUND * ((2 * np.arange(n_points) + 1) / n_points - 1)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)


def boltzmann_distribution(q_values: np.ndarray, inverse_temperature: float) -> np.ndarray:
    """
    :param q_values: Q at the points of :func:`grid`, shape (400, 400)
    :param inverse_temperature: ``w``
    :return: log-probability of each cell under exp(w * Q) / Z, shape (20, 20)
    """
    energies = inverse_temperature * th.as_tensor(q_values, dtype=th.float64)
    points = energies.view(N_CELLS, POINTS_PER_CELL, N_CELLS, POINTS_PER_CELL)
    return (points.logsumexp(dim=(1, 3)) - energies.logsumexp(dim=(0, 1))).numpy()


def histogram(samples: np.ndarray) -> np.ndarray:
    """Share of actions, given in shape (n_actions, 2), in each cell; shape (20, 20)."""
    counts: np.ndarray = np.histogram2d(samples[:, 0], samples[:, 1], N_CELLS, [[-BOUND, BOUND]] * 2)[0]
    return counts / len(samples)


def draw_cells(log_probabilities: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
    """The histogram of independent draws from the distribution itself: what to expect of a sampler that has it."""
    distribution = np.exp(log_probabilities)
    counts: np.ndarray = np.random.default_rng(seed).multinomial(n_samples, (distribution / distribution.sum()).ravel())
    shares: np.ndarray = counts.reshape(distribution.shape) / n_samples
    return shares


def total_variation(shares: np.ndarray, log_probabilities: np.ndarray) -> float:
    """Half the sum of the absolute differences, in [0, 1]."""
    return float(0.5 * np.abs(shares - np.exp(log_probabilities)).sum())


def kl_divergence(shares: np.ndarray, log_probabilities: np.ndarray) -> float:
    """Kullback-Leibler divergence of the samples from the distribution, ``sum p log(p / q)``, in nats."""
    occupied = shares > 0
    return float((shares[occupied] * (np.log(shares[occupied]) - log_probabilities[occupied])).sum())
