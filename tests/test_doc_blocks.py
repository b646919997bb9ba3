"""
Every code block of the documentation is tried: Python is run, with short trainings; of commands the quickstart's are
run, in a reduced form, and the others up to their parsers (``tests/zoo`` runs each); YAML is read by what is meant to.
"""

import argparse
import importlib.metadata
import inspect
import re
import runpy
import shlex
import sys
import timeit
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch as th
import yaml

pytest.importorskip("rl_zoo3")
pytest.importorskip("ray")

from stable_baselines3.common import evaluation
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql import NCLQL
from sb3_lql.benchmark.comparison.spec import read_spec
from sb3_lql.zoo import cli, register
from tests.zoo.conftest import TINY

ROOT = Path(__file__).parents[1]
if not (ROOT / "docs").is_dir():
    pytest.skip("no documentation beside these tests", allow_module_level=True)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "shared").glob("*.md")])

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
N_TIMESTEPS = 120

#: What the shell blocks of a page are to have left, where its Python goes on from that.
PREPARATIONS = {
    "boltzmann": [
        *("sb3-lql", "bandit", "--output-dir", "runs/nclql-100", "--n-actions", "100", "--n-timesteps", "60"),
        *("--learning-starts", "40", "--batch-size", "8", "--policy-kwargs", "dict(net_arch=[8])"),
    ]
}
#: What makes the quickstart's commands short.
REDUCED = {
    "train": ["-n", str(N_TIMESTEPS), "-params", *TINY],
    "enjoy": ["-n", "10", "--no-render"],
    "export": ["--observations", "10", "--repetitions", "0"],
}


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text()) if name == language]


def pages_with(language: str) -> list[Any]:
    return [pytest.param(page, id=page.stem) for page in PAGES if blocks(page, language)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    threads = th.get_num_threads()
    yield tmp_path
    th.set_num_threads(threads)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``sb3-lql``, in this process."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", words)
        cli.main()


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In their order, in one namespace; trainings are cut to a few steps, and no chain is compiled for them."""
    if page.stem in PREPARATIONS:
        run(PREPARATIONS[page.stem], monkeypatch)
    learn = OffPolicyAlgorithm.learn

    def learn_a_little(model: Any, total_timesteps: float, *args: Any, **kwargs: Any) -> Any:
        model.learning_starts, model.batch_size = (
            min(model.learning_starts, N_TIMESTEPS - 10),
            min(model.batch_size, 16),
        )
        return learn(model, min(int(total_timesteps), N_TIMESTEPS), *args, **kwargs)

    def evaluate_a_little(model: Any, env: Any, n_eval_episodes: int = 10, **kwargs: Any) -> Any:
        return evaluate_policy(model, env, 1, **kwargs)

    monkeypatch.setattr(OffPolicyAlgorithm, "learn", learn_a_little)
    monkeypatch.setattr(evaluation, "evaluate_policy", evaluate_a_little)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for body in blocks(page, "python"):
        exec(compile(body, str(page), "exec"), namespace)


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's shell blocks, in their order; those of loops once."""
    found = []
    for body in blocks(page, "bash"):
        lines = iter(body.replace("\\\n", " ").splitlines())
        for line in lines:
            if line.split(maxsplit=1)[:1] in (["for"], ["done;"], ["done"]):
                continue
            while line.count('"') % 2:  # a quotation over several lines
                line += "\n" + next(lines)
            if words := shlex.split(line.replace("$algo", "nclql").replace("$seed", "1"), comments=True):
                found.append(words)
    return found


class ParsedError(Exception):
    """A command has accepted its arguments."""


def check_parses(call: Callable[[], object], words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command takes its arguments; what it would do with them is not done."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(*args: Any, **kwargs: Any) -> Any:
        parse_args(*args, **kwargs)
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(sys, "argv", words)
        with pytest.raises(ParsedError):
            call()


def check_exists(words: list[str]) -> None:
    """Whatever a command names of the repository."""
    for word in words:
        path = word.split("::")[0]
        if path.split("/")[0] in ("agents", "benchmarks", "examples", "hyperparams", "tests"):
            assert (ROOT / path).exists(), path


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check_exists(words)
    if "--help" in words:
        return
    if words[0] == "sb3-lql":
        check_parses(cli.main, words, monkeypatch)
    elif words[:2] == ["python", "-m"]:
        check_module(words[2], words[3:], monkeypatch)
    elif words[0] == "python":
        check_parses(lambda: runpy.run_path(str(ROOT / words[1]), run_name="__main__"), words[1:], monkeypatch)
    elif words[0] == "make":
        assert re.search(rf"^[\w -]*\b{words[1]}\b[\w -]*:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:2] == ["pip", "install"]:
        extras = {extra for word in words for extra in re.findall(r"^\.\[(.*)\]$", word) for extra in extra.split(",")}
        assert extras <= set(importlib.metadata.metadata("sb3_lql").get_all("Provides-Extra") or [])
    else:
        assert words[0] == "pytest", words


def check_module(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "timeit":
        timeit.main(["-r", "1", *("1" if before == "-n" else word for before, word in pairwise(["", *arguments]))])
    else:
        register()
        check_parses(lambda: runpy.run_module(name, run_name="__main__"), [name, *arguments], monkeypatch)


@pytest.mark.parametrize("page", pages_with("bash"))
def test_shell_commands_exist_and_take_their_options(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in commands(page):
        check_command(words, monkeypatch)


def test_commands_of_the_quickstart_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in commands(ROOT / "docs" / "quickstart.md"):
        run([*words, *REDUCED.get(words[1], [])], monkeypatch)
    (exported,) = workplace.glob("logs/nclql/*/*.onnx")
    assert exported.stat().st_size > 0


@pytest.mark.parametrize("page", pages_with("yaml"))
def test_yaml_blocks_are_what_the_commands_read(page: Path, tmp_path: Path) -> None:
    for body in blocks(page, "yaml"):
        entries = yaml.load(body, yaml.UnsafeLoader)
        if "tasks" in entries:
            (tmp_path / "hyperparams").mkdir(exist_ok=True)
            for algorithm in entries["algorithms"].values():
                (tmp_path / algorithm.get("config", "spec.yml")).write_text("{}")
            (tmp_path / "spec.yml").write_text(body)
            assert list(read_spec(tmp_path / "spec.yml", {"lql", "nclql", "sac", "tqc"}).runs())
            given = [algorithm.get("hyperparams", {}) for algorithm in entries["algorithms"].values()]
        else:
            given = list(entries.values())
        for hyperparams in given:
            assert hyperparams.keys() <= {*inspect.signature(NCLQL.__init__).parameters, "n_envs", "n_timesteps"}
