"""Files of tensors and JSON, in the safetensors format: read without trust, and nothing in them is ever run."""

import hashlib
import json
import os
import reprlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch as th

from sb3_lql.common.files import atomic_write
from sb3_lql.common.memory import memory

#: The entry of the header's metadata that holds the JSON.
ENTRY = "sb3_lql"
#: Bytes that say how long the header is.
LENGTH_BYTES = 8
#: Longest header, in bytes: a hundred times what a usual model takes. Read into Python, JSON grows some ten times.
MAX_HEADER = 2**20


class _Metadata(msgspec.Struct, forbid_unknown_fields=True):
    sb3_lql: str


class _Header(msgspec.Struct):
    metadata: _Metadata = msgspec.field(name="__metadata__")


class _Signed(msgspec.Struct, forbid_unknown_fields=True):
    sha256: str
    model: dict[str, Any]


#: How files begin that are something else, what they are and what to do.
_PICKLE = "a pickle, which can run any code of whoever made it: do not load it unless that was you"
_DISGUISES = {
    b"PK\x03\x04": "a zip file, as SB3's save writes it: pass it to load, if you trust whoever made it, because it can "
    "run their code",
    **{bytes([0x80, protocol]): _PICKLE for protocol in range(2, 6)},
}


def write_file(path: Path, document: dict[str, Any], tensors: dict[str, th.Tensor]) -> None:
    """
    :param path: the file's name
    :param document: what JSON can hold, but neither NaN nor infinity
    :param tensors: by name, on the CPU, contiguous and each with a storage of its own
    """
    content = safetensors.torch.save(tensors, {ENTRY: signed(document, tensors)})
    with atomic_write(path) as file:
        file.write(content)


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, th.Tensor]]:
    """
    :param path: the file's name
    :return: what :func:`write_file` was given
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is no whole file of that kind
    """
    content = _read(path)
    try:
        return _parse(content)
    except Exception as error:  # whatever a parser stumbles over
        for beginning, is_what in _DISGUISES.items():
            if content.startswith(beginning):
                raise ValueError(f"this is {is_what}") from error
        raise


def signed(document: dict[str, Any], tensors: dict[str, th.Tensor]) -> str:
    """
    :param document: what JSON can hold
    :param tensors: by name, on the CPU
    :return: the JSON text of the document and of a checksum of both
    """
    return json.dumps({"sha256": _checksum(document, tensors), "model": document}, allow_nan=False)


def _checksum(document: dict[str, Any], tensors: dict[str, th.Tensor]) -> str:
    """SHA-256 of what is in a file, however the file arranges it. It shows damage; whoever forges can compute it too"""
    checksum = hashlib.sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode())
    for name, tensor in sorted(tensors.items()):
        checksum.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        checksum.update(tensor.reshape(-1).view(th.uint8).numpy().data)
    return checksum.hexdigest()


def _read(path: Path) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: check the name.")
    if not path.is_file():
        raise ValueError("this is not a file, but a folder or a device")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        available = memory(th.device("cpu"))
        if 2 * size > available:  # the file, and the tensors in it
            raise ValueError(f"its {size} bytes are too many for a memory of {available}")
        return file.read(size)


def _parse(content: bytes) -> tuple[dict[str, Any], dict[str, th.Tensor]]:
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    if not 0 < length <= min(len(content) - LENGTH_BYTES, MAX_HEADER):
        raise ValueError(
            f"it is damaged: it has {len(content)} bytes, and its header is said to have {length} "
            f"(at most {MAX_HEADER}); copy it again"
        )
    header = parse_json(content[LENGTH_BYTES : LENGTH_BYTES + length].decode())
    metadata = convert("the header", header, _Header).metadata
    # The library checks that names, types, shapes and places of the tensors fit each other and fill the file
    tensors = safetensors.torch.load(content)
    signed_document = convert("the JSON text", parse_json(metadata.sb3_lql), _Signed)
    if signed_document.sha256 != _checksum(signed_document.model, tensors):
        raise ValueError("it is damaged: its content does not fit its checksum; copy it again")
    return signed_document.model, tensors


def parse_json(text: str) -> Any:
    """
    :param text: JSON
    :return: what it says
    :raises ValueError: if it is no JSON, names an entry twice, holds NaN or infinity, or is nested too deeply
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def require_keys(path: str, value: Any, names: Collection[str] | None = None) -> dict[str, Any]:
    """
    :param path: the value's name
    :param value: something read from JSON
    :param names: the entries that it must have, all of them and no other; ``None`` for any
    :return: the value
    :raises ValueError: if it is no object, or has other entries
    """
    if not isinstance(value, dict):
        raise ValueError(f"{path} is {reprlib.repr(value)}, and must be an object")
    if names is not None and value.keys() != set(names):
        missing, unknown = sorted(set(names) - value.keys()), sorted(value.keys() - set(names))
        raise ValueError(f"{path} lacks {reprlib.repr(missing)} and has {reprlib.repr(unknown)} too much")
    return value


def convert(path: str, value: Any, kind: Any) -> Any:
    """
    :param path: the value's name
    :param value: something read from JSON
    :param kind: the type that it must have, for msgspec
    :return: the value in that type
    :raises ValueError: if it has another
    """
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path} is {reprlib.repr(value)}: {str(error).replace('`$', f'`{path}')}") from error


def pop_tensor(
    tensors: dict[str, th.Tensor],
    name: str,
    dtype: th.dtype,
    shape: tuple[int, ...] | None = None,
    negative: bool = True,
    finite: bool = True,
) -> th.Tensor:
    """
    :param tensors: a file's, from which the tensor is removed
    :param name: its name
    :param dtype: the type that it must have
    :param shape: the shape that it must have; ``None`` for any
    :param negative: whether its values may be negative
    :param finite: whether its values must be finite
    :return: the tensor
    :raises ValueError: if it is missing, of another type or shape, or holds values that are not allowed
    """
    if name not in tensors:
        raise ValueError(f"the tensor {name} is missing")
    tensor = tensors.pop(name)
    shape = tensor.shape if shape is None else shape
    if (tensor.shape, tensor.dtype) != (shape, dtype):
        raise ValueError(f"the tensor {name} is {tuple(tensor.shape)} of {tensor.dtype}, not {tuple(shape)} of {dtype}")
    if finite and not tensor.isfinite().all():
        raise ValueError(f"the tensor {name} holds values that are not finite")
    if not negative and ((th.view_as_real(tensor) if tensor.is_complex() else tensor) < 0).any():
        raise ValueError(f"the tensor {name} holds negative values")
    return tensor


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("an entry of its JSON is there twice")
    return entries


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"its JSON holds {name}")
