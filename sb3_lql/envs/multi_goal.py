"""Four equally good goals around a point: a task whose soft-optimal policy has four modes."""

from collections import deque
from collections.abc import Collection
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: Bound of either coordinate of the position.
BOUND = 7.0
#: The goals, counterclockwise from the right, shape (4, 2).
GOALS = np.array([(5.0, 0.0), (0.0, 5.0), (-5.0, 0.0), (0.0, -5.0)])
#: Who is at most this far from a goal has reached it.
GOAL_RADIUS = 1.0
#: Radius of the closed disc around a blocked goal. No step, at most sqrt(2) long, leaps over its middle.
BLOCKED_RADIUS = 1.5
#: Standard deviation of either coordinate of the start.
START_STD = 0.1
#: Cost of an action, by its squared norm.
ACTION_COST = 0.1
#: Cost of a step, by the squared distance to the nearest goal.
DISTANCE_COST = 0.01
#: Reward of reaching a goal: straight to one, full steps return 9.3 in all.
BONUS = 10.0

#: Width and height of a rendered frame, in pixels.
FRAME_SIZE = 400
#: Episodes in a frame, the current one included.
N_SHOWN = 20


def distances(positions: np.ndarray) -> np.ndarray:
    """Distance to each goal: (..., 2) to (..., 4)."""
    lengths: np.ndarray = np.linalg.norm(np.asarray(positions)[..., None, :] - GOALS, axis=-1)
    return lengths


class MultiGoal(gym.Env[np.ndarray, np.ndarray]):
    """
    A point in the plane that starts near the origin, and ends its episode at one of four equally good goals.

    The observation is the position, within [-7, 7]²; the action in [-1, 1]² is added to it. The reward is
    ``-0.1 |a|² - 0.01 d²``, with d the distance from the new position to the nearest goal, and 10 more within 1 of a
    goal, where the episode ends; ``info["goal"]`` is then the goal's index. Episodes of ``MultiGoal-v0`` are cut after
    30 steps. After https://arxiv.org/abs/1702.08165.

    A frame shows the goals and the paths of the last 20 episodes, the current one in red.

    :param blocked: indices of goals that are walled off: a step that would end within 1.5 of one leaves the point where
        it is. They cost by their distance as the others do: nothing tells the agent
    :param render_mode: "rgb_array" or ``None``; "human" is ``gymnasium.make``'s to add
    :raises ValueError: for a goal that does not exist, or another render mode
    """

    #: gymnasium's: how it can be rendered.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, blocked: Collection[int] = (), render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(
                f"render_mode={render_mode!r} is not supported: pass 'rgb_array' or None; for 'human', make the "
                "environment by gymnasium.make('MultiGoal-v0', render_mode='human')."
            )
        if unknown := set(blocked) - set(range(len(GOALS))):
            raise ValueError(f"blocked={blocked} holds {unknown}: pass indices of goals, 0 to {len(GOALS) - 1}.")
        self.observation_space = spaces.Box(-BOUND, BOUND, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = render_mode
        self._is_blocked = np.isin(np.arange(len(GOALS)), list(blocked))
        self._position = np.zeros(2, np.float32)
        self._paths: deque[list[np.ndarray]] = deque(maxlen=N_SHOWN)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param seed: seed of the environment's random generator, which draws the start
        :param options: not used
        :return: the position and an empty dictionary
        """
        super().reset(seed=seed)
        self._position = self.np_random.normal(0.0, START_STD, 2).astype(np.float32)
        self._paths.append([self._position])
        return self._position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: shape (2,), within [-1, 1]²
        :return: position, reward, whether a goal is reached, False for truncated, the goal's index if one is reached
        :raises ValueError: for an action outside the action space
        """
        action = np.array(action, dtype=np.float32)
        if not self.action_space.contains(action):
            raise ValueError(f"action={action} is not in {self.action_space}: pass two numbers within [-1, 1].")
        position = np.clip(self._position + action, -BOUND, BOUND)
        if not (self._is_blocked & (distances(position) <= BLOCKED_RADIUS)).any():
            self._position = position
        if self._paths:
            self._paths[-1].append(self._position)

        to_goals = distances(self._position)
        nearest = int(to_goals.argmin())
        reached = bool(to_goals[nearest] <= GOAL_RADIUS)
        cost = ACTION_COST * np.square(action, dtype=np.float64).sum() + DISTANCE_COST * to_goals[nearest] ** 2
        return (
            self._position.copy(),
            float(BONUS * reached - cost),
            reached,
            False,
            {"goal": nearest} if reached else {},
        )

    def render(self) -> np.ndarray | None:
        """
        :return: an RGB frame of shape (400, 400, 3), uint8; ``None`` without a render mode
        """
        if self.render_mode is None:
            return None
        axis = np.linspace(-BOUND, BOUND, FRAME_SIZE)  # the first coordinate to the right, the second one up
        to_goals = distances(np.stack(np.meshgrid(axis, axis[::-1]), axis=-1))
        frame = np.full((FRAME_SIZE, FRAME_SIZE, 3), 255, np.uint8)
        frame[(to_goals <= GOAL_RADIUS).any(axis=-1)] = (120, 200, 120)
        frame[(self._is_blocked & (to_goals <= BLOCKED_RADIUS)).any(axis=-1)] = (150, 150, 150)
        for number, path in enumerate(self._paths, start=1):
            # Dots so close that they make lines
            ends = np.array(path)
            dots = np.concatenate([ends, *(np.linspace(*pair, 50) for pair in pairwise(ends))])
            column, row = ((dots * (1, -1) / BOUND + 1) * (FRAME_SIZE - 1) / 2).round().astype(int).T
            frame[row, column] = (255, 0, 0) if number == len(self._paths) else (60, 90, 160)
        return frame
