"""
Train LQL on an environment of your own: a point mass on a plane, to be brought to rest at the origin.

    python examples/custom_env.py

Some minutes on a CPU. Any gymnasium environment with a bounded ``Box`` action space will do.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_lql import LQL


class PointMassEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    Observation: position and velocity, shape (4,). Action: force, shape (2,). Reward: minus the distance from the
    origin. Episodes never terminate; a time limit truncates them.
    """

    TIME_STEP = 0.1

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1.0, 1.0, 2)
        self.velocity = np.zeros(2)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.velocity += self.TIME_STEP * action
        self.position += self.TIME_STEP * self.velocity
        return self._observation(), -float(np.linalg.norm(self.position)), False, False, {}

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.position, self.velocity]).astype(np.float32)


def make_env() -> gym.Env[np.ndarray, np.ndarray]:
    """The environment with a time limit."""
    return TimeLimit(PointMassEnv(), max_episode_steps=50)


def main(argv: Sequence[str] | None = None) -> None:
    """Check the environment, train, and evaluate before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=5_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--learning-starts", type=int, default=1_000, help="random steps first (default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=10, help="(default: %(default)s)")
    args = parser.parse_args(argv)

    check_env(PointMassEnv())
    model = LQL(
        "MlpPolicy",
        make_vec_env(make_env, seed=0),
        learning_rate=1e-3,
        learning_starts=args.learning_starts,
        tau=0.02,
        langevin_step_size=(1.0, 1e-4),  # from steps that cross the box of actions to steps that refine
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
