"""
Act from an ONNX file, with neither PyTorch nor Stable-Baselines3 nor this package.

    python examples/deploy_onnx.py --policy policy.onnx --env Pendulum-v1

Needs numpy, gymnasium and onnxruntime only. Where the agent was trained, this makes the file:

    sb3-lql export logs/train_and_record/model.zip --format onnx --output policy.onnx
"""

import argparse
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import onnxruntime  # type: ignore[import-untyped]


def main(argv: Sequence[str] | None = None) -> None:
    """Play episodes, and print their mean return."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", required=True, help="an ONNX file")
    parser.add_argument("--env", default="Pendulum-v1", help="environment id (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (default: %(default)s)")
    args = parser.parse_args(argv)

    session = onnxruntime.InferenceSession(args.policy, providers=["CPUExecutionProvider"])
    env = gym.make(args.env)
    returns = np.zeros(args.episodes)
    for episode in range(args.episodes):
        observation, _ = env.reset(seed=args.seed + episode)
        done = False
        while not done:
            if not np.isfinite(observation).all():
                raise ValueError(f"The observation {observation} is not finite: the file would return NaN.")
            # The file takes and gives batches, in the environment's own units
            (actions,) = session.run(["actions"], {"observations": observation[np.newaxis]})
            observation, reward, terminated, truncated, _ = env.step(actions[0])
            returns[episode] += float(reward)
            done = terminated or truncated
    print(f"mean return: {returns.mean():.1f} ± {returns.std():.1f} over {args.episodes} episodes")


if __name__ == "__main__":
    main()
