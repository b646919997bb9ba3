"""SB3's replay buffers with float64 observations stored as float32, and one copy per minibatch."""

import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.utils import get_device

#: Names of the arrays that make up a transition.
FIELDS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


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
