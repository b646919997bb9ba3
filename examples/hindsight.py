"""
Learn from a sparse reward with hindsight experience replay (HER): go to a goal on a plane.

    python examples/hindsight.py

Every step costs 1 until the goal is reached, which random actions seldom do. In hindsight, though, every episode has
reached something. Some minutes on a CPU. HER: https://arxiv.org/abs/1707.01495
"""

import argparse
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_lql import NCLQL

Observation = dict[str, Any]


class ReachEnv(gym.Env[Observation, np.ndarray]):
    """
    A goal environment: observations are dictionaries of "observation", "achieved_goal" and "desired_goal", here all of
    them positions, shape (2,). Action: a displacement, shape (2,). Reward: -1, or 0 within ``RADIUS`` of the goal.
    """

    RADIUS = 0.1

    def __init__(self) -> None:
        position = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Dict(observation=position, achieved_goal=position, desired_goal=position)
        self.action_space = spaces.Box(-0.1, 0.1, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-1.0, 1.0, (2, 2)).astype(np.float32)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self.position = np.clip(self.position + action, -1.0, 1.0)
        reward = float(self.compute_reward(self.position, self.goal, {}))
        is_success = reward == 0.0
        return self._observation(), reward, is_success, False, {"is_success": is_success}

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> np.ndarray:
        """The reward of a transition, or of a batch of them: the replay buffer asks for those of other goals."""
        distance = np.linalg.norm(achieved_goal - desired_goal, axis=-1)
        return np.where(distance <= self.RADIUS, 0.0, -1.0)

    def _observation(self) -> Observation:
        return dict(observation=self.position, achieved_goal=self.position, desired_goal=self.goal)


def make_env() -> gym.Env[Observation, np.ndarray]:
    """The environment with a time limit."""
    return TimeLimit(ReachEnv(), max_episode_steps=30)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and evaluate before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=5_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--learning-starts", type=int, default=1_000, help="random steps first (default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=20, help="(default: %(default)s)")
    args = parser.parse_args(argv)

    model = NCLQL(
        "MultiInputPolicy",
        make_vec_env(make_env, seed=0),
        learning_rate=1e-3,
        learning_starts=args.learning_starts,  # HER needs an episode that has ended
        tau=0.02,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs=dict(n_sampled_goal=4, goal_selection_strategy="future"),
        policy_kwargs=dict(net_arch=[64, 64]),
        seed=0,
    )
    env = make_vec_env(make_env, seed=1)
    before, _ = evaluate_policy(model, env, args.eval_episodes, deterministic=True)
    model.learn(args.timesteps)
    after, _ = evaluate_policy(model, env, args.eval_episodes, deterministic=True)
    print(f"mean return: {before:.1f} before training, {after:.1f} after {model.num_timesteps} steps")


if __name__ == "__main__":
    main()
