"""Commands run as a user runs them, and the agents that they have trained."""

import multiprocessing
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sb3_lql import LQL, NCLQL
from sb3_lql.zoo import cli

ALGORITHMS: dict[str, type[LQL | NCLQL]] = {"lql": LQL, "nclql": NCLQL}

#: The script that installing the package has made.
SB3_LQL = str(Path(sysconfig.get_path("scripts")) / "sb3-lql")

#: Commands find no display; the number of threads they inherit from the suite's own conftest.
HEADLESS = {"MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy"}

#: Makes processes that have imported what takes seconds to import, all but the RL Zoo, which commands alter.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["sb3_lql.zoo.cli", "sb3_contrib", "optuna", "matplotlib.figure", "scipy.stats"])

#: Seconds that a command may take.
TIMEOUT = 300

#: Episodes short enough to end within a test.
SHORT_EPISODES = ("--env", "Pendulum-v1", "--env-kwargs", "max_episode_steps:20")
LEARNING_STARTS = 50
TINY_BUFFERS = (f"learning_starts:{LEARNING_STARTS}", "batch_size:8", "buffer_size:500")
TINY = (*TINY_BUFFERS, "n_langevin_steps:1", "policy_kwargs:dict(net_arch=[8])")

#: Options of `train` for a run of a second.
TRAIN = (*SHORT_EPISODES, "-params", *TINY, "--eval-freq", "40", "--eval-episodes", "2", "--seed", "1")
N_TIMESTEPS = 80


def run(*command: str, folder: Path, status: int = 0, environment: dict[str, str] | None = None) -> str:
    """
    Run a command in a folder, without a display.

    :param command: the command and its arguments
    :param folder: the working directory
    :param status: the exit status it must have
    :param environment: environment variables to add
    :return: what it wrote to stdout and stderr
    """
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **HEADLESS, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == status, f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}"
    return done.stdout


def sb3_lql(*arguments: str, folder: Path, status: int = 0) -> str:
    """What :func:`run` does with ``sb3-lql``, sooner."""
    with TemporaryDirectory() as temporary:
        output = Path(temporary) / "output.txt"
        process = FORKS.Process(target=_command, args=(arguments, folder, output))
        process.start()
        process.join(TIMEOUT)
        process.kill()
        process.join()
        written = output.read_text()
    assert process.exitcode == status, f"sb3-lql {' '.join(arguments)} exited with {process.exitcode}\n{written}"
    return written


def _command(arguments: Sequence[str], folder: Path, output: Path) -> None:
    """What the process of a command does."""
    with output.open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(folder)
    os.environ.update(HEADLESS)
    sys.argv = ["sb3-lql", *arguments]
    cli.main()


def python(*arguments: str, folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run this interpreter in a folder; see :func:`run`."""
    return run(sys.executable, *arguments, folder=folder, environment=environment)


@pytest.fixture(scope="session")
def work_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory, at first empty, in which the agents are trained."""
    return tmp_path_factory.mktemp("work_folder")


@pytest.fixture(scope="session")
def nclql_output(work_folder: Path) -> str:
    """What training NC-LQL, with a progress bar and saving its replay buffer, has written."""
    return sb3_lql("train", *TRAIN, "-n", str(N_TIMESTEPS), "--progress", "--save-replay-buffer", folder=work_folder)


@pytest.fixture(scope="session")
def lql_output(work_folder: Path) -> str:
    """What training LQL has written."""
    return sb3_lql("train", "--algo", "lql", *TRAIN, "-n", str(N_TIMESTEPS), folder=work_folder)


@pytest.fixture(scope="session")
def nclql_agent(work_folder: Path, nclql_output: str) -> Path:
    """The NC-LQL agent: a zip in the folder of its run."""
    return work_folder / "logs/nclql/Pendulum-v1_1/Pendulum-v1.zip"


@pytest.fixture(scope="session")
def lql_agent(work_folder: Path, lql_output: str) -> Path:
    """The LQL agent: a zip in the folder of its run."""
    return work_folder / "logs/lql/Pendulum-v1_1/Pendulum-v1.zip"
