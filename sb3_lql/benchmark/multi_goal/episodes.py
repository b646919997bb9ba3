"""Stochastic episodes of a trained agent."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import set_random_seed

from sb3_lql.benchmark.comparison.evaluation import SEED_SHIFT
from sb3_lql.envs.multi_goal import GOALS
from sb3_lql.saving.random_states import random_states_kept

ENV_ID = "MultiGoal-v0"
#: Stands for a goal where none was reached.
NO_GOAL = -1


@dataclass(frozen=True)
class Episodes:
    """
    :param paths: positions from the start on, shape (n_episodes, 31, 2), NaN after the end of an episode
    :param goals: index of the goal that each reached, or :data:`NO_GOAL`, shape (n_episodes,)
    :param returns: undiscounted, shape (n_episodes,)
    """

    paths: np.ndarray
    goals: np.ndarray
    returns: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "Episodes":
        """Of a file that :meth:`save` has written."""
        with np.load(path) as arrays:
            return cls(**arrays)

    def save(self, path: Path) -> None:
        """Write them as ``.npz``."""
        np.savez_compressed(path, **vars(self))

    @property
    def favourite(self) -> int:
        """The goal that most of them reached; the first one of several, and where none did."""
        return int(np.bincount(self.goals[self.goals != NO_GOAL], minlength=len(GOALS)).argmax())


def run_episodes(model: BaseAlgorithm, n_episodes: int, seed: int, blocked: Collection[int] = ()) -> Episodes:
    """
    Run stochastic episodes side by side; the random states of a training that goes on stay as they are.

    :param model: trained on the environment's plain observations
    :param n_episodes: how many
    :param seed: that of the model's training
    :param blocked: indices of goals that are walled off
    :raises ValueError: if ``n_episodes`` is not positive
    """
    if n_episodes < 1:
        raise ValueError(f"n_episodes={n_episodes} is not positive: pass a number of episodes.")
    envs = [gym.make(ENV_ID, blocked=blocked) for _ in range(n_episodes)]
    assert envs[0].spec is not None
    assert envs[0].spec.max_episode_steps is not None
    paths = np.full((n_episodes, envs[0].spec.max_episode_steps + 1, 2), np.nan, np.float32)
    goals, returns = np.full(n_episodes, NO_GOAL), np.zeros(n_episodes)
    with random_states_kept():
        set_random_seed(seed + SEED_SHIFT)
        paths[:, 0] = [env.reset(seed=seed + SEED_SHIFT + number)[0] for number, env in enumerate(envs)]
        observations, running, step = paths[:, 0].copy(), set(range(n_episodes)), 0
        while running:
            step += 1
            # Of all, so that their number does not change
            actions, _ = model.predict(observations, deterministic=False)
            for number in sorted(running):
                observations[number], reward, terminated, truncated, info = envs[number].step(actions[number])
                paths[number, step] = observations[number]
                returns[number] += float(reward)
                if terminated or truncated:
                    goals[number] = info.get("goal", NO_GOAL)
                    running.remove(number)
    return Episodes(paths, goals, returns)
