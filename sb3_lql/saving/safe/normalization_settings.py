"""``VecNormalize``'s settings and statistics as JSON and tensors, and back."""

import reprlib
from typing import Annotated, Any

import msgspec
import numpy as np
import torch as th
from gymnasium import spaces
from msgspec import Meta
from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql.saving.normalization import FLAGS, MOMENTS, NUMBERS, normalization_state
from sb3_lql.saving.safe.files import convert, pop_tensor
from sb3_lql.saving.safe.values import Decoder, NonNegative, encode

_PREFIX = "normalization."
_Settings = msgspec.defstruct(
    "Settings",
    [
        *((name, bool) for name in FLAGS),
        # Infinity is no clipping
        *((name, Annotated[float, Meta(ge=0.0)] if name.startswith("clip") else NonNegative) for name in NUMBERS),
        ("norm_obs_keys", list[str] | None),
    ],
    forbid_unknown_fields=True,
)


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
    settings = msgspec.structs.asdict(convert(where, Decoder({}).decode(where, value), _Settings))
    shapes = _shapes(settings, observation_space, f"{_PREFIX}obs.mean" in tensors)
    statistics = {
        f"{name}.{moment}": pop_tensor(
            tensors,
            f"{_PREFIX}{name}.{moment}",
            th.float64,
            () if moment == "count" else shape,
            negative=moment == "mean",
        ).numpy()
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
        if not all(isinstance(known.get(key), spaces.Box) for key in keys):
            raise ValueError(f"norm_obs_keys={reprlib.repr(keys)} must be keys of the observations {list(known)}")
        boxes = {f"obs.{index}": known[key] for index, key in enumerate(keys)}
    elif has_observations:
        boxes = {"obs": observation_space}
    elif settings["norm_obs"]:
        raise ValueError("norm_obs=True, but there are no statistics of observations")
    else:
        boxes = {}
    return {"ret": ()} | {name: tuple(box.shape or ()) for name, box in boxes.items()}
