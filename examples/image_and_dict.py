"""
Train NC-LQL on images and vectors together: go to a target that only a camera sees.

    python examples/image_and_dict.py

``MultiInputPolicy`` gives each entry of a ``Dict`` observation what it takes (SB3's ``CombinedExtractor``): a CNN for
the image, nothing for the vector. Some minutes on a CPU.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_lql import NCLQL

IMAGE_SIZE = 36  # the least that SB3's NatureCNN takes
Observation = dict[str, Any]


class CameraReachEnv(gym.Env[Observation, np.ndarray]):
    """
    Observation: an image with the target as a white square, and the agent's own position. Action: a displacement.
    Reward: minus the distance from the target.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Dict(
            image=spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8),
            position=spaces.Box(-1.0, 1.0, (2,), np.float32),
        )
        self.action_space = spaces.Box(-0.2, 0.2, (2,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.target = self.np_random.uniform(-1.0, 1.0, (2, 2)).astype(np.float32)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self.position = np.clip(self.position + action, -1.0, 1.0)
        return self._observation(), -float(np.linalg.norm(self.position - self.target)), False, False, {}

    def _observation(self) -> Observation:
        image = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 1), np.uint8)
        row, column = np.round((self.target + 1.0) / 2.0 * (IMAGE_SIZE - 6)).astype(int)
        image[row : row + 6, column : column + 6] = 255
        return dict(image=image, position=self.position)


def make_env() -> gym.Env[Observation, np.ndarray]:
    """The environment with a time limit."""
    return TimeLimit(CameraReachEnv(), max_episode_steps=20)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and evaluate before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=5_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--learning-starts", type=int, default=1_000, help="random steps first (default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=10, help="(default: %(default)s)")
    args = parser.parse_args(argv)

    model = NCLQL(
        "MultiInputPolicy",
        make_vec_env(make_env, seed=0),
        learning_rate=1e-3,
        buffer_size=10_000,  # images are large, and SB3 has no memory-efficient replay buffer for Dict observations
        learning_starts=args.learning_starts,
        batch_size=64,
        tau=0.02,
        policy_kwargs=dict(net_arch=[64, 64], features_extractor_kwargs=dict(cnn_output_dim=32)),
        seed=0,
    )
    print(model.critic.features_extractor)
    env = make_vec_env(make_env, seed=1)
    before, _ = evaluate_policy(model, env, args.eval_episodes, deterministic=True)
    model.learn(args.timesteps)
    after, _ = evaluate_policy(model, env, args.eval_episodes, deterministic=True)
    print(f"mean return: {before:.1f} before training, {after:.1f} after {model.num_timesteps} steps")


if __name__ == "__main__":
    main()
