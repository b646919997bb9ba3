"""QVPO as the paper very likely ran it."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_lql.diffusion.family import DiffusionAlgorithm, DiffusionArguments
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.process import DiffusionProcess, linear_schedule
from sb3_lql.engine.algorithm import Batch, Loss
from sb3_lql.engine.optimization import frozen

#: Uniformly random actions for each of the policy's own.
N_UNIFORM_ACTIONS = 10
#: Values of Q below which an action has no weight.
LEAST_Q = 1.0
#: The weight ``c`` of random actions: in the first update, in the second, at last, and updates in which it would fall
#: from the second to zero.
FIRST_WEIGHT, UNIFORM_WEIGHT, FINAL_WEIGHT, DECAY_UPDATES = math.log(5.0), 0.02, 0.002, 200_000


class ComparedQVPO(DiffusionAlgorithm):
    """
    QVPO as the paper very likely ran it. :class:`~sb3_lql.baselines.QVPO` is the published form.

    With ``a`` the best of 32 actions of the denoiser at each observation, and ``q = min Q(s, a)``, the denoiser
    descends the mean of ``w (epsilon(s, x, t) - e)^2`` over B rows of these, with ``w = q [q > 1]``, and 10 B rows of
    uniformly random actions, with ``c w``. *Defects:*

    - where Q is below 1, as with negative rewards, the denoiser learns nothing
    - ``w`` is not detached: its gradient goes back through the chains and lowers Q of the policy's own actions
    - the observations of the 10 B rows are no observations: all their numbers are shuffled together, and so are weights
    - ``c`` is ``log 5`` in the first update, and 0.02 in the next
    - the critics take each step twice, the second time after the denoiser's

    Paper: https://arxiv.org/abs/2405.16173

    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DiffusionAlgorithm.defaults | dict(final_actor_learning_rate=5e-5)
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = dict(fixed_noise=True)

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        **kwargs: Unpack[DiffusionArguments],
    ) -> None:
        super().__init__(policy, env, learning_rate, **kwargs)

    def _make_process(self) -> DiffusionProcess:
        return DiffusionProcess(linear_schedule(self.n_denoising_steps, 0.3))

    def _policy_arguments(self) -> dict[str, Any]:
        own = dict(acts_with_target=True, running=dict(uniform_weight=FIRST_WEIGHT))
        return super()._policy_arguments() | own

    def _after_td_step(self, batch: Batch, q_values: th.Tensor, next_actions: th.Tensor) -> Iterator[Loss]:
        yield from super()._after_td_step(batch, q_values, next_actions)
        self._guard.take_step(self.policy.optimizer)

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        actions, weights = self._best(features)
        n, numel = N_UNIFORM_ACTIONS * len(features), N_UNIFORM_ACTIONS * features.numel()
        shuffled = features.repeat(N_UNIFORM_ACTIONS, 1).view(-1)[th.randperm(numel, device=self.device)]
        of_shuffled = weights.repeat(N_UNIFORM_ACTIONS)[th.randperm(n, device=self.device)]
        uniform = 2.0 * th.rand(n, actions.shape[1], device=self.device) - 1.0
        return self._cloning_loss(
            th.cat([features, shuffled.view(n, -1)]),
            th.cat([actions.detach(), uniform]),
            th.cat([weights, self.policy.get_buffer("uniform_weight") * of_shuffled]),
        )

    def _best(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        :param features: shape (batch, features_dim)
        :return: the best of the denoiser's actions, shape (batch, action_dim), and their weights, shape (batch,), both
            with gradients through the chains
        """
        policy, n = self.policy, self.n_action_samples
        rows = features.repeat_interleave(n, dim=0)
        start, noise = policy.draw(rows)
        with th.no_grad():
            drawn = policy.denoise(policy.denoiser, rows, start, noise)
            best = self.critic.lowest_q_values(rows, drawn).view(-1, n).argmax(dim=1)
        # Those again, of the same draws: the others would get no gradient
        chosen = best + n * th.arange(len(features), device=best.device)
        actions = policy.denoise(policy.denoiser, features, start[chosen], noise[:, chosen])
        with frozen(self.critic):
            q_values = self.critic.lowest_q_values(features, actions).squeeze(1)
        return actions, q_values * (q_values > LEAST_Q)

    def _between_updates(self) -> None:
        weight = UNIFORM_WEIGHT * (1.0 - (self._n_updates - 1) / DECAY_UPDATES)
        self.policy.get_buffer("uniform_weight").fill_(max(FINAL_WEIGHT, weight))
