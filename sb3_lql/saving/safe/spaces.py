"""Spaces as JSON and tensors, and back. No array is made that is larger than what the file holds of it."""

from typing import Any, ClassVar, Literal, get_args

import msgspec
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_lql.saving.safe.files import pop_tensor
from sb3_lql.saving.safe.values import Count, Integer

_IntegerType = Literal["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
_Type = Literal["bool", "float16", "float32", "float64", _IntegerType]


class Discrete(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The ``Discrete`` of gymnasium."""

    n: Count
    start: Integer
    dtype: _IntegerType


class MultiBinary(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The ``MultiBinary`` of gymnasium."""

    n: Count | list[Count]


class MultiDiscrete(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The ``MultiDiscrete`` of gymnasium, whose numbers of values and starts are tensors."""

    ARRAYS: ClassVar = ("nvec", "start")

    dtype: _IntegerType


class Box(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The ``Box`` of gymnasium, whose bounds are tensors."""

    ARRAYS: ClassVar = ("low", "high")

    dtype: _Type


class Dict(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The ``Dict`` of gymnasium: pairs, since the order counts."""

    spaces: list[tuple[str, Discrete | MultiBinary | MultiDiscrete | Box]]


#: What JSON says of a space.
SpaceForm = Discrete | MultiBinary | MultiDiscrete | Box | Dict


def encode_space(name: str, space: spaces.Space[Any], tensors: dict[str, th.Tensor]) -> Any:
    """
    :param name: what the space is called
    :param space: a space that SB3 knows
    :param tensors: takes the space's arrays, by names that begin with its own
    :return: the rest of it for JSON
    :raises ValueError: for any other space
    """
    if isinstance(space, spaces.Dict):
        parts = enumerate(space.spaces.items())
        return Dict([(key, encode_space(f"{name}.{index}", part, tensors)) for index, (key, part) in parts])
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n), int(space.start), space.dtype.name)
    if isinstance(space, spaces.MultiBinary):
        n: Any = space.n
        return MultiBinary(int(n) if np.ndim(n) == 0 else [int(size) for size in n])
    if not isinstance(space, (spaces.Box, spaces.MultiDiscrete)):
        raise ValueError(f"{name}={space} is of a kind that no safe file can hold: use save.")
    form = Box(space.dtype.name) if isinstance(space, spaces.Box) else MultiDiscrete(space.dtype.name)
    for part in form.ARRAYS:
        array = getattr(space, part)
        if array.dtype.name not in get_args(_Type):
            raise ValueError(f"{name}={space} holds {array.dtype}, which no safe file can hold: use save.")
        tensors[f"{name}.{part}"] = th.from_numpy(array.copy())  # it may be read-only
    return form


def decode_space(name: str, form: SpaceForm, tensors: dict[str, th.Tensor]) -> spaces.Space[Any]:
    """
    Undo :func:`encode_space`.

    :param name: what the space is called
    :param form: what JSON says
    :param tensors: the file's, from which those of the space are removed
    :return: the space
    :raises ValueError: if there is no such space
    """
    if isinstance(form, Dict):
        if len({key for key, _ in form.spaces}) < len(form.spaces):
            raise ValueError(f"{name}.spaces names a key twice")
        # As pairs: from a dict, gymnasium would sort the keys
        parts = enumerate(form.spaces)
        return spaces.Dict([(key, decode_space(f"{name}.{index}", part, tensors)) for index, (key, part) in parts])
    if isinstance(form, MultiBinary):
        return spaces.MultiBinary(form.n)
    dtype: Any = np.dtype(form.dtype)
    if isinstance(form, Discrete):
        # Older versions of gymnasium know of no other type than int64, and have no argument for it
        return spaces.Discrete(form.n, start=form.start, **({} if dtype == np.int64 else dict(dtype=dtype)))
    kind = getattr(th, form.dtype)
    names = [f"{name}.{part}" for part in form.ARRAYS]
    first = pop_tensor(tensors, names[0], kind, finite=False)
    second = pop_tensor(tensors, names[1], kind, first.shape, finite=False)
    if isinstance(form, Box):
        return spaces.Box(first.numpy(), second.numpy(), dtype=dtype)
    return spaces.MultiDiscrete(first.numpy(), dtype=dtype, start=second.numpy())
