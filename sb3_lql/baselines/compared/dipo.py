"""DIPO as the paper very likely ran it."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import nn
from typing_extensions import Unpack

from sb3_lql.baselines.dipo import DIPO, DIPOArguments
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.process import DiffusionProcess, linear_schedule

#: Weight of the denoising loss.
LOSS_WEIGHT = 0.5


class ComparedDIPO(DIPO):
    """
    :class:`~sb3_lql.baselines.DIPO` as the paper very likely ran it: ReLU networks, no network for the time, the linear
    noise schedule, ``x_T`` of half the size, 30 steps for each minibatch of actions, and time limits that do not end
    episodes. The paper's table has Mish and a ``reward_scale`` of 0.2; the code that it likely ran, neither.

    The denoising loss has a factor of one half, the average follows at every second update, and networks begin as a
    truncated normal. Two things differ: the limit on the gradient's norm holds for both critics together, and not for
    each; second actions leave the replay buffer with their transitions, where that code keeps them all.

    :param action_grad_norm: largest norm of the gradient of all the minibatch's actions, whatever their dimension
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DIPO.defaults | dict(
        replay_buffer_kwargs=None, n_action_gradient_steps=30, action_grad_norm=0.16, actor_target_interval=2
    )
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = dict(
        activation_fn=nn.ReLU, denoiser_kwargs=dict(time_network=False, activation_fn=nn.ReLU)
    )
    #: Standard deviation of ``x_T``.
    start_scale: ClassVar[float] = 0.5
    #: Of the Adam that improves actions.
    action_epsilon: ClassVar[float] = 1e-8

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        **kwargs: Unpack[DIPOArguments],
    ) -> None:
        super().__init__(policy, env, learning_rate, **kwargs)

    def _make_process(self) -> DiffusionProcess:
        return DiffusionProcess(linear_schedule(self.n_denoising_steps, 0.3))

    def _largest_action_gradient(self) -> float:
        return self.action_grad_norm

    def _weighted_denoising_loss(
        self, features: th.Tensor, noisy: th.Tensor, t: th.Tensor, noise: th.Tensor, weights: th.Tensor
    ) -> th.Tensor:
        return super()._weighted_denoising_loss(features, noisy, t, noise, LOSS_WEIGHT * weights)
