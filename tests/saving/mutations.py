"""Safe files, damaged and forged: each generator yields names and contents of files made of an honest one."""

import gzip
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import safetensors.torch
import torch as th

from sb3_lql.saving.safe.files import ENTRY, LENGTH_BYTES, signed

Mutations = Iterator[tuple[str, bytes]]
Tensors = dict[str, th.Tensor]


def unpack(content: bytes) -> tuple[dict[str, Any], Tensors]:
    """What JSON says in a file, and its tensors."""
    header, _ = split(content)
    document: dict[str, Any] = json.loads(json.loads(header)["__metadata__"][ENTRY])["model"]
    return document, safetensors.torch.load(content)


def pack(document: dict[str, Any], tensors: Tensors) -> bytes:
    """A file with a checksum that fits, as a forger would write it."""
    return safetensors.torch.save(tensors, {ENTRY: signed(document, tensors)})


def split(content: bytes) -> tuple[bytes, bytes]:
    """The header and the data."""
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    return content[LENGTH_BYTES:end], content[end:]


def join(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """A file of any header, and any length claimed of it."""
    return (len(header) if length is None else length).to_bytes(LENGTH_BYTES, "little") + header + data


def truncated(content: bytes) -> Mutations:
    header, _ = split(content)
    end = LENGTH_BYTES + len(header)
    evenly = np.linspace(0, len(content) - 1, 30, dtype=int)
    for length in sorted({*range(12), end - 1, end, end + 1, len(content) - 1, *map(int, evenly)}):
        yield f"truncated to {length}", content[:length]


def flipped(content: bytes) -> Mutations:
    header, _ = split(content)
    draw = random.Random(0)
    places = [*range(LENGTH_BYTES), *(LENGTH_BYTES + draw.randrange(len(header)) for _ in range(40))]
    for place in [*places, *(draw.randrange(len(content)) for _ in range(40)), len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        yield f"flipped at {place}", bytes(changed)


def lengths(content: bytes) -> Mutations:
    header, data = split(content)
    n = len(header)
    for length in (0, 1, n - 8, n - 1, n + 1, n + 8, n + len(data), n + len(data) + 1, 10**8, 2**32, 2**63, 2**64 - 1):
        yield f"header of {length}", join(header, data, length)


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def strangers(content: bytes, marker: str) -> Mutations:
    """
    :param content: an honest file
    :param marker: a file that malicious ones try to make
    """
    evil = Evil(f"touch {marker}")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"pickle of protocol {protocol}", pickle.dumps(evil, protocol)
    for legacy in (False, True):
        buffer = io.BytesIO()
        th.save({"critic": evil}, buffer, _use_new_zipfile_serialization=not legacy)
        yield f"torch.save, legacy: {legacy}", buffer.getvalue()
    array = io.BytesIO()
    np.save(array, np.array([evil], object), allow_pickle=True)
    yield "NumPy's array of objects", array.getvalue()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data", b"\0" * 10**7)
    yield "zip bomb", bomb.getvalue()
    yield "gzip", gzip.compress(content)
    yield "empty", b""
    yield "zeros", bytes(1000)
    yield "text", b"#!/bin/sh\ntouch " + marker.encode()
    yield "noise", random.Random(0).randbytes(5000)
    yield "JSON", json.dumps({"__metadata__": {ENTRY: "{}"}}).encode()
    yield "two files", content + content
    yield "a pickle at the end", content + pickle.dumps(evil)
    yield "a zip at the end", content + bomb.getvalue()
    yield "a pickle at the beginning", pickle.dumps(evil) + content
    header, data = split(content)
    yield "a pickle between", join(header, pickle.dumps(evil) + data)
    yield "a pickle as the header", join(pickle.dumps(evil, 0), data)


def headers(content: bytes) -> Mutations:
    """Headers that are not the library's."""
    header, data = split(content)
    honest = json.loads(header)

    def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
        copy = json.loads(header)
        change(copy)
        return join(json.dumps(copy).encode(), data)

    name = next(name for name in honest if name != "__metadata__")
    yield "no metadata", changed(lambda h: h.pop("__metadata__"))
    metadata: Any
    for metadata in ({}, [], None, "x", {ENTRY: 1}, {ENTRY: ""}, {ENTRY: "[]"}, {ENTRY: "NaN"}, {"other": "{}"}):
        yield f"metadata {metadata!r}", changed(lambda h, m=metadata: h.update(__metadata__=m))  # type: ignore[misc]
    yield "more metadata", changed(lambda h: h["__metadata__"].update(more="x"))
    deep = "[" * 100_000 + "]" * 100_000
    deep_object = '{"a":' * 50_000 + "1" + "}" * 50_000
    for what, text in (("lists", deep), ("objects", deep_object), ("an open list", "[" * 10**6)):
        yield f"header nested: {what}", join(text.encode(), data)
        yield f"metadata nested: {what}", changed(lambda h, t=text: h["__metadata__"].update({ENTRY: t}))  # type: ignore[misc]
    for text in ("{", "[]", "1", '"x"', "null", "{}", "\xff", "{'a': 1}", '{"a": NaN}', '{"a": 1e999}', "9" * 10_000):
        yield f"header {text[:10]!r}", join(text.encode("latin-1"), data)
    yield "an entry twice", join(header.rstrip().replace(b"{", f'{{"{name}": 1,'.encode(), 1), data)
    for dtype in ("F128", "object", "", None, 7, "__import__('os')", "F4", "C64", "F8_E4M3"):
        yield f"a dtype {dtype!r}", changed(lambda h, d=dtype: h[name].update(dtype=d))  # type: ignore[misc]
    for shape in ([-1], [2**63], [2**64], [2**40, 2**40], "x", None, [1.5], [[1]], 3, [0], [0, 2**62, 2**62]):
        yield f"a shape {shape!r}", changed(lambda h, s=shape: h[name].update(shape=s))  # type: ignore[misc]
    for offsets in ([0, 2**63], [-4, 0], [4, 0], [0], None, "x", [0, len(data) + 4], [1, 5], [2**64, 2**65]):
        yield f"offsets {offsets!r}", changed(lambda h, o=offsets: h[name].update(data_offsets=o))  # type: ignore[misc]
    yield "a tensor too many", changed(lambda h: h.update({"../../x": honest[name]}))
    yield (
        "many empty tensors",
        changed(
            lambda h: h.update(
                {f"t{i}": dict(dtype="F32", shape=[0], data_offsets=[len(data)] * 2) for i in range(20_000)}
            )
        ),
    )


def tensors(content: bytes) -> Mutations:
    """Other tensors under a checksum that fits."""
    document, honest = unpack(content)

    def changed(name: str, value: th.Tensor) -> bytes:
        return pack(document, honest | {name: value})

    for index, (name, value) in enumerate(honest.items()):
        if index % 3 == 0:
            yield f"{name} is missing", pack(document, {key: part for key, part in honest.items() if key != name})
        spoiled = list(_spoiled(value))
        what, other = spoiled[index % len(spoiled)]
        # A space may be without bounds
        if not (name.startswith("observation_space") and what == "inf"):
            yield f"{name}: {what}", changed(name, other)
    names = ("x", "../../x", "/etc/passwd", "", "policy.", "policy.x", "optimizer.999.step", "optimizer.0.x", "é\0")
    for name in names:
        yield f"a tensor {name!r} more", pack(document, honest | {name: th.zeros(3)})
    yield "a huge name more", pack(document, honest | {"x" * 10**6: th.zeros(3)})
    first, second = "policy.critic.layers.0.weight", "policy.critic.layers.1.weight"
    yield "swapped weights", pack(document, honest | {first: honest[second], second: honest[first]})
    negative = ("exp_avg_sq", "step", "var", "count")
    for name in (name for name in honest if name.endswith(negative)):
        yield f"{name} is negative", changed(name, -honest[name] - 1)
    yield "no tensors", pack(document, {})
    low, high = honest["action_space.low"], honest["action_space.high"]
    yield "bounds swapped", pack(document, honest | {"action_space.low": high, "action_space.high": low})
    yield "bounds are the same", pack(document, honest | {"action_space.low": high.clone()})


def _spoiled(value: th.Tensor) -> Iterator[tuple[str, th.Tensor]]:
    yield "one axis more", value[None]
    yield "of another type", value.to(th.int32)
    yield "empty", value.flatten()[:0].clone()
    if value.ndim > 1 and value.shape != value.mT.shape:
        yield "transposed", value.mT.contiguous()
    for bad in ("nan", "inf"):
        other = value.clone()
        other.view(-1)[-1] = float(bad)
        yield bad, other


def walk(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all entries in JSON."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from walk(part, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def replaced(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy of JSON with another value somewhere."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    at(copy, path[:-1])[path[-1]] = value
    return copy


def entries(content: bytes) -> Mutations:
    """Entries missing, and entries too many, under a checksum that fits."""
    document, honest = unpack(content)
    for path in walk(document):
        copy = json.loads(json.dumps(document))
        parent = at(copy, path[:-1])
        # Whoever leaves these out leaves them to their defaults
        optional = isinstance(parent, dict) and path[1:2] in (("policy_kwargs",), ("replay_buffer_kwargs",))
        if not (optional and len(path) > 2):
            del parent[path[-1]]
            yield f"{path} is missing", pack(copy, honest)
        if isinstance(at(document, path), dict):
            for name in ("more", "$class", "../../x", "__class__"):
                copy = json.loads(json.dumps(document))
                at(copy, path)[name] = "x"
                yield f"{path} has {name}", pack(copy, honest)
