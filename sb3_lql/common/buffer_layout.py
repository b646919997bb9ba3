"""Replay buffers rearranged for a different number of environments."""

from typing import Any

import numpy as np
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sb3_lql.common import buffers, device_buffers

# fmt: off
#: The classes whose storage layout is known: SB3's and ours. Subclasses may store transitions differently.
REPLAY_BUFFERS: tuple[type[ReplayBuffer], ...] = (
    ReplayBuffer, DictReplayBuffer, NStepReplayBuffer, HerReplayBuffer, buffers.Float32ReplayBuffer,
    buffers.Float32DictReplayBuffer, buffers.Float32NStepReplayBuffer, buffers.Float32HerReplayBuffer,
    buffers.ImprovedReplayBuffer, buffers.ImprovedDictReplayBuffer, buffers.ImprovedNStepReplayBuffer,
    device_buffers.DeviceReplayBuffer, device_buffers.DeviceDictReplayBuffer,
)
# fmt: on


def with_n_envs(buffer: ReplayBuffer, n_envs: int) -> ReplayBuffer:
    """
    Rearrange a replay buffer, without shrinking it: its transitions in chronological order, ``n_envs`` per row, the
    last row filled up with the oldest ones. Buffers whose class is not in :data:`REPLAY_BUFFERS` are returned
    unchanged. Raise a ``ValueError`` if transitions depend on their neighbours, so that they cannot be moved.
    """
    if type(buffer) not in REPLAY_BUFFERS or buffer.n_envs == n_envs:
        return buffer
    if isinstance(buffer, HerReplayBuffer | NStepReplayBuffer) or buffer.optimize_memory_usage:
        how = " with optimize_memory_usage=True" if buffer.optimize_memory_usage else ""
        raise ValueError(
            f"The {type(buffer).__name__}{how} was filled from n_envs={buffer.n_envs} environments and cannot take "
            f"steps of n_envs={n_envs}, since each of its transitions depends on the next one: train with "
            f"{buffer.n_envs} environments, call only train(), or set model.replay_buffer = None for a new one."
        )
    n_transitions = buffer.size() * buffer.n_envs
    n_rows = -(-n_transitions // n_envs)
    oldest = buffer.pos if buffer.full else 0
    steps, env_inds = np.divmod(np.resize(np.arange(n_transitions), n_rows * n_envs), buffer.n_envs)
    steps = (steps + oldest) % buffer.buffer_size
    rearranged = type(buffer)(
        max(buffer.buffer_size * buffer.n_envs // n_envs, n_rows) * n_envs,
        buffer.observation_space,
        buffer.action_space,
        device=buffer.device,
        n_envs=n_envs,
        handle_timeout_termination=buffer.handle_timeout_termination,
    )
    for name in (name for name in buffers.FIELDS if hasattr(buffer, name)):
        for array, target in zip(_arrays(getattr(buffer, name)), _arrays(getattr(rearranged, name)), strict=True):
            target[:n_rows] = array[steps, env_inds].reshape(n_rows, n_envs, *array.shape[2:])
    rearranged.full = n_rows == rearranged.buffer_size
    rearranged.pos = 0 if rearranged.full else n_rows
    return rearranged


def _arrays(field: Any) -> list[Any]:
    """The arrays or tensors of a field, for ``Dict`` observations in order of their keys."""
    return [field[key] for key in sorted(field)] if isinstance(field, dict) else [field]
