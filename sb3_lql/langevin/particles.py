"""Particles in the box [-1, 1]^d: how they move, and how they are resampled."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

#: Values, of shape (...), and gradients, of shape (..., action_dim), of actions of shape (..., action_dim).
ValueAndGradient = Callable[[th.Tensor], tuple[th.Tensor, th.Tensor]]

#: Largest drift of a move in a coordinate.
LARGEST_DRIFT = 1.0


class Particles(NamedTuple):
    """Actions with their Q-values and gradients."""

    #: In [-1, 1], shape (..., action_dim).
    actions: th.Tensor
    #: Shape (...).
    q_values: th.Tensor
    #: Of the shape of the actions.
    gradients: th.Tensor


def langevin_move(
    value_and_gradient: ValueAndGradient,
    particles: Particles,
    u: th.Tensor,
    steps: th.Tensor,
    noise: th.Tensor,
    uniform: th.Tensor,
) -> tuple[Particles, th.Tensor]:
    """
    One Metropolis-adjusted Langevin step in the box, which leaves exp(u Q) as it is.

    The proposal is ``y = fold(a + clip(h / 2 u dQ/da, ±1) + sqrt(h) z)``, coordinate by coordinate. In the unfolded
    line the way back mirrors the way there, so that its density is that of one Gaussian.

    :param value_and_gradient: Q and its gradient, of actions of the shape of the particles
    :param particles: where they are
    :param u: inverse temperature, shape ()
    :param steps: ``h``, shape (action_dim,)
    :param noise: ``z``, of the shape of the actions
    :param uniform: on [0, 1), of the shape of the values
    :return: where they are then, and the probability with which each was moved
    """
    actions, q_values, gradients = particles
    noise = steps.sqrt() * noise
    lifted = actions + drift(steps, u, gradients) + noise
    proposed, slope = fold(lifted)
    proposed_q, proposed_gradients = value_and_gradient(proposed)
    back = actions - lifted - slope * drift(steps, u, proposed_gradients)
    log_ratio = u * (proposed_q - q_values) + ((noise.square() - back.square()) / (2.0 * steps)).sum(dim=-1)
    probability = log_ratio.clamp(max=0.0).exp()
    accepted = uniform < probability
    moved = Particles(
        th.where(accepted[..., None], proposed, actions),
        th.where(accepted, proposed_q, q_values),
        th.where(accepted[..., None], proposed_gradients, gradients),
    )
    return moved, probability


def effective_share(log_weights: th.Tensor) -> th.Tensor:
    """
    :param log_weights: logarithms of weights that sum to one in each row, shape (batch, n_particles)
    :return: their effective number over their number, shape (batch,)
    """
    return 1.0 / (log_weights.shape[1] * (2.0 * log_weights).exp().sum(dim=1))


def systematic(log_weights: th.Tensor, uniform: th.Tensor) -> th.Tensor:
    """
    Systematic resampling: each particle in proportion to its weight, rounded up or down by one number for each row.

    :param log_weights: shape (batch, n_particles)
    :param uniform: on [0, 1), shape (batch, 1)
    :return: indices, shape (batch, n_particles)
    """
    n_particles = log_weights.shape[1]
    return index_of(log_weights, (uniform + th.arange(n_particles, device=uniform.device)) / n_particles)


def fold(points: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """
    Fold the line into [-1, 1], by reflection at both ends as often as needed.

    :param points: any
    :return: where they come to lie, and the slope of the fold there, 1 or -1
    """
    phase = th.remainder(points + 1.0, 4.0)
    rising = phase <= 2.0
    return th.where(rising, phase - 1.0, 3.0 - phase).clamp(-1.0, 1.0), th.where(rising, 1.0, -1.0)


def drift(steps: th.Tensor, u: th.Tensor, gradients: th.Tensor) -> th.Tensor:
    """``clip(h / 2 u dQ/da, ±1)``, of the shape of the gradients."""
    return (0.5 * steps * u * gradients).clamp(-LARGEST_DRIFT, LARGEST_DRIFT)


def index_of(log_weights: th.Tensor, points: th.Tensor) -> th.Tensor:
    """In each row, the particle in whose part of [0, 1) a point lies; indices of the shape of ``points``."""
    ends = log_weights.exp().cumsum(dim=1)
    return (points[:, :, None] >= ends[:, None, :]).sum(dim=2).clamp(max=log_weights.shape[1] - 1)


def own_indices(log_weights: th.Tensor) -> th.Tensor:
    """Those of particles that are not resampled: each one's own."""
    return th.arange(log_weights.shape[1], device=log_weights.device).expand_as(log_weights)


def take(values: th.Tensor, indices: th.Tensor) -> th.Tensor:
    """Rows of each batch entry; (batch, n, dim) by (batch, m) gives (batch, m, dim)."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[2]))
