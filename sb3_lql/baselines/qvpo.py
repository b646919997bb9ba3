"""Q-weighted Variational Policy Optimization."""

from typing import Any, ClassVar, cast

import numpy as np
import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_lql.common.validation import check_count, check_number
from sb3_lql.diffusion.family import ActorBatch, DiffusionAlgorithm, DiffusionArguments
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.process import DiffusionProcess, cosine_schedule
from sb3_lql.engine.algorithm import Batch
from sb3_lql.engine.policy import best_of_samples
from sb3_lql.networks.denoisers import PositionalDenoiser
from sb3_lql.networks.layers import small_normal


class QVPO(DiffusionAlgorithm):
    """
    Q-weighted Variational Policy Optimization (QVPO): the denoiser clones the best of many of its own actions, the
    more so the better that is than the others, and uniformly random ones for entropy.

    At the observations of a minibatch of its own, the denoiser draws 64 actions each. It descends the mean of ``w
    (epsilon(s, x, t) - e)^2`` over B rows of the best one, with ``w = max q - mean q`` over the 64 and ``q`` the
    minimum of the critics after the TD step, and over 10 B rows of uniformly random actions at the same observations,
    with the weight ``c w``. ``c`` falls linearly with the environment steps. The TD target takes the best of 4 actions
    of the denoiser's running average, by the target critics.

    Paper: https://arxiv.org/abs/2405.16173

    Defaults are the authors' code with ``--weighted --aug``, also in that it takes time limits for ends of episodes:
    ``replay_buffer_kwargs=dict(handle_timeout_termination=True)`` does not. The paper's weights are cut at zero, which
    never acts here. Weights grow with the scale of Q: with ``reward_scale`` so does the denoiser's loss, and only the
    limit on the gradient and Adam hide it.

    :param n_action_samples: actions drawn per observation by ``predict``, of which the best is taken
    :param n_behavior_samples: likewise for actions that are stored, and for those of TD targets
    :param n_policy_samples: actions among which the denoiser's targets are chosen
    :param n_uniform_actions: uniformly random actions for each of these
    :param uniform_weight: ``c`` at first
    :param final_uniform_weight: what it does not fall below
    :param decay_steps: environment steps in which ``c`` would reach zero
    :param max_grad_norm: largest norm of a gradient
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DiffusionAlgorithm.defaults | dict(
        policy_delay=1,
        actor_learning_rate=1e-4,
        final_actor_learning_rate=None,
        target_update_interval=1,
        reward_scale=1.0,
        replay_buffer_kwargs=dict(handle_timeout_termination=False),
    )
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = dict(
        denoiser_class=PositionalDenoiser, initialize=small_normal, optimizer_kwargs=dict(eps=1e-5), fixed_noise=True
    )
    #: Standard deviation of ``x_T``.
    start_scale: ClassVar[float] = 1.0

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        *,
        n_behavior_samples: int = 4,
        n_policy_samples: int = 64,
        n_uniform_actions: int = 10,
        uniform_weight: float = 0.02,
        final_uniform_weight: float = 0.002,
        decay_steps: int = 1_000_000,
        max_grad_norm: float | None = 2.0,
        **kwargs: Unpack[DiffusionArguments],
    ) -> None:
        self.n_behavior_samples = n_behavior_samples
        self.n_policy_samples = n_policy_samples
        self.n_uniform_actions = n_uniform_actions
        self.uniform_weight = uniform_weight
        self.final_uniform_weight = final_uniform_weight
        self.decay_steps = decay_steps
        self.max_grad_norm = max_grad_norm
        super().__init__(policy, env, learning_rate, **kwargs)

    def _check_arguments(self) -> None:
        check_count("n_behavior_samples", self.n_behavior_samples)
        check_count("n_policy_samples", self.n_policy_samples, low=2)  # one has no advantage
        check_count("n_uniform_actions", self.n_uniform_actions, low=0)
        check_number("uniform_weight", self.uniform_weight, low=0.0)
        check_number("final_uniform_weight", self.final_uniform_weight, low=0.0)
        check_count("decay_steps", self.decay_steps)
        super()._check_arguments()

    def _make_process(self) -> DiffusionProcess:
        return DiffusionProcess(cosine_schedule(self.n_denoising_steps))

    def _policy_arguments(self) -> dict[str, Any]:
        return super()._policy_arguments() | dict(running=dict(uniform_weight=self.uniform_weight))

    def _sample(self, batch_size: int) -> Batch:
        batch, other = super()._sample(batch_size), super()._sample(batch_size)
        return cast(Batch, ActorBatch(batch, other.observations))

    def _next_actions(self, batch: Batch) -> th.Tensor:
        policy, critic, obs = self.policy, self.critic_target, batch.next_observations
        return policy.best_actions(
            policy.denoiser_target, policy.features(obs), self.n_behavior_samples, critic, critic.features(obs)
        )

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        actions, weights = self._targets(features)
        return self._cloning_loss(features.repeat(1 + self.n_uniform_actions, 1), actions, weights)

    @th.no_grad()
    def _targets(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """
        What the denoiser clones, and how much: the best actions, and then ``n_uniform_actions`` times as many others.

        :param features: shape (batch, features_dim)
        :return: actions, shape ((1 + n_uniform_actions) * batch, action_dim), and weights, without the last dimension
        """
        n = self.n_policy_samples
        rows = features.repeat_interleave(n, dim=0)
        actions = self.policy.sample(self.policy.denoiser, rows)
        q_values = self.critic.lowest_q_values(rows, actions)
        best = best_of_samples(actions, n, lambda: q_values)
        uniform = 2.0 * th.rand(self.n_uniform_actions * len(best), best.shape[1], device=best.device) - 1.0
        of_each = q_values.view(-1, n)
        weights = of_each.amax(dim=1) - of_each.mean(dim=1)
        of_uniform = (self.policy.get_buffer("uniform_weight") * weights).repeat(self.n_uniform_actions)
        return th.cat([best, uniform]), th.cat([weights, of_uniform])

    def _between_updates(self) -> None:
        share = 1.0 - self.num_timesteps / self.decay_steps
        weight = min(self.uniform_weight, max(self.final_uniform_weight, self.uniform_weight * share))
        self.policy.get_buffer("uniform_weight").fill_(weight)

    def _update_constants(self) -> tuple[Any, ...]:
        own = self.n_behavior_samples, self.n_policy_samples, self.n_uniform_actions
        return *super()._update_constants(), *own

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        self.policy.n_action_samples = self.n_behavior_samples
        try:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        finally:
            self.policy.n_action_samples = self.n_action_samples
