"""``sb3-lql train`` with checkpoints."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

pytest.importorskip("rl_zoo3")

import rl_zoo3.train
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_lql import NCLQL
from sb3_lql.collecting import interrupts
from sb3_lql.saving.callbacks import SaveCheckpointCallback
from sb3_lql.saving.checkpoint import checkpoints, read_manifest
from sb3_lql.zoo import cli, training
from sb3_lql.zoo.training import close_or_end, train
from tests.zoo.conftest import HEADLESS, SB3_LQL, TRAIN, run, sb3_lql

RUN = Path("logs", "nclql", "Pendulum-v1_1")
TO_RESUME = f"To resume: the same command with -i {RUN / 'checkpoints'}"
NORMALIZED = "normalize:dict(norm_obs=True,norm_reward=False)"


def manifests(run: Path) -> list[dict[str, Any]]:
    return [read_manifest(checkpoint) for checkpoint in checkpoints(run / "checkpoints")]


def with_param(*params: str) -> list[str]:
    """Options of a tiny training, with more ``-params``."""
    at = TRAIN.index("-params") + 1
    return [*TRAIN[:at], *params, *TRAIN[at:]]


@contextlib.contextmanager
def endless_training(folder: Path, *options: str, until: str) -> Iterator[subprocess.Popen[str]]:
    """A training in a group of processes of its own, once it has written a line that begins so."""
    with subprocess.Popen(
        [SB3_LQL, "train", *options, "-n", "1000000"],
        cwd=folder,
        env={**os.environ, **HEADLESS, "PYTHONUNBUFFERED": "1", "PYTHONPATH": python_path(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Where the suite runs in the background, it ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        try:
            written = ""
            while not written.splitlines()[-1:] or not written.splitlines()[-1].startswith(until):
                line = process.stdout.readline()
                written += line
                assert line, written
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def python_path(folder: Path) -> str:
    """With modules in a folder."""
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it writes until it ends, which is no traceback."""
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output, output
    return output


def test_training_resumes_where_ctrl_c_has_stopped_it(tmp_path: Path) -> None:
    options = with_param(NORMALIZED, "compile:False")  # which so long a training would otherwise begin with
    with endless_training(tmp_path, "--checkpoint-freq", "20", *options, until="Saved") as process:
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        output = rest_of(process)
    assert process.returncode == 0, output
    assert TO_RESUME in output
    stopped = manifests(tmp_path / RUN)
    assert len(stopped) == 2  # by default the two newest are kept
    steps = stopped[-1]["num_timesteps"]
    assert steps >= 40

    output = sb3_lql("train", "-i", str(RUN), "-n", str(steps + 30), *with_param(NORMALIZED), folder=tmp_path)
    assert f"Resuming after {steps} of {steps + 30} steps" in output
    assert "no random warm-up" in output
    model = NCLQL.load(tmp_path / RUN.with_name("Pendulum-v1_2") / "Pendulum-v1.zip", device="cpu")
    assert model.num_timesteps == steps + 30
    assert model._n_updates >= 30

    other = with_param(NORMALIZED, "n_steps:3")
    output = run(SB3_LQL, "train", "-i", str(RUN), *other, folder=tmp_path, status=1)
    assert "was made with n_steps=1, not 3: load it with the same" in output


def to_all_processes(process: subprocess.Popen[str]) -> None:
    """As Slurm does, also to those of the environments."""
    os.killpg(process.pid, signal.SIGTERM)


def twice(process: subprocess.Popen[str]) -> None:
    """As ``timeout`` does."""
    process.send_signal(signal.SIGTERM)
    to_all_processes(process)


@pytest.mark.parametrize("send", [to_all_processes, twice])
def test_sigterm_leaves_a_checkpoint_and_the_agent(
    tmp_path: Path, send: Callable[[subprocess.Popen[str]], None]
) -> None:
    processes = ("--vec-env", "subproc") if send is to_all_processes else ()
    with endless_training(tmp_path, *with_param("n_envs:2", "compile:False"), *processes, until="Eval") as process:
        send(process)
        output = rest_of(process)
    assert process.returncode == 143
    assert TO_RESUME in output
    (manifest,) = manifests(tmp_path / RUN)
    assert manifest["num_timesteps"] >= 40
    agent = NCLQL.load(tmp_path / RUN / "Pendulum-v1.zip", device="cpu")
    assert agent.num_timesteps == manifest["num_timesteps"]


@pytest.mark.parametrize("evaluates", [False, True])
def test_a_simulator_that_hangs_does_not_keep_ctrl_c_waiting(tmp_path: Path, evaluates: bool) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    options = [*with_param("n_envs:2", "env_wrapper:'hanging.Hanging'", "compile:False"), "--vec-env", "subproc"]
    if not evaluates:
        options += ["--eval-freq", "-1"]
    with endless_training(tmp_path, *options, until="hanging") as process:
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        output = rest_of(process)
    assert time.monotonic() - started < 30  # on a busy machine
    assert TO_RESUME in output
    (manifest,) = manifests(tmp_path / RUN)
    assert manifest["num_timesteps"] == (40 if evaluates else 68)


#: Hangs in its 35th step, whatever Ctrl-C and SIGTERM say.
HANGING = """
import signal
import time
import gymnasium as gym

class Hanging(gym.Wrapper):
    steps = 0
    def step(self, action):
        self.steps += 1
        if self.steps == 35:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
            print("hanging", flush=True)
            time.sleep(10_000)
        return super().step(action)
"""


def train_here(folder: Path, *options: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """:return: the exit status of a training in this process"""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["sb3-lql", "train", *with_param("compile:False"), "--eval-freq", "-1", *options])
    monkeypatch.setattr(rl_zoo3.train, "ExperimentManager", ExperimentManager)  # put back afterwards
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli.main()
    except (KeyboardInterrupt, SystemExit) as stopped:
        return getattr(stopped, "code", 130)
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


def test_an_interrupt_that_became_an_error_on_its_way_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it reaches a library that does not expect it, between making a lock and taking it, say."""

    def fail(model: NCLQL, *args: Any, **kwargs: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise AttributeError("lock")

    monkeypatch.setattr(NCLQL, "train", fail)
    assert train_here(tmp_path, "-n", "100", monkeypatch=monkeypatch) == 143
    assert NCLQL.load(tmp_path / RUN / "Pendulum-v1.zip", device="cpu").num_timesteps > 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("first", "status"), [(signal.SIGINT, {0, 130, 143}), (signal.SIGTERM, {143})])
def test_an_interrupt_while_a_checkpoint_is_saved_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, status: set[int], second: int
) -> None:
    save, train_some = SaveCheckpointCallback.save, NCLQL.train

    def save_and_interrupt(callback: SaveCheckpointCallback) -> None:
        os.kill(os.getpid(), second)
        save(callback)
        os.kill(os.getpid(), second)

    def train_and_interrupt(model: NCLQL, *args: Any, **kwargs: Any) -> None:
        train_some(model, *args, **kwargs)
        if model.num_timesteps == 60:
            os.kill(os.getpid(), first)

    monkeypatch.setattr(interrupts, "REPEATED", 0.0)
    monkeypatch.setattr(SaveCheckpointCallback, "save", save_and_interrupt)
    monkeypatch.setattr(NCLQL, "train", train_and_interrupt)
    assert train_here(tmp_path, "-n", "100", monkeypatch=monkeypatch) in status
    (manifest,) = manifests(tmp_path / RUN)
    assert manifest["num_timesteps"] == 60
    assert NCLQL.load(tmp_path / RUN / "Pendulum-v1.zip", device="cpu").num_timesteps == 60


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_while_the_agent_is_saved_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int
) -> None:
    """Nothing else would be left of a training that was complete."""
    save = NCLQL.save

    def save_and_interrupt(model: NCLQL, *args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), number)
        save(model, *args, **kwargs)

    monkeypatch.setattr(NCLQL, "save", save_and_interrupt)
    assert train_here(tmp_path, "-n", "60", monkeypatch=monkeypatch) == status
    assert NCLQL.load(tmp_path / RUN / "Pendulum-v1.zip", device="cpu").num_timesteps == 60


@pytest.mark.parametrize("stubborn", [False, True])
def test_processes_that_do_not_close_are_ended(stubborn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "PATIENCE", 0.5)
    env = SubprocVecEnv([partial(Deaf, stubborn), partial(Deaf, False)], start_method="fork")
    env.reset()
    close_or_end(VecNormalize(env))
    assert not any(process.is_alive() for process in env.processes)


class Deaf(gym.Wrapper[Any, Any, Any, Any]):
    """Never closes; if it is stubborn, not even for SIGTERM."""

    def __init__(self, stubborn: bool) -> None:
        super().__init__(gym.make("Pendulum-v1"))
        if stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def close(self) -> None:
        while True:
            time.sleep(10.0)


def test_training_that_fails_leaves_a_checkpoint(tmp_path: Path) -> None:
    """An environment's error would cost all that was learned."""
    (tmp_path / "broken.py").write_text(
        "import gymnasium as gym\n"
        "class Broken(gym.Wrapper):\n"
        "    steps = 0\n"
        "    def step(self, action):\n"
        "        self.steps += 1\n"
        "        if self.steps == 70:\n"
        "            raise RuntimeError('the robot fell off the table')\n"
        "        return super().step(action)\n"
    )
    options = with_param("env_wrapper:'broken.Broken'")
    environment = {"PYTHONPATH": python_path(tmp_path)}
    output = run(SB3_LQL, "train", *options, "-n", "100", folder=tmp_path, status=1, environment=environment)
    assert "the robot fell off the table" in output
    assert TO_RESUME in output
    (manifest,) = manifests(tmp_path / RUN)
    assert manifest["num_timesteps"] == 69
    assert manifest["n_updates"] > 0


def test_options_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sb3-lql train", "-i", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        train()
    assert f"-i {tmp_path}: there is no checkpoint in this folder" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["sb3-lql train", "--help"])
    with pytest.raises(SystemExit, match="0"):
        train()
    output = capsys.readouterr().out
    assert "--checkpoint-freq" in output
    assert "--eval-freq" in output
