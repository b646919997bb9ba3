"""Results folders as `sb3-lql benchmark run` writes them, with returns that a test decides on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sb3_lql.benchmark.comparison.spec import slug


def plan(folder: Path, algorithms: list[str], tasks: list[str], seeds: list[int], n_evaluations: int = 5) -> Path:
    """A benchmark of which no run has begun."""
    runs = [f"{task}/{slug(label)}/{seed}" for seed in seeds for task in tasks for label in algorithms]
    content = {
        "name": "short",
        "command": "sb3-lql benchmark run benchmarks/short.yml --results results",
        "algorithms": algorithms,
        "tasks": tasks,
        "seeds": seeds,
        "evaluations": n_evaluations,
        "runs": runs,
        "commands": {run: f"sb3-lql train for {run}" for run in runs},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").write_text(json.dumps(content))
    return folder


def run(
    folder: Path, task: str, algorithm: str, seed: int, returns: list[float] | Callable[[int], float], **changes: Any
) -> Path:
    """
    A run with the mean return of each evaluation, in both modes (as returns of one less and one more); finished unless
    ``status`` says otherwise. ``n_done`` is the number of evaluations after updates where ``returns`` is a function.
    """
    n_evaluations = json.loads((folder / "benchmark.json").read_text())["evaluations"]
    n_done = changes.pop("n_done", n_evaluations)
    means = [returns(step) for step in range(n_done + 1)] if callable(returns) else returns
    seconds = changes.pop("seconds", lambda step: 10.0 * step)
    content = {
        "task": task,
        "algorithm": algorithm,
        "algo": "nclql",
        "seed": seed,
        "n_timesteps": 50_000,
        "learning_starts": 30_000,
        "n_envs": 5,
        "n_eval_episodes": 2,
        "hyperparams": {"batch_size": 256},
        "command": f"sb3-lql train --algo nclql --env {task} --seed {seed}",
        "status": "finished",
        "error": None,
        "parameters": {"critic": 1_000},
        "versions": {"python": "3.11.7", "sb3_lql": "0.1.0", "torch": "2.8.0"},
        "hardware": {
            "host": "node-1",
            "processor": "A processor",
            "cores": 2,
            "memory_gb": 24.0,
            "device": "cpu",
            "threads": 1,
        },
        "attempts": [
            {"started": "2026-11-21T17:00:00+00:00", "host": "node-1", "pid": 1, "from_timesteps": 0},
        ],
        "evaluations": [
            {
                "fraction": step / n_evaluations,
                "timesteps": 30_000 + 4_000 * step,
                "updates": 800 * step,
                "training_seconds": seconds(step),
                "evaluation_seconds": 1.0,
                "deterministic": {"returns": [mean - 1, mean + 1], "lengths": [10, 10]},
                "stochastic": {"returns": [mean - 1, mean + 1], "lengths": [10, 10]},
            }
            for step, mean in enumerate(means)
        ],
    } | changes
    path = folder / "runs" / task / slug(algorithm) / str(seed) / "run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
