"""
Train for a while in a process that is killed at random moments, half of them in the middle of writing a checkpoint,
again and again, and count what was lost.

    python examples/soak.py --minutes 30 --folder soak

Each new process resumes from the newest checkpoint. At the end ``FOLDER/soak.json`` says how often it was killed, how
many steps were made twice, and what the agent has learned.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_lql import NCLQL
from sb3_lql.saving.callbacks import SaveCheckpointCallback
from sb3_lql.saving.checkpoint import find_checkpoint, read_manifest

ENV_ID = "Pendulum-v1"
SAVE_FREQ = 50


def train(folder: Path) -> None:
    """Learn without end, from the newest checkpoint if there is one."""
    if find_checkpoint(folder) is None:
        # A small network, and nothing compiled: lives are short
        sizes: dict[str, Any] = dict(learning_starts=1_000, buffer_size=50_000, policy_kwargs=dict(net_arch=[64, 64]))
        model = NCLQL("MlpPolicy", ENV_ID, learning_rate=1e-3, compile=False, seed=0, **sizes)
    else:
        model = NCLQL.load_checkpoint(folder, ENV_ID)
        # Every step that the checkpoint counts is in its replay buffer, and each after the first thousand had an update
        assert model.replay_buffer is not None
        assert model.replay_buffer.size() == min(model.num_timesteps, 50_000)
        assert model._n_updates == model.num_timesteps - 1_000 or model.num_timesteps <= 1_000
        assert np.isfinite(model.replay_buffer.observations).all()
    print(f"begins {model.num_timesteps}", flush=True)
    saver = SaveCheckpointCallback(SAVE_FREQ, folder, keep=2, verbose=1)
    model.learn(10**9, callback=saver, reset_num_timesteps=False)


def wait_until_it_writes(folder: Path, seconds: float = 10.0) -> None:
    """Wait for a moment in which a checkpoint is being written, which are few."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(folder.glob("*unfinished*")):
        pass


def soak(folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """
    :param folder: folder for the checkpoints
    :param minutes: for how long
    :param seed: seed of the moments
    :return: what happened
    """
    rng = random.Random(seed)
    end = time.monotonic() + 60 * minutes
    lives: list[dict[str, Any]] = []
    while time.monotonic() < end:
        lifetime = min(rng.uniform(8.0, 90.0), max(end - time.monotonic(), 10.0))
        command = [sys.executable, "-u", __file__, "--child", "--folder", str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            time.sleep(lifetime)
            if rng.random() < 0.5:
                wait_until_it_writes(folder)
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            lines = process.stdout.read().splitlines()
        begins = [int(line.split()[1]) for line in lines if line.startswith("begins")]
        errors = [line for line in lines if "Error" in line]
        newest = find_checkpoint(folder)
        life = {
            "seconds": round(lifetime, 1),
            "begins": begins[0] if begins else None,
            "announced": sum(line.startswith("Saved") for line in lines),
            "checkpoint": 0 if newest is None else read_manifest(newest)["num_timesteps"],
            "entries": sorted(os.listdir(folder)) if folder.is_dir() else [],
            "errors": errors,
        }
        print(life, flush=True)
        lives.append(life)
    return {"minutes": minutes, "kills": len(lives), **_summary(folder, lives)}


def _summary(folder: Path, lives: list[dict[str, Any]]) -> dict[str, Any]:
    begun = [life for life in lives if life["begins"] is not None]
    model = NCLQL.load_checkpoint(folder, ENV_ID)
    mean, std = evaluate_policy(model, make_vec_env(ENV_ID, seed=1), n_eval_episodes=20)
    return {
        "errors": [error for life in lives for error in life["errors"]],
        "killed while a checkpoint was written": sum(any("unfinished" in e for e in life["entries"]) for life in lives),
        "went on from the newest checkpoint": all(
            later["begins"] == earlier["checkpoint"] for earlier, later in pairwise(begun)
        ),
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "parameters are finite": bool(all(value.isfinite().all() for value in model.policy.parameters())),
        "return of 20 episodes": f"{mean:.0f} ± {std:.0f}",
        "lives": lives,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, default=Path("soak"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train(args.folder)
    else:
        result = soak(args.folder / "checkpoints", args.minutes, args.seed)
        (args.folder / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
        print({name: value for name, value in result.items() if name != "lives"})
