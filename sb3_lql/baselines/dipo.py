"""Diffusion Policy for Model-free Online Reinforcement Learning."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast

import torch as th
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_lql.common.buffers import (
    ImprovedActions,
    ImprovedDictReplayBuffer,
    ImprovedNStepReplayBuffer,
    ImprovedReplayBuffer,
)
from sb3_lql.common.validation import check_count, check_positive
from sb3_lql.diffusion.family import ActorBatch, DiffusionAlgorithm, DiffusionArguments
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.process import DiffusionProcess, cosine_schedule
from sb3_lql.engine.algorithm import Batch
from sb3_lql.networks.denoisers import PositionalDenoiser
from sb3_lql.networks.layers import small_normal


class DIPOArguments(DiffusionArguments, total=False):
    """
    What DIPO takes besides.

    :param n_action_samples: actions drawn per observation when acting and evaluating, of which the best by the minimum
        critic is taken; TD targets look at one
    :param n_action_gradient_steps: steps of Adam for each minibatch of actions
    :param action_learning_rate: of these
    :param action_grad_norm: largest norm of the gradient of all the minibatch's actions, for each action coordinate
    :param actor_target_interval: update the denoiser's running average every so many updates, the first one included
    :param max_grad_norm: largest norm of a gradient
    :param replay_buffer_class: one with second actions, such as ``ImprovedReplayBuffer``; that is the default
    """

    n_action_gradient_steps: int
    action_learning_rate: float
    action_grad_norm: float
    actor_target_interval: int
    max_grad_norm: float | None


class DIPO(DiffusionAlgorithm):
    """
    Diffusion Policy for Model-free Online RL (DIPO): stored actions climb Q, and the denoiser clones them.

    Beside each transition's own action the replay buffer keeps a second one, the same at first. Each update draws a
    minibatch of these, on its own, lets them climb the smallest critic for some steps of Adam that begin anew each
    time, stores them, and lets the denoiser descend the mean of ``(epsilon(s, x, t) - e)^2`` with ``x`` made of them.
    The TD target looks at one action of the denoiser's running average; the critics are those after the TD step.

    Paper: https://arxiv.org/abs/2305.13122

    Defaults are the authors' code, also in that it takes time limits for ends of episodes:
    ``replay_buffer_kwargs=dict(handle_timeout_termination=True)`` does not. Its values for five MuJoCo tasks are in
    ``hyperparams/dipo.yml``. Adam does not know the scale of a gradient, so that an action moves by about
    ``action_learning_rate`` in each coordinate and step, however small its advantage: ``action_grad_norm`` hardly
    matters. Evaluation there starts chains without noise at random; ``deterministic=True`` starts them at fixed points.

    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DiffusionAlgorithm.defaults | dict(
        n_denoising_steps=100,
        policy_delay=1,
        final_actor_learning_rate=None,
        n_action_samples=1,
        target_update_interval=1,
        reward_scale=1.0,
        replay_buffer_kwargs=dict(handle_timeout_termination=False),
        n_action_gradient_steps=20,
        action_learning_rate=0.03,
        action_grad_norm=0.1,
        actor_target_interval=1,
        max_grad_norm=2.0,
    )
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = dict(
        denoiser_class=PositionalDenoiser, initialize=small_normal, optimizer_kwargs=dict(eps=1e-5)
    )

    #: Standard deviation of ``x_T``.
    start_scale: ClassVar[float] = 1.0
    #: Of the Adam that improves actions.
    action_epsilon: ClassVar[float] = 1e-5

    # Arguments of the constructor, see DIPOArguments
    n_action_gradient_steps: int
    action_learning_rate: float
    action_grad_norm: float
    actor_target_interval: int

    _improved: th.Tensor

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        **kwargs: Unpack[DIPOArguments],
    ) -> None:
        super().__init__(policy, env, learning_rate, **kwargs)

    def _check_arguments(self) -> None:
        for name in ("n_action_gradient_steps", "actor_target_interval"):
            check_count(name, getattr(self, name))
        for name in ("action_learning_rate", "action_grad_norm"):
            check_positive(name, getattr(self, name))
        super()._check_arguments()

    def _check_replay_buffer_class(self, buffer_class: type[ReplayBuffer]) -> None:
        if not issubclass(buffer_class, ImprovedActions):
            raise ValueError(
                f"replay_buffer_class={buffer_class.__name__} keeps no second action, which DIPO improves: leave it "
                "out, or derive it from sb3_lql.common.buffers.ImprovedActions too."
            )

    def _default_replay_buffer_class(self, n_steps: int) -> type[ReplayBuffer]:
        usual = super()._default_replay_buffer_class(n_steps)
        if issubclass(usual, DictReplayBuffer):
            return ImprovedDictReplayBuffer
        return ImprovedNStepReplayBuffer if issubclass(usual, NStepReplayBuffer) else ImprovedReplayBuffer

    def _make_process(self) -> DiffusionProcess:
        return DiffusionProcess(cosine_schedule(self.n_denoising_steps))

    def _target_interval(self, name: str) -> int:
        return self.actor_target_interval if name == "denoiser" else super()._target_interval(name)

    def _sample(self, batch_size: int) -> Batch:
        batch = super()._sample(batch_size)
        other = cast(ImprovedActions, self.replay_buffer).sample_improved(batch_size, env=self._vec_normalize_env)
        self._where = other.where
        # In place: a recorded update finds them where they are
        if not hasattr(self, "_improved") or self._improved.shape != other.actions.shape:
            self._improved = th.empty_like(other.actions)
        self._improved.copy_(other.actions)
        return cast(Batch, ActorBatch(batch, other.observations))

    def _next_actions(self, batch: Batch) -> th.Tensor:
        return self.policy.sample(self.policy.denoiser_target, self.policy.features(batch.next_observations))

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        actions = self._improve(features)
        return self._cloning_loss(features, actions, th.ones_like(actions[:, 0]))

    @th.no_grad()
    def _improve(self, features: th.Tensor) -> th.Tensor:
        """Let the minibatch's second actions climb the smallest critic, and return them."""
        look = self.critic.lowest_value_and_gradient(features)
        improved = climb(
            lambda actions: look(actions)[1],
            self._improved,
            n_steps=self.n_action_gradient_steps,
            learning_rate=self.action_learning_rate,
            largest_norm=self._largest_action_gradient(),
            epsilon=self.action_epsilon,
        )
        usable = improved.isfinite() & (self._guard.healthy > 0)
        return self._improved.copy_(th.where(usable, improved, self._improved))

    def _largest_action_gradient(self) -> float:
        return self.action_grad_norm * self.policy.action_dim

    def _between_updates(self) -> None:
        cast(ImprovedActions, self.replay_buffer).improve(self._where, self._improved.cpu().numpy())

    def _update_state(self) -> Iterator[th.Tensor]:
        yield from super()._update_state()
        yield self._improved

    def _update_constants(self) -> tuple[Any, ...]:
        own = self.n_action_gradient_steps, self.action_learning_rate, self.action_grad_norm
        return *super()._update_constants(), *own

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_where", "_improved"]


def climb(
    gradient: Callable[[th.Tensor], th.Tensor],
    actions: th.Tensor,
    *,
    n_steps: int,
    learning_rate: float,
    largest_norm: float,
    epsilon: float,
) -> th.Tensor:
    """
    Ascend by Adam, clipped to the box after each step.

    :param gradient: from actions to gradients
    :param actions: actions to begin with, shape (batch, action_dim)
    :param n_steps: number of steps
    :param learning_rate: length of a step
    :param largest_norm: a gradient that is longer, over all actions together, is shortened to that
    :param epsilon: of Adam
    :return: better actions, in [-1, 1], shape (batch, action_dim)
    """
    decay, square_decay = 0.9, 0.999
    mean, square = th.zeros_like(actions), th.zeros_like(actions)
    for step in range(1, n_steps + 1):
        slope = gradient(actions)
        slope = slope * (largest_norm / (slope.norm() + 1e-6)).clamp(max=1.0)
        mean = mean.lerp(slope, 1.0 - decay)
        square = square.lerp(slope.square(), 1.0 - square_decay)
        scale = (square / (1.0 - square_decay**step)).sqrt() + epsilon
        actions = (actions + learning_rate * mean / (1.0 - decay**step) / scale).clamp(-1.0, 1.0)
    return actions
