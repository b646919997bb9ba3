"""``sb3-lql multigoal``, run as a user runs it, with agents that have hardly learned."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rl_zoo3")

from stable_baselines3 import SAC

from sb3_lql.algorithms import ALGORITHMS
from sb3_lql.benchmark.multi_goal.episodes import Episodes
from sb3_lql.benchmark.multi_goal.measures import goal_table, summarize
from sb3_lql.zoo import hyperparams_file
from sb3_lql.zoo.cli import main
from tests.zoo.conftest import sb3_lql

ENV_ID = "MultiGoal-v0"
SHORT = ("--seeds", "2", "--n-timesteps", "3004", "--n-more-timesteps", "35", "--n-episodes", "6", "--device", "cpu")
COMMAND = ("multigoal", "--algo", "sac", "nclql", "--output-dir", "goals", *SHORT)
RUNS = [(algo, seed) for algo in ("sac", "nclql") for seed in (0, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which the command has run."""
    folder = tmp_path_factory.mktemp("multi_goal")
    sb3_lql(*COMMAND, folder=folder)
    return folder


def records(folder: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((folder / "goals" / "runs.json").read_text())
    return content


def test_every_run_is_measured_in_three_situations(folder: Path) -> None:
    runs = records(folder)
    assert [(run["algo"], run["seed"]) for run in runs] == RUNS
    for run in runs:
        path = hyperparams_file(run["algo"])
        assert path is not None
        assert run["settings"] == yaml.safe_load(path.read_text())[ENV_ID] | {"n_timesteps": 3004}
        assert run["replay_buffer"] == {"before": 3004, "after": 3039}
        assert (run["n_episodes"], run["n_more_timesteps"]) == (6, 35)
        for situation in ("blocked", "adapted"):
            assert run[situation]["shares"][run["favourite"]] == 0
        of_run = folder / "goals" / "runs" / run["algo"] / str(run["seed"])
        for situation in ("free", "blocked"):
            assert run[situation] == summarize(Episodes.load(of_run / f"{situation}.npz"))
    assert runs[0]["free"] != runs[1]["free"]


def test_table_and_picture_are_written(folder: Path) -> None:
    runs = records(folder)
    table = (folder / "goals" / "table.md").read_text()
    assert table == goal_table([("SAC", runs[:2]), ("NC-LQL", runs[2:])])
    assert all((folder / "goals" / f"paths.{suffix}").is_file() for suffix in ("svg", "png"))


def test_the_agent_that_is_saved_has_not_learned_on(folder: Path) -> None:
    (path,) = (folder / "goals" / "runs" / "sac" / "0").rglob(f"{ENV_ID}.zip")
    assert SAC.load(path).num_timesteps == 3004


def test_what_is_finished_is_not_trained_again(folder: Path) -> None:
    before = records(folder)
    stopped = folder / "goals" / "runs" / "sac" / "1"
    (stopped / "run.json").unlink()
    sb3_lql(*COMMAND, folder=folder)
    after = records(folder)
    again = [run["seconds"] != same["seconds"] for run, same in zip(before, after, strict=True)]
    assert again == [False, True, False, False]
    assert before[1]["free"] == after[1]["free"]
    assert len(list(stopped.rglob(f"{ENV_ID}.zip"))) == 1


def test_a_folder_with_other_runs_is_refused(folder: Path) -> None:
    output = sb3_lql(*COMMAND, "--n-timesteps", "1005", folder=folder, status=2)
    assert "holds a run with another value of settings: pass that one, or another folder" in output


@pytest.mark.parametrize("option", ["seeds", "n-episodes", "n-more-timesteps"])
def test_counts_must_be_positive(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sb3-lql", *COMMAND, f"--{option}", "0"])
    with pytest.raises(SystemExit):
        main()
    assert f"argument --{option}: 0 is not positive" in capsys.readouterr().err


def test_every_algorithm_has_hyperparameters_for_the_task() -> None:
    for algo in (*ALGORITHMS, "sac"):
        path = hyperparams_file(algo)
        assert path is not None
        assert yaml.safe_load(path.read_text())[ENV_ID]["n_timesteps"] == 10_000
