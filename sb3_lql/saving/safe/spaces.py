"""Spaces as JSON and tensors, and back. No array is made that is larger than what the file holds of it."""

import reprlib
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_lql.saving.safe.files import fields
from sb3_lql.saving.safe.values import MAX_INTEGER, check_integer

_FLOATS = ["float16", "float32", "float64"]
_INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_DTYPES = frozenset(["bool", *_FLOATS, *_INTEGERS])


def encode_space(name: str, space: spaces.Space[Any], tensors: dict[str, th.Tensor]) -> dict[str, Any]:
    """
    :param name: what the space is called
    :param space: a space that SB3 knows
    :param tensors: takes the space's arrays, by names that begin with its own
    :return: the rest of it for JSON
    :raises ValueError: for any other space
    """
    if isinstance(space, spaces.Dict):
        parts = enumerate(space.spaces.items())
        return {
            "type": "Dict",
            "spaces": [[key, encode_space(f"{name}.{index}", part, tensors)] for index, (key, part) in parts],
        }
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start), "dtype": space.dtype.name}
    if isinstance(space, spaces.MultiBinary):
        n: Any = space.n
        return {"type": "MultiBinary", "n": int(n) if np.ndim(n) == 0 else [int(size) for size in n]}
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete)):
        names = ("low", "high") if isinstance(space, spaces.Box) else ("nvec", "start")
        for part in names:
            array = getattr(space, part)
            if array.dtype.name not in _DTYPES:
                raise ValueError(f"{name}={space} holds {array.dtype}, which no safe file can hold: use save.")
            tensors[f"{name}.{part}"] = th.from_numpy(array.copy())  # it may be read-only
        return {"type": "Box" if names[0] == "low" else "MultiDiscrete", "dtype": space.dtype.name}
    raise ValueError(f"{name}={space} is of a kind that no safe file can hold: use save.")


def decode_space(name: str, value: Any, tensors: dict[str, th.Tensor], within_dict: bool = False) -> spaces.Space[Any]:
    """
    Undo :func:`encode_space`.

    :param name: what the space is called
    :param value: what JSON says
    :param tensors: the file's, from which those of the space are removed
    :param within_dict: whether it is part of a ``Dict``, and cannot be one
    :return: the space
    :raises ValueError: if there is no such space
    """
    kind = fields(name, value, None).get("type")
    if kind == "Dict" and not within_dict:
        pairs = fields(name, value, ["type", "spaces"])["spaces"]
        if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
            raise ValueError(f"{name}.spaces={reprlib.repr(pairs)} must be a list of pairs of a key and a space")
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError(f"{name}.spaces names a key twice")
        # As pairs: from a dict, gymnasium would sort the keys
        parts = [(key, decode_space(f"{name}.{index}", part, tensors, True)) for index, (key, part) in enumerate(pairs)]
        return spaces.Dict(parts)
    if kind == "Discrete":
        fields(name, value, ["type", "n", "start", "dtype"])
        n = check_integer(f"{name}.n", value["n"], 1)
        start = check_integer(f"{name}.start", value["start"], -MAX_INTEGER)
        dtype = _dtype(name, value["dtype"], integer=True)
        # Older versions of gymnasium know of no other type than int64, and have no argument for it
        return spaces.Discrete(n, start=start, **({} if dtype == np.int64 else dict(dtype=dtype)))
    if kind == "MultiBinary":
        n = fields(name, value, ["type", "n"])["n"]
        sizes = [check_integer(f"{name}.n", size, 1) for size in (n if isinstance(n, list) else [n])]
        return spaces.MultiBinary(sizes if isinstance(n, list) else sizes[0])
    if kind in ("Box", "MultiDiscrete"):
        dtype = _dtype(name, fields(name, value, ["type", "dtype"])["dtype"], integer=kind != "Box")
        first, second = ("low", "high") if kind == "Box" else ("nvec", "start")
        low, high = (_take(f"{name}.{part}", dtype, tensors) for part in (first, second))
        if low.shape != high.shape:
            raise ValueError(
                f"{name}.{first} has shape {low.shape}, {name}.{second} {high.shape}: they must be the same"
            )
        if kind == "Box":
            return spaces.Box(low, high, dtype=dtype)
        return spaces.MultiDiscrete(low, dtype=dtype, start=high)
    raise ValueError(f"{name} is of type {reprlib.repr(kind)}, which there is not")


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _dtype(name: str, value: Any, integer: bool) -> Any:
    if not isinstance(value, str) or value not in _DTYPES or (integer and value not in _INTEGERS):
        raise ValueError(f"{name}.dtype={reprlib.repr(value)} is no type of its values")
    return np.dtype(value)


def _take(name: str, dtype: np.dtype[Any], tensors: dict[str, th.Tensor]) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"the tensor {name} is missing")
    array: np.ndarray = tensors.pop(name).numpy()
    if array.dtype != dtype:
        raise ValueError(f"the tensor {name} holds {array.dtype}, and must hold {dtype}")
    return array
