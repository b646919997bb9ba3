"""The commands of ``sb3-lql``, each run from a working directory of its own or that of the trained agents."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rl_zoo3")

from sb3_lql import NCLQL
from sb3_lql.zoo import cli, hyperparams_file
from tests.zoo.conftest import ALGORITHMS, LEARNING_STARTS, N_TIMESTEPS, SHORT_EPISODES, TRAIN, python, sb3_lql

STEPS_MORE = 70
PLAY = ("--env", "Pendulum-v1", "-n", "45")


def n_updates(agent: Path | str) -> int:
    """The number of updates a saved agent has had."""
    return NCLQL.load(agent, device="cpu")._n_updates


def only(folder: Path, pattern: str) -> Path:
    """The one file of that name below a folder."""
    (path,) = folder.rglob(pattern)
    return path


# Help and the choice of the command


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_names_every_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sb3-lql", *arguments])
    cli.main()
    assert set(cli.COMMANDS) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["", "train "])
def test_help_whose_reader_has_left_ends_without_a_traceback(command: str) -> None:
    shell = f"{sys.executable} -m sb3_lql.zoo.cli {command}--help | head -0"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (1, "")


def test_unknown_command_exits_with_status_2_and_names_those_there_are(tmp_path: Path) -> None:
    output = sb3_lql("fly", folder=tmp_path, status=2)
    assert "unknown command 'fly'" in output
    assert set(cli.COMMANDS) <= set(output.split())


# The defaults that sb3-lql adds. The RL Zoo's functions are replaced: what counts is what they are given


@pytest.mark.parametrize(
    ("given", "algo", "file"),
    [
        ([], "nclql", hyperparams_file("nclql")),
        (["--algo", "lql"], "lql", hyperparams_file("lql")),
        (["--algo=sac"], "sac", hyperparams_file("sac")),
        (["--algo", "ppo"], "ppo", None),
        (["--algo", "lql", "--conf-file", "mine.yml"], "lql", "mine.yml"),
        (["--algo", "lql", "-conf", "mine.yml"], "lql", "mine.yml"),
        (["--algo", "lql", "--conf-file=mine.yml"], "lql", "mine.yml"),
        (["--alg", "lql", "--conf", "mine.yml"], "lql", "mine.yml"),
        (["--preset", "paper"], "nclql", hyperparams_file("nclql", "paper")),
        (["--preset=paper", "--algo", "qsm"], "qsm", hyperparams_file("qsm")),
    ],
)
def test_train_adds_algorithm_and_packaged_hyperparameters_where_none_are_given(
    given: list[str], algo: str, file: Path | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sb3-lql", "train", "-f", "runs", "-n", "10", *given])
    monkeypatch.setattr("rl_zoo3.train.train", lambda: None)
    cli.main()
    config = [] if file is None else ["--conf-file", str(file)]
    assert sys.argv[1:] == ["-f", "runs", "-n", "10", "--algo", algo, *config]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--conf-file", "mine.yml"], "--preset paper and --conf-file mine.yml: pass one of them"),
        (["--algo", "ppo"], "there are no hyperparameters of ours for ppo"),
    ],
)
def test_train_refuses_a_preset_that_would_be_ignored(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sb3-lql", "train", "--preset", "paper", *options])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--checkpoint-freq", "--keep-checkpoints"])
def test_train_refuses_a_number_of_checkpoints_that_is_none(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sb3-lql", "train", flag, "0"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert f"argument {flag}: 0 is too small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ([], ["--algo", "nclql", "--folder", "logs"]),
        (["-f", "runs"], ["--algo", "nclql"]),
        (["--algo", "lql", "--folder", "runs"], []),
    ],
)
def test_enjoy_adds_algorithm_and_folder_where_none_are_given(
    given: list[str], added: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["sb3-lql", "enjoy", "-n", "10", *given])
    monkeypatch.setattr("rl_zoo3.enjoy.enjoy", lambda: None)
    cli.main()
    assert sys.argv[1:] == ["-n", "10", *given, *added]


# Training


def test_train_by_default_is_nclql_with_the_packaged_hyperparameters(nclql_agent: Path, nclql_output: str) -> None:
    assert f"Loading hyperparameters from: {hyperparams_file('nclql')}" in nclql_output
    model = NCLQL.load(nclql_agent, device="cpu")
    assert model.num_timesteps == N_TIMESTEPS
    assert model.learning_rate(1.0) == 1e-3  # type: ignore[operator]  # the YAML's, which is not the constructor's


def test_train_shows_a_progress_bar(nclql_output: str) -> None:
    assert f"{N_TIMESTEPS}/{N_TIMESTEPS}" in nclql_output


def test_train_lql_uses_the_packaged_hyperparameters(lql_agent: Path, lql_output: str) -> None:
    assert f"Loading hyperparameters from: {hyperparams_file('lql')}" in lql_output
    assert ALGORITHMS["lql"].load(lql_agent, device="cpu").num_timesteps == N_TIMESTEPS


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_train_leaves_what_the_other_commands_read(algo: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{algo}_agent").parent
    for name in ("best_model.zip", "0.monitor.csv", "Pendulum-v1/config.yml", "Pendulum-v1/args.yml"):
        assert (folder / name).is_file()
    assert np.load(folder / "evaluations.npz")["timesteps"].tolist() == [40, 80]


def test_train_takes_a_file_of_hyperparameters(tmp_path: Path) -> None:
    mine = {"Pendulum-v1": {"policy": "MlpPolicy", "n_timesteps": 5, "gamma": 0.5, "buffer_size": 500}}
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(mine))
    output = sb3_lql("train", *SHORT_EPISODES, "--conf-file", "mine.yml", "--eval-freq", "-1", folder=tmp_path)
    assert "Loading hyperparameters from: mine.yml" in output
    model = NCLQL.load(only(tmp_path, "Pendulum-v1.zip"), device="cpu")
    assert model.num_timesteps == 5
    assert model.gamma == 0.5


# Continuing


def test_continued_training_with_its_replay_buffer_updates_from_the_first_step(
    tmp_path: Path, nclql_agent: Path
) -> None:
    updates = n_updates(nclql_agent)
    output = sb3_lql("train", "-i", str(nclql_agent), *TRAIN, "-n", str(STEPS_MORE), folder=tmp_path)
    assert "Loading replay buffer" in output
    assert f"Continuing after {updates} updates: no random warm-up; updates resume at once" in output
    assert n_updates(only(tmp_path, "Pendulum-v1.zip")) == updates + STEPS_MORE


def test_continued_training_without_a_replay_buffer_updates_once_it_holds_enough(
    tmp_path: Path, nclql_agent: Path
) -> None:
    agent = shutil.copy(nclql_agent, tmp_path / "copy.zip")
    updates = n_updates(agent)
    output = sb3_lql("train", "-i", "copy.zip", *TRAIN, "-n", str(STEPS_MORE), folder=tmp_path)
    assert "Loading replay buffer" not in output
    assert (
        f"Continuing after {updates} updates: no random warm-up; updates resume after {LEARNING_STARTS} steps" in output
    )
    assert n_updates(only(tmp_path, "Pendulum-v1.zip")) == updates + STEPS_MORE - LEARNING_STARTS


# Watching


def test_enjoy_plays_the_nclql_agent_in_the_default_folder(work_folder: Path, nclql_agent: Path) -> None:
    output = sb3_lql("enjoy", *PLAY, "--no-render", folder=work_folder)
    assert f"Loading {nclql_agent.relative_to(work_folder)}" in output
    assert "2 Episodes" in output


def test_enjoy_plays_lql_with_stochastic_actions(work_folder: Path, lql_agent: Path) -> None:
    output = sb3_lql("enjoy", "--algo", "lql", *PLAY, "--no-render", "--stochastic", folder=work_folder)
    assert f"Loading {lql_agent.relative_to(work_folder)}" in output
    assert "2 Episodes" in output


def test_record_video_films_the_agent(work_folder: Path, nclql_agent: Path, tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    sb3_lql("record_video", "--env", "Pendulum-v1", "-n", "10", "-o", str(tmp_path), folder=work_folder)
    content = only(tmp_path, "*.mp4").read_bytes()
    assert content[4:8] == b"ftyp"  # how an MP4 file begins


# Plots

#: As `sb3-lql`, but what would be shown is saved.
SAVE_WHAT_IS_SHOWN = """
import matplotlib.pyplot as plt
from sb3_lql.zoo.cli import main
plt.show = lambda: plt.savefig("shown.svg")
main()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, nclql_agent: Path, lql_agent: Path) -> Path:
    """A working directory with two runs of each algorithm: the RL Zoo compares only what was repeated."""
    folder = tmp_path_factory.mktemp("runs")
    for agent in (nclql_agent, lql_agent):
        for repetition in (1, 2):
            run = agent.parent.with_name(f"Pendulum-v1_{repetition}")
            shutil.copytree(agent.parent, folder / run.relative_to(run.parents[2]))
    return folder


@pytest.fixture(scope="module")
def table(runs: Path) -> str:
    """What all_plots has written of these runs, next to ``results.pkl``."""
    arguments = ["-a", "nclql", "lql", "-e", "Pendulum-v1", "-f", "logs", "--no-display", "--print-n-trials"]
    return sb3_lql("all_plots", *arguments, "-o", "results", folder=runs)


def test_plot_train_shows_a_curve_for_every_run(runs: Path) -> None:
    arguments = ["-a", "nclql", "-e", "Pendulum-v1", "-f", "logs", "-w", "1"]
    python("-c", SAVE_WHAT_IS_SHOWN, "plot_train", *arguments, folder=runs)
    shown = (runs / "shown.svg").read_text()
    assert "Pendulum-v1_1" in shown
    assert "Pendulum-v1_2" in shown


def test_all_plots_makes_a_table_of_both_algorithms(table: str) -> None:
    for algo in ("NCLQL", "LQL"):
        assert f"Pendulum-v1-{algo}-logs: 2" in table
    assert table.count("+/-") == 2


def test_all_plots_saves_the_mean_of_every_evaluation(runs: Path, table: str, nclql_agent: Path) -> None:
    with (runs / "results.pkl").open("rb") as file:
        results = pickle.load(file)["Pendulum-v1"]["NCLQL-logs"]
    evaluations = np.load(nclql_agent.with_name("evaluations.npz"))
    assert results["timesteps"].tolist() == evaluations["timesteps"].tolist()
    assert results["mean"] == pytest.approx(evaluations["results"].mean(axis=1))


@pytest.mark.parametrize("options", [[], ["--rliable", "--versus"]], ids=["plain", "rliable"])
def test_plot_from_file_plots_what_all_plots_has_saved(
    options: list[str], runs: Path, table: str, tmp_path: Path
) -> None:
    image = tmp_path / "image.svg"
    output = sb3_lql("plot_from_file", "-i", "results", "-o", str(image), *options, folder=runs)
    assert "keys: ['NCLQL-logs', 'LQL-logs']" in output
    assert "NCLQL-logs" in image.read_text()


# The RL Zoo's own commands


def test_custom_envs_that_register_make_the_stock_commands_know_nclql(tmp_path: Path) -> None:
    (tmp_path / "custom_envs.py").write_text("from sb3_lql.zoo import register\n\nregister()\n")
    stock = ("--algo", "nclql", "-f", "mine")
    python(
        "-m",
        "rl_zoo3.train",
        *stock,
        "--conf-file",
        str(hyperparams_file("nclql")),
        *TRAIN,
        "-n",
        "60",
        folder=tmp_path,
    )
    assert n_updates(only(tmp_path, "Pendulum-v1.zip")) == 60 - LEARNING_STARTS
    assert "2 Episodes" in python("-m", "rl_zoo3.enjoy", *stock, *PLAY, "--no-render", folder=tmp_path)
