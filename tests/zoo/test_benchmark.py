"""``sb3-lql benchmark`` as a user calls it: on Ray, with workers that are killed, stopped and gone on with."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray")

from tests.zoo.conftest import HEADLESS, SB3_LQL, sb3_lql

TINY = {
    "learning_starts": 50,
    "batch_size": 8,
    "buffer_size": 3_000,
    "policy_kwargs": "dict(net_arch=[8])",
    "env_kwargs": {"max_episode_steps": 20},
}
N_TIMESTEPS = 1_050
FRACTIONS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def write_spec(folder: Path, **algorithms: dict[str, Any]) -> None:
    """A spec of runs of a few seconds."""
    spec = {
        "tasks": {"Pendulum-v1": N_TIMESTEPS},
        "algorithms": {
            label: {"algo": settings["algo"], "hyperparams": TINY | settings.get("hyperparams", {})}
            for label, settings in algorithms.items()
        },
        "seeds": [1],
        "evaluations": 5,
        "n_eval_episodes": 2,
    }
    (folder / "spec.yml").write_text(yaml.safe_dump(spec, sort_keys=False))


def record(folder: Path, label: str) -> dict[str, Any]:
    """What is known of the run of an algorithm."""
    path = folder / "results" / "spec" / "runs" / "Pendulum-v1" / label / "1" / "run.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {"evaluations": []}


def wait_for_evaluations(folder: Path, label: str, number: int) -> dict[str, Any]:
    """Wait until a run has been evaluated so often."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = record(folder, label)
        if len(found["evaluations"]) >= number:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{label} has not been evaluated {number} times")


@contextlib.contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The benchmark's process, alone in its group."""
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [SB3_LQL, "benchmark", "run", "spec.yml"],
            cwd=folder,
            env={**os.environ, **HEADLESS},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def assert_evaluated_once_at_each_fraction(found: dict[str, Any]) -> None:
    assert found["status"] == "finished"
    evaluations = found["evaluations"]
    assert [evaluation["fraction"] for evaluation in evaluations] == FRACTIONS
    assert [evaluation["updates"] for evaluation in evaluations] == [0, 200, 400, 600, 800, 1_000]


def test_killed_worker_goes_on_and_a_failed_run_stops_nobody(tmp_path: Path) -> None:
    """And a page shows all of it."""
    write_spec(
        tmp_path,
        nclql={"algo": "nclql"},
        broken={"algo": "lql", "hyperparams": {"gamma": 3}},
        sac={"algo": "sac"},
    )
    with started(tmp_path) as process:
        before = wait_for_evaluations(tmp_path, "nclql", 2)
        os.kill(before["attempts"][-1]["pid"], signal.SIGKILL)
        # Not everything is finished: the broken run never is
        assert process.wait(timeout=280) == 1, (tmp_path / "output.txt").read_text()
    output = (tmp_path / "output.txt").read_text()

    found = record(tmp_path, "nclql")
    assert_evaluated_once_at_each_fraction(found)
    assert found["evaluations"][: len(before["evaluations"])] == before["evaluations"]
    first, second = found["attempts"]
    assert first["from_timesteps"] == 0
    assert second["from_timesteps"] >= before["evaluations"][-1]["timesteps"]
    assert second["pid"] != first["pid"]
    assert "its worker died, going on from the last checkpoint" in output

    assert_evaluated_once_at_each_fraction(record(tmp_path, "sac"))
    failed = record(tmp_path, "broken")
    assert failed["status"] == "failed"
    assert "gamma=3" in failed["error"]
    assert "Pendulum-v1/broken/1: failed: ValueError: gamma=3" in output
    assert "2 of 3 runs are finished" in output

    sb3_lql("benchmark", "report", "results/spec", folder=tmp_path)
    page = (tmp_path / "results" / "spec" / "report" / "report.html").read_text()
    assert "gamma=3" in page
    # The trained agent is where `enjoy` looks for it
    agent = tmp_path / "results" / "spec" / "runs" / "Pendulum-v1" / "sac" / "1"
    command = ["enjoy", "--algo", "sac", "--env", "Pendulum-v1", "-f", str(agent), "-n", "20", "--no-render"]
    sb3_lql(*command, folder=tmp_path)


def test_stopped_benchmark_goes_on(tmp_path: Path) -> None:
    write_spec(tmp_path, lql={"algo": "lql"})
    with started(tmp_path) as process:
        wait_for_evaluations(tmp_path, "lql", 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 1, (tmp_path / "output.txt").read_text()
    stopped = record(tmp_path, "lql")
    assert stopped["status"] == "running"
    assert len(stopped["evaluations"]) < len(FRACTIONS)

    output = sb3_lql("benchmark", "run", "spec.yml", folder=tmp_path)
    assert "1 of 1 runs are finished" in output
    found = record(tmp_path, "lql")
    assert_evaluated_once_at_each_fraction(found)
    assert found["evaluations"][: len(stopped["evaluations"])] == stopped["evaluations"]
    assert len(found["attempts"]) == 2
    # What is finished is not begun again, and another benchmark does not get mixed in
    sb3_lql("benchmark", "run", "spec.yml", folder=tmp_path)
    assert record(tmp_path, "lql") == found
    write_spec(tmp_path, lql={"algo": "lql"}, sac={"algo": "sac"})
    refusal = sb3_lql("benchmark", "run", "spec.yml", folder=tmp_path, status=2)
    assert "holds another benchmark, or the spec has changed" in refusal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yml"], "nowhere.yml cannot be read"),
        (["run", "spec.yml", "--threads", "0"], "--threads"),
        (["run", "spec.yml", "--cpus-per-run", "0"], "--cpus-per-run"),
        (["report", "nowhere"], "nowhere"),
        ([], "required"),
    ],
)
def test_mistake_on_the_command_line_is_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_spec(tmp_path, lql={"algo": "lql"})
    output = sb3_lql("benchmark", *arguments, folder=tmp_path, status=2)
    assert message in output
    assert "Traceback" not in output


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    from filelock import FileLock

    write_spec(tmp_path, lql={"algo": "lql"})
    (tmp_path / "results" / "spec").mkdir(parents=True)
    with FileLock(tmp_path / "results" / "spec" / ".lock"):
        output = sb3_lql("benchmark", "run", "spec.yml", folder=tmp_path, status=2)
    assert "another process writes to" in output
