"""Diffusion of actions: noise schedules, adding noise, and the chain that takes it away. Tensors in, tensors out."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch as th
from torch import nn

#: A network as a function of points of shape (batch, action_dim), and of times as it takes them.
NetworkFunction = Callable[[th.Tensor, Any], th.Tensor]

#: Largest ``beta`` of the cosine schedule.
LARGEST_BETA = 0.999


def linear_schedule(n_steps: int, scale: float = 1.0) -> th.Tensor:
    """
    ``beta_t = scale * (1e-4 + (0.999 - 1e-4) * t / (T - 1))``.

    :param n_steps: ``T``
    :param scale: ``c``
    :return: ``alpha_bar``, the product of ``1 - beta``, shape (T,), float64
    """
    return (1.0 - scale * th.linspace(1e-4, LARGEST_BETA, n_steps, dtype=th.float64)).cumprod(0)


def cosine_schedule(n_steps: int) -> th.Tensor:
    """
    ``alpha_bar_t`` proportional to ``cos(((t + 1) / T + 0.008) / 1.008 * pi / 2) ** 2``, with ``beta`` at most 0.999.

    :param n_steps: ``T``
    :return: ``alpha_bar``, shape (T,), float64
    """
    times = th.arange(n_steps + 1, dtype=th.float64) / n_steps
    curve = ((times + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (curve[1:] / curve[:-1]).clamp(min=1.0 - LARGEST_BETA).cumprod(0)


def variance_preserving_schedule(n_steps: int) -> th.Tensor:
    """
    ``alpha_bar_t = exp(-0.1 u - 4.95 u ** 2)`` with ``u = (t + 1) / T``.

    :param n_steps: ``T``
    :return: ``alpha_bar``, shape (T,), float64
    """
    u = th.arange(1, n_steps + 1, dtype=th.float64) / n_steps
    return (-0.1 * u - 4.95 * u.square()).exp()


class ActionProcess(nn.Module):
    """
    A way from noise to actions in the box [-1, 1]^d, in steps of which each evaluates a network.

    :param n_steps: number of steps
    """

    def __init__(self, n_steps: int) -> None:
        super().__init__()
        self.n_steps = n_steps

    @property
    def n_noises(self) -> int:
        """Steps with noise, which are the first ones."""
        return self.n_steps

    def forward(self, network: NetworkFunction, start: th.Tensor, noise: th.Tensor | None = None) -> th.Tensor:
        """
        All steps, one after the other.

        :param network: a function of points of shape (batch, action_dim), and of times
        :param start: shape (batch, action_dim)
        :param noise: ``z``, shape (n_noises, batch, action_dim), in the order of the steps; ``None`` for none
        :return: actions in [-1, 1], shape (batch, action_dim)
        """
        x = start
        for k in range(self.n_steps):
            x = self.step(network, x, k, noise[k] if noise is not None and k < self.n_noises else None)
        return x

    @abstractmethod
    def step(self, network: NetworkFunction, x: th.Tensor, k: int, noise: th.Tensor | None) -> th.Tensor:
        """
        :param network: as of :meth:`forward`
        :param x: shape (batch, action_dim)
        :param k: steps that were made before this one
        :param noise: that of this step, shape (batch, action_dim); ``None`` for none
        :return: shape (batch, action_dim)
        """


class DiffusionProcess(ActionProcess):
    """
    Denoising diffusion in the box [-1, 1]^d.

    For t = T-1 ... 0 the chain takes ``x_0 = clip(x / sqrt(alpha_bar_t) - epsilon * sqrt(1 / alpha_bar_t - 1), ±1)``
    and ``x <- [beta_t sqrt(alpha_bar_{t-1}) x_0 + (1 - alpha_bar_{t-1}) sqrt(1 - beta_t) x] / (1 - alpha_bar_t)
    + sigma_t z``, with ``sigma_t ** 2 = beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)``. At t = 0 that is x_0.

    :param alpha_bar: share of the signal's variance at each time, falling, shape (T,)
    """

    #: ``1 - alpha_bar_t / alpha_bar_{t-1}``, shape (T,).
    beta: th.Tensor
    #: ``sqrt(alpha_bar)``, shape (T,).
    signal: th.Tensor
    #: ``sqrt(1 - alpha_bar)``, shape (T,).
    noise: th.Tensor
    #: Weight of ``x_0`` in a step, shape (T,).
    weight_start: th.Tensor
    #: Weight of ``x`` in a step, shape (T,).
    weight_current: th.Tensor
    #: Standard deviation of a step, shape (T,).
    sigma: th.Tensor

    def __init__(self, alpha_bar: th.Tensor) -> None:
        super().__init__(len(alpha_bar))
        alpha_bar = alpha_bar.double()
        before = th.cat([th.ones(1, dtype=th.float64), alpha_bar[:-1]])
        beta = 1.0 - alpha_bar / before
        constants = dict(
            beta=beta,
            signal=alpha_bar.sqrt(),
            noise=(1.0 - alpha_bar).sqrt(),
            weight_start=beta * before.sqrt() / (1.0 - alpha_bar),
            weight_current=(1.0 - before) * (1.0 - beta).sqrt() / (1.0 - alpha_bar),
            sigma=(beta * (1.0 - before) / (1.0 - alpha_bar)).sqrt(),
        )
        # Derived from the constructor's argument: they follow the policy to its device, but are not weights
        for name, values in constants.items():
            self.register_buffer(name, values.float(), persistent=False)

    @property
    def n_noises(self) -> int:
        """Steps with noise: all but the last of the ``T``."""
        return self.n_steps - 1

    def add_noise(self, actions: th.Tensor, t: th.Tensor, noise: th.Tensor) -> th.Tensor:
        """
        ``sqrt(alpha_bar_t) a + sqrt(1 - alpha_bar_t) epsilon``.

        :param actions: shape (batch, action_dim)
        :param t: times, int tensor of shape (batch,)
        :param noise: ``epsilon``, shape (batch, action_dim)
        :return: noisy actions, shape (batch, action_dim)
        """
        return self.signal[t, None] * actions + self.noise[t, None] * noise

    def remove_noise(self, x: th.Tensor, t: th.Tensor | int, noise: th.Tensor) -> th.Tensor:
        """
        ``clip(x / sqrt(alpha_bar_t) - epsilon * sqrt(1 / alpha_bar_t - 1), -1, 1)``.

        :param x: noisy actions, shape (..., action_dim)
        :param t: times, one int or an int tensor that broadcasts to the shape of ``x`` without its last dimension
        :param noise: ``epsilon``, of the shape of ``x``
        :return: actions, of the shape of ``x``
        """
        signal, scale = self.signal[t], self.noise[t]
        if isinstance(t, th.Tensor):
            signal, scale = signal[..., None], scale[..., None]
        return ((x - scale * noise) / signal).clamp(-1.0, 1.0)

    def step(self, network: NetworkFunction, x: th.Tensor, k: int, noise: th.Tensor | None) -> th.Tensor:
        """
        The step at ``t = T - 1 - k``.

        :param network: ``epsilon``, as a function of noisy actions and time
        :param x: noisy actions, shape (batch, action_dim)
        :param k: steps that were made before this one
        :param noise: ``z``, shape (batch, action_dim); ``None`` for none
        :return: less noisy ones, shape (batch, action_dim)
        """
        t = self.n_steps - 1 - k
        clean = self.remove_noise(x, t, network(x, t))
        if t == 0:
            return clean
        x = self.weight_start[t] * clean + self.weight_current[t] * x
        return x if noise is None else x + self.sigma[t] * noise


class AncestralProcess(DiffusionProcess):
    """
    Denoising diffusion without an estimate of ``x_0`` (Ho et al. 2020, Algorithm 2), clipped to the box at each step.

    For t = T-1 ... 0 the chain takes ``x <- clip((x - beta_t epsilon / sqrt(1 - alpha_bar_t)) / sqrt(1 - beta_t)
    + [t > 0] sqrt(beta_t) z, ±1)``.

    :param alpha_bar: share of the signal's variance at each time, falling, shape (T,)
    """

    def step(self, network: NetworkFunction, x: th.Tensor, k: int, noise: th.Tensor | None) -> th.Tensor:
        """
        :param network: as of :class:`DiffusionProcess`, like the others
        :param x: shape (batch, action_dim)
        :param k: steps that were made before this one
        :param noise: shape (batch, action_dim); ``None`` for none
        :return: shape (batch, action_dim)
        """
        t = self.n_steps - 1 - k
        beta = self.beta[t]
        x = (x - beta / self.noise[t] * network(x, t)) / (1.0 - beta).sqrt()
        return (x if noise is None else x + beta.sqrt() * noise).clamp(-1.0, 1.0)
