"""``sb3-lql benchmark`` as a user calls it: on Ray, with workers that are killed, stopped and resumed."""

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

from filelock import FileLock

from sb3_lql.benchmark.comparison import cluster
from sb3_lql.benchmark.comparison.records import RUN_FILE
from sb3_lql.benchmark.comparison.spec import Algorithm, Run
from sb3_lql.benchmark.json_files import write_json
from sb3_lql.zoo.benchmark import _describe, benchmark
from sb3_lql.zoo.registry import register
from tests.zoo.conftest import HEADLESS, SB3_LQL, sb3_lql

TINY: dict[str, Any] = {
    "learning_starts": 50,
    "batch_size": 8,
    "buffer_size": 3_000,
    "policy_kwargs": "dict(net_arch=[8])",
    "env_kwargs": {"max_episode_steps": 20},
}
SHORT_CHAIN = {"n_langevin_steps": 1}
FRACTIONS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def write_spec(folder: Path, n_updates: int, **algorithms: dict[str, Any]) -> None:
    """A spec of runs of a few seconds."""
    spec = {
        "tasks": {"Pendulum-v1": TINY["learning_starts"] + n_updates},
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


def assert_evaluated_once_at_each_fraction(found: dict[str, Any], n_updates: int) -> None:
    assert found["status"] == "finished"
    evaluations = found["evaluations"]
    assert [evaluation["fraction"] for evaluation in evaluations] == FRACTIONS
    assert [evaluation["updates"] for evaluation in evaluations] == [
        round(fraction * n_updates) for fraction in FRACTIONS
    ]


def test_killed_worker_is_resumed_and_a_failed_run_stops_nobody(tmp_path: Path) -> None:
    """And a page shows all of it."""
    write_spec(
        tmp_path,
        250,
        nclql={"algo": "nclql", "hyperparams": SHORT_CHAIN},
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
    assert_evaluated_once_at_each_fraction(found, 250)
    assert found["evaluations"][: len(before["evaluations"])] == before["evaluations"]
    first, second = found["attempts"]
    assert first["from_timesteps"] == 0
    assert second["from_timesteps"] >= before["evaluations"][-1]["timesteps"]
    assert second["pid"] != first["pid"]
    assert "its worker died, resuming from the last checkpoint" in output

    assert_evaluated_once_at_each_fraction(record(tmp_path, "sac"), 250)
    failed = record(tmp_path, "broken")
    assert failed["status"] == "failed"
    assert "gamma=3" in failed["error"]
    assert "Pendulum-v1/broken/1: failed: ValueError: gamma=3" in output
    assert "2 of 3 runs are finished, 1 failed. The same command tries again what failed." in output

    sb3_lql("benchmark", "report", "results/spec", folder=tmp_path)
    sb3_lql("benchmark", "curves", "results/spec", "figures/curves.png", folder=tmp_path)
    assert (tmp_path / "figures" / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "results" / "spec" / "report" / "report.html").read_text()
    assert "gamma=3" in page
    # The trained agent is where `enjoy` looks for it
    agent = tmp_path / "results" / "spec" / "runs" / "Pendulum-v1" / "sac" / "1"
    command = ["enjoy", "--algo", "sac", "--env", "Pendulum-v1", "-f", str(agent), "-n", "20", "--no-render"]
    sb3_lql(*command, folder=tmp_path)


def stop(process: subprocess.Popen[str], number: int, folder: Path) -> tuple[int, str]:
    """
    Send a signal to a benchmark: Ctrl-C, as a terminal does, to the whole group, and SIGTERM to the process alone.

    :return: its exit status and what it wrote
    """
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return process.wait(timeout=120), (folder / "output.txt").read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_stopped_benchmark_is_resumed(tmp_path: Path, number: int, status: int) -> None:
    # A longer chain: it must not finish before the signal
    write_spec(tmp_path, 1_000, lql={"algo": "lql", "hyperparams": {"n_langevin_steps": 4}})
    with started(tmp_path) as process:
        wait_for_evaluations(tmp_path, "lql", 2)
        found_status, output = stop(process, number, tmp_path)
    assert found_status == status, output
    assert "0 of 1 runs are finished, 1 not yet. The same command continues what is not finished.\n" in output
    assert "Traceback" not in output
    stopped = record(tmp_path, "lql")
    assert stopped["status"] == "running"
    assert len(stopped["evaluations"]) < len(FRACTIONS)

    output = sb3_lql("benchmark", "run", "spec.yml", folder=tmp_path)
    assert "1 of 1 runs are finished.\n" in output
    found = record(tmp_path, "lql")
    assert_evaluated_once_at_each_fraction(found, 1_000)
    assert found["evaluations"][: len(stopped["evaluations"])] == stopped["evaluations"]
    assert len(found["attempts"]) == 2
    # What is finished is not begun again, and another benchmark does not get mixed in
    sb3_lql("benchmark", "run", "spec.yml", folder=tmp_path)
    assert record(tmp_path, "lql") == found
    write_spec(tmp_path, 1_000, lql={"algo": "lql", "hyperparams": {"tau": 0.1}})
    refusal = sb3_lql("benchmark", "run", "spec.yml", folder=tmp_path, status=2)
    assert "holds other runs, such as Pendulum-v1/lql/1: pass another --results" in refusal


def refusal_of(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that it refuses."""
    register()
    monkeypatch.setattr("sys.argv", ["sb3-lql benchmark", *arguments])
    with pytest.raises(SystemExit) as stopped:
        benchmark()
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("statuses", "message"),
    [
        (["finished"] * 3, "3 of 3 runs are finished."),
        (
            ["finished", "failed", "failed"],
            "1 of 3 runs are finished, 2 failed. The same command tries again what failed.",
        ),
        (
            ["missing", "running", "finished"],
            "1 of 3 runs are finished, 2 not yet. The same command continues what is not finished.",
        ),
        (
            ["failed", "running"],
            "0 of 2 runs are finished, 1 failed, 1 not yet. The same command continues what is not finished and tries "
            "again what failed.",
        ),
    ],
)
def test_last_line_says_what_is_left_to_do(statuses: list[str], message: str) -> None:
    assert _describe(statuses) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yml"], "nowhere.yml cannot be read"),
        (["run", "spec.yml", "--threads", "0"], "--threads 0 is not positive"),
        (["run", "spec.yml", "--cpus-per-run", "0"], "--cpus-per-run must be positive"),
        (["report", "nowhere"], "nowhere has no benchmark.json"),
        (["agents", "nowhere"], "nowhere has no finished run"),
        ([], "required"),
    ],
)
def test_mistake_on_the_command_line_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_spec(tmp_path, 250, lql={"algo": "lql"})
    assert message in refusal_of(arguments, monkeypatch, capsys)


def test_run_that_no_machine_can_hold_is_refused(tmp_path: Path) -> None:
    """Ray would wait for ever."""
    write_spec(tmp_path, 250, lql={"algo": "lql"})
    output = sb3_lql("benchmark", "run", "spec.yml", "--cpus-per-run", "1000", folder=tmp_path, status=2)
    assert "a run takes 1000 CPUs, and this machine has" in output
    assert "Traceback" not in output


def test_two_processes_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_spec(tmp_path, 250, lql={"algo": "lql"})
    (tmp_path / "results" / "spec").mkdir(parents=True)
    with FileLock(tmp_path / "results" / "spec" / ".lock"):
        assert "another process writes to" in refusal_of(["run", "spec.yml"], monkeypatch, capsys)


def test_run_whose_worker_never_lives_is_recorded_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it dies so early that it was never seen to begin; and others are not kept from their turn."""
    monkeypatch.setattr(cluster, "MAX_RESTARTS", 1)
    runs = [Run(Algorithm("LQL", "lql"), "Pendulum-v1", seed, 100, 5, 2) for seed in (1, 2)]

    def die(run: Run, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lives.txt").open("a") as file:
            file.write("x")
        os._exit(1)

    cluster.run_all(runs, tmp_path, die)
    output = capsys.readouterr().out
    for run in runs:
        folder = tmp_path / "runs" / run.name
        assert (folder / "lives.txt").read_text() == "xx"
        failed = json.loads((folder / "run.json").read_text())
        assert failed["status"] == "failed"
        assert "its worker died 2 times" in failed["error"]
        assert f"{run.name}: failed: " in output


def test_display_shows_how_far_runs_are(tmp_path: Path) -> None:
    run = Run(Algorithm("LQL", "lql"), "Pendulum-v1", 1, 100, 5, 2)
    evaluations = [{"deterministic": {"returns": [-1.0, -2.0]}}]
    display = cluster.ProgressDisplay([run], 2, tmp_path)
    display.update([run])
    assert len(display.progress.tasks) == 1
    (tmp_path / run.name).mkdir(parents=True)
    write_json(tmp_path / run.name / RUN_FILE, {"attempts": [{}], "evaluations": evaluations, "status": "running"})
    display.update([run])
    everything, bar = display.progress.tasks
    assert (everything.completed, everything.total) == (2, 3)
    assert (bar.completed, bar.total, bar.fields["note"]) == (1, 6, "return -1.5")
    display.end(run)
    assert display.progress.tasks == [everything]
    assert everything.completed == 3
