"""The ``sb3-lql`` command: the RL Zoo's commands with our algorithms and our hyperparameters."""

import argparse
import importlib
import os
import runpy
import signal
import sys
import textwrap
from collections.abc import Callable

from gymnasium.error import DependencyNotInstalled

from sb3_lql import zoo
from sb3_lql.algorithms import ALGORITHMS, DEFAULT
from sb3_lql.collecting.interrupts import sigterm_interrupts
from sb3_lql.zoo.extras import missing_extra

#: As a shell has it for a process that SIGTERM has ended.
TERMINATED = 128 + signal.SIGTERM

#: What asks for the list of commands.
HELP = ("-h", "--help")

NAMES = textwrap.fill(", ".join(ALGORITHMS), 100, initial_indent="  ", subsequent_indent="  ")
USAGE = f"""\
usage: sb3-lql COMMAND [OPTION ...]

The RL Zoo (https://rl-baselines3-zoo.readthedocs.io) with these algorithms registered:
{NAMES}

commands of the RL Zoo, with its options (sb3-lql COMMAND --help):
  train           train an agent, resume with -i (also from a folder with checkpoints), tune with -optimize
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
  bandit_distances  how far samplers are from the Boltzmann distribution, for the reward and for learned critics

four equally good goals:
  multigoal         train agents, count the goals that they reach, also with the favourite one blocked

this machine:
  speed             time updates, chains and predict, beside an obvious implementation and SAC

comparisons of algorithms on tasks, over seeds:
  benchmark run     train and evaluate all runs of a spec, on this machine or a Ray cluster
  benchmark report  write a report with curves, tables and intervals
  benchmark curves  draw the learning curves of some tasks and algorithms
  benchmark agents  save the policies of the best seeds, for enjoy

unless you say otherwise:
  --algo {DEFAULT:<22}for all but the plots
  --conf-file <packaged YAML>  for train with these and sac; --preset paper: the paper's protocol
  --folder logs                for enjoy, record_video and the hub

SIGTERM, as timeout and Slurm send it, stops a command as Ctrl-C does; its exit status is then 143.
"""


def main() -> None:
    """
    Run the command named on the command line. SIGTERM stops it as Ctrl-C does.

    The exit status is 2 for an unknown command, 1 where a package is missing or nobody reads the output any more, 143
    after SIGTERM.
    """
    command, *arguments = sys.argv[1:] or ["--help"]
    if command not in (*COMMANDS, *HELP):
        print(f"sb3-lql: unknown command {command!r}\n\n{USAGE}", file=sys.stderr)
        sys.exit(2)
    # What the RL Zoo's parsers see, and print in their help
    sys.argv = [f"sb3-lql {command}", *arguments]
    try:
        with sigterm_interrupts() as terminated:
            _run(command)
    except (KeyboardInterrupt, SystemExit):
        if not terminated.is_set():
            raise
    if terminated.is_set():
        print(f"sb3-lql {command}: stopped by SIGTERM", file=sys.stderr)
        sys.exit(TERMINATED)


def _run(command: str) -> None:
    try:
        if command in HELP:
            print(USAGE, flush=True)
            return
        zoo.register()
        COMMANDS[command]()
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        package, extra = missing
        sys.exit(f'sb3-lql {command}: {package} is not installed: pip install "sb3_lql[{extra}]"')
    except BrokenPipeError:  # of the output, as with ``| head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(1)
    except DependencyNotInstalled as error:  # of an environment, or of a video
        sys.exit(f'sb3-lql {command}: {error}. pip install "sb3_lql[zoo]" installs what our commands need')


def _with_default(*flags: str, default: str) -> None:
    """Add an option to the command line where it is missing."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(*flags, dest="value")
    if parser.parse_known_args(sys.argv[1:])[0].value is None:
        sys.argv += [flags[-1], default]


def _with_agent(command: Callable[[], None]) -> Callable[[], None]:
    """A command on a trained agent, by default of the default algorithm, where train saves it."""

    def run() -> None:
        _with_default("--algo", default=DEFAULT)
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
        _function("sb3_lql.zoo.hub.repair")()
        command()

    return run


COMMANDS: dict[str, Callable[[], None]] = {
    "train": _function("sb3_lql.zoo.training.train"),
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
    "multigoal": _function("sb3_lql.zoo.multi_goal.multi_goal"),
    "export": _function("sb3_lql.zoo.export.export"),
    "speed": _function("sb3_lql.zoo.speed.speed"),
    "benchmark": _function("sb3_lql.zoo.benchmark.benchmark"),
}


if __name__ == "__main__":
    main()
