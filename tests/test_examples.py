"""The examples run, in a reduced form."""

import json
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


def test_bandit_chains_compares_chains_with_a_perfect_critic() -> None:
    command = [sys.executable, str(EXAMPLES / "bandit_chains.py"), "--n-actions", "200"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()[2:]]
    sums = {row[0].split(", inverse_temperature")[0].lstrip("`"): float(row[5]) for row in rows}
    # Table 4: 0.993 and 0.570
    assert sums["NCLQL(sigma_max=0.3, sigma_min=0.1"] > 0.98
    assert all(0.3 < total < 0.8 for name, total in sums.items() if name.startswith("LQL"))


def test_fast_path_prints_returns_after_so_many_updates() -> None:
    arguments = ["InvertedPendulum-v5", "eager", "100", "--warm-up", "50", "--updates", "3", "--evaluations", "2"]
    command = [sys.executable, str(EXAMPLES / "fast_path.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    line = json.loads(result.stdout)
    assert [line[key] for key in ("env_id", "variant", "seed")] == [*arguments[:2], 100]
    assert list(line["returns"]) == ["3", "6"]
    assert all(mean > 0 and std >= 0 for mean, std in line["returns"].values())
