"""Where a package is missing, the command says in one line which extra installs it."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from gymnasium.error import DependencyNotInstalled

from sb3_lql.zoo import cli
from sb3_lql.zoo.extras import EXTRAS, missing_extra
from tests.zoo.conftest import python

pytest.importorskip("rl_zoo3")

#: Commands of `sb3-lql`, one after the other, without some packages.
WITHOUT = """
import importlib.abc, json, sys
packages, commands = json.loads(sys.argv[1])
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in packages:
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Missing())
from sb3_lql import zoo
from sb3_lql.zoo.cli import main
for command in commands:
    sys.argv = ["sb3-lql", *command]
    try:
        main()
    except SystemExit as stopped:
        print("ends with", stopped.code)
try:
    zoo.hyperparams_file("lql")
except ModuleNotFoundError as error:
    print(error)
"""


def run_without(*packages: str, commands: list[list[str]], folder: Path) -> str:
    return python("-c", WITHOUT, json.dumps([packages, commands]), folder=folder)


def ending(command: str, package: str, extra: str) -> str:
    return f'ends with sb3-lql {command}: {package} is not installed: pip install "sb3_lql[{extra}]"\n'


def test_every_package_of_an_extra_is_known() -> None:
    distributions = importlib.metadata.packages_distributions()
    known = {
        distribution.lower().replace("_", "-"): module
        for module, names in distributions.items()
        for distribution in names
        if any(module in packages for packages in EXTRAS.values())
    }
    requirements = importlib.metadata.requires("sb3_lql") or []
    found = [
        re.split(r"[\[<>=;! ]", line)[0].lower().replace("_", "-")
        for line in requirements
        if (extra := re.search(r"extra == '(\w+)'", line)) and extra[1] in EXTRAS
    ]
    assert len(found) > 15
    assert set(found) - {"sb3-lql", "gymnasium"} <= known.keys()


def test_without_the_rl_zoo_there_is_help_and_every_command_names_the_extra(tmp_path: Path) -> None:
    commands = [["--help"], *([command, "--help"] for command in cli.COMMANDS)]
    output = run_without("rl_zoo3", commands=commands, folder=tmp_path)
    assert output.startswith("usage: sb3-lql")
    for command in cli.COMMANDS:
        assert ending(command, "rl_zoo3", "zoo") in output
    assert output.endswith("""No module named 'rl_zoo3': pip install "sb3_lql[zoo]"\n""")


def test_a_command_names_the_extra_of_what_it_alone_needs(tmp_path: Path) -> None:
    output = run_without("ray", "seaborn", commands=[["benchmark", "--help"], ["all_plots", "--help"]], folder=tmp_path)
    assert ending("benchmark", "ray", "benchmark") in output
    assert ending("all_plots", "seaborn", "zoo") in output


def test_what_gymnasium_misses_is_in_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setitem(cli.COMMANDS, "enjoy", fail)
    monkeypatch.setattr("sys.argv", ["sb3-lql", "enjoy"])
    with pytest.raises(SystemExit, match=r'^sb3-lql enjoy: MuJoCo is not installed. pip install "sb3_lql\[zoo\]" '):
        cli.main()


def test_a_package_of_the_users_own_is_not_ours_to_name() -> None:
    assert missing_extra(ModuleNotFoundError("No module named 'my_robot'", name="my_robot")) is None
    assert missing_extra(ModuleNotFoundError("No module named 'ray.tune'", name="ray.tune")) == ("ray", "benchmark")
