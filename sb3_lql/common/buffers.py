"""SB3's replay buffers with float64 observations stored as float32, and one copy per minibatch."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecNormalize

#: Names of the arrays that make up a transition.
FIELDS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "improved_actions")


def float32_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The space with every float64 ``Box``, also inside a ``Dict``, as float32 with the same bounds."""
    if isinstance(space, spaces.Dict):
        # As pairs: from a dict, gymnasium would sort the keys
        return spaces.Dict([(key, float32_space(subspace)) for key, subspace in space.spaces.items()])
    if not isinstance(space, spaces.Box) or space.dtype != np.float64:
        return space
    with np.errstate(over="ignore"):  # bounds beyond float32 become infinite
        return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def upload(array: np.ndarray, device: th.device) -> th.Tensor:
    """The array on a device: on the CPU, it shares its memory; copies to CUDA are asynchronous, from pinned memory."""
    tensor = th.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Float32Storage(ReplayBuffer):
    """Passes a float32 space to SB3's constructor: the networks compute in float32 whatever the buffer holds."""

    def __init__(self, buffer_size: int, observation_space: spaces.Space[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(buffer_size, float32_space(observation_space), *args, **kwargs)

    def to_torch(self, array: np.ndarray, copy: bool = True) -> th.Tensor:
        """:func:`upload` to the buffer's device. ``copy`` is ignored: parts of minibatches are not used elsewhere."""
        return upload(array, get_device(self.device))


class Float32ReplayBuffer(Float32Storage):
    """SB3's ``ReplayBuffer``, with float64 observations (MuJoCo's) stored as float32: half the memory."""


class Float32DictReplayBuffer(Float32Storage, DictReplayBuffer):
    """SB3's ``DictReplayBuffer``, with float64 observations stored as float32."""


class Float32NStepReplayBuffer(Float32Storage, NStepReplayBuffer):
    """SB3's ``NStepReplayBuffer``, with float64 observations stored as float32."""


class Float32HerReplayBuffer(Float32Storage, HerReplayBuffer):
    """SB3's ``HerReplayBuffer``, with float64 observations, and goals given to ``compute_reward``, as float32."""


class ImprovedSamples(NamedTuple):
    """Actions to improve further, and where they belong."""

    #: Observations, as in a minibatch.
    observations: Any
    #: Actions at them, in [-1, 1], shape (batch, action_dim).
    actions: th.Tensor
    #: Their rows and environments.
    where: tuple[np.ndarray, np.ndarray]


class ImprovedActions(ReplayBuffer):
    """Keeps a second action beside each transition's own, the same at first, which an algorithm may replace."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Shape (buffer_size, n_envs, action_dim).
        self.improved_actions = np.zeros_like(self.actions)

    def add(self, obs: Any, next_obs: Any, action: np.ndarray, *args: Any) -> None:
        """SB3's ``add``."""
        self.improved_actions[self.pos] = action.reshape(self.n_envs, self.action_dim)
        super().add(obs, next_obs, action, *args)

    def sample_improved(self, batch_size: int, env: VecNormalize | None = None) -> ImprovedSamples:
        """
        :param batch_size: number of transitions, drawn uniformly and on their own
        :param env: normalises observations
        :return: their observations and second actions
        """
        # The oldest observation of a full buffer that stores each once was overwritten by the newest
        first = int(self.full and self.optimize_memory_usage)
        steps = np.random.randint(first, self.size(), batch_size) + (self.pos if self.full else 0)
        where = steps % self.buffer_size, np.random.randint(0, self.n_envs, batch_size)
        observations: Any = self.observations
        if isinstance(observations, dict):
            normalized: Any = self._normalize_obs({key: part[where] for key, part in observations.items()}, env)
            samples: Any = {key: self.to_torch(part) for key, part in normalized.items()}
        else:
            samples = self.to_torch(self._normalize_obs(observations[where], env))  # type: ignore[arg-type]
        return ImprovedSamples(samples, self.to_torch(self.improved_actions[where]).float(), where)

    def improve(self, where: tuple[np.ndarray, np.ndarray], actions: np.ndarray) -> None:
        """
        :param where: rows and environments
        :param actions: their second actions from now on, shape (batch, action_dim)
        """
        self.improved_actions[where] = actions


class ImprovedReplayBuffer(ImprovedActions, Float32ReplayBuffer):
    """:class:`Float32ReplayBuffer` with second actions."""


class ImprovedDictReplayBuffer(ImprovedActions, Float32DictReplayBuffer):
    """:class:`Float32DictReplayBuffer` with second actions."""


class ImprovedNStepReplayBuffer(ImprovedActions, Float32NStepReplayBuffer):
    """:class:`Float32NStepReplayBuffer` with second actions."""


def default_replay_buffer_class(observation_space: spaces.Space[Any], n_steps: int) -> type[ReplayBuffer]:
    """The float32 variant of SB3's choice. SB3 has no n-step buffer for ``Dict`` observations."""
    if isinstance(observation_space, spaces.Dict):
        return Float32DictReplayBuffer
    return Float32NStepReplayBuffer if n_steps > 1 else Float32ReplayBuffer


def end_episodes(buffer: ReplayBuffer) -> None:
    """
    Mark the last step as the end of its episode, since the environments start new ones: n-step returns, hindsight goals
    and next observations stored only once must not cross that boundary. Buffers without SB3's arrays are left alone.
    """
    if not _keeps_arrays(buffer, "dones", "timeouts") or n_stored(buffer) == 0:
        return
    if isinstance(buffer, HerReplayBuffer) and _keeps_arrays(buffer, "ep_length", "_current_ep_start"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that episodes are cut
            buffer.truncate_last_trajectory()
    elif getattr(buffer, "optimize_memory_usage", False):
        buffer.dones[buffer.pos - 1] = 1
    else:
        last = buffer.pos - 1
        buffer.timeouts[last][buffer.dones[last] == 0] = 1


def n_stored(buffer: ReplayBuffer) -> int:
    """Number of transitions in any buffer; 0 if it does not tell, with nothing but SB3's ``add`` and ``sample``."""
    try:
        return buffer.size() * buffer.n_envs
    except AttributeError:
        return 0


def _keeps_arrays(buffer: ReplayBuffer, *names: str) -> bool:
    return all(isinstance(getattr(buffer, name, None), np.ndarray | th.Tensor) for name in names)
