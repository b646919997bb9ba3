"""Argument checks: every error names the argument, its value and the fix."""

import math
import os
import reprlib
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import get_device

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
#: Random generators take 32 bits.
LARGEST_SEED = 2**32 - 1
#: Types of arguments that SB3 does not check.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "policy_kwargs": ((dict,), "a dict"),
    "replay_buffer_kwargs": ((dict,), "a dict"),
    "replay_buffer_class": ((type, type(None)), "a class, or None"),
    "tensorboard_log": ((str, os.PathLike, type(None)), "a folder, or None"),
}


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
    # Not as integers, since the magnitude of the smallest one overflows, nor as float16, to which `largest` is infinite
    exact = numbers.dtype.kind == "f" and numbers.dtype.itemsize >= 4
    magnitudes = np.abs(numbers if exact else numbers.astype(np.float64))
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
    _check_learning_rate(model)
    check_count("buffer_size", model.buffer_size)
    check_number("learning_starts", vars(model)["learning_starts"], low=0.0)
    check_count("batch_size", model.batch_size)
    check_number("tau", model.tau, low=0.0, high=1.0)
    check_number("gamma", model.gamma, low=0.0, high=1.0)
    check_count("gradient_steps", model.gradient_steps, low=-1)
    check_count("n_steps", model.n_steps)
    check_count("stats_window_size", model._stats_window_size)
    check_flag("optimize_memory_usage", model.optimize_memory_usage)
    if model.seed is not None and check_count("seed", model.seed, low=0) > LARGEST_SEED:
        raise ValueError(f"seed={model.seed} is too large: pass an integer of at most {LARGEST_SEED}.")
    for name, (types, description) in _TYPES.items():
        if not isinstance(value := getattr(model, name), types):
            raise TypeError(f"{name}={value!r} must be {description}, not {type(value).__name__}.")
    check_noise(model.action_noise, model.action_space.shape or ())
    if model.n_steps > 1 and isinstance(model.observation_space, spaces.Dict) and model.replay_buffer_class is None:
        raise ValueError(f"n_steps={model.n_steps}: SB3's n-step buffer takes no Dict observations; leave it at 1.")

    train_freq: Any = model.train_freq  # steps, or (frequency, unit); SB3 checks the unit
    has_unit = isinstance(train_freq, tuple) and len(train_freq) == 2
    frequency, unit = train_freq if has_unit else (train_freq, "step")
    check_count("train_freq", frequency)
    if "episode" in str(unit).lower() and model.env is not None and model.env.num_envs > 1:
        raise ValueError(f"train_freq={train_freq} counts the episodes of several environments: count steps.")


def _check_learning_rate(model: OffPolicyAlgorithm) -> None:
    rate: Any = model.learning_rate
    if callable(rate):
        try:
            rate = float(rate(model._current_progress_remaining))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"learning_rate={model.learning_rate!r} is no schedule ({error}): pass a number, or a function of the "
                "remaining progress, from 1 to 0, that returns one."
            ) from error
    check_number("learning_rate", rate, low=0.0)


def check_noise(noise: Any, shape: tuple[int, ...]) -> None:
    """
    :param noise: an action noise, or ``None``
    :param shape: of an action
    :raises TypeError: if it is no action noise
    :raises ValueError: if its shape does not fit
    """
    if noise is not None and not (callable(noise) and hasattr(noise, "reset")):
        raise TypeError(f"action_noise={noise!r} is no ActionNoise: pass one, such as SB3's NormalActionNoise.")
    for attribute in ("_mu", "_sigma", "initial_noise"):
        value = getattr(noise, attribute, None)
        if value is not None and np.shape(value) not in ((), (1,), shape):
            raise ValueError(
                f"action_noise has shape {np.shape(value)}, and actions have {shape}: pass one of that shape."
            )


def check_before_construction(env: Any, arguments: dict[str, Any]) -> None:
    """Check what SB3's constructor needs at once: environments, where to compute, and how much to print."""
    check_flag("_init_setup_model", arguments["_init_setup_model"])
    if env is None and arguments["_init_setup_model"]:
        raise ValueError("env=None has no spaces to make networks for: pass environments or their id, or use load.")
    if not (env is None or isinstance(env, str) or hasattr(env, "action_space")):
        raise TypeError(f"env={env!r} is no environment: pass one, a VecEnv, or an id such as 'Pendulum-v1'.")
    if not isinstance(verbose := arguments["verbose"], Integral):
        raise TypeError(f"verbose={verbose!r} must be 0, 1 or 2.")
    try:
        get_device(arguments["device"])
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device={arguments['device']!r} is unknown: pass 'cpu', 'cuda' or 'auto'.") from error


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
