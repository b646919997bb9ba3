"""The 2-D multimodal bandit of section 6.1 and appendix C.1."""

from collections import deque
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: Bound of either action coordinate.
BOUND = 2.0
#: Centres of the modes, counterclockwise from the right, shape (8, 2).
MODES = np.array([(2**0.5, 0), (1, 1), (0, 2**0.5), (-1, 1), (-(2**0.5), 0), (-1, -1), (0, -(2**0.5)), (1, -1)])
#: Weights of the modes: every other one is high.
WEIGHTS = np.array([2.0, 1.0] * 4)
#: Standard deviation of a mode, in either direction.
MODE_STD = 0.3
#: Indices of the high modes in the order of table 4.
HIGH_MODES = {"top": 2, "right": 0, "bottom": 6, "left": 4}

#: Width and height of a rendered frame, in pixels.
FRAME_SIZE = 400
#: Colours of the rewards 0, 1/4, ... 1 in a frame, as RGB.
COLOURS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])


def _weighted_kernels(actions: np.ndarray) -> np.ndarray:
    """Each mode's term of the mixture, not normalised: (..., 2) to (..., 8)."""
    squared_distances = np.square(actions[..., None, :] - MODES).sum(axis=-1)
    kernels: np.ndarray = WEIGHTS * np.exp(-0.5 * squared_distances / MODE_STD**2)
    return kernels


def _highest_density() -> float:
    """The mixture's maximum. It lies beside the centre of a high mode, where mean shift climbs to from there."""
    action = MODES[0]
    for _ in range(100):
        kernels = _weighted_kernels(action)
        action = kernels @ MODES / kernels.sum()
    return float(_weighted_kernels(action).sum())


#: What the mixture is divided by, so that the highest reward is 1.
HIGHEST_DENSITY = _highest_density()


def reward(actions: np.ndarray) -> np.ndarray:
    """
    Reward of the bandit: the density of a mixture of eight Gaussians, divided by its maximum (appendix C.1).

    :param actions: in the environment's coordinates, shape (..., 2)
    :return: rewards in (0, 1], shape (...)
    """
    rewards: np.ndarray = _weighted_kernels(np.asarray(actions)).sum(axis=-1) / HIGHEST_DENSITY
    return rewards


class MultimodalBandit(gym.Env[np.ndarray, np.ndarray]):
    """
    Episodes of one step, with the same observation always: the reward depends on the action alone.

    Actions lie in [-2, 2]². Four high modes of :func:`reward`, on the axes, alternate with four half as high, on the
    diagonals: a sampler that only follows the gradient ends in whichever mode is near.

    A frame shows the reward map, the last 1,000 actions in white and the newest in red.

    :param render_mode: "rgb_array" or ``None``; "human" is ``gymnasium.make``'s to add
    :raises ValueError: for another render mode
    """

    #: gymnasium's: how it can be rendered.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode={render_mode!r} is not supported: pass 'rgb_array' or None; for 'human', make the "
                "environment by gymnasium.make('MultimodalBandit-v0', render_mode='human')."
            )
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-BOUND, BOUND, (2,), np.float32)
        self.render_mode = render_mode
        self._actions: deque[np.ndarray] = deque(maxlen=1_000)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: seed of the environment's random generator, which it does not use
        :param options: not used
        :return: the observation and an empty dictionary
        """
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: shape (2,), within [-2, 2]²
        :return: observation, reward, True for terminated, False for truncated, an empty dictionary
        :raises ValueError: for an action outside the action space
        """
        action = np.array(action, dtype=np.float32)
        if not self.action_space.contains(action):
            raise ValueError(f"action={action} is not in {self.action_space}: pass two numbers within [-2, 2].")
        self._actions.append(action)
        return self._observation(), float(reward(action.astype(np.float64))), True, False, {}

    def render(self) -> np.ndarray | None:
        """
        :return: an RGB frame of shape (400, 400, 3), uint8; ``None`` without a render mode
        """
        if self.render_mode is None:
            return None
        frame: np.ndarray = _reward_map().copy()
        newest = len(self._actions) - 1
        for number, (x, y) in enumerate(self._actions):
            column, row = (round((1 + coordinate / BOUND) * (FRAME_SIZE - 1) / 2) for coordinate in (x, -y))
            dot = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            frame[dot] = (255, 0, 0) if number == newest else (255, 255, 255)
        return frame

    def _observation(self) -> np.ndarray:
        return np.zeros(1, np.float32)


@cache
def _reward_map() -> np.ndarray:
    """A frame without actions: the first coordinate to the right, the second one up."""
    axis = np.linspace(-BOUND, BOUND, FRAME_SIZE)
    rewards = reward(np.stack(np.meshgrid(axis, axis[::-1]), axis=-1))
    levels = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(rewards, levels, channel) for channel in COLOURS.T]
    frame: np.ndarray = np.stack(channels, axis=-1).round().astype(np.uint8)
    return frame
