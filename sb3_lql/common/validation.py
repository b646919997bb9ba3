"""Checks of what users pass: every error names the argument, its value and the fix."""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np
from gymnasium import spaces


def check_number(
    name: str, value: Any, low: float = -math.inf, high: float = math.inf, low_excluded: bool = False
) -> float:
    """
    :param name: name of the argument
    :param value: what the user passed
    :param low: smallest value allowed
    :param high: largest value allowed
    :param low_excluded: whether ``low`` itself is forbidden
    :return: the value as a float
    :raises TypeError: if it is not a number
    :raises ValueError: if it is not finite, or out of range
    """
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
    """
    :param name: name of the argument
    :param value: what the user passed
    :param low: smallest value allowed
    :return: the value as an int
    :raises TypeError: if it is not an integer
    :raises ValueError: if it is below ``low``
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{name}={value!r} must be an integer, not {type(value).__name__}: pass an int of at least {low}."
        )
    if value < low:
        raise ValueError(f"{name}={value!r} is too small: pass an integer of at least {low}.")
    return int(value)


def check_flag(name: str, value: Any) -> None:
    """
    :param name: name of the argument
    :param value: what the user passed
    :raises TypeError: if it is neither True nor False
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r} must be True or False, not {type(value).__name__}.")


def check_train_freq(train_freq: Any, n_envs: int) -> None:
    """
    What SB3 would find out only when it collects; the unit it checks itself.

    :param train_freq: steps, or (frequency, unit)
    :param n_envs: number of environments
    :raises TypeError: if the frequency is not an integer
    :raises ValueError: if it is below one, or counts the episodes of several environments
    """
    frequency, unit = train_freq if isinstance(train_freq, tuple) else (train_freq, "step")
    check_count("train_freq", frequency)
    if n_envs > 1 and "episode" in str(unit).lower():
        raise ValueError(f"train_freq={train_freq} counts episodes, of {n_envs} environments: count steps, or use one.")


def check_action_space(action_space: spaces.Space[Any]) -> None:
    """
    :param action_space: the environment's action space
    :raises ValueError: if it is not a bounded ``Box`` of floats with room between its bounds
    """
    if not isinstance(action_space, spaces.Box):
        raise ValueError(
            f"action_space={action_space} is not a Box: Langevin dynamics needs continuous actions; for others "
            "use an algorithm such as DQN or PPO."
        )
    if not np.issubdtype(action_space.dtype, np.floating):
        raise ValueError(f"action_space={action_space} holds {action_space.dtype}: pass a Box of a float dtype.")
    if not (np.isfinite(action_space.low).all() and np.isfinite(action_space.high).all()):
        raise ValueError(
            f"action_space={action_space} is unbounded: the chain lives in a box; give it finite bounds, e.g. with "
            "gymnasium.wrappers.RescaleAction or a narrower spaces.Box."
        )
    if not (action_space.low < action_space.high).all():
        raise ValueError(
            f"action_space={action_space} has coordinates with low >= high: remove the coordinates that cannot vary."
        )
