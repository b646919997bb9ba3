"""Arguments as JSON and back. Classes and functions are known by name, and only those listed here."""

import math
import reprlib
import sys
from typing import Annotated, Any, Literal, get_args

import numpy as np
from msgspec import Meta
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_lql.common.validation import check_number
from sb3_lql.saving.safe.allowlist import CLASSES, NOISES, SCHEDULES, is_simple_linear
from sb3_lql.saving.safe.files import convert, require_keys

#: Largest integer that a file may hold.
MAX_INTEGER = 2**63 - 1
#: Longest list among the arguments.
MAX_LIST = 50_000
Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
#: A positive integer.
Count = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
#: A finite number.
Number = Integer | Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
NonNegative = Annotated[int, Meta(ge=0, le=MAX_INTEGER)] | Annotated[float, Meta(ge=0.0, le=sys.float_info.max)]
#: The type of a flat array, and of what a noise returns.
FloatType = Literal["float16", "float32", "float64"]


def encode(path: str, value: Any, custom: dict[str, Any]) -> Any:
    """
    :param path: the value's name: that of the argument or, within one, such as "policy_kwargs.activation_fn"
    :param value: what a user passed
    :param custom: takes what has no place in JSON, by its path
    :return: the value for JSON
    """
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        plain = bool if isinstance(value, np.bool_) else int if isinstance(value, np.integer) else float
        return encode(path, plain(value), custom)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.name in get_args(FloatType):
        return {"$array": [value.dtype.name, value.tolist()]}
    if isinstance(value, float):
        return {"$float": "inf" if value > 0 else "-inf"} if math.isinf(value) else value
    if isinstance(value, TrainFreq):
        return {"$tuple": [value.frequency, value.unit.value]}
    if isinstance(value, GoalSelectionStrategy):
        return value.name.lower()
    if type(value) is list:
        return [encode(f"{path}.{index}", part, custom) for index, part in enumerate(value)]
    if type(value) is tuple:
        return {"$tuple": encode(path, list(value), custom)}
    if type(value) is dict and all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: encode(f"{path}.{key}", part, custom) for key, part in value.items()}
    return _encode_object(path, value, custom)


def _encode_object(path: str, value: Any, custom: dict[str, Any]) -> Any:
    """A known class, schedule or noise; a marker for anything else."""
    if isinstance(value, FloatSchedule):
        return encode(path, value.value_schedule, custom)
    if type(value) is VectorizedActionNoise:  # made anew for the number of environments there will be
        return encode(path, value.base_noise, custom)
    name = getattr(value, "__name__", None) if isinstance(value, type) else type(value).__name__
    if CLASSES.get(path.rpartition(".")[2], {}).get(str(name)) is value:
        return {"$class": name}
    for tag, table in (("$schedule", SCHEDULES), ("$noise", NOISES)):
        known, attributes = table.get(str(name), (None, {}))
        if known is type(value) or (tag == "$schedule" and is_simple_linear(value)):
            parts = {argument: getattr(value, attribute) for argument, attribute in attributes.items()}
            if tag == "$noise":
                parts["dtype"] = np.dtype(value._dtype).name
            return {tag: {"class": name, **encode(path, parts, custom)}}
    custom[path] = value
    return {"$custom": path}


class Decoder:
    """
    Undoes :func:`encode`.

    :param replacements: values to take instead of what the file says, by path
    """

    def __init__(self, replacements: dict[str, Any]) -> None:
        self.replacements = replacements
        #: Paths of the replacements that were taken.
        self.used: set[str] = set()

    def decode(self, path: str, value: Any) -> Any:
        """
        :param path: the value's name
        :param value: what JSON says
        :return: the value
        :raises ValueError: if it is nothing that :func:`encode` returns, or code that no replacement supplies
        """
        if path in self.replacements:
            self.used.add(path)
            return self.replacements[path]
        if isinstance(value, list):
            if len(value) > MAX_LIST:
                raise ValueError(f"{path} is a list of {len(value)}, and may have {MAX_LIST} entries")
            return [self.decode(f"{path}.{index}", part) for index, part in enumerate(value)]
        if type(value) is int and abs(value) > MAX_INTEGER:
            raise ValueError(f"{path} is an absurd integer of {value.bit_length()} bits")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{path}={value} is not finite")
        if not isinstance(value, dict):
            return value
        if not any(key.startswith("$") for key in value):
            return {key: self.decode(f"{path}.{key}", part) for key, part in value.items()}
        (tag, content), *more = value.items()
        return self._decode_tagged(path, "" if more else tag, content)

    def _decode_tagged(self, path: str, tag: str, content: Any) -> Any:
        if tag == "$tuple" and isinstance(content, list):
            return tuple(self.decode(path, content))
        if tag == "$float" and content in ("inf", "-inf"):
            return float(content)
        if tag == "$class":
            return _named(path, content, CLASSES.get(path.rpartition(".")[2], {}))
        if tag == "$array":
            self.decode(path, content)  # refuses what is too large; an array holds numbers as they are
            return _decode_array(path, content)
        if tag in ("$schedule", "$noise"):
            return self._decode_object(path, content, SCHEDULES if tag == "$schedule" else NOISES)
        if tag == "$custom" and content == path:
            raise ValueError(
                f"{path} was code, which such a file does not hold: pass custom_objects={{{path!r}: ...}} with it"
            )
        raise ValueError(f"{path}={reprlib.repr({tag: content})} is of no kind that is known")

    def _decode_object(self, path: str, content: Any, table: dict[str, tuple[type, dict[str, str]]]) -> Any:
        content = convert(path, content, dict[str, Any])
        known, attributes = _named(path, content.get("class"), table)
        of_noise = ["dtype"] if table is NOISES else []
        require_keys(path, content, ["class", *attributes, *of_noise])
        parts = {part: self.decode(f"{path}.{part}", content[part]) for part in attributes}
        for part, value in parts.items():
            _check_part(f"{path}.{part}", value)
        for part in of_noise:
            parts[part] = np.dtype(convert(f"{path}.{part}", content[part], FloatType)).type
        return known(**parts)


def _named(path: str, name: Any, table: dict[str, Any]) -> Any:
    """What a table holds by that name."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{path} names {reprlib.repr(name)}, and may name {', '.join(sorted(table))}")
    return table[name]


def _check_part(path: str, value: Any) -> None:
    """Check a number, or an array, of which a schedule or a noise is made."""
    part = path.rpartition(".")[2]
    if part == "initial_noise" and value is None:
        return
    low = -math.inf if part in ("mean", "initial_noise") else 0.0
    for number in value if isinstance(value, np.ndarray) else [value]:
        check_number(path, number, low, low_excluded=part == "end_fraction")


def _decode_array(path: str, content: Any) -> np.ndarray:
    dtype, numbers = convert(path, content, tuple[FloatType, list[Number]])
    with np.errstate(over="ignore"):
        array = np.array(numbers, dtype)
    if not np.isfinite(array).all():
        raise ValueError(f"{path} has numbers beyond {dtype}")
    return array
