"""Train NC-LQL on a MuJoCo task through the RL Zoo, evaluate it, and leave a model, a learning curve and a video.

Run by ``make demo``.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Networks as small as these gain nothing from a second thread, and lose much where other programs want the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import matplotlib
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_lql import NCLQL

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ENV_ID = "InvertedPendulum-v5"
EPISODES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-timesteps", type=int, default=6_000, help="environment steps")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for everything that is written")
    args = parser.parse_args()

    say(f"Training NC-LQL on {ENV_ID} for {args.n_timesteps} steps")
    run_folder = train(args.n_timesteps, args.output)
    model_path = run_folder / f"{ENV_ID}.zip"
    say(f"Evaluating three ways to act, {EPISODES} episodes each")
    returns = evaluate(NCLQL.load(model_path, device="auto"))
    say("Drawing the learning curve and filming an episode")
    curve = plot_learning_curve(run_folder / "evaluations.npz", returns["random policy"], args.output)
    video = record_video(args.output)

    print(f"\nReturn on {ENV_ID}, mean and standard deviation of {EPISODES} episodes:")
    for name, (mean, std) in returns.items():
        print(f"  {name:24s} {mean:7.2f} ± {std:.2f}")
    print(f"\nmodel:          {model_path}\nlearning curve: {curve}\nvideo:          {video}")


def say(what: str) -> None:
    """What is being done, at once, also where the output goes to a file."""
    print(f"== {what}", flush=True)


def zoo(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run an ``sb3-lql`` command."""
    return subprocess.run([sys.executable, "-m", "sb3_lql.zoo.cli", *arguments], check=True, text=True, **kwargs)


def train(n_timesteps: int, output: Path) -> Path:
    """Train with the hyperparameters that ``sb3-lql train`` has for the task; return the run's folder."""
    zoo(
        *("train", "--env", ENV_ID, "-f", str(output), "--n-timesteps", str(n_timesteps), "--seed", "0"),
        *("--eval-freq", "1000", "--eval-episodes", "5", "--progress", "--verbose", "0", "--log-interval", "-2"),
    )
    return max((output / "nclql").glob(f"{ENV_ID}_*"), key=lambda folder: int(folder.name.split("_")[-1]))


class RandomPolicy:
    """Uniformly random actions, behind the interface that evaluation needs."""

    def __init__(self, action_space: gym.spaces.Space[Any]) -> None:
        self.action_space = action_space
        action_space.seed(0)

    def predict(self, observation: np.ndarray, *args: Any, **kwargs: Any) -> tuple[np.ndarray, None]:
        return np.array([self.action_space.sample() for _ in observation]), None


def evaluate(model: BaseAlgorithm) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the return for each way to act, on the same initial states."""

    ways: dict[str, tuple[Any, bool]] = {
        "NC-LQL, deterministic": (model, True),
        "NC-LQL, stochastic": (model, False),
        "random policy": (RandomPolicy(make_vec_env(ENV_ID).action_space), False),
    }
    returns = {}
    for name, (policy, deterministic) in ways.items():
        print(f"  {name} ...", flush=True)
        env = make_vec_env(ENV_ID, n_envs=EPISODES, seed=1000)
        mean, std = evaluate_policy(policy, env, EPISODES, deterministic)
        returns[name] = float(np.mean(mean)), float(np.mean(std))
    return returns


def plot_learning_curve(evaluations: Path, random_return: tuple[float, float], output: Path) -> Path:
    """Draw the evaluations made while training, beside a random policy's return."""
    data = np.load(evaluations)
    mean, std = data["results"].mean(axis=1), data["results"].std(axis=1)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(data["timesteps"], mean, color="C0", marker="o", label="NC-LQL, 5 deterministic episodes, ± std")
    axes.fill_between(data["timesteps"], mean - std, mean + std, color="C0", alpha=0.2, linewidth=0)
    axes.axhline(random_return[0], color="C7", linestyle="--", label="random policy")
    axes.set(xlabel="environment steps", ylabel="return", title=ENV_ID, xlim=(0, None))
    axes.legend(loc="upper left")
    path = output / "learning_curve.png"
    figure.savefig(path, dpi=150)
    return path


def record_video(output: Path) -> str:
    """Film the agent with ``sb3-lql record_video``; where nothing can be rendered, say so in one line."""
    # Without a display, MuJoCo renders through EGL, on a GPU or in software
    headless = {} if os.environ.get("DISPLAY") else {"MUJOCO_GL": "egl"}
    try:
        zoo(
            *("record_video", "--env", ENV_ID, "-f", str(output), "--n-timesteps", "250"),
            *("--output-folder", str(output / "video")),
            env=headless | os.environ,
            capture_output=True,
            timeout=120,
        )
        return str(max((output / "video").glob("*.mp4"), key=os.path.getmtime))
    except (subprocess.SubprocessError, ValueError):
        return "skipped, as nothing can be rendered here (set MUJOCO_GL to egl, osmesa or glfw, whichever works)"


if __name__ == "__main__":
    main()
