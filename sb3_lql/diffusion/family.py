"""The algorithms whose policy is a denoising chain, trained by a loss of their own beside the critics."""

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy

from sb3_lql.common.scaling import scale_from_unit
from sb3_lql.common.validation import check_count, check_number, check_positive
from sb3_lql.diffusion.policies import CnnPolicy, DiffusionPolicy, MlpPolicy, MultiInputPolicy
from sb3_lql.diffusion.process import ActionProcess, DiffusionProcess, linear_schedule
from sb3_lql.engine.algorithm import Batch, ChainAlgorithm, Loss
from sb3_lql.engine.arguments import DEFAULTS, SharedArguments

#: Updates of the actor between which its learning rate falls linearly.
DECAY = (25_000, 75_000)


class ActorBatch(NamedTuple):
    """A minibatch, whose fields are fields of this too, and the denoiser's own observations."""

    #: The minibatch, of whatever fields it has.
    batch: Batch
    #: What the denoiser learns from, in place of the minibatch's observations.
    actor_observations: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batch, name)


class DiffusionArguments(SharedArguments, total=False):
    """
    What the algorithms of this family take besides.

    :param learning_rate: of the critics, or a schedule of the remaining progress (from 1 to 0)
    :param n_denoising_steps: ``T``, steps of a chain
    :param policy_delay: update the denoiser every so many updates, the first one included
    :param actor_learning_rate: learning rate of the denoiser
    :param final_actor_learning_rate: what it falls to, linearly between the denoiser's 25,000th and 75,000th update;
        with ``None`` it stays
    :param n_action_samples: actions drawn per observation when acting and evaluating, and for TD targets, of which the
        best by the minimum critic is taken; the cost grows with it
    """

    n_denoising_steps: int
    policy_delay: int
    actor_learning_rate: float
    final_actor_learning_rate: float | None


class DiffusionAlgorithm(ChainAlgorithm):
    """
    Off-policy TD learning of critics, beside a denoiser whose chains are the policy.

    An algorithm is the denoiser's loss (:meth:`_actor_loss`), its chain (:meth:`_make_process`) and the noise on
    actions (:meth:`_exploration_scale`).

    :param policy_kwargs: see :class:`~sb3_lql.diffusion.policies.DiffusionPolicy`
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: Policy classes by name.
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    #: What policy classes derive from.
    policy_base: ClassVar[type[BasePolicy]] = DiffusionPolicy
    #: The arguments that are not passed, of :class:`DiffusionArguments`.
    defaults: ClassVar[dict[str, Any]] = DEFAULTS | dict(
        n_denoising_steps=20,
        policy_delay=2,
        actor_learning_rate=3e-4,
        final_actor_learning_rate=3e-5,
        n_action_samples=32,
        target_update_interval=2,
        reward_scale=0.2,
    )
    #: Names of arguments that are intervals, in updates.
    delays: ClassVar[tuple[str, ...]] = ("policy_delay",)
    #: Fewest steps of a chain.
    min_denoising_steps: ClassVar[int] = 2
    #: Standard deviation of ``x_T``.
    start_scale: ClassVar[float] = 0.5
    #: Whether the denoiser learns before the TD step, from critics that have not taken it.
    actor_learns_first: ClassVar[bool] = False
    #: Whether actions with noise are clipped to the box.
    clip_noisy_actions: bool = False

    #: The policy: critics, denoiser and their targets.
    policy: DiffusionPolicy
    # Arguments of the constructor, see DiffusionArguments
    n_denoising_steps: int
    policy_delay: int
    actor_learning_rate: float
    final_actor_learning_rate: float | None

    def _make_process(self) -> ActionProcess:
        """
        :return: the chain, and its schedule
        """
        return DiffusionProcess(linear_schedule(self.n_denoising_steps, 0.8))

    def _actor_loss(self, features: th.Tensor, batch: Batch) -> th.Tensor:
        """
        What the denoiser descends. An algorithm has this, or an :meth:`_after_td_step` of its own.

        :param features: of the minibatch's observations, or of the denoiser's own in an :class:`ActorBatch`; shape
            (batch, features_dim), without gradient
        :param batch: the minibatch
        :return: scalar, with its graph
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss for its denoiser: override _actor_loss.")

    def _actor_step(self, batch: Batch) -> Iterator[Loss]:
        """The denoiser's step, if it is due."""
        if self._is_due(self.policy_delay):
            observations = getattr(batch, "actor_observations", batch.observations)
            features = self.policy.features(observations).detach()
            yield Loss("actor_loss", "actor", self._actor_loss(features, batch))

    def _before_td_step(self, batch: Batch) -> Iterator[Loss]:
        if self.actor_learns_first:
            yield from self._actor_step(batch)

    def _after_td_step(self, batch: Batch, q_values: th.Tensor, next_actions: th.Tensor) -> Iterator[Loss]:
        if not self.actor_learns_first:
            yield from self._actor_step(batch)

    def _exploration_scale(self) -> th.Tensor | None:
        """Standard deviation of the noise on actions that are stored, and on those of targets, shape (), if any."""
        return None

    def _next_actions(self, batch: Batch) -> th.Tensor:
        return self._explore(
            self.policy.best_actions(self.policy.denoiser, self.policy.features(batch.next_observations))
        )

    def _explore(self, actions: th.Tensor) -> th.Tensor:
        """Actions with noise, which may leave the box unless it is clipped."""
        scale = self._exploration_scale()
        if scale is None:
            return actions
        actions = actions + scale * th.randn_like(actions)
        return actions.clamp(-1.0, 1.0) if self.clip_noisy_actions else actions

    @property
    def _diffusion(self) -> DiffusionProcess:
        """The policy's process, of an algorithm whose denoiser predicts noise."""
        return cast(DiffusionProcess, self.policy.process)

    def _cloning_loss(self, features: th.Tensor, actions: th.Tensor, weights: th.Tensor) -> th.Tensor:
        """
        The mean of ``w * (epsilon(s, x, t) - e) ** 2``, with ``x`` made of actions, ``t`` uniform and ``e ~ N(0, I)``.

        :param features: shape (batch, features_dim), without gradient
        :param actions: shape (batch, action_dim)
        :param weights: ``w``, shape (batch,)
        :return: scalar
        """
        t, noise = self._sample_times(len(actions)), th.randn_like(actions)
        noisy = self._diffusion.add_noise(actions, t, noise)
        return self._weighted_denoising_loss(features, noisy, t, noise, weights)

    def _weighted_denoising_loss(
        self, features: th.Tensor, noisy: th.Tensor, t: th.Tensor, noise: th.Tensor, weights: th.Tensor
    ) -> th.Tensor:
        """
        The mean of ``w * (epsilon(s, x, t) - e) ** 2`` over all draws, rows and coordinates.

        :param features: shape (batch, features_dim), without gradient
        :param noisy: ``x``, shape (batch, action_dim)
        :param t: times, shape (batch,)
        :param noise: ``e``, shape (batch, action_dim) or (n_draws, batch, action_dim)
        :param weights: ``w``, of the shape of ``e`` without its last dimension
        :return: scalar
        """
        predicted = self.policy.denoiser(features, noisy, t)
        loss: th.Tensor = (weights[..., None] * (predicted - noise).square()).mean()
        return loss

    def _sample_times(self, n: int) -> th.Tensor:
        return th.randint(self.policy.process.n_steps, (n,), device=self.device)

    def _is_due(self, interval: int) -> bool:
        # These authors count updates from zero
        return (self._n_updates - 1) % interval == 0

    def _update_constants(self) -> tuple[Any, ...]:
        return *super()._update_constants(), self.policy.n_action_samples

    def _learning_rates(self) -> dict[str, float]:
        first, final = self.actor_learning_rate, self.final_actor_learning_rate
        actor = first if final is None else first + self._decay() * (final - first)
        return super()._learning_rates() | {"actor": actor}

    def _decay(self) -> float:
        """How far the denoiser's learning rate has come from the first to the final one, from 0 to 1."""
        begin, end = DECAY
        return float(np.clip((self._n_updates / self.policy_delay - begin) / (end - begin), 0.0, 1.0))

    def _policy_arguments(self) -> dict[str, Any]:
        return super()._policy_arguments() | dict(process=self._make_process(), start_scale=self.start_scale)

    def _check_arguments(self) -> None:
        check_count("n_denoising_steps", self.n_denoising_steps, low=self.min_denoising_steps)
        check_positive("actor_learning_rate", self.actor_learning_rate)
        if self.final_actor_learning_rate is not None:
            check_number("final_actor_learning_rate", self.final_actor_learning_rate, low=0.0)
        super()._check_arguments()

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        action, scaled = super()._sample_action(learning_starts, action_noise, n_envs)
        if self.num_timesteps < self._warm_up(learning_starts) or self._exploration_scale() is None:
            return action, scaled
        scaled = self._explore(th.as_tensor(scaled, device=self.device)).cpu().numpy()
        return scale_from_unit(scaled, self.action_space, clip=self.clip_noisy_actions), scaled
