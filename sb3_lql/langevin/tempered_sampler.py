"""Sampling exp(w Q) / Z by tempering, with an estimate of Z: tensors in, tensors out. Nothing here knows of RL."""

import math
from typing import Any, NamedTuple

import torch as th
from torch import nn

from sb3_lql.common.validation import check_number
from sb3_lql.langevin.particles import (
    Particles,
    ValueAndGradient,
    drift,
    effective_share,
    index_of,
    langevin_move,
    own_indices,
    systematic,
    take,
)

#: Acceptance to which step sizes adapt: the best for Metropolis-adjusted Langevin moves in many dimensions.
TARGET_ACCEPTANCE = 0.574
#: Rate at which they do, and how many times that in the first adaptations.
ADAPTATION_RATE, EARLY_FACTOR, N_EARLY = 0.05, 4.0, 50
#: Share of a minibatch in the running scale of the gradient.
SCALE_SHARE = 0.05
#: Least scale of a coordinate of the gradient, and largest logarithm of the ratio of two to which step sizes follow.
LEAST_SCALE, LARGEST_LOG_RATIO = 1e-6, math.log(100.0)
#: Largest step size, beyond which reflection makes all moves alike.
LARGEST_STEP = 4.0
#: Rate at which ``log w`` follows the entropy, for each action coordinate, and its largest change at once.
TEMPERATURE_RATE, LARGEST_TEMPERATURE_STEP = 0.05, 0.2
#: Range of ``w``, in which the ladder stays finite.
LEAST_INVERSE_TEMPERATURE, LARGEST_INVERSE_TEMPERATURE = 1e-3, 1e7
#: Particles are resampled where their effective number falls below this share of them.
LEAST_EFFECTIVE_SHARE = 0.5


class TemperedDraws(NamedTuple):
    """What chance decides."""

    #: Where particles begin, uniform on [-1, 1], shape (batch, n_particles, action_dim).
    starts: th.Tensor
    #: Standard normal, shape (n_rungs, batch, n_particles, action_dim).
    noise: th.Tensor
    #: Uniform on [0, 1), of acceptance, shape (n_rungs, batch, n_particles).
    acceptance: th.Tensor
    #: Uniform on [0, 1), of resampling, shape (n_rungs, batch, 1).
    resampling: th.Tensor
    #: Uniform on [0, 1), of the particle that is returned, shape (batch, 1).
    choice: th.Tensor


class TemperedChain(NamedTuple):
    """The particles at ``w``, and what was learned on the way."""

    #: One particle of each row, drawn by weight, shape (batch, action_dim).
    actions: th.Tensor
    #: All of them, shape (batch, n_particles, action_dim).
    particles: th.Tensor
    #: Logarithms of their weights, which sum to one in each row, shape (batch, n_particles).
    log_weights: th.Tensor
    #: Their values, shape (batch, n_particles).
    q_values: th.Tensor
    #: ``log(Z(w) / Z(0))``, shape (batch,): its exponential is unbiased for fixed step sizes and a fixed ladder.
    log_z: th.Tensor
    #: Mean acceptance of the moves at each rung, shape (n_rungs,).
    acceptance: th.Tensor
    #: Effective number of particles at the end, over their number, shape (batch,).
    effective_share: th.Tensor
    #: Logarithms of the step sizes of the moves, shape (n_rungs,).
    log_steps: th.Tensor
    #: Logarithms of the root mean square of the gradient's coordinates at the starts, shape (action_dim,).
    log_scales: th.Tensor
    #: ``w``, shape ().
    inverse_temperature: th.Tensor

    @property
    def mean_q(self) -> th.Tensor:
        """``E[Q]``, shape (batch,)."""
        return (self.log_weights.exp() * self.q_values).sum(dim=1)

    @property
    def divergence(self) -> th.Tensor:
        """``KL(pi || uniform) = w E[Q] - log(Z(w) / Z(0))``, shape (batch,)."""
        return self.inverse_temperature * self.mean_q - self.log_z

    @property
    def entropy(self) -> th.Tensor:
        """That of the actions in [-1, 1]^d, ``d log 2 - KL``, shape (batch,)."""
        return self.actions.shape[1] * math.log(2.0) - self.divergence


class TemperedSampler(nn.Module):
    """
    Sequential Monte Carlo in the box [-1, 1]^d, from the uniform law to exp(w Q) / Z.

    Particles begin uniform, which is exact at an inverse temperature of 0. It rises over rungs ``0 = u_0 < ... < u_K =
    w``. At each, particles are weighted by ``exp((u_k - u_{k-1}) Q)``, resampled where few of them carry the weight,
    and moved once by a Metropolis-adjusted Langevin step at ``u_k``, reflected at the box. Weights carry mass from mode
    to mode, which no chain that moves locally does.

    Rungs are geometric from where Q begins to matter, by the running scale of its gradient. Step sizes, one for each
    rung, adapt to an acceptance of 0.574. They are longer in coordinates in which Q changes little, and shorter in
    others. ``w`` may be learned. All of it is state.

    :param action_dim: number of action coordinates
    :param n_rungs: ``K``
    :param n_particles: particles of each row
    :param inverse_temperature: ``w``; where it is learned, at first
    :param target_entropy: mean entropy of actions at which ``w`` is kept; ``None`` to leave it as it is
    :raises ValueError: if ``w`` is out of range
    """

    #: ``log w`` where it is learned, shape ().
    log_learned: th.Tensor
    #: ``log w`` where it is given, shape (); no state, so that a file's agent can be loaded with another.
    log_given: th.Tensor
    #: Logarithms of the step sizes, shape (n_rungs,).
    log_steps: th.Tensor
    #: Logarithms of the scales of the gradient's coordinates, shape (action_dim,).
    log_scales: th.Tensor
    #: How often both were adapted, shape ().
    n_adaptations: th.Tensor

    def __init__(
        self,
        action_dim: int,
        n_rungs: int = 20,
        n_particles: int = 16,
        inverse_temperature: float = 1.0,
        target_entropy: float | None = None,
    ) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.n_rungs = n_rungs
        self.n_particles = n_particles
        self.target_entropy = target_entropy
        self.register_buffer("log_learned", th.tensor(_checked_log(inverse_temperature)))
        self.register_buffer("log_given", self.log_learned.clone(), persistent=False)
        self.register_buffer("log_scales", th.zeros(action_dim))
        self.register_buffer("log_steps", self._first_log_steps(self.log_scales))
        self.register_buffer("n_adaptations", th.zeros((), dtype=th.int64))

    @property
    def log_inverse_temperature(self) -> th.Tensor:
        """``log w``, shape ()."""
        return self.log_given if self.target_entropy is None else self.log_learned

    @property
    def inverse_temperature(self) -> float:
        """``w``; it may be changed at any time."""
        return self.log_inverse_temperature.exp().item()

    @inverse_temperature.setter
    def inverse_temperature(self, value: float) -> None:
        log_value = _checked_log(value)
        self.log_given.fill_(log_value)
        self.log_learned.fill_(log_value)

    @property
    def chain_length(self) -> int:
        """Steps in a chain, one after the other."""
        return self.n_rungs

    def draw_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """
        :return: shapes of what :meth:`draw` returns, by name; the size of the batch is "batch"
        """
        particles = ("batch", self.n_particles)
        return {
            "starts": (*particles, self.action_dim),
            "noise": (self.n_rungs, *particles, self.action_dim),
            "acceptance": (self.n_rungs, *particles),
            "resampling": (self.n_rungs, "batch", 1),
            "choice": ("batch", 1),
        }

    def draw(self, batch_size: int, n_particles: int | None = None) -> TemperedDraws:
        """
        :param batch_size: number of rows
        :param n_particles: particles of each row, if not those of the constructor
        :return: what a chain needs
        """
        shape, device = (batch_size, n_particles or self.n_particles), self.log_steps.device
        return TemperedDraws(
            starts=2.0 * th.rand((*shape, self.action_dim), device=device) - 1.0,
            noise=th.randn((self.n_rungs, *shape, self.action_dim), device=device),
            acceptance=th.rand((self.n_rungs, *shape), device=device),
            resampling=th.rand((self.n_rungs, batch_size, 1), device=device),
            choice=th.rand((batch_size, 1), device=device),
        )

    def ladder(self, log_scales: th.Tensor) -> th.Tensor:
        """
        ``u_k = w ((1 + r)^(k/K) - 1) / r`` with ``r = w G / 2``, for a gradient whose norm has the scale ``G``.

        :param log_scales: logarithms of those of its coordinates, whose squares sum to that of ``G``
        :return: shape (n_rungs + 1,), from 0 to ``w``
        """
        w = self.log_inverse_temperature.exp()
        reach = 0.5 * w * _norm(log_scales)
        share = th.arange(self.n_rungs + 1, device=w.device) / self.n_rungs
        return w * th.expm1(share * reach.log1p()) / reach

    def _first_log_steps(self, log_scales: th.Tensor) -> th.Tensor:
        """Those before any have adapted: long where Q does not matter yet."""
        return -(2.0 + self.ladder(log_scales)[1:] * _norm(log_scales)).log()

    def forward(self, value_and_gradient: ValueAndGradient, draws: TemperedDraws) -> TemperedChain:
        """
        :param value_and_gradient: Q and its gradient in the action
        :param draws: as :meth:`draw` returns them
        :return: the particles, and the estimates that come with them
        """
        n_particles = draws.starts.shape[1]

        actions = draws.starts
        q_values, gradients = value_and_gradient(actions)
        seen_scales = gradients.square().mean(dim=(0, 1)).sqrt().clamp(min=LEAST_SCALE).log()
        adapted = self.n_adaptations > 0
        log_scales = th.where(adapted, self.log_scales, seen_scales)
        rungs = self.ladder(log_scales)
        log_steps = th.where(adapted, self.log_steps, self._first_log_steps(seen_scales))

        log_weights = th.full_like(q_values, -math.log(n_particles))
        log_z = th.zeros_like(q_values[:, 0])
        acceptance = []
        for rung in range(self.n_rungs):
            u, steps = rungs[rung + 1], _by_coordinate(log_steps[rung], log_scales)
            unnormalized = log_weights + (u - rungs[rung]) * q_values
            increment = unnormalized.logsumexp(dim=1)
            log_z = log_z + increment
            log_weights = unnormalized - increment[:, None]

            few = effective_share(log_weights) < LEAST_EFFECTIVE_SHARE
            chosen = th.where(few[:, None], systematic(log_weights, draws.resampling[rung]), own_indices(log_weights))
            log_weights = th.where(few[:, None], -math.log(n_particles), log_weights)
            actions, gradients, q_values = take(actions, chosen), take(gradients, chosen), q_values.gather(1, chosen)

            moved, probability = langevin_move(
                value_and_gradient,
                Particles(actions, q_values, gradients),
                u,
                steps,
                draws.noise[rung],
                draws.acceptance[rung],
            )
            actions, q_values, gradients = moved
            acceptance.append(probability.mean())
        chosen = index_of(log_weights, draws.choice)
        return TemperedChain(
            actions=take(actions, chosen).squeeze(1),
            particles=actions,
            log_weights=log_weights,
            q_values=q_values,
            log_z=log_z,
            acceptance=th.stack(acceptance),
            effective_share=effective_share(log_weights),
            log_steps=log_steps,
            log_scales=seen_scales,
            inverse_temperature=self.log_inverse_temperature.exp(),
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Step sizes of another number of rungs are adapted anew."""
        saved = state_dict.get(f"{prefix}log_steps")
        if saved is not None and saved.shape != self.log_steps.shape:
            state_dict |= {f"{prefix}log_steps": self.log_steps, f"{prefix}n_adaptations": self.n_adaptations}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def climb(self, value_and_gradient: ValueAndGradient, starts: th.Tensor) -> th.Tensor:
        """
        The steps of a chain without noise, weights or rejection, and the best of where they end.

        :param value_and_gradient: Q and its gradient in the action
        :param starts: shape (batch, n_starts, action_dim)
        :return: shape (batch, action_dim)
        """
        actions = starts
        for u, log_step in zip(self.ladder(self.log_scales)[1:], self.log_steps, strict=True):
            _, gradients = value_and_gradient(actions)
            steps = _by_coordinate(log_step, self.log_scales)
            actions = (actions + drift(steps, u, gradients)).clamp(-1.0, 1.0)
        q_values, _ = value_and_gradient(actions)
        return take(actions, q_values.argmax(dim=1, keepdim=True)).squeeze(1)

    @th.no_grad()
    def adapt(self, chain: TemperedChain) -> None:
        """
        Let ladder and step sizes follow what a chain has seen, and ``w``, if there is a target, the entropy that it has
        estimated: ``log w += 0.05 (H - H_target) / d``, by at most 0.2.

        :param chain: as :meth:`forward` returns it
        """
        first, early = self.n_adaptations == 0, self.n_adaptations < N_EARLY
        rate = ADAPTATION_RATE * th.where(early, EARLY_FACTOR, 1.0)
        steps = (chain.log_steps + rate * (chain.acceptance - TARGET_ACCEPTANCE)).clamp(max=math.log(LARGEST_STEP))
        scales = th.where(first, chain.log_scales, self.log_scales.lerp(chain.log_scales, SCALE_SHARE))
        self.log_steps.copy_(steps)
        self.log_scales.copy_(scales)
        self.n_adaptations.add_(1)
        if self.target_entropy is not None:
            excess = (chain.entropy.mean() - self.target_entropy) / self.action_dim
            change = (TEMPERATURE_RATE * excess).clamp(-LARGEST_TEMPERATURE_STEP, LARGEST_TEMPERATURE_STEP)
            bounds = math.log(LEAST_INVERSE_TEMPERATURE), math.log(LARGEST_INVERSE_TEMPERATURE)
            self.log_learned.add_(change).clamp_(*bounds)


def _checked_log(inverse_temperature: float) -> float:
    bounds = LEAST_INVERSE_TEMPERATURE, LARGEST_INVERSE_TEMPERATURE
    return math.log(check_number("inverse_temperature", inverse_temperature, *bounds))


def _norm(log_scales: th.Tensor) -> th.Tensor:
    """The scale of a vector's norm, by those of its coordinates."""
    return (2.0 * log_scales).exp().sum().sqrt()


def _by_coordinate(log_step: th.Tensor, log_scales: th.Tensor) -> th.Tensor:
    """Step sizes in inverse proportion to the gradient's scales, with ``log_step`` for their mean logarithm."""
    bounded = log_scales.clamp(min=log_scales.max() - LARGEST_LOG_RATIO)
    return (log_step + bounded.mean() - bounded).exp().clamp(max=LARGEST_STEP)
