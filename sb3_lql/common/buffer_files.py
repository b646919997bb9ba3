"""Replay buffers on disk: only the part in use, without a second copy in memory."""

import io
import mmap
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

#: File names within a folder: the buffer without its arrays, and the arrays, concatenated.
STATE = "replay_buffer.state"
ARRAYS = "replay_buffer.arrays"


def n_used_steps(buffer: ReplayBuffer) -> int:
    """Number of a buffer's steps that have been written, for any of SB3's or ours."""
    # With optimize_memory_usage, the last observation lies one row further than the last step
    return buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)


class _BufferPickler(pickle.Pickler):
    """Pickles a buffer without its arrays; :attr:`arrays` collects them, without rows that were never used."""

    def __init__(self, file: io.BytesIO, buffer: ReplayBuffer) -> None:
        # No reference cycle: the garbage collector would release its arrays in any order
        arrays: list[memoryview] = []
        super().__init__(file, protocol=5, buffer_callback=lambda array: arrays.append(array.raw()))
        self.arrays = arrays
        #: Rows in use, by the length of the array: a row per step, or per step and environment.
        self.n_used: dict[int, int] = {}
        if all(hasattr(buffer, name) for name in ("buffer_size", "n_envs", "pos", "full")):
            n_steps, n_used = buffer.buffer_size, n_used_steps(buffer)
            self.n_used = {n_steps * buffer.n_envs: n_used * buffer.n_envs, n_steps: n_used}

    def reducer_override(self, obj: Any) -> Any:
        """Pickle arrays out of band."""
        is_array = type(obj) in (np.ndarray, np.memmap)
        if not is_array or obj.dtype.hasobject or obj.ndim == 0 or not obj.flags.c_contiguous:
            return NotImplemented
        n_used = self.n_used.get(len(obj), len(obj))
        if obj[n_used:].any():  # an unrelated array of the same length
            n_used = len(obj)
        part = obj[:n_used]
        return _restore_array, (pickle.PickleBuffer(part.data), part.shape, part.dtype, len(obj), type(obj))


def _restore_array(
    content: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], n_rows: int, kind: type[np.ndarray] = np.ndarray
) -> np.ndarray:
    """The original array. Rows that were never used take no memory, as in a new buffer."""
    array: np.ndarray = np.zeros((n_rows, *shape[1:]), dtype)
    array[: shape[0]] = np.frombuffer(content, dtype).reshape(shape)
    return array.view(kind)


def write_buffer(buffer: ReplayBuffer, folder: Path) -> None:
    """Write any of SB3's or our replay buffers to an existing folder without copying it in memory."""
    state = io.BytesIO()
    pickler = _BufferPickler(state, buffer)
    pickler.dump(buffer)
    (folder / STATE).write_bytes(pickle.dumps(([len(array) for array in pickler.arrays], state.getvalue())))
    with (folder / ARRAYS).open("wb") as file:
        for array in pickler.arrays:
            file.write(array)


def read_buffer(folder: Path) -> ReplayBuffer:
    """
    Read a complete folder from :func:`write_buffer` without a second copy in memory. It holds a pickle, so it must be
    trusted. A ``HerReplayBuffer`` still needs its environments.
    """
    sizes, state = pickle.loads((folder / STATE).read_bytes())
    with (folder / ARRAYS).open("rb") as file:
        # Pages of a mapped file belong to the system's cache, not to the process's memory
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if sum(sizes) else b"")
    buffer = pickle.loads(state, buffers=_parts(content, sizes))
    assert isinstance(buffer, ReplayBuffer)
    return buffer


def _parts(content: memoryview, sizes: list[int]) -> Iterator[memoryview]:
    start = 0
    for size in sizes:
        yield content[start : start + size]
        start += size
