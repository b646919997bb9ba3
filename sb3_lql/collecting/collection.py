"""Off-policy collection: resumable, and optionally overlapped with updates."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch as th
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql.collecting.checked_env import CheckedVecEnv
from sb3_lql.collecting.interrupts import sigterm_interrupts
from sb3_lql.collecting.threads import threads_for
from sb3_lql.collecting.workers import abandon_step
from sb3_lql.common.buffers import end_episodes, n_stored
from sb3_lql.common.compatibility import check_wrappers
from sb3_lql.common.validation import LARGEST_REWARD, check_number

SelfCollecting = TypeVar("SelfCollecting", bound="CollectionMixin")


class CollectionMixin(OffPolicyAlgorithm):
    """
    SB3's off-policy collection, without a second random warm-up when a trained model resumes: SB3 would act randomly
    for another ``learning_starts`` steps, without any updates.

    With ``overlap_updates``, the updates that follow a rollout run while the environments take the first step of the
    next one. That step's action is then chosen before those updates instead of after them.
    """

    #: Whether updates run while environments step.
    overlap_updates = False
    #: Factor on rewards in updates.
    reward_scale = 1.0

    #: Whether ``learn`` is running, and the arguments of a postponed ``train``: (gradient_steps, batch_size).
    _learning = False
    _postponed: tuple[int, int] | None = None
    _checked_env: CheckedVecEnv | None = None

    #: Added to the user's ``learning_starts`` while a trained model resumes.
    _learning_starts_shift = 0

    @property
    def learning_starts(self) -> int:
        """Steps before the first update; while a trained model resumes, the step of its first update."""
        # The user's value is stored under its own name, where SB3's save and load look for it
        value: int = self.__dict__["learning_starts"] + self._learning_starts_shift
        return value

    @learning_starts.setter
    def learning_starts(self, value: int) -> None:
        self.__dict__["learning_starts"] = value
        self._learning_starts_shift = 0

    @staticmethod
    def _wrap_env(env: GymEnv | str, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """SB3's, which also lets ``load`` and ``set_env`` take an environment's id, as the constructor does."""
        wrapped = OffPolicyAlgorithm._wrap_env(maybe_make_env(env, verbose), verbose, monitor_wrapper)
        check_wrappers(wrapped)
        return wrapped

    def learn(
        self: SelfCollecting,
        total_timesteps: float,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfCollecting:
        """
        SB3's ``learn``. A trained model acts with its critic from the first step, and its updates resume once the
        replay buffer holds ``learning_starts`` transitions.

        :param total_timesteps: environment steps, an integer or a float such as 5e6
        :param callback: called at every step
        :param log_interval: episodes between two logs; ``None`` for none
        :param tb_log_name: name of the run, by default the algorithm's
        :param reset_num_timesteps: start counting steps at zero
        :param progress_bar: show a progress bar
        :return: itself
        :raises ValueError: if ``total_timesteps`` is negative or not finite, or if a loss was not finite
        :raises KeyboardInterrupt: for Ctrl-C, and for SIGTERM unless the process handles it itself
        """
        total_timesteps = int(check_number("total_timesteps", total_timesteps, low=0))
        with (
            sigterm_interrupts(),
            threads_for(self.policy, self.batch_size),
            self._without_second_warm_up(reset_num_timesteps),
            # An interrupt while entering or leaving no_grad would leave gradients disabled
            th.enable_grad(),
        ):
            self._learning = True
            try:
                return super().learn(
                    total_timesteps=total_timesteps,
                    callback=callback,
                    log_interval=log_interval,  # type: ignore[arg-type]
                    tb_log_name=tb_log_name or type(self).__name__,
                    reset_num_timesteps=reset_num_timesteps,
                    progress_bar=progress_bar,
                )
            except BaseException:
                # The environments may be a step ahead of the replay buffer: make the next `learn` reset them
                self._last_obs = None
                if self.env is not None:
                    abandon_step(self.env)
                for each in _interruptible(callback):
                    each.on_interruption()
                raise
            finally:
                self._learning = False
                self._postponed = None

    def _setup_learn(
        self, total_timesteps: int, callback: MaybeCallback = None, reset_num_timesteps: bool = True, *args: Any
    ) -> tuple[int, BaseCallback]:
        if (reset_num_timesteps or self._last_obs is None) and self.replay_buffer is not None:
            end_episodes(self.replay_buffer)
        env = self._checked(self.env)
        with env.guarded_statistics():
            result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args)
            env.check_observations(self._last_obs)
        return result

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *args: Any, **kwargs: Any) -> RolloutReturn:
        """
        SB3's ``collect_rollouts``, overlapped with postponed updates. Invalid values raise before they are stored.

        :param env: the environments
        :param callback: called at each step
        :param args: SB3's other arguments
        :param kwargs: SB3's other arguments
        :return: number of steps and episodes, and whether to continue
        :raises ValueError: if actions, observations or rewards are not finite, or huge
        :raises RuntimeError: if an environment's process has died
        """
        rollout = super().collect_rollouts(self._checked(env), callback, *args, **kwargs)
        if not rollout.continue_training:
            self._store_last_step(callback.locals)
        return rollout

    def _store_last_step(self, step: dict[str, Any]) -> None:
        """
        Store the step at which a callback stopped SB3, which returns without storing it: the next ``learn`` would store
        a transition from before this step to after the next one. ``step`` holds the local variables of SB3's loop.
        """
        infos, dones, noise = step["infos"], step["dones"], step["action_noise"]
        self._update_info_buffer(infos, dones)
        self._store_transition(
            step["replay_buffer"], step["buffer_actions"], step["new_obs"], step["rewards"], dones, infos
        )
        for index in np.flatnonzero(dones):
            self._episode_num += 1
            if noise is not None:
                noise.reset(**(dict(indices=[index]) if self.n_envs > 1 else {}))

    def _checked(self, env: VecEnv | None) -> CheckedVecEnv:
        if env is None:
            raise ValueError("This model has no environments to learn in: call set_env first, or pass env to load.")
        if self._checked_env is None or self._checked_env.venv is not env:
            self._checked_env = CheckedVecEnv(env, self.train_postponed)
        self._checked_env.largest_reward = LARGEST_REWARD / self.reward_scale
        return self._checked_env

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """
        Update critics and targets on minibatches from the replay buffer: now, or with ``overlap_updates`` inside
        ``learn``, during the environments' next step or at the next call.

        :param gradient_steps: number of updates
        :param batch_size: transitions per update
        :raises ValueError: if a loss or its gradient was not finite, after which no step was taken
        """
        # The last updates have no step to overlap with
        if self.overlap_updates and self._learning and self.num_timesteps < self._total_timesteps:
            self.train_postponed()
            self._postponed = gradient_steps, batch_size
        else:
            self._train(gradient_steps, batch_size)

    @abstractmethod
    def _train(self, gradient_steps: int, batch_size: int) -> None:
        """Run :meth:`train` without postponing."""

    def train_postponed(self) -> None:
        """Run postponed updates, if any."""
        if self._postponed is not None:
            (gradient_steps, batch_size), self._postponed = self._postponed, None
            self._train(gradient_steps, batch_size)
            self.policy.set_training_mode(False)  # collection continues

    @contextmanager
    def _without_second_warm_up(self, reset_num_timesteps: bool) -> Iterator[None]:
        """Count stored transitions as warm-up while a trained model resumes."""
        if self._n_updates > 0:
            buffer = self.replay_buffer
            assert buffer is not None
            full = getattr(buffer, "full", False)
            missing = 0 if full else max(self.learning_starts - n_stored(buffer), 0)
            first_update = missing if reset_num_timesteps else self.num_timesteps + missing
            self._learning_starts_shift = first_update - self.learning_starts
            if self.verbose >= 1:
                when = f"after {missing} steps, once learning_starts transitions are stored" if missing else "at once"
                print(  # noqa: T201
                    f"Continuing after {self._n_updates} updates: no random warm-up; updates resume {when}."
                )
        try:
            yield
        finally:
            self._learning_starts_shift = 0

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        # The last rollout may exceed total_timesteps, which would give schedules a negative progress
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        return super()._sample_action(self._warm_up(learning_starts), action_noise, n_envs)

    def _warm_up(self, learning_starts: int) -> int:
        """Steps of random actions; none for a trained model that resumes."""
        return 0 if self._n_updates > 0 else learning_starts


@runtime_checkable
class Interruptible(Protocol):
    """A callback for exceptions that end ``learn``, such as Ctrl-C, for which SB3 has no event."""

    def on_interruption(self) -> None:
        """Called once the model is consistent again, before the exception is raised."""


def _interruptible(callback: MaybeCallback) -> Iterator[Interruptible]:
    """The interruptible ones among the callbacks of ``learn``."""
    nested: Any = callback if isinstance(callback, list) else []
    if isinstance(callback, Interruptible):
        yield callback
    if isinstance(callback, CallbackList):
        nested = callback.callbacks
    elif isinstance(callback, EventCallback):
        nested = [callback.callback]
    for each in nested:
        yield from _interruptible(each)
