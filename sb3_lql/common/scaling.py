"""Arithmetic of action boxes and of ``VecNormalize``."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd


def scale_to_unit(action: np.ndarray, box: spaces.Box) -> np.ndarray:
    """Scale actions of shape ``(..., *box.shape)`` from a bounded box to [-1, 1], as float32."""
    center, half_range = center_and_half_range(box)
    scaled: np.ndarray = np.clip((action - center) / half_range, -1.0, 1.0).astype(np.float32)
    return scaled


def scale_from_unit(scaled_action: np.ndarray, box: spaces.Box, clip: bool = True) -> np.ndarray:
    """Scale actions of shape ``(..., *box.shape)`` from [-1, 1] to a box, in its dtype and, with ``clip``, bounds."""
    center, half_range = center_and_half_range(box)
    action: np.ndarray = center + half_range * scaled_action
    return (np.clip(action, box.low, box.high) if clip else action).astype(box.dtype)


def center_and_half_range(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Both of a bounded box's shape, in float64; each bound is halved first, so that none overflows."""
    half_low, half_high = 0.5 * box.low.astype(np.float64), 0.5 * box.high.astype(np.float64)
    return half_high + half_low, half_high - half_low


def running_std(running: RunningMeanStd, epsilon: float) -> Any:
    """The standard deviation by which ``VecNormalize`` divides, an array or a number."""
    return np.sqrt(running.var + epsilon)


def standardize(values: th.Tensor, mean: th.Tensor | float, std: th.Tensor | float, clip: float) -> th.Tensor:
    """``VecNormalize``'s formula on tensors, with a ``mean`` of zero for rewards and :func:`running_std` as ``std``."""
    return ((values - mean) / std).clamp(-clip, clip)
