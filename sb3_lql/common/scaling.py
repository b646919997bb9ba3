"""The affine map between a box of any bounds and float type and [-1, 1]^d."""

import numpy as np
from gymnasium import spaces


def scale_to_unit(action: np.ndarray, box: spaces.Box) -> np.ndarray:
    """
    :param action: within the box, shape ``(..., *box.shape)``
    :param box: a bounded box
    :return: within [-1, 1], float32
    """
    middle, half_range = _affine(box)
    scaled: np.ndarray = np.clip((action - middle) / half_range, -1.0, 1.0).astype(np.float32)
    return scaled


def scale_from_unit(scaled_action: np.ndarray, box: spaces.Box) -> np.ndarray:
    """
    :param scaled_action: within [-1, 1], shape ``(..., *box.shape)``
    :param box: a bounded box
    :return: within the box, of its dtype
    """
    middle, half_range = _affine(box)
    action: np.ndarray = np.clip(middle + half_range * scaled_action, box.low, box.high).astype(box.dtype)
    return action


def _affine(box: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half range of the box, in float64 and halved before they are added: no bounds overflow."""
    half_low, half_high = 0.5 * box.low.astype(np.float64), 0.5 * box.high.astype(np.float64)
    return half_high + half_low, half_high - half_low
