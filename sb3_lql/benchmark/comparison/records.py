"""The files in which a benchmark and its runs are recorded."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from sb3_lql.benchmark.comparison.spec import Run, Spec
from sb3_lql.benchmark.json_files import read_json, write_json

#: In a results folder, what was planned; the folders of the runs lie below ``runs``.
PLAN_FILE = "benchmark.json"
#: In a run's folder, all that is known of it.
RUN_FILE = "run.json"


def write_plan(spec: Spec, results: Path, command: str) -> None:
    """
    Record what is to be run, for the report.

    Raises ValueError if the folder has other runs: more may join a benchmark, but none may change.
    """
    plan: dict[str, Any] = {
        "name": spec.name,
        "command": command,
        "algorithms": [algorithm.label for algorithm in spec.algorithms],
        "tasks": list(spec.tasks),
        "seeds": list(spec.seeds),
        "evaluations": spec.n_evaluations,
        "runs": [run.name for run in spec.runs()],
        "settings": json.loads(json.dumps({run.name: dataclasses.asdict(run) for run in spec.runs()})),
        "commands": {run.name: run.command for run in spec.runs()},
    }
    before = read_json(results / PLAN_FILE)
    changed = [name for name, run in before.get("settings", {}).items() if plan["settings"].get(name) != run]
    if changed:
        raise ValueError(
            f"{results} holds other runs, such as {changed[0]}: pass another --results. To the same one, algorithms, "
            "tasks and seeds can be added."
        )
    write_json(results / PLAN_FILE, plan)


def unstarted(run: Run) -> dict[str, Any]:
    """A run's record while nothing is known but what was asked for."""
    return {
        "task": run.task,
        "algorithm": run.algorithm.label,
        "algo": run.algorithm.algo,
        "seed": run.seed,
        "n_timesteps": run.n_timesteps,
        "n_eval_episodes": run.n_eval_episodes,
        "command": run.command,
        "training_seconds": 0.0,
        "evaluations": [],
        "attempts": [],
    }


def record_failure(run: Run, folder: Path, error: str) -> None:
    """Mark a run as failed, and keep what is known of it."""
    folder.mkdir(parents=True, exist_ok=True)
    known = unstarted(run) | read_json(folder / RUN_FILE)
    write_json(folder / RUN_FILE, known | {"status": "failed", "error": error})


def status_of(folder: Path) -> str:
    """A run's "missing", "running" (also where it was stopped), "finished" or "failed"."""
    return str(read_json(folder / RUN_FILE).get("status", "missing"))
