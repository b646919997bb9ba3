"""Q-Score Matching."""

import math
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import nn
from typing_extensions import Unpack

from sb3_lql.common.validation import check_count, check_number, check_positive
from sb3_lql.diffusion.family import DiffusionAlgorithm, DiffusionArguments
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.process import AncestralProcess, variance_preserving_schedule
from sb3_lql.engine.algorithm import Batch
from sb3_lql.networks.denoisers import FourierDenoiser
from sb3_lql.networks.layers import xavier_uniform


class QSM(DiffusionAlgorithm):
    """
    Q-Score Matching (QSM): the denoiser learns the critics' gradient in the action, so that its chains climb Q.

    At ``a_t = sqrt(alpha_bar_t) a + sqrt(1 - alpha_bar_t) z``, with ``a`` from the replay buffer and ``t`` uniform,
    the denoiser descends the mean over rows and coordinates of ``(epsilon(s, a_t, t) + M_q g)^2``. ``g`` is the mean of
    the critics' gradients at ``a_t`` itself, after the TD step. Actions that are stored or looked at
    by TD targets get noise N(0, 0.1^2) and are clipped.

    Paper: https://arxiv.org/abs/2312.11752

    Defaults are the authors' release, for the DeepMind Control Suite. Its chain has five steps, the last of which adds
    no noise, and evaluation keeps the noise of the others; here ``deterministic=True`` leaves that out too. ``M_q`` was
    tuned by task: 120 for quadruped and humanoid walk. The critics know clean actions only, and are evaluated at noisy
    ones, of which many lie outside of the box; the target has no factor of the noise level, as a score would. So the
    actions that come out are those of no stated distribution: ``M_q`` is not an inverse temperature.

    :param gradient_scale: ``M_q``, factor of the critics' gradient
    :param noise_scale: standard deviation of the noise on actions, which are then clipped to the box; 0 for none
    :param decay_updates: updates of the denoiser over which its learning rate falls along a cosine
    :param actor_learning_rate: learning rate of the denoiser at first
    :param final_actor_learning_rate: learning rate of the denoiser after ``decay_updates``
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DiffusionAlgorithm.defaults | dict(
        n_denoising_steps=5,
        policy_delay=1,
        final_actor_learning_rate=0.0,
        n_action_samples=1,
        target_update_interval=1,
        reward_scale=1.0,
    )
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = dict(
        net_arch=[512, 512],
        activation_fn=nn.ReLU,
        denoiser_class=FourierDenoiser,
        denoiser_kwargs=dict(activation_fn=nn.Mish),
        initialize=xavier_uniform,
    )
    #: Standard deviation of ``x_T``.
    start_scale: ClassVar[float] = 1.0
    #: Whether actions with noise are clipped to the box.
    clip_noisy_actions = True

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        *,
        gradient_scale: float = 50.0,
        noise_scale: float = 0.1,
        decay_updates: int = 2_000_000,
        **kwargs: Unpack[DiffusionArguments],
    ) -> None:
        self.gradient_scale = gradient_scale
        self.noise_scale = noise_scale
        self.decay_updates = decay_updates
        super().__init__(policy, env, learning_rate, **kwargs)

    def _check_arguments(self) -> None:
        check_positive("gradient_scale", self.gradient_scale)
        check_number("noise_scale", self.noise_scale, low=0.0)
        check_count("decay_updates", self.decay_updates)
        super()._check_arguments()

    def _make_process(self) -> AncestralProcess:
        return AncestralProcess(variance_preserving_schedule(self.n_denoising_steps))

    def _exploration_scale(self) -> th.Tensor | None:
        return th.full((), self.noise_scale, device=self.device) if self.noise_scale else None

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        actions = batch.actions.float()
        t = self._sample_times(len(actions))
        noisy = self._diffusion.add_noise(actions, t, th.randn_like(actions))
        target, weights = self._denoising_target(features, noisy), th.ones_like(noisy[:, 0])
        return self._weighted_denoising_loss(features, noisy, t, target, weights)

    @th.no_grad()
    def _denoising_target(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """``-M_q`` times the mean of the critics' gradients, of the shape of ``actions``."""
        gradient = self.critic.action_gradient(features)(actions, 0)  # of the sum
        return -self.gradient_scale / self.critic.n_critics * gradient

    def _decay(self) -> float:
        progress = min(self._n_updates / self.policy_delay / self.decay_updates, 1.0)
        return 0.5 * (1.0 - math.cos(math.pi * progress))

    def _update_constants(self) -> tuple[Any, ...]:
        return *super()._update_constants(), self.gradient_scale, self.noise_scale
