"""The commands on the bandit, run as a user runs them, on agents that have hardly learned."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rl_zoo3")

from stable_baselines3 import SAC

from sb3_lql import LQL, NCLQL
from sb3_lql.baselines import SDAC
from sb3_lql.benchmark.bandit.measures import summarize
from sb3_lql.benchmark.bandit.runs import Run, draw
from sb3_lql.zoo import hyperparams_file
from sb3_lql.zoo.cli import main
from tests.zoo.conftest import sb3_lql

CLASSES: dict[str, Any] = dict(nclql=NCLQL, lql=LQL, sac=SAC, sdac=SDAC)
N_ACTIONS = 100
SHORT = (
    *("--seed", "3", "--n-actions", str(N_ACTIONS), "--n-timesteps", "60", "--learning-starts", "40"),
    *("--batch-size", "8", "--policy-kwargs", "dict(net_arch=[8])", "--tau", "0.01"),
)
#: Pictures of every agent, of those with a chain, and of those with a Langevin chain.
PICTURES = {"reward_map", "samples", "from_grid"}
CHAIN_PICTURES = PICTURES | {"steps"}
LANGEVIN_PICTURES = CHAIN_PICTURES | {"value_maps", "temperatures"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a run of each algorithm."""
    folder = tmp_path_factory.mktemp("bandit")
    for algo in CLASSES:
        output = sb3_lql("bandit", "--algo", algo, "--output-dir", f"runs/{algo}", *SHORT, folder=folder)
        assert "60/60" in output  # the progress bar
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("algo", CLASSES)
def test_bandit_writes_samples_and_what_they_measure(folder: Path, algo: str) -> None:
    run = folder / "runs" / algo
    samples = np.load(run / "samples.npy")
    assert samples.shape == (N_ACTIONS, 2)
    assert (np.abs(samples) <= 2).all()
    summary = read(run / "summary.json")
    for name, value in summarize(samples).items():
        assert summary[name] == pytest.approx(value)
    assert (summary["algo"], summary["seed"], summary["n_actions"]) == (algo, 3, N_ACTIONS)
    assert summary["seconds"].keys() == {"training", "sampling", "total"}
    assert ("by_inverse_temperature" in summary) == (algo in ("nclql", "lql"))
    assert ("best_of_32" in summary) == (algo == "sdac")
    for measured in summary.get("by_inverse_temperature", []):
        assert 1 <= measured["inverse_temperature"] <= 500
        assert measured.keys() == summarize(samples).keys() | {"inverse_temperature"}


@pytest.mark.parametrize("algo", CLASSES)
def test_samples_are_drawn_from_the_agent_that_is_saved(folder: Path, algo: str) -> None:
    run = Run.load(folder / "runs" / algo)
    assert run.samples.dtype == np.float32
    np.testing.assert_allclose(run.samples, draw(run.model, N_ACTIONS, seed=3), atol=1e-5)


@pytest.mark.parametrize("algo", CLASSES)
def test_settings_are_those_of_the_file_but_for_the_options(folder: Path, algo: str) -> None:
    path = hyperparams_file(algo)
    assert path is not None
    entry = yaml.safe_load(path.read_text())["MultimodalBandit-v0"]
    changed = dict(n_timesteps=60, learning_starts=40, batch_size=8, policy_kwargs="dict(net_arch=[8])", tau=0.01)
    assert read(folder / "runs" / algo / "summary.json")["settings"] == entry | changed


@pytest.mark.parametrize("algo", CLASSES)
def test_bandit_draws_every_picture_as_svg_and_png(folder: Path, algo: str) -> None:
    expected = dict(sac=PICTURES, sdac=CHAIN_PICTURES).get(algo, LANGEVIN_PICTURES)
    for suffix in ("svg", "png"):
        assert {path.stem for path in (folder / "runs" / algo).glob(f"*.{suffix}")} == expected


@pytest.mark.parametrize("algo", CLASSES)
def test_agent_is_the_ordinary_class_trained_for_so_many_steps(folder: Path, algo: str) -> None:
    run = Run.load(folder / "runs" / algo)
    assert type(run.model) is CLASSES[algo]
    assert run.model.num_timesteps == 60
    assert run.model.tau == 0.01  # type: ignore[attr-defined]
    assert run.model._n_updates == 2 * 3  # two rollouts of ten steps, three updates each


def test_agent_is_where_the_other_commands_look_for_it(folder: Path) -> None:
    options = ("--env", "MultimodalBandit-v0", "--folder", "runs/nclql", "--n-timesteps", "5", "--no-render")
    assert "Mean reward" in sb3_lql("enjoy", *options, folder=folder)


def test_report_compares_the_runs_in_pictures_and_tables(folder: Path) -> None:
    output = sb3_lql(
        "bandit_report", "runs/sac", "runs/lql", "runs/nclql", "runs/sdac", "--output-dir", "report", folder=folder
    )
    names = {"reward_map", "samples", "from_grid", "value_maps", "temperatures", "laws"} | {
        f"steps_{algo}" for algo in ("nclql", "lql", "sdac")
    }
    for suffix in ("svg", "png"):
        assert {path.stem for path in (folder / "report").glob(f"*.{suffix}")} == names
    summaries = [read(folder / "runs" / algo / "summary.json") for algo in ("nclql", "lql", "sdac", "sac")]
    assert read(folder / "report" / "runs.json") == summaries
    tables = (folder / "report" / "tables.md").read_text()
    assert tables.startswith("# ")
    assert tables.split("\n\n", 1)[1] in output
    assert [line.split(" | ")[0] for line in tables.splitlines()[4:11]] == [
        "| NC-LQL, seed 3",
        "| LQL, seed 3",
        "| SDAC, seed 3",
        "| SDAC, seed 3, best of 32",
        "| SAC, seed 3",
        "| NC-LQL, seed 3, with a perfect critic",
        "| LQL, seed 3, with a perfect critic",
    ]
    assert "| w = 500 |" in tables


def test_distances_are_measured_for_the_reward_and_for_each_critic(folder: Path) -> None:
    lengths = ("--chain-lengths", "10", "20", "--longest-plain-chain", "30", "--inverse-temperatures", "20")
    options = ("--n-actions", "50", "--output-dir", "distances", *lengths)
    sb3_lql("bandit_distances", "runs/nclql", "runs/lql", *options, folder=folder)
    distances = read(folder / "distances" / "distances.json")
    n_samplers = {"the true reward": 12, "NC-LQL, seed 3, its critic": 11, "LQL, seed 3, its critic": 7}
    assert {name: len(entries) for name, entries in distances.items()} == n_samplers
    tables = (folder / "distances" / "distances.md").read_text()
    assert all(tables.count(f"Q is {name}:") == 2 for name in n_samplers)
    assert tables.count("| tempered, 16 particles, 20 rungs |") == len(n_samplers)


def test_a_run_that_was_stopped_is_resumed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = NCLQL.train

    def train_and_stop(model: NCLQL, *args: Any, **kwargs: Any) -> None:
        train(model, *args, **kwargs)
        if model.num_timesteps == 50:
            os.kill(os.getpid(), signal.SIGTERM)

    def run(*options: str) -> object:
        monkeypatch.setattr("sys.argv", ["sb3-lql", "bandit", "--output-dir", str(tmp_path), *SHORT, *options])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code

    with monkeypatch.context() as patch:
        patch.setattr(NCLQL, "train", train_and_stop)
        assert run() == 143
    assert "Stopped after 50 steps. To resume: the same command\n" in capsys.readouterr().out
    assert run("--tau", "0.02") == 2
    assert "holds a run with other options that was stopped: pass those to resume it" in capsys.readouterr().err

    with monkeypatch.context() as patch:  # also after the training
        patch.setattr("sb3_lql.zoo.bandit.draw", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert run() == 143
    assert "Stopped after 60 steps" in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", ["sb3-lql", "bandit", "--output-dir", str(tmp_path), *SHORT])
    main()
    run_ = Run.load(tmp_path)
    assert run_.model.num_timesteps == 60
    assert run_.model._n_updates == 2 * 3  # as without the stops
    assert not (tmp_path / "checkpoints").exists()


BANDIT = ("bandit", "--output-dir", "refused")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((*BANDIT, "--algo", "ppo"), "invalid choice: 'ppo'"),
        ((*BANDIT, "--n-actions", "0"), "--n-actions: 0 is not positive"),
        ((*BANDIT, "--sigma-max", "0.05"), "sigma_max=0.05 is below sigma_min=0.1"),
        ((*BANDIT, "--normalize-score", "maybe"), "normalize_score='maybe'"),
        (("bandit", "--output-dir", "/proc/nowhere"), "No such file or directory: '/proc/nowhere"),
        ((*BANDIT, "--n-timesteps", "20000"), "n_timesteps=20000 ends before learning begins"),
        ((*BANDIT, "--seed", "-1"), "--seed: -1 is negative"),
        (("bandit",), "the following arguments are required: --output-dir"),
        (("bandit", "--output-dir", "runs/sac"), "runs/sac holds a run already, pass another folder"),
        (("bandit_report", "nowhere", "--output-dir", "refused"), "nowhere holds no complete run"),
        (("bandit_report", "runs/sac", "runs/sac", "--output-dir", "refused"), "two of the runs are of SAC, seed 3"),
        (("bandit_distances", "runs/sac", "--output-dir", "refused"), "SAC runs no Langevin chain: pass runs of LQL"),
        (
            ("bandit_distances", "runs/nclql", "--output-dir", "refused", "--chain-lengths", "25"),
            "hold 25: pass multiples of the 10 noise levels",
        ),
    ],
)
def test_bad_options_are_refused_with_their_fix(
    folder: Path,
    command: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["sb3-lql", *command])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_help_lists_the_settings_with_their_defaults(tmp_path: Path) -> None:
    text = sb3_lql("bandit", "--algo", "nclql", "--help", folder=tmp_path)
    for option, default in {
        "--sigma-max": "0.3",
        "--n-langevin-steps": "2",
        "--normalize-score": "True",
        "--tau": "0.005",
    }.items():
        assert option in text
        assert f"(default: {default})" in text
