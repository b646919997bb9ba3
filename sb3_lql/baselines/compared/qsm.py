"""QSM as the paper very likely ran it."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import nn
from typing_extensions import Unpack

from sb3_lql.diffusion.family import DiffusionAlgorithm, DiffusionArguments
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.process import ActionProcess, NetworkFunction
from sb3_lql.engine.algorithm import Batch
from sb3_lql.networks.denoisers import Score


class ScoreChain(ActionProcess):
    """
    A chain that climbs a score: for k = 0 ... K-1, with ``d = 1 - k / K``, ``x <- clip(x + d / 2 score(x) + sqrt(d) z,
    ±1)``. The last noise still has a standard deviation of ``sqrt(1 / K)``.

    :param n_steps: ``K``
    """

    def step(self, network: NetworkFunction, x: th.Tensor, k: int, noise: th.Tensor | None) -> th.Tensor:
        """
        :param network: the score, as a function of actions, and of a time that it ignores
        :param x: actions, shape (batch, action_dim)
        :param k: steps that were made before this one
        :param noise: ``z``, shape (batch, action_dim); ``None`` for none
        :return: actions in [-1, 1], shape (batch, action_dim)
        """
        size = 1.0 - k / self.n_steps
        x = x + 0.5 * size * network(x, k)
        return (x if noise is None else x + size**0.5 * noise).clamp(-1.0, 1.0)


class ComparedQSM(DiffusionAlgorithm):
    """
    QSM as the paper very likely ran it: no diffusion. A network learns the critics' gradient at actions of the replay
    buffer, and Langevin chains follow it.

    The network descends the mean over rows and coordinates of ``(score(s, a) - g)^2``, with ``g`` the gradient of the
    smaller of the critics after the TD step. Actions, those of TD targets too, are the best of 32 chains.
    :class:`~sb3_lql.baselines.QSM` is the published form. *Defects:*

    - the noise does not vanish: the last step alone scatters actions by 0.22 of the half box
    - the gradient is learned at stored actions only, and chains begin elsewhere

    The paper's table has a ``reward_scale`` of 0.2; the code that it likely ran has none.

    Paper: https://arxiv.org/abs/2312.11752

    :param n_denoising_steps: ``K``, steps of a chain
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DiffusionAlgorithm.defaults | dict(
        policy_delay=1, target_update_interval=1, reward_scale=1.0
    )
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = dict(activation_fn=nn.ReLU, denoiser_class=Score)
    #: Standard deviation of the point from which a chain starts.
    start_scale: ClassVar[float] = 1.0

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        **kwargs: Unpack[DiffusionArguments],
    ) -> None:
        super().__init__(policy, env, learning_rate, **kwargs)

    def _make_process(self) -> ScoreChain:
        return ScoreChain(self.n_denoising_steps)

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        actions = batch.actions.float()
        with th.no_grad():
            _, gradient = self.critic.lowest_value_and_gradient(features)(actions)
        loss: th.Tensor = (self.policy.denoiser(features, actions, 0) - gradient).square().mean()
        return loss
