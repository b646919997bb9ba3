"""
Train NC-LQL, evaluate it, film it, and save it.

    python examples/train_and_record.py --env Pendulum-v1

Some minutes on a CPU. The environment has to render: classic control needs pygame, MuJoCo needs MUJOCO_GL=egl where
there is no display, and the video itself needs moviepy; all are in ``pip install ".[zoo]"``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecVideoRecorder

from sb3_lql import NCLQL


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate, film and save one agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="environment id (default: %(default)s)")
    parser.add_argument("--timesteps", type=int, default=5_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--learning-starts", type=int, default=1_000, help="random steps first (default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=10, help="(default: %(default)s)")
    parser.add_argument("--video-steps", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("logs/train_and_record"), help="(default: %(default)s)")
    args = parser.parse_args(argv)

    model = NCLQL(
        "MlpPolicy",
        args.env,
        learning_rate=1e-3,
        learning_starts=args.learning_starts,
        tau=0.02,
        policy_kwargs=dict(net_arch=[64, 64]),
        seed=0,
        verbose=1,
    )
    model.learn(args.timesteps)

    # The first steps of the first episode are filmed
    env = VecVideoRecorder(
        make_vec_env(args.env, seed=1, env_kwargs=dict(render_mode="rgb_array")),
        str(args.output),
        record_video_trigger=lambda step: step == 0,
        video_length=args.video_steps,
        name_prefix=args.env,
    )
    mean, std = evaluate_policy(model, env, args.eval_episodes, deterministic=True)
    env.close()
    model.save(args.output / "model.zip")

    print(f"mean return: {mean:.1f} ± {std:.1f} over {args.eval_episodes} episodes")
    print(f"video: {env.video_path}")
    print(f"model: {args.output / 'model.zip'}")


if __name__ == "__main__":
    main()
