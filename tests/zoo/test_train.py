"""``sb3-lql train`` with checkpoints."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rl_zoo3")

from sb3_lql import NCLQL
from sb3_lql.common.checkpoint import checkpoints, read_manifest
from sb3_lql.zoo.training import train
from tests.zoo.conftest import HEADLESS, SB3_LQL, TRAIN, run, sb3_lql

RUN = Path("logs", "nclql", "Pendulum-v1_1")
NORMALIZED = "normalize:dict(norm_obs=True,norm_reward=False)"


def manifests(run: Path) -> list[dict[str, Any]]:
    return [read_manifest(checkpoint) for checkpoint in checkpoints(run / "checkpoints")]


def test_training_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    """Ctrl-C, and the same command with -i."""
    environment = {**os.environ, **HEADLESS, "PYTHONUNBUFFERED": "1"}
    options = with_param(NORMALIZED, "compile:False")  # which so long a training would otherwise begin with
    command = [SB3_LQL, "train", "-n", "1000000", "--checkpoint-freq", "20", *options]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # Where the suite runs in the background, it ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        saved = 0
        while saved < 5:
            line = process.stdout.readline()
            assert line
            saved += line.startswith("Saved")
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
    assert process.returncode == 0, output
    assert "To resume: the same command with -i logs/nclql/Pendulum-v1_1/checkpoints" in output
    stopped = manifests(tmp_path / RUN)
    assert len(stopped) == 2  # by default the two newest are kept
    steps = stopped[-1]["num_timesteps"]
    assert steps >= 100

    output = sb3_lql("train", "-i", str(RUN), "-n", str(steps + 30), *with_param(NORMALIZED), folder=tmp_path)
    assert f"Resuming after {steps} of {steps + 30} steps" in output
    assert "no random warm-up" in output
    model = NCLQL.load(tmp_path / RUN.with_name("Pendulum-v1_2") / "Pendulum-v1.zip", device="cpu")
    assert model.num_timesteps == steps + 30
    assert model._n_updates == stopped[-1]["n_updates"] + 30

    other = with_param(NORMALIZED, "n_steps:3")
    output = run(SB3_LQL, "train", "-i", str(RUN), *other, folder=tmp_path, status=1)
    assert "was made with n_steps=1, not 3: load it with the same" in output


def with_param(*params: str) -> list[str]:
    """Options of a tiny training, with more ``-params``."""
    at = TRAIN.index("-params") + 1
    return [*TRAIN[:at], *params, *TRAIN[at:]]


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
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    output = run(SB3_LQL, "train", *options, "-n", "100", folder=tmp_path, status=1, environment=environment)
    assert "the robot fell off the table" in output
    assert "To resume: the same command with -i logs/nclql/Pendulum-v1_1/checkpoints" in output
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
