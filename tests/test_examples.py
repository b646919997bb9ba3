"""The examples run, in a reduced form."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.env_checker import check_env

from sb3_lql import NCLQL, export
from tests.zoo.conftest import sb3_lql

pytest.importorskip("rl_zoo3")
EXAMPLES = Path(__file__).parents[1] / "examples"

#: Options of the scripts that train: five updates
SHORT = ("--timesteps", "45", "--learning-starts", "40")
EVALUATED = (*SHORT, "--eval-episodes", "1")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports an example by its name: in this process, which has imported PyTorch already."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def mean_return(printed: str) -> float:
    """The mean return that a script has printed."""
    match = re.search(r"^mean return: (-?\d+\.\d)", printed, re.MULTILINE)
    assert match, printed
    return float(match[1])


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
    *short, _, _, _ = plain = [total for name, total in sums.items() if name.startswith("LQL")]
    assert all(0.3 < total < 0.8 for total in short)
    # The last are 200, 1,000 and 10,000 steps long
    assert all(total > 0.78 for total in plain[-3:])


def test_fast_path_prints_returns_after_so_many_updates() -> None:
    arguments = ["InvertedPendulum-v5", "eager", "100", "--warm-up", "50", "--updates", "3", "--evaluations", "2"]
    command = [sys.executable, str(EXAMPLES / "fast_path.py"), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    line = json.loads(result.stdout)
    assert [line[key] for key in ("env_id", "variant", "seed")] == [*arguments[:2], 100]
    assert list(line["returns"]) == ["3", "6"]
    assert all(mean > 0 and std >= 0 for mean, std in line["returns"].values())


def test_an_agent_is_trained_filmed_and_saved(
    example: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("moviepy")
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    example("train_and_record").main([*EVALUATED, "--video-steps", "5", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert mean_return(printed) < 0
    video, model = (Path(re.findall(rf"^{name}: (.+)$", printed, re.MULTILINE)[0]) for name in ("video", "model"))
    assert video.parent == model.parent == tmp_path
    assert video.read_bytes()[4:8] == b"ftyp"  # MP4
    assert NCLQL.load(model).num_timesteps == 45


def test_a_training_goes_on_without_another_warm_up(
    example: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SHORT, "--save-freq", "20", "--folder", str(tmp_path / "checkpoints")]
    example("resume").main([*options, "--stop-at", "42"])
    example("resume").main(options)
    assert capsys.readouterr().out.splitlines() == [
        "begins at step 0, with 0 transitions in the replay buffer",
        "ends at step 42, after 2 updates",
        "begins at step 42, with 42 transitions in the replay buffer",
        "ends at step 45, after 5 updates",
    ]


@pytest.mark.parametrize("name", ["custom_env", "image_and_dict", "hindsight"])
def test_a_script_trains_and_evaluates_before_and_after(
    example: Callable[[str], ModuleType], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    example(name).main([*EVALUATED])
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"mean return: -\d+\.\d before training, -?\d+\.\d after 45 steps", last_line)


@pytest.mark.parametrize(
    ("name", "env"), [("custom_env", "PointMassEnv"), ("hindsight", "ReachEnv"), ("image_and_dict", "CameraReachEnv")]
)
def test_own_environments_are_as_gymnasium_wants_them(
    example: Callable[[str], ModuleType], name: str, env: str
) -> None:
    check_env(getattr(example(name), env)(), warn=False)


def test_the_critic_has_the_features_extractor_of_the_script(
    example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    example("layer_norm_extractor").main([*EVALUATED])
    printed = capsys.readouterr().out
    assert "(features_extractor): LayerNormExtractor" in printed
    assert mean_return(printed) < 0


def test_processes_tune_in_one_study(
    example: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna")
    storage = str(tmp_path / "study.journal")
    options = ["--workers", "2", "--trials", "2", "--storage", storage]
    distributed_optuna = example("distributed_optuna")
    distributed_optuna.main([*EVALUATED, *options])
    backend = optuna.storages.journal.JournalFileBackend(storage)
    study = optuna.load_study(study_name="nclql", storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) >= 2
    assert all(trial.state.name == "COMPLETE" for trial in study.trials)
    assert len({trial.user_attrs["worker"] for trial in study.trials}) == 2
    assert f"has a mean return of {max(trial.value for trial in study.trials):.1f}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_benchmark_runs_on_ray_and_is_reported(
    example: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    written: list[str] = []
    script = example("ray_benchmark")
    monkeypatch.setattr(
        script,
        "benchmark",
        lambda *arguments: written.append(sb3_lql("benchmark", *map(str, arguments), folder=tmp_path)),
    )
    # Episodes of the bandit have one step
    task = ["--task", "MultimodalBandit-v0", "--timesteps", "150", "--learning-starts", "100"]
    script.main([*task, "--seeds", "1", "--eval-episodes", "2", "--output", str(tmp_path)])
    assert "3 of 3 runs are finished" in written[0]
    report = (tmp_path / "report" / "report.md").read_text()
    assert all(label in report for label in ("NC-LQL", "LQL", "SAC", "MultimodalBandit-v0"))
    assert (tmp_path / "report" / "report.html").is_file()


def test_an_exported_policy_acts_without_pytorch(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    short_chain: dict[str, Any] = dict(n_noise_levels=2, n_langevin_steps=1)
    model = NCLQL("MlpPolicy", "Pendulum-v1", policy_kwargs=dict(net_arch=[8]), device="cpu", seed=0, **short_chain)
    policy = export(model, tmp_path / "policy.onnx", n_observations=10)
    without = "import runpy, sys; sys.modules |= dict.fromkeys(['torch', 'stable_baselines3', 'sb3_lql']); "
    command = [sys.executable, "-c", without + "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"]
    arguments = [str(EXAMPLES / "deploy_onnx.py"), "--policy", str(policy), "--episodes", "1", "--seed", "7"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr

    env = gym.make("Pendulum-v1")
    observation, _ = env.reset(seed=7)
    expected, truncated = 0.0, False
    while not truncated:
        observation, reward, _, truncated, _ = env.step(model.predict(observation, deterministic=True)[0])
        expected += float(reward)
    assert mean_return(result.stdout) == pytest.approx(expected, abs=0.2)
