"""Action values over the bandit's actions: those of a perfect critic, and those that were learned."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch as th
from torch.special import ndtr

from sb3_lql.benchmark.bandit.distributions import grid
from sb3_lql.envs.multimodal_bandit import BOUND, HIGHEST_DENSITY, MODE_STD, MODES, WEIGHTS
from sb3_lql.langevin.family import LangevinAlgorithm
from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.langevin.sampler import LangevinSampler, ScoreFunction
from sb3_lql.langevin.tempered_policies import TemperedPolicy


@dataclass(frozen=True)
class Landscape:
    """Q(a, sigma_l) and its gradient in the action, for a Langevin chain in the critics' box [-1, 1]²."""

    #: Values of shape (n_actions,) from (actions, level).
    q_value: Callable[[th.Tensor, int], th.Tensor]
    score: ScoreFunction
    #: Noise scale of each level, float64, shape (n_levels,); the last level stands for Q itself.
    sigmas: th.Tensor

    @property
    def last_level(self) -> int:
        """The level of Q itself."""
        return len(self.sigmas) - 1

    @th.no_grad()
    def on_grid(self, level: int) -> np.ndarray:
        """Values at the points of :func:`~sb3_lql.benchmark.bandit.distributions.grid`, shape (400, 400)."""
        points = grid()
        actions = th.as_tensor(points.reshape(-1, 2) / BOUND, dtype=th.float32)
        return self.q_value(actions, level).numpy().reshape(points.shape[:2])


def learned_landscape(policy: LangevinPolicy | TemperedPolicy) -> Landscape:
    """
    :param policy: a policy trained on the bandit
    :return: what its actions climb: the sum of its critics, or of a tempered policy the smallest
    """
    critic, tempered = policy.critic, isinstance(policy, TemperedPolicy)
    critic.set_training_mode(False)
    noise_conditioned = _levels(policy) is not None
    bfloat16 = isinstance(policy, LangevinPolicy) and policy.bfloat16_chain

    def observations(actions: th.Tensor) -> th.Tensor:
        return th.zeros(len(actions), 1, device=policy.device)

    def q_value(actions: th.Tensor, level: int) -> th.Tensor:
        noise_level = level if noise_conditioned else None
        q_values: th.Tensor = critic(observations(actions), actions.to(policy.device), noise_level)
        return (q_values.amin(dim=0) if tempered else q_values.sum(dim=0)).squeeze(1).to(actions.device)

    @th.no_grad()
    def score(actions: th.Tensor, level: int) -> th.Tensor:
        features = critic.features(observations(actions))
        if tempered:
            return critic.lowest_value_and_gradient(features)(actions.to(policy.device))[1].to(actions.device)
        return critic.action_gradient(features, bfloat16)(actions.to(policy.device), level).to(actions.device)

    return Landscape(q_value, score, noise_scales(policy))


def noise_scales(policy: LangevinPolicy | TemperedPolicy) -> th.Tensor:
    """Noise scale of each of the critic's levels, float64, shape (n_levels,); a single zero without levels."""
    sigmas = _levels(policy)
    return th.zeros(1, dtype=th.float64) if sigmas is None else sigmas.double().cpu()


def _levels(policy: LangevinPolicy | TemperedPolicy) -> th.Tensor | None:
    """Noise scales of the critic's levels, if it has any."""
    # Without noise conditioning, a sampler's levels are steps of different sizes on one Q
    sampler = policy.sampler
    return sampler.sigmas if isinstance(sampler, LangevinSampler) and sampler.noise_conditioned else None


def perfect_landscape(model: LangevinAlgorithm) -> Landscape:
    """What the model's :func:`learned_landscape` should be: in scaled rewards too, and as many critics as it sums."""
    n_critics = 1 if isinstance(model.policy, TemperedPolicy) else model.policy.n_critics
    return exact_landscape(noise_scales(model.policy), scale=n_critics * model.reward_scale)


def exact_landscape(sigmas: th.Tensor, scale: float = 1.0) -> Landscape:
    """
    What a perfect critic learns from uniformly random actions, times ``scale``: equation 7 at all levels but the last,
    which equation 8 trains on clean actions.
    """
    scales = [*sigmas[:-1].tolist(), 0.0]

    def q_value(actions: th.Tensor, level: int) -> th.Tensor:
        return scale * smoothed_reward(actions, scales[level])

    return landscape_of(q_value, sigmas)


def landscape_of(q_value: Callable[[th.Tensor, int], th.Tensor], sigmas: th.Tensor) -> Landscape:
    """The landscape of these values, with the gradient of autograd."""

    def score(actions: th.Tensor, level: int) -> th.Tensor:
        gradient: th.Tensor = th.func.grad(lambda a: q_value(a, level).sum())(actions)
        return gradient

    return Landscape(q_value, score, sigmas)


def smoothed_reward(actions: th.Tensor, sigma: float) -> th.Tensor:
    """
    Equation 7 in closed form: ``E[reward(a) | a~]``, where ``a`` is uniform over the box [-1, 1]² and ``a~ ~ N(a,
    sigma² I)``; the reward itself for a sigma of 0. ``actions`` are ``a~``, shape (n_actions, 2); values have shape
    (n_actions,).

    A mode's Gaussian times the noise's is a Gaussian again, of which the box cuts a part off.
    """
    centres = actions.new_tensor(MODES / BOUND)
    std = MODE_STD / BOUND
    variance = std**2 + sigma**2
    factors = std / math.sqrt(variance) * th.exp(-(actions[:, None] - centres).square() / (2 * variance))
    if sigma > 0:
        posterior_mean = (centres * sigma**2 + actions[:, None] * std**2) / variance
        posterior_std = std * sigma / math.sqrt(variance)
        factors = factors * _mass_within_box(posterior_mean, posterior_std) / _mass_within_box(actions, sigma)[:, None]
    return (actions.new_tensor(WEIGHTS) * factors.prod(dim=-1)).sum(dim=-1) / HIGHEST_DENSITY


def _mass_within_box(mean: th.Tensor, std: float) -> th.Tensor:
    """Probability that a coordinate of a Gaussian lies in [-1, 1], of the shape of ``mean``."""
    mass: th.Tensor = ndtr((1 - mean) / std) - ndtr((-1 - mean) / std)
    return mass
