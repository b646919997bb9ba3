"""Noise-Conditioned Langevin Q-Learning."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch.nn import functional as F
from typing_extensions import Unpack

from sb3_lql.common.validation import check_count, check_positive
from sb3_lql.engine.algorithm import Batch, Loss
from sb3_lql.langevin.family import LangevinAlgorithm, LangevinArguments
from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.langevin.sampler import (
    LangevinSampler,
    annealed_step_sizes,
    geometric_schedule,
    radial_inverse_temperature,
)


class NCLQL(LangevinAlgorithm):
    """
    Noise-Conditioned Langevin Q-Learning (NC-LQL): one critic Q(s, a, sigma) learns the value landscape at many
    smoothing scales, and annealed Langevin dynamics walks from coarse to fine.

    Paper: https://arxiv.org/abs/2602.07873 (definition 2, equations 8 and 9, algorithm 2)

    :param inverse_temperature: ``w``, a factor on the length of steps along the normalised score; "auto" for the one of
        the target entropy (:func:`~sb3_lql.langevin.sampler.radial_inverse_temperature`)
    :param langevin_step_size: ``eps``, the step size at the last noise level; ``eps * sigma_l**2 / sigma_L**2`` before
    :param n_noise_levels: ``L``
    :param sigma_max: ``sigma_1``, noise scale of the first level, in units of actions scaled to [-1, 1]
    :param sigma_min: ``sigma_L``, noise scale of the last level; geometric in between
    :param n_langevin_steps: ``T``, steps of the chain at each noise level
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The shared arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = LangevinAlgorithm.defaults | dict(n_langevin_steps=2)

    def __init__(
        self,
        policy: str | type[LangevinPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-4,
        *,
        langevin_step_size: float = 1e-4,
        n_noise_levels: int = 10,
        sigma_max: float = 0.1,
        sigma_min: float = 0.001,
        **kwargs: Unpack[LangevinArguments],
    ) -> None:
        self.langevin_step_size = langevin_step_size
        self.n_noise_levels = n_noise_levels
        self.sigma_max = sigma_max
        self.sigma_min = sigma_min
        super().__init__(policy, env, learning_rate, **kwargs)

    def _check_arguments(self) -> None:
        check_positive("langevin_step_size", self.langevin_step_size)
        check_count("n_noise_levels", self.n_noise_levels)
        check_positive("sigma_max", self.sigma_max)
        check_positive("sigma_min", self.sigma_min)
        if self.sigma_max < self.sigma_min:
            raise ValueError(
                f"sigma_max={self.sigma_max} is below sigma_min={self.sigma_min}: noise is annealed from sigma_max "
                "down to sigma_min; swap them."
            )
        super()._check_arguments()

    def _first_inverse_temperature(self, value: float | str) -> float:
        if value != "auto":
            return super()._first_inverse_temperature(value)
        if not self.normalize_score:
            raise ValueError(
                "inverse_temperature='auto' is that of normalised scores: pass a number, or normalize_score=True."
            )
        return radial_inverse_temperature(get_action_dim(self.action_space), self._entropy_wanted())

    def _make_sampler(self) -> LangevinSampler:
        sigmas = geometric_schedule(self.sigma_max, self.sigma_min, self.n_noise_levels)
        return LangevinSampler(
            annealed_step_sizes(self.langevin_step_size, sigmas),
            self.n_langevin_steps,
            sigmas,
            inverse_temperature=self._first_inverse_temperature(self.inverse_temperature),
            normalize_score=self.normalize_score,
        )

    def _after_td_step(self, batch: Batch, q_values: th.Tensor, next_actions: th.Tensor) -> Iterator[Loss]:
        """
        The smoothing step (equation 9): Q at a noisy action and its level learns Q at the clean action.

        The last level, sigma_min, is learned by TD alone.
        """
        sigmas = self.policy.sampler.sigmas
        if len(sigmas) > 1:
            # One target for all critics, from before the TD step; the prediction comes after it
            target = q_values.mean(dim=0)
            actions = batch.actions.float()
            noise_level = th.randint(len(sigmas) - 1, (len(actions),), device=actions.device)
            noisy_actions = actions + sigmas[noise_level, None] * th.randn_like(actions)
            prediction = self.critic(batch.observations, noisy_actions, noise_level)
            smoothing_loss = F.mse_loss(prediction, target.expand_as(prediction)) * len(prediction)
            yield Loss("smoothing_loss", "critic", smoothing_loss)
