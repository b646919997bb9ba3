"""Noise schedules and the (annealed) Langevin chain: tensors in, tensors out. Nothing here knows of RL."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch as th
from torch import nn

#: Gradient of the log-density (up to the factor w) at actions of shape (batch, action_dim), for one noise level.
ScoreFunction = Callable[[th.Tensor, int], th.Tensor]

#: Keeps the normalised score finite where the gradient vanishes (appendix E.2).
SCORE_EPSILON = 1e-8


def geometric_schedule(first: float, last: float, length: int) -> th.Tensor:
    """
    ``length`` values from ``first`` to ``last`` at a constant ratio; only ``last`` when ``length`` is one.

    :param first: first value, positive
    :param last: last value, positive
    :param length: number of values
    :return: float64 tensor of shape (length,)
    """
    return th.as_tensor(np.geomspace(first, last, length) if length > 1 else [last], dtype=th.float64)


def annealed_step_sizes(step_size: float, sigmas: th.Tensor) -> th.Tensor:
    """
    Step sizes ``alpha_l = eps * sigma_l**2 / sigma_L**2`` of annealed Langevin dynamics (algorithm 1).

    :param step_size: ``eps``, the step size of the last level
    :param sigmas: noise scales, shape (n_levels,)
    :return: tensor of shape (n_levels,)
    """
    return step_size * (sigmas / sigmas[-1]).square()


def radial_inverse_temperature(action_dim: int, entropy: float) -> float:
    """
    The ``w`` of normalised scores whose law has this entropy.

    The drift towards an action ``a*`` has the same length everywhere then, and Langevin dynamics the density ``w^d
    exp(-w |a - a*|) / (S_d Gamma(d))``, with ``S_d`` the surface of the unit sphere. Its entropy is ``log(S_d Gamma(d))
    - d log(w) + d``, whatever Q is.

    :param action_dim: ``d``
    :param entropy: in nats, of actions in [-1, 1]^d
    :return: ``w``
    """
    log_surface = math.log(2.0) + 0.5 * action_dim * math.log(math.pi) - math.lgamma(0.5 * action_dim)
    return math.exp((log_surface + math.lgamma(action_dim) + action_dim - entropy) / action_dim)


class LangevinChain(NamedTuple):
    """The end of a chain and what is worth logging about it."""

    #: Where the chains ended, shape (batch, action_dim), within [-1, 1].
    actions: th.Tensor
    #: L2 norms of the scores before normalisation, shape (chain_length, batch, 1).
    score_norms: th.Tensor


class LangevinSampler(nn.Module):
    """
    Langevin dynamics in the box [-1, 1]^d (algorithm 4), annealed over noise levels (algorithm 6).

    Every step at level ``l`` is ``a <- clip(a + alpha_l / 2 * w * score(a, l) + sqrt(alpha_l) * z)``
    with ``z ~ N(0, I)``. There are ``n_steps`` of them at each level, from the first level to the last.

    :param step_sizes: ``alpha``, one step size per level, shape (n_levels,)
    :param n_steps: ``T``, steps per level
    :param sigmas: noise scale of each level, shape (n_levels,); ``None`` when the score is not noise-conditioned
    :param inverse_temperature: ``w`` in the target density exp(w * Q); with ``normalize_score`` a factor on the length
        of drifts
    :param normalize_score: divide every score by its L2 norm (appendix E.2)
    :raises ValueError: if a step would overflow float32
    """

    #: Noise scale of each level, shape (n_levels,); zeros when the score is not noise-conditioned.
    sigmas: th.Tensor
    #: ``alpha`` of each level, shape (n_levels,).
    step_sizes: th.Tensor
    #: ``alpha / 2 * w``, what the score is multiplied by at each level, shape (n_levels,).
    drifts: th.Tensor
    #: ``sqrt(alpha)``, what the noise is multiplied by at each level, shape (n_levels,).
    noise_scales: th.Tensor

    def __init__(
        self,
        step_sizes: th.Tensor,
        n_steps: int,
        sigmas: th.Tensor | None = None,
        inverse_temperature: float = 500.0,
        normalize_score: bool = True,
    ) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.noise_conditioned = sigmas is not None
        self.normalize_score = normalize_score
        # Derived from the constructor's arguments: they follow the policy to its device, but are not weights
        sigmas = th.zeros_like(step_sizes) if sigmas is None else sigmas
        self.register_buffer("step_sizes", step_sizes.float(), persistent=False)
        self.register_buffer("sigmas", sigmas.float(), persistent=False)
        # alpha_l / 2 * w and sqrt(alpha_l): tensors, so that recorded and compiled chains follow a change of w
        self.register_buffer("drifts", th.empty_like(self.step_sizes), persistent=False)
        self.register_buffer("noise_scales", step_sizes.double().sqrt().float(), persistent=False)
        self._step_sizes = step_sizes.double()  # rounded only once multiplied by w, and never fetched from a device
        self.inverse_temperature = inverse_temperature

    @property
    def inverse_temperature(self) -> float:
        """``w``, as the constructor takes it; it may be changed at any time."""
        return self._inverse_temperature

    @inverse_temperature.setter
    def inverse_temperature(self, value: float) -> None:
        drifts = 0.5 * self._step_sizes * value
        longest_drift = drifts.max().item()
        if not longest_drift <= th.finfo(th.float32).max:
            raise ValueError(
                f"inverse_temperature={value} makes the longest Langevin step, alpha / 2 * w = {longest_drift}, "
                "overflow float32: lower inverse_temperature, langevin_step_size or sigma_max / sigma_min."
            )
        self._inverse_temperature = value
        self.drifts.copy_(drifts)

    @property
    def n_levels(self) -> int:
        """Number of noise levels ``L``; of step sizes, when the score is not noise-conditioned."""
        return len(self._step_sizes)

    @property
    def chain_length(self) -> int:
        """Steps in a chain, ``n_levels * n_steps``."""
        return self.n_levels * self.n_steps

    def forward(self, score: ScoreFunction, actions: th.Tensor, noise: th.Tensor | None) -> LangevinChain:
        """
        Run the chain from ``actions``.

        :param score: gradient of Q in the action
        :param actions: initial actions ``a_0``, shape (batch, action_dim)
        :param noise: ``z``, shape (chain_length, batch, action_dim), in the order of the chain;
            ``None`` for a chain without noise
        :return: the final actions and the norms of the scores
        """
        norms = []
        drifts, noise_scales = self.drifts.unbind(), self.noise_scales.unbind()
        for step in range(self.chain_length):
            level = step // self.n_steps
            gradient = score(actions, level)
            norm = th.linalg.vector_norm(gradient, dim=-1, keepdim=True)
            norms.append(norm)
            if self.normalize_score:
                gradient = gradient / (norm + SCORE_EPSILON)
            actions = actions + drifts[level] * gradient
            if noise is not None:
                actions = actions + noise_scales[level] * noise[step]
            actions = actions.clamp(-1.0, 1.0)
        return LangevinChain(actions, th.stack(norms))
