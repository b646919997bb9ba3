"""The ``sb3-lql`` command: the RL Zoo's commands with our algorithms and our hyperparameters."""

import argparse
import importlib
import runpy
import sys
from collections.abc import Callable

from sb3_lql.zoo import hub
from sb3_lql.zoo.registry import hyperparams_file, register

USAGE = """\
usage: sb3-lql COMMAND [OPTION ...]

The RL Zoo (https://rl-baselines3-zoo.readthedocs.io) with LQL and NC-LQL registered.

commands, each with the options of the RL Zoo's own (sb3-lql COMMAND --help):
  train           train an agent, go on with -i (also from a folder with checkpoints), tune with -optimize
  enjoy           watch a trained agent
  record_video    film a trained agent
  plot_train      plot the training rewards of runs
  all_plots       compare the evaluations of runs
  plot_from_file  plot what all_plots has saved
  push_to_hub     upload an agent to the Hugging Face Hub
  load_from_hub   download an agent from the Hugging Face Hub

agents elsewhere:
  export            write an agent as ONNX, TorchScript or torch.export, its chain included

the paper's 2-D bandit:
  bandit            train an agent, draw actions, measure how they cover the modes
  bandit_report     compare such runs in pictures and tables
  bandit_distances  how far samplers are from the Boltzmann law, for the reward and for learned critics

this machine:
  speed             time updates, chains and predict, beside an obvious implementation and SAC

comparisons of algorithms on tasks, over seeds:
  benchmark run     train and evaluate all runs of a spec, on this machine or a Ray cluster
  benchmark report  make a page of them, with curves, tables and intervals
  benchmark agents  save the policies of the best seeds, for enjoy

unless you say otherwise:
  --algo nclql                 for all but the plots
  --conf-file <packaged YAML>  for train with lql, nclql and sac
  --folder logs                for enjoy, record_video and the hub
"""


def main() -> None:
    """
    Run the command named on the command line.

    :raises SystemExit: with status 2 for an unknown command
    """
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(USAGE)
        return
    if command not in COMMANDS:
        print(f"sb3-lql: unknown command {command!r}\n\n{USAGE}", file=sys.stderr)
        sys.exit(2)
    register()
    # What the RL Zoo's parsers see, and print in their help
    sys.argv = [f"sb3-lql {command}", *arguments]
    COMMANDS[command]()


def _with_default(*flags: str, default: str) -> str:
    """The value of an option on the command line, to which the default is added where the option is missing."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(*flags, dest="value")
    given: str | None = parser.parse_known_args(sys.argv[1:])[0].value
    if given is None:
        sys.argv += [flags[-1], default]
    return given or default


def _train() -> None:
    config = hyperparams_file(_with_default("--algo", default="nclql"))
    if config is not None:
        _with_default("-conf", "--conf-file", default=str(config))
    _function("sb3_lql.zoo.training.train")()


def _with_agent(command: Callable[[], None]) -> Callable[[], None]:
    """A command on a trained agent: by default an NC-LQL agent, where train saves it."""

    def run() -> None:
        _with_default("--algo", default="nclql")
        _with_default("-f", "--folder", default="logs")
        command()

    return run


def _function(name: str) -> Callable[[], None]:
    """A command of the RL Zoo that exists as a function; imported when it runs, as the plots import for seconds."""

    def run() -> None:
        module, _, function = name.rpartition(".")
        getattr(importlib.import_module(module), function)()

    return run


def _module(name: str) -> Callable[[], None]:
    """A command of the RL Zoo that exists as a script only."""

    def run() -> None:
        runpy.run_module(name, run_name="__main__")

    return run


def _with_hub(command: Callable[[], None]) -> Callable[[], None]:
    """A command on the Hugging Face Hub."""

    def run() -> None:
        hub.repair()
        command()

    return run


def _benchmark() -> None:
    try:
        _function("sb3_lql.zoo.benchmark.benchmark")()
    except ModuleNotFoundError as error:
        sys.exit(f"sb3-lql benchmark: {error.name} is not installed: pip install 'sb3_lql[benchmark]'")


COMMANDS: dict[str, Callable[[], None]] = {
    "train": _train,
    "enjoy": _with_agent(_function("rl_zoo3.enjoy.enjoy")),
    "record_video": _with_agent(_module("rl_zoo3.record_video")),
    "plot_train": _function("rl_zoo3.plots.plot_train"),
    "all_plots": _function("rl_zoo3.plots.all_plots"),
    "plot_from_file": _function("rl_zoo3.plots.plot_from_file"),
    "push_to_hub": _with_agent(_with_hub(_module("rl_zoo3.push_to_hub"))),
    "load_from_hub": _with_agent(_with_hub(_module("rl_zoo3.load_from_hub"))),
    "bandit": _function("sb3_lql.zoo.bandit.bandit"),
    "bandit_report": _function("sb3_lql.zoo.bandit_report.report"),
    "bandit_distances": _function("sb3_lql.zoo.bandit_report.distances"),
    "export": _function("sb3_lql.zoo.export.export"),
    "speed": _function("sb3_lql.zoo.speed.speed"),
    "benchmark": _benchmark,
}


if __name__ == "__main__":
    main()
