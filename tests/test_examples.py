"""The examples run, in a reduced form."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rl_zoo3")
EXAMPLES = Path(__file__).parents[1] / "examples"


def test_demo_trains_evaluates_and_leaves_what_it_says(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--n-timesteps", "1100", "--output", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(name in result.stdout for name in ("NC-LQL, deterministic", "NC-LQL, stochastic", "random policy"))
    paths = dict(line.split(": ", 1) for line in result.stdout.splitlines()[-3:])
    assert Path(paths["model"].strip()).is_file()
    assert Path(paths["learning curve"].strip()).read_bytes().startswith(b"\x89PNG")
    video = paths["video"].strip()
    assert video.startswith("skipped") or Path(video).stat().st_size > 0
