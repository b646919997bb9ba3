"""An algorithm's replay buffer: its class, when it is allocated, and its number of environments."""

import warnings
from typing import Any

from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from sb3_lql.common.buffer_layout import with_n_envs
from sb3_lql.common.buffers import Float32NStepReplayBuffer, ImprovedNStepReplayBuffer, default_replay_buffer_class
from sb3_lql.common.memory import check_buffer_fits

#: The classes that are made with ``n_steps`` and ``gamma`` of the algorithm.
OF_N_STEPS = (Float32NStepReplayBuffer, ImprovedNStepReplayBuffer)


class ReplayMixin(OffPolicyAlgorithm):
    """SB3's off-policy collection, with a replay buffer that is allocated on first use."""

    #: Whether the replay buffer's class was chosen by default.
    _has_default_buffer = False

    @property
    def replay_buffer(self) -> ReplayBuffer:
        """The replay buffer, allocated on first use: a model that only acts needs no memory for one."""
        buffer: ReplayBuffer | None = self.__dict__["replay_buffer"]
        if buffer is None:
            buffer = self.replay_buffer = self._new_replay_buffer()
        return buffer

    @replay_buffer.setter
    def replay_buffer(self, buffer: ReplayBuffer | None) -> None:
        # Under its own name, where SB3's save and load look for it
        self.__dict__["replay_buffer"] = buffer

    @replay_buffer.deleter
    def replay_buffer(self) -> None:
        self.replay_buffer = None

    def _default_replay_buffer_class(self, n_steps: int) -> type[ReplayBuffer]:
        """What ``replay_buffer_class=None`` stands for."""
        return default_replay_buffer_class(self.observation_space, n_steps)

    def _check_replay_buffer_class(self, buffer_class: type[ReplayBuffer]) -> None:
        """Raise a ``ValueError`` if the algorithm cannot learn from such a buffer; any will do by default."""

    def _choose_replay_buffer_class(self) -> None:
        """Resolve ``replay_buffer_class=None``, again for a model that is loaded with different ``n_steps``."""
        defaults = [self._default_replay_buffer_class(n_steps) for n_steps in (1, 2)]
        if self._has_default_buffer and self.replay_buffer_class in defaults:
            self.replay_buffer_class = None
        self._has_default_buffer = self.replay_buffer_class is None
        if self.replay_buffer_class is None:
            self.replay_buffer_class = self._default_replay_buffer_class(self.n_steps)
        if self.n_steps > 1 and self.replay_buffer_class not in OF_N_STEPS:
            name = self.replay_buffer_class.__name__
            warnings.warn(
                f"`n_steps={self.n_steps}` is ignored because replay_buffer_class={name} was passed: pass "
                f"replay_buffer_kwargs=dict(n_steps={self.n_steps}, gamma={self.gamma}), if it takes them.",
                stacklevel=2,
            )

    def _new_replay_buffer(self) -> ReplayBuffer:
        """An empty replay buffer; a ``ValueError`` if memory or the environments that it needs are missing."""
        buffer_class = self.replay_buffer_class
        assert buffer_class is not None
        kwargs = dict(self.replay_buffer_kwargs)
        if buffer_class in OF_N_STEPS and self.n_steps > 1:
            kwargs |= dict(n_steps=self.n_steps, gamma=self.gamma)
        if issubclass(buffer_class, HerReplayBuffer):
            if self.env is None:
                raise ValueError(
                    f"{buffer_class.__name__} needs environments to compute rewards, and this model has none: call "
                    "set_env first, or pass env to load."
                )
            kwargs["env"] = self.env
        check_buffer_fits(self, buffer_class)
        return buffer_class(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            optimize_memory_usage=self.optimize_memory_usage,
            **kwargs,
        )

    def set_env(self, env: GymEnv | str, force_reset: bool = True) -> None:
        """
        SB3's ``set_env``. A ``HerReplayBuffer`` computes its rewards with these environments from now on.

        :param env: environments, or their id
        :param force_reset: reset them before learning
        """
        super().set_env(env, force_reset)  # type: ignore[arg-type]
        buffer = self.__dict__["replay_buffer"]
        if isinstance(buffer, HerReplayBuffer):
            buffer.env = self.env

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        # Noise and transitions may come from a training with a different number of environments
        if isinstance(self.action_noise, VectorizedActionNoise) and self.action_noise.n_envs != self.n_envs:
            self.action_noise = VectorizedActionNoise(self.action_noise.base_noise, self.n_envs)
        self.replay_buffer = with_n_envs(self.replay_buffer, self.n_envs)
        return super()._setup_learn(*args, **kwargs)
