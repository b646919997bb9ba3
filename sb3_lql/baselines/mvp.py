"""Mean Velocity Policy."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import nn
from typing_extensions import Unpack

from sb3_lql.common.validation import check_number
from sb3_lql.diffusion.family import DiffusionAlgorithm, DiffusionArguments
from sb3_lql.diffusion.flow import MeanFlow, mean_flow_losses
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.engine.algorithm import Batch
from sb3_lql.networks.denoisers import MeanVelocity


class MVP(DiffusionAlgorithm):
    """
    Mean Velocity Policy (MVP; the paper's MFP), **unofficial**: a network predicts the mean velocity of a flow from
    noise to actions, which takes one step, and clones the best of its own actions.

    With ``u(x, t, r)`` the mean velocity between the times t and r, an action is ``e + u(e, 0, 1)`` with ``e ~
    N(0, I)``. Of 32, the critics choose the best, to act with, for the TD target, and for the network to learn: with
    ``a`` that one, ``x = (1 - t) e + t a`` and ``v = a - e``, the network descends (sg: without gradient)::

        |u(x, t, r) - sg(v + (r - t) du/dt)|^2 + velocity_weight |u(x, t, t) - v|^2

    where ``du/dt`` is the derivative along ``(v, 1, 0)``. No gradient of Q enters.

    Paper: https://arxiv.org/abs/2602.13810

    No code of the authors was found, and the paper is about offline-to-online learning with chunks of actions. Sizes,
    learning rates, number of actions and ``reward_scale`` are those with which the paper on NC-LQL compared it, which
    also lists 20 steps, though an action takes one. Unknown, and chosen here:

    - t and r are the smaller and the larger of two uniform numbers, which enter the network as they are
    - the noise ``e`` in the loss is drawn anew
    - there are two critics with targets, which choose what the network learns after the TD step
    - actions are clipped to the box, and have no further noise

    :param velocity_weight: weight of the second part of the loss; the paper found 0.5 and 0 worse
    :param n_denoising_steps: steps from noise to an action
    :param policy_delay: update the velocity network every so many updates, the first one included
    :param actor_learning_rate: learning rate of the velocity network
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DiffusionAlgorithm.defaults | dict(
        n_denoising_steps=1,
        policy_delay=1,
        actor_learning_rate=1e-4,
        final_actor_learning_rate=None,
        target_update_interval=1,
    )
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = dict(activation_fn=nn.GELU, denoiser_class=MeanVelocity)
    #: Fewest steps of a chain.
    min_denoising_steps: ClassVar[int] = 1
    #: Standard deviation of the noise from which a flow starts.
    start_scale: ClassVar[float] = 1.0

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-4,
        *,
        velocity_weight: float = 1.0,
        **kwargs: Unpack[DiffusionArguments],
    ) -> None:
        self.velocity_weight = velocity_weight
        super().__init__(policy, env, learning_rate, **kwargs)

    def _check_arguments(self) -> None:
        check_number("velocity_weight", self.velocity_weight, low=0.0)
        super()._check_arguments()

    def _make_process(self) -> MeanFlow:
        return MeanFlow(self.n_denoising_steps)

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        network = self.policy.denoiser
        actions = self.policy.best_actions(network, features)
        times = th.rand(2, len(actions), 1, device=actions.device)
        of_mean, of_instant = mean_flow_losses(
            network.given(features), actions, th.randn_like(actions), t=times.amin(dim=0), r=times.amax(dim=0)
        )
        return of_mean + self.velocity_weight * of_instant

    def _update_constants(self) -> tuple[Any, ...]:
        return *super()._update_constants(), self.velocity_weight
