"""The files in which a benchmark and its runs are recorded."""

import json
from pathlib import Path
from typing import Any

from sb3_lql.benchmark.comparison.spec import Run
from sb3_lql.common.files import atomic_write

#: In a results folder, what was planned; the folders of the runs lie below ``runs``.
PLAN_FILE = "benchmark.json"
#: In a run's folder, all that is known of it.
RUN_FILE = "run.json"


def unstarted(run: Run) -> dict[str, Any]:
    """
    :param run: a run
    :return: its record while nothing is known but what was asked for
    """
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


def status_of(folder: Path) -> str:
    """
    :param folder: a run's folder
    :return: "missing", "running" (also where it was stopped), "finished" or "failed"
    """
    return str(read_json(folder / RUN_FILE).get("status", "missing"))


def read_json(path: Path) -> dict[str, Any]:
    """
    :param path: a file
    :return: what it holds; nothing if there is none
    :raises ValueError: if it holds something else than a mapping as JSON
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(content).__name__}, not a mapping.")
    return content


def write_json(path: Path, value: dict[str, Any]) -> None:
    """
    Write a file in one stroke: whoever reads it finds the old one or the new one.

    :param path: the file
    :param value: what it will hold
    """
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())
