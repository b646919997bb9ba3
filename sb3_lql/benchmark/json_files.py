"""Files of JSON."""

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sb3_lql.common.files import atomic_write

Form = TypeVar("Form")


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file, empty if there is no file; ValueError if it holds anything else."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(content).__name__}, not a mapping.")
    return content


def read_as(form: type[Form], path: Path) -> Form:
    """A file's content as a class of msgspec's; ValueError, naming where, if it holds something else."""
    try:
        return msgspec.convert(read_json(path), form)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def write_json(path: Path, value: Any) -> None:
    """Write a file in one stroke: a reader finds the old one or the new one."""
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())
