"""Whether a replay buffer fits, before it is allocated."""

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_lql.common.buffer_layout import REPLAY_BUFFERS
from sb3_lql.common.buffers import Float32Storage, ImprovedActions, float32_space
from sb3_lql.common.device_buffers import DeviceReplayBuffer

#: Where Linux states the memory limit of a container.
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
#: Bytes of a transition's reward, done and timeout flags.
SCALARS = 3 * 4


def transition_bytes(
    buffer_class: type[ReplayBuffer], observation_space: spaces.Space[Any], action_space: spaces.Box, once: bool
) -> int:
    """Bytes per transition, at least. ``once``: each observation is stored only once (``optimize_memory_usage``)."""
    stored = float32_space(observation_space) if issubclass(buffer_class, Float32Storage) else observation_space
    n_actions = get_action_dim(action_space) * (2 if issubclass(buffer_class, ImprovedActions) else 1)
    return (1 if once else 2) * _bytes(stored) + n_actions * np.dtype(np.float32).itemsize + SCALARS


def _bytes(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Dict):
        return sum(_bytes(subspace) for subspace in space.spaces.values())
    assert space.shape is not None
    return int(np.prod(space.shape, dtype=np.int64)) * np.dtype(space.dtype).itemsize


def memory(device: th.device) -> int:
    """Bytes of memory available to this process on a device, if no other process uses any."""
    if device.type == "cuda":
        return th.cuda.mem_get_info(device)[1]
    total = int(psutil.virtual_memory().total)
    limit = CONTAINER_LIMIT.read_text().strip() if CONTAINER_LIMIT.is_file() else "max"
    return total if limit == "max" else min(total, int(limit))


def check_buffer_fits(model: OffPolicyAlgorithm, buffer_class: type[ReplayBuffer]) -> None:
    """
    Raise a ``ValueError`` if ``buffer_size`` transitions do not fit into memory, for a model with no replay buffer yet:
    the system grants more than it has, and kills the process when it uses it, hours later. Only SB3's and our classes
    are checked: others, including subclasses, may compress transitions or keep them on disk.
    """
    if buffer_class not in REPLAY_BUFFERS:
        return
    assert isinstance(model.action_space, spaces.Box)
    once = model.optimize_memory_usage
    device = model.device if issubclass(buffer_class, DeviceReplayBuffer) else th.device("cpu")
    each = transition_bytes(buffer_class, model.observation_space, model.action_space, once)
    needed, available = model.buffer_size * each, memory(device)
    if needed > available:
        remedy = (
            ""
            if once
            else ", or optimize_memory_usage=True with replay_buffer_kwargs=dict(handle_timeout_termination=False), "
            "which stores observations once"
        )
        raise ValueError(
            f"buffer_size={model.buffer_size} takes {needed / 1e9:.1f} GB, {each} bytes a transition, and the memory "
            f"({device.type}) is {available / 1e9:.1f} GB: pass a buffer_size below {available // each}{remedy}."
        )
