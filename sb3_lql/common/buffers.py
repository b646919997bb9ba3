"""Replay buffers that take half the memory of SB3's where observations are float64, and copy a minibatch once."""

import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.utils import get_device


def float32_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """
    :param space: any observation space
    :return: the same with every ``Box`` of float64, also inside a ``Dict``, as one of float32 with the same bounds
    """
    if isinstance(space, spaces.Dict):
        # As pairs: from a dict, gymnasium would sort the keys
        return spaces.Dict([(key, float32_space(subspace)) for key, subspace in space.spaces.items()])
    if not isinstance(space, spaces.Box) or space.dtype != np.float64:
        return space
    with np.errstate(over="ignore"):  # A bound beyond float32 is no bound
        return spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)


def upload(array: np.ndarray, device: th.device) -> th.Tensor:
    """
    :param array: any; on the CPU, the result shares its memory
    :param device: where to
    :return: the array there; a copy to CUDA is only queued, which takes pinned memory
    """
    tensor = th.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class Float32Storage(ReplayBuffer):
    """Hands SB3's constructor a space of float32: the networks compute in float32 whatever the buffer holds."""

    def __init__(self, buffer_size: int, observation_space: spaces.Space[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(buffer_size, float32_space(observation_space), *args, **kwargs)

    def to_torch(self, array: np.ndarray, copy: bool = True) -> th.Tensor:
        """
        :param array: part of a minibatch, which nothing else uses
        :param copy: ignored: there is one copy to a GPU, for which nothing waits, and none on a CPU
        :return: the same on the buffer's device
        """
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
    """
    :param observation_space: the environment's
    :param n_steps: rewards per return; SB3 has no n-step buffer for ``Dict`` observations
    :return: what ``replay_buffer_class=None`` stands for: the float32 variant of what SB3 would choose
    """
    if isinstance(observation_space, spaces.Dict):
        return Float32DictReplayBuffer
    return Float32NStepReplayBuffer if n_steps > 1 else Float32ReplayBuffer


def end_episodes(buffer: ReplayBuffer) -> None:
    """
    Keep samples from reaching across a seam, beyond which the environments play new episodes: returns of several
    steps, goals in hindsight, and next observations that are stored once.

    :param buffer: what was collected before the seam; left alone where it does not keep SB3's arrays
    """
    if not _keeps_arrays(buffer, "dones", "timeouts") or n_stored(buffer) == 0:
        return
    if isinstance(buffer, HerReplayBuffer) and _keeps_arrays(buffer, "ep_length", "_current_ep_start"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks whether that is meant
            buffer.truncate_last_trajectory()
    elif getattr(buffer, "optimize_memory_usage", False):
        buffer.dones[buffer.pos - 1] = 1
    else:
        last = buffer.pos - 1
        buffer.timeouts[last][buffer.dones[last] == 0] = 1


def n_stored(buffer: ReplayBuffer) -> int:
    """
    :param buffer: any, also of a class that has nothing but SB3's ``add`` and ``sample``
    :return: transitions in it, as far as is known: none where it does not tell
    """
    try:
        return buffer.size() * buffer.n_envs
    except AttributeError:
        return 0


def _keeps_arrays(buffer: ReplayBuffer, *names: str) -> bool:
    return all(isinstance(getattr(buffer, name, None), np.ndarray | th.Tensor) for name in names)
