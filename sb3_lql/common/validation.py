"""Argument checks: every error names the argument, its value and the fix."""

import math
import reprlib
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql.common.scaling import scale_from_unit


def check_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, low_excluded: bool = False
) -> float:
    """The value as a float; a ``TypeError`` if it is no number, a ``ValueError`` if not finite or out of range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} must be a number, not {type(value).__name__}.")
    number = float(value)
    above = number > low if low_excluded else number >= low
    if not (math.isfinite(number) and above and number <= high):
        lower = f"greater than {low:g}" if low_excluded else f"at least {low:g}"
        upper = "finite" if high == math.inf else f"at most {high:g}"
        raise ValueError(f"{name}={value!r} is out of range: pass a number {lower} and {upper}.")
    return number


def check_positive(name: str, value: Any) -> float:
    """:func:`check_number` for finite numbers greater than zero."""
    return check_number(name, value, low=0.0, low_excluded=True)


def check_count(name: str, value: Any, low: int = 1) -> int:
    """The value as an int; a ``TypeError`` if it is no integer, a ``ValueError`` if it is below ``low``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{name}={value!r} must be an integer, not {type(value).__name__}: pass an int of at least {low}."
        )
    if value < low:
        raise ValueError(f"{name}={value!r} is too small: pass an integer of at least {low}.")
    return int(value)


def check_flag(name: str, value: Any) -> None:
    """Raise a ``TypeError`` if the value is neither True nor False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r} must be True or False, not {type(value).__name__}.")


#: The gradient of the TD loss grows with the square of observations and rewards. Beyond these limits, its squared norm
#: nears the largest float32: every update that samples such a transition would fail.
LARGEST_OBSERVATION = 1e9
LARGEST_REWARD = 1e15


def as_numbers(name: str, values: Any, remedy: str) -> np.ndarray:
    """An array, list or tensor as booleans, integers or floats; a ``ValueError`` if they are not real numbers."""
    array = np.asarray(values)
    if array.dtype == object and all(value is not None for value in array.ravel()):  # such as integers beyond int64
        with suppress(TypeError, ValueError, OverflowError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {reprlib.repr(values)}, of {array.dtype}, which is no real number. {remedy}")
    return array


def check_finite(name: str, values: Any, remedy: str, largest: float) -> np.ndarray:
    """:func:`as_numbers`, with a ``ValueError`` also for NaN, infinities and magnitudes above ``largest``."""
    numbers = as_numbers(name, values, remedy)
    if numbers.dtype.kind != "f" and numbers.dtype.itemsize <= 2:  # images, never above `largest`
        return numbers
    # As floats, since the magnitude of the smallest integer overflows
    magnitudes = np.abs(numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64))
    if (good := magnitudes <= largest).all():
        return numbers
    index = tuple(int(i) for i in np.argwhere(~good)[0])
    raise ValueError(f"{name}{list(index) if index else ''} is {numbers[index]}. {remedy}")


def check_observation(observation: Any, remedy: str, name: str = "observation") -> Any:
    """:func:`check_finite` with :data:`LARGEST_OBSERVATION` for an observation, a batch, or a dictionary of them."""
    if isinstance(observation, dict):
        return {key: check_observation(part, remedy, f"{name}[{key!r}]") for key, part in observation.items()}
    return check_finite(name, observation, remedy, LARGEST_OBSERVATION)


def check_off_policy_arguments(model: OffPolicyAlgorithm) -> None:
    """Check the types (``TypeError``) and ranges (``ValueError``) that SB3 accepts unchecked and fails on later."""
    learning_rate: Any = model.learning_rate
    if callable(learning_rate):
        learning_rate = float(learning_rate(model._current_progress_remaining))
    check_number("learning_rate", learning_rate, low=0.0)
    check_count("buffer_size", model.buffer_size)
    check_number("learning_starts", model.learning_starts, low=0.0)
    check_count("batch_size", model.batch_size)
    check_number("tau", model.tau, low=0.0, high=1.0)
    check_number("gamma", model.gamma, low=0.0, high=1.0)
    check_count("gradient_steps", model.gradient_steps, low=-1)
    check_count("n_steps", model.n_steps)
    if model.n_steps > 1 and isinstance(model.observation_space, spaces.Dict) and model.replay_buffer_class is None:
        raise ValueError(f"n_steps={model.n_steps}: SB3's n-step buffer takes no Dict observations; leave it at 1.")

    train_freq: Any = model.train_freq  # steps, or (frequency, unit); SB3 checks the unit
    has_unit = isinstance(train_freq, tuple) and len(train_freq) == 2
    frequency, unit = train_freq if has_unit else (train_freq, "step")
    check_count("train_freq", frequency)
    if "episode" in str(unit).lower() and model.env is not None and model.env.num_envs > 1:
        raise ValueError(f"train_freq={train_freq} counts the episodes of several environments: count steps.")


def check_action_space(action_space: spaces.Space[Any]) -> None:
    """Raise a ``ValueError`` unless it is a bounded ``Box`` of floats with room between its bounds."""
    if not isinstance(action_space, spaces.Box):
        raise ValueError(
            f"action_space={action_space} is not a Box: all algorithms here need continuous actions; for others "
            "use an algorithm such as DQN or PPO."
        )
    if not np.issubdtype(action_space.dtype, np.floating):
        raise ValueError(f"action_space={action_space} holds {action_space.dtype}: pass a Box of a float dtype.")
    if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
        raise ValueError(
            f"action_space={action_space} is unbounded: the chain lives in a box; give it finite bounds, a narrower "
            "spaces.Box in the environment or with gymnasium.wrappers.TransformAction."
        )
    if action_space.low.size == 0:
        raise ValueError(f"action_space={action_space} has no coordinates: pass a Box with at least one.")
    lowest, highest = (scale_from_unit(sign * np.ones(action_space.shape), action_space) for sign in (-1.0, 1.0))
    if not (lowest < highest).all():
        raise ValueError(f"action_space={action_space} has coordinates with no room between low and high: remove them.")
