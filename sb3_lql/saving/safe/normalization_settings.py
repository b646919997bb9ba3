"""``VecNormalize``'s settings and statistics as JSON and tensors, and back."""

import math
import reprlib
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql.common.validation import check_flag, check_number
from sb3_lql.saving.normalization import FLAGS, MOMENTS, NUMBERS, normalization_state
from sb3_lql.saving.safe.files import fields
from sb3_lql.saving.safe.values import Decoder, encode

_PREFIX = "normalization."


def encode_normalization(env: VecNormalize | None, tensors: dict[str, th.Tensor]) -> dict[str, Any] | None:
    """
    :param env: environments with normalised observations or rewards, if they are
    :param tensors: takes the statistics
    :return: the settings for JSON
    """
    if env is None:
        return None
    settings, statistics = normalization_state(env)
    tensors.update({f"{_PREFIX}{name}": th.from_numpy(value) for name, value in statistics.items()})
    return {name: encode(name, value, {}) for name, value in settings.items()}


def decode_normalization(
    value: Any, tensors: dict[str, th.Tensor], observation_space: spaces.Space[Any]
) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """
    Undo :func:`encode_normalization`.

    :param value: what JSON says
    :param tensors: the file's, from which the statistics are removed
    :param observation_space: the model's
    :return: settings and statistics as :func:`~sb3_lql.saving.normalization.normalization_state` returns them
    :raises ValueError: if they are no statistics of such observations
    :raises TypeError: if settings are of the wrong type
    """
    if value is None:
        return None
    where = _PREFIX.rstrip(".")
    settings = Decoder({}).decode(where, fields(where, value, [*FLAGS, *NUMBERS, "norm_obs_keys"]))
    for name in FLAGS:
        check_flag(_PREFIX + name, settings[name])
    for name in NUMBERS:
        if settings[name] != math.inf or not name.startswith("clip"):  # infinity is no clipping
            check_number(_PREFIX + name, settings[name], low=0.0)
    shapes = _shapes(settings, observation_space, f"{_PREFIX}obs.mean" in tensors)
    statistics = {
        f"{name}.{moment}": _take(f"{_PREFIX}{name}.{moment}", () if moment == "count" else shape, tensors)
        for name, shape in shapes.items()
        for moment in MOMENTS
    }
    return settings, statistics


def _shapes(
    settings: dict[str, Any], observation_space: spaces.Space[Any], has_observations: bool
) -> dict[str, tuple[int, ...]]:
    """The statistics that there must be, and shapes of the observations they are of."""
    keys = settings["norm_obs_keys"]
    if keys is not None:
        known = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {}
        if not isinstance(keys, list) or not all(isinstance(known.get(key), spaces.Box) for key in keys):
            raise ValueError(f"norm_obs_keys={reprlib.repr(keys)} must be keys of the observations {list(known)}")
        boxes = {f"obs.{index}": known[key] for index, key in enumerate(keys)}
    elif has_observations:
        boxes = {"obs": observation_space}
    elif settings["norm_obs"]:
        raise ValueError("norm_obs=True, but there are no statistics of observations")
    else:
        boxes = {}
    return {"ret": ()} | {name: tuple(box.shape or ()) for name, box in boxes.items()}


def _take(name: str, shape: tuple[int, ...], tensors: dict[str, th.Tensor]) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"the tensor {name} is missing")
    array: np.ndarray = tensors.pop(name).numpy()
    if array.dtype != np.float64 or array.shape != shape:
        raise ValueError(f"the tensor {name} is {array.shape} of {array.dtype}, not {shape} of float64")
    if not np.isfinite(array).all():
        raise ValueError(f"the tensor {name} holds values that are not finite")
    if not name.endswith("mean") and (array < 0).any():
        raise ValueError(f"the tensor {name} holds negative values")
    return array
