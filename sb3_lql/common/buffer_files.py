"""Replay buffers on disk: the part that is filled, straight from memory and back."""

import io
import mmap
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

#: Names within a folder: the buffer without its arrays, and the arrays one after the other.
STATE = "replay_buffer.state"
ARRAYS = "replay_buffer.arrays"


def n_used_steps(buffer: ReplayBuffer) -> int:
    """
    :param buffer: any of SB3's or ours
    :return: how many of its steps have been written to
    """
    # With optimize_memory_usage, the last observation lies one row further than the last step
    return buffer.buffer_size if buffer.full else min(buffer.pos + 1, buffer.buffer_size)


class _BufferPickler(pickle.Pickler):
    """
    Leaves the arrays out, for :attr:`arrays`. Of those with a row per step it takes the rows that were written.

    :param file: what the rest is written to
    :param buffer: the buffer that will be pickled
    """

    def __init__(self, file: io.BytesIO, buffer: ReplayBuffer) -> None:
        # Without a cycle of references, in which the collector would release arrays in any order
        arrays: list[memoryview] = []
        super().__init__(file, protocol=5, buffer_callback=lambda array: arrays.append(array.raw()))
        self.arrays = arrays
        #: Used rows by the length of an array, with a row per step or per step and environment.
        self.n_used: dict[int, int] = {}
        if all(hasattr(buffer, name) for name in ("buffer_size", "n_envs", "pos", "full")):
            n_steps, n_used = buffer.buffer_size, n_used_steps(buffer)
            self.n_used = {n_steps * buffer.n_envs: n_used * buffer.n_envs, n_steps: n_used}

    def reducer_override(self, obj: Any) -> Any:
        """Take over how arrays are pickled."""
        if (
            type(obj) not in (np.ndarray, np.memmap)
            or obj.dtype.hasobject
            or obj.ndim == 0
            or not obj.flags.c_contiguous
        ):
            return NotImplemented
        n_used = self.n_used.get(len(obj), len(obj))
        if obj[n_used:].any():  # something else that happens to be as long
            n_used = len(obj)
        part = obj[:n_used]
        return _restore_array, (pickle.PickleBuffer(part.data), part.shape, part.dtype, len(obj), type(obj))


def _restore_array(
    content: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], n_rows: int, kind: type[np.ndarray] = np.ndarray
) -> np.ndarray:
    """The array as it was, in memory. Rows that were never used take none, as in a new buffer."""
    array: np.ndarray = np.zeros((n_rows, *shape[1:]), dtype)
    array[: shape[0]] = np.frombuffer(content, dtype).reshape(shape)
    return array.view(kind)


def write_buffer(buffer: ReplayBuffer, folder: Path) -> None:
    """
    Write a replay buffer without a copy in memory.

    :param buffer: any of SB3's or ours
    :param folder: where to
    """
    state = io.BytesIO()
    pickler = _BufferPickler(state, buffer)
    pickler.dump(buffer)
    (folder / STATE).write_bytes(pickle.dumps(([len(array) for array in pickler.arrays], state.getvalue())))
    with (folder / ARRAYS).open("wb") as file:
        for array in pickler.arrays:
            file.write(array)


def read_buffer(folder: Path) -> ReplayBuffer:
    """
    Read a replay buffer without a second copy in memory.

    :param folder: what :func:`write_buffer` has written to, whole; one that you trust, as it holds a pickle
    :return: the buffer; one for hindsight still needs its environments
    """
    sizes, state = pickle.loads((folder / STATE).read_bytes())
    with (folder / ARRAYS).open("rb") as file:
        # Pages of a mapped file are the system's cache, not the process's memory
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if sum(sizes) else b"")
    buffer = pickle.loads(state, buffers=_parts(content, sizes))
    assert isinstance(buffer, ReplayBuffer)
    return buffer


def _parts(content: memoryview, sizes: list[int]) -> Iterator[memoryview]:
    start = 0
    for size in sizes:
        yield content[start : start + size]
        start += size
