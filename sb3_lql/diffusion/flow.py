"""Flows of actions along mean velocities, and the loss that such velocities minimise. Tensors in, tensors out."""

from collections.abc import Callable

import torch as th

from sb3_lql.diffusion.process import ActionProcess

#: From points of shape (batch, action_dim) and times ``t`` and ``r``, numbers or of shape (batch, 1), to the mean
#: velocity between these times.
VelocityFunction = Callable[[th.Tensor, tuple[th.Tensor | float, th.Tensor | float]], th.Tensor]


class MeanFlow(ActionProcess):
    """
    A flow from noise at time 0 to actions at time 1, in a few steps ``x <- x + (r - t) u(x, t, r)`` of equal length.
    The last one is clipped to the box [-1, 1]^d.

    :param n_steps: number of steps
    """

    @property
    def n_noises(self) -> int:
        """Steps with noise."""
        return 0

    def step(self, network: VelocityFunction, x: th.Tensor, k: int, noise: th.Tensor | None = None) -> th.Tensor:
        """
        :param network: ``u``, as a function of points and times
        :param x: shape (batch, action_dim)
        :param k: steps that were made before this one
        :param noise: not used; steps add none
        :return: shape (batch, action_dim)
        """
        t, r = k / self.n_steps, (k + 1) / self.n_steps
        x = x + (r - t) * network(x, (t, r))
        return x.clamp(-1.0, 1.0) if k == self.n_steps - 1 else x


def mean_flow_losses(
    velocity: VelocityFunction, actions: th.Tensor, noise: th.Tensor, t: th.Tensor, r: th.Tensor
) -> tuple[th.Tensor, th.Tensor]:
    """
    At ``x = (1 - t) noise + t actions``, where ``v = actions - noise``, the means over rows of ``|u(x, t, r) - sg(v +
    (r - t) du/dt)|^2`` and of ``|u(x, t, t) - v|^2``; ``du/dt`` is the derivative along ``(v, 1, 0)``.

    :param velocity: ``u``, as a function of points and times
    :param actions: shape (batch, action_dim)
    :param noise: shape (batch, action_dim)
    :param t: times, shape (batch, 1)
    :param r: later times, shape (batch, 1)
    :return: two scalars: of mean velocities, and of velocities at an instant
    """
    x, v = (1.0 - t) * noise + t * actions, actions - noise
    tangents = v, th.ones_like(t)
    mean_velocity, derivative = th.func.jvp(lambda x, t: velocity(x, (t, r)), (x, t), tangents)  # type: ignore[misc]
    errors = mean_velocity - (v + (r - t) * derivative).detach(), velocity(x, (t, t)) - v
    of_mean, of_instant = (error.square().sum(dim=1).mean() for error in errors)
    return of_mean, of_instant
