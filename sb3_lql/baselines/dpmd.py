"""Diffusion Policy Mirror Descent."""

from collections.abc import Iterator
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_lql.common.validation import check_flag
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.temperature import TemperatureAlgorithm, TemperatureArguments
from sb3_lql.engine.algorithm import Batch, Loss

#: Share of a minibatch in the running mean and deviation of Q.
RUNNING_SHARE = 0.001
#: Largest magnitude of a standardised Q.
LARGEST_SCORE = 3.0


class DPMD(TemperatureAlgorithm):
    """
    Diffusion Policy Mirror Descent (DPMD): the denoiser clones the policy's own best actions, with weights
    ``exp(clip(standardised Q, -3, 3) / alpha)``.

    The actions are those of the TD target, at the next observations. Defaults, delays and quirks are those of the
    authors' code: the critics take each step twice, and the standardised Q is ``Q - mean / std``, where
    ``(Q - mean) / std`` was meant.

    Paper: https://arxiv.org/abs/2502.00361

    :param standardize_as_meant: standardise Q as ``(Q - mean) / std``
    :param repeat_critic_step: let the critics take each step twice, the second time after the denoiser's
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        *,
        standardize_as_meant: bool = False,
        repeat_critic_step: bool = True,
        **kwargs: Unpack[TemperatureArguments],
    ) -> None:
        self.standardize_as_meant = standardize_as_meant
        self.repeat_critic_step = repeat_critic_step
        super().__init__(policy, env, learning_rate, **kwargs)

    def _check_arguments(self) -> None:
        check_flag("standardize_as_meant", self.standardize_as_meant)
        check_flag("repeat_critic_step", self.repeat_critic_step)
        super()._check_arguments()

    def _update_constants(self) -> tuple[Any, ...]:
        return *super()._update_constants(), self.standardize_as_meant, self.repeat_critic_step

    def _policy_arguments(self) -> dict[str, Any]:
        return super()._policy_arguments() | dict(running=dict(q_mean=0.0, q_std=1.0))

    def _after_td_step(self, batch: Batch, q_values: th.Tensor, next_actions: th.Tensor) -> Iterator[Loss]:
        features = self.policy.features(batch.next_observations).detach()
        weights = self._weights(features, next_actions)  # at every update, for the running mean and deviation
        if self._is_due(self.policy_delay):
            yield Loss("actor_loss", "actor", self._cloning_loss(features, next_actions, weights))
        if self.repeat_critic_step:
            self._guard.take_step(self.policy.optimizer)
        yield from self._temperature_step()

    @th.no_grad()
    def _weights(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param actions: shape (batch, action_dim)
        :return: shape (batch,); the running mean and deviation of Q then move
        """
        mean, std = self.policy.get_buffer("q_mean"), self.policy.get_buffer("q_std")
        q_values = self.critic.lowest_q_values(features, actions).squeeze(1)
        scores = (q_values - mean) / std if self.standardize_as_meant else q_values - mean / std
        weights = (scores.clamp(-LARGEST_SCORE, LARGEST_SCORE) / self.temperature).exp()
        mean.lerp_(q_values.mean(), RUNNING_SHARE)
        std.lerp_(q_values.std(correction=0), RUNNING_SHARE)
        return weights
