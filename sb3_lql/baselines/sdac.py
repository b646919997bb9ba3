"""Soft Diffusion Actor-Critic."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_lql.common.validation import check_count
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.temperature import TemperatureAlgorithm, TemperatureArguments
from sb3_lql.engine.algorithm import Batch

#: Factor on ``Q / alpha`` in the exponent of the weights.
EXPONENT_SCALE = 5.0


class SDAC(TemperatureAlgorithm):
    """
    Soft Diffusion Actor-Critic (SDAC): the denoiser learns the noise in actions that are drawn from exp(Q / alpha), by
    weighing guesses of it with the critics.

    At a noisy action x of time t, each guess e of the noise points to an action; the denoiser learns the guesses, with
    weights ``softmax(5 min Q(s, x_0(x, e)) / alpha)`` over them. Defaults, delays and quirks are those of the authors'
    code: the critics are those before the TD step, and the clip of x_0 alters Q but not e.

    Paper: https://arxiv.org/abs/2502.00361

    :param n_guesses: guesses of the noise for each noisy action
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: Whether the denoiser learns before the TD step, from critics that have not taken it.
    actor_learns_first: ClassVar[bool] = True

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        *,
        n_guesses: int = 64,
        **kwargs: Unpack[TemperatureArguments],
    ) -> None:
        self.n_guesses = n_guesses
        super().__init__(policy, env, learning_rate, **kwargs)

    def _check_arguments(self) -> None:
        check_count("n_guesses", self.n_guesses)
        super()._check_arguments()

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        policy, process = self.policy, self._diffusion
        actions = self._explore(policy.best_actions(policy.denoiser, features))
        t = self._sample_times(len(actions))
        noisy = process.add_noise(actions, t, th.randn_like(actions))
        guesses = th.randn(self.n_guesses, *actions.shape, device=actions.device)
        weights = self._weights(features, process.remove_noise(noisy, t, guesses))
        return self._weighted_denoising_loss(features, noisy, t, guesses, weights)

    def _update_constants(self) -> tuple[Any, ...]:
        return *super()._update_constants(), self.n_guesses

    @th.no_grad()
    def _weights(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param actions: shape (n_guesses, batch, action_dim)
        :return: shape (n_guesses, batch), which sum to one over the guesses
        """
        q_values = self.critic.lowest_q_values(features.repeat(len(actions), 1), actions.flatten(0, 1))
        return (EXPONENT_SCALE / self.temperature * q_values.view(actions.shape[:2])).softmax(dim=0)
