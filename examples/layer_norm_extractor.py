"""
Give the critic a features extractor of your own: a layer with layer normalisation, through ``policy_kwargs``.

    python examples/layer_norm_extractor.py

Features are computed once per observation; the Langevin chain runs on what follows. So the action-gradient keeps its
closed form, whatever the extractor does. Some minutes on a CPU.
"""

import argparse
from collections.abc import Sequence

import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_lql import NCLQL


class LayerNormExtractor(BaseFeaturesExtractor):
    """
    :param observation_space: a ``Box`` of vectors
    :param features_dim: number of features
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 64) -> None:
        super().__init__(observation_space, features_dim)
        self.layers = nn.Sequential(
            nn.Linear(observation_space.shape[0], features_dim),
            nn.LayerNorm(features_dim),
            nn.Mish(),
        )

    def forward(self, observations: th.Tensor) -> th.Tensor:
        features: th.Tensor = self.layers(observations)
        return features


def main(argv: Sequence[str] | None = None) -> None:
    """Train and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="environment id (default: %(default)s)")
    parser.add_argument("--timesteps", type=int, default=5_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--learning-starts", type=int, default=1_000, help="random steps first (default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=10, help="(default: %(default)s)")
    args = parser.parse_args(argv)

    model = NCLQL(
        "MlpPolicy",
        args.env,
        learning_rate=1e-3,
        learning_starts=args.learning_starts,
        tau=0.02,
        policy_kwargs=dict(
            features_extractor_class=LayerNormExtractor,
            features_extractor_kwargs=dict(features_dim=64),
            net_arch=[64],
        ),
        seed=0,
    )
    print(model.critic)
    model.learn(args.timesteps)
    mean, std = evaluate_policy(model, make_vec_env(args.env, seed=1), args.eval_episodes, deterministic=True)
    print(f"mean return: {mean:.1f} ± {std:.1f} over {args.eval_episodes} episodes")


if __name__ == "__main__":
    main()
