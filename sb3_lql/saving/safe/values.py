"""Arguments as JSON and back. Classes and functions are known by name, and only those listed here."""

import math
import reprlib
from typing import Any

import numpy as np
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_lql.common.validation import check_count, check_number
from sb3_lql.saving.safe.allowlist import CLASSES, NOISES, SCHEDULES, is_simple_linear
from sb3_lql.saving.safe.files import fields

#: Integers beyond are of no use to anybody.
MAX_INTEGER = 2**63 - 1
#: Types of flat arrays, and of what a noise returns.
_FLOATS = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


def encode(path: str, value: Any, custom: dict[str, Any]) -> Any:
    """
    :param path: the value's name: that of the argument or, within one, such as "policy_kwargs.activation_fn"
    :param value: what a user passed
    :param custom: takes what has no place in JSON, by its path
    :return: the value for JSON
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        plain = bool if isinstance(value, np.bool_) else int if isinstance(value, np.integer) else float
        return encode(path, plain(value), custom)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.name in _FLOATS:
        return {"$array": [value.dtype.name, value.tolist()]}
    if isinstance(value, int):
        return value
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
            return [self.decode(f"{path}.{index}", part) for index, part in enumerate(value)]
        if type(value) is int and abs(value) > MAX_INTEGER:
            raise ValueError(f"{path} is an absurd integer of {value.bit_length()} bits")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{path}={value} is not finite")
        if not isinstance(value, dict):
            return value
        if not any(key.startswith("$") for key in value):
            return {key: self.decode(f"{path}.{key}", part) for key, part in value.items()}
        if len(value) != 1:
            raise ValueError(f"{path}={reprlib.repr(value)} is of no kind that is known")
        (tag, content), *_ = value.items()
        return self._decode_tagged(path, tag, content)

    def _decode_tagged(self, path: str, tag: str, content: Any) -> Any:
        if tag == "$tuple" and isinstance(content, list):
            return tuple(self.decode(path, content))
        if tag == "$float" and content in ("inf", "-inf"):
            return float(content)
        if tag == "$class" and isinstance(content, str):
            classes = CLASSES.get(path.rpartition(".")[2], {})
            if content in classes:
                return classes[content]
            raise ValueError(f"{path} names {reprlib.repr(content)}, and may name {', '.join(sorted(classes))}")
        if tag == "$array" and isinstance(content, list) and len(content) == 2:
            return _decode_array(path, *self.decode(path, content))
        if tag in ("$schedule", "$noise"):
            return self._decode_object(path, content, SCHEDULES if tag == "$schedule" else NOISES)
        if tag == "$custom" and content == path:
            raise ValueError(
                f"{path} was code, which such a file does not hold: pass custom_objects={{{path!r}: ...}} with it"
            )
        raise ValueError(f"{path}={reprlib.repr({tag: content})} is of no kind that is known")

    def _decode_object(self, path: str, content: Any, table: dict[str, tuple[type, dict[str, str]]]) -> Any:
        name = fields(path, content, None).get("class")
        if not isinstance(name, str) or name not in table:
            raise ValueError(f"{path} names {reprlib.repr(name)}, and may name {', '.join(table)}")
        known, attributes = table[name]
        is_noise = table is NOISES
        fields(path, content, ["class", *attributes, *(["dtype"] if is_noise else [])])
        parts = {part: self.decode(f"{path}.{part}", value) for part, value in content.items() if part != "class"}
        for part in parts.keys() - {"dtype"}:
            _check_part(f"{path}.{part}", parts[part])
        if is_noise:
            parts["dtype"] = _float_type(path, parts["dtype"])
        return known(**parts)


def _check_part(path: str, value: Any) -> None:
    """Check a number, or an array, of which a schedule or a noise is made."""
    part = path.rpartition(".")[2]
    if part == "initial_noise" and value is None:
        return
    low = -math.inf if part in ("mean", "initial_noise") else 0.0
    for number in value if isinstance(value, np.ndarray) else [value]:
        check_number(path, number, low, low_excluded=part == "end_fraction")


def _float_type(path: str, name: Any) -> Any:
    if not isinstance(name, str) or name not in _FLOATS:
        raise ValueError(f"{path} is of type {reprlib.repr(name)}, and may be of {', '.join(_FLOATS)}")
    return _FLOATS[name]


def _decode_array(path: str, type_name: Any, values: Any) -> np.ndarray:
    if not isinstance(values, list):
        raise ValueError(f"{path} holds {reprlib.repr(values)}, and must hold a list of numbers")
    numbers = [check_number(path, value) for value in values]
    with np.errstate(over="ignore"):
        array = np.array(numbers, _float_type(path, type_name))
    if not np.isfinite(array).all():
        raise ValueError(f"{path} has numbers beyond {type_name}")
    return array


def check_integer(name: str, value: Any, low: int = 0, high: int = MAX_INTEGER) -> int:
    """
    :param name: the value's name
    :param value: what JSON says
    :param low: smallest value allowed
    :param high: largest value allowed
    :return: the value
    :raises TypeError: if it is not an integer
    :raises ValueError: if it is out of range
    """
    number = check_count(name, value, low)
    if number > high:
        raise ValueError(f"{name} is an integer of {number.bit_length()} bits, above {high}, the most that is taken")
    return number
