"""``sb3-lql bandit``: train an agent on the paper's 2-D bandit and measure the actions that it draws."""

import argparse
import ast
import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3
import torch as th
import yaml
from stable_baselines3.common.callbacks import ProgressBarCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

import sb3_lql
from sb3_lql.algorithms import DEFAULT
from sb3_lql.benchmark.bandit import figures
from sb3_lql.benchmark.bandit.measures import measured_rows, mode_table, summarize
from sb3_lql.benchmark.bandit.runs import ALGORITHMS, NAMES, Run, draw, draw_best, measure_at_inverse_temperatures
from sb3_lql.benchmark.experiment import Experiment
from sb3_lql.benchmark.figure_files import save_svg_and_png
from sb3_lql.benchmark.json_files import write_json
from sb3_lql.collecting.interrupts import interrupts_deferred
from sb3_lql.common.files import discard_folder
from sb3_lql.diffusion.family import DiffusionAlgorithm
from sb3_lql.langevin.family import LangevinAlgorithm
from sb3_lql.saving.checkpoint import CHECKPOINTS, save_checkpoint
from sb3_lql.zoo.registry import hyperparams_file, hyperparams_of

ENV_ID = "MultimodalBandit-v0"
#: Arguments of a constructor that are no settings of the algorithm, or have an option of their own.
SET_BY_COMMAND = {"env", "seed", "device", "verbose", "tensorboard_log", "stats_window_size", "_init_setup_model"}


def bandit() -> None:
    """Train one agent, draw actions, write them with their measures and pictures."""
    parser = _make_parser()
    args = parser.parse_args()
    folder: Path = args.output_dir
    if args.n_actions < 1:
        parser.error(f"argument --n-actions: {args.n_actions} is not positive")
    if args.seed < 0:
        parser.error(f"argument --seed: {args.seed} is negative")
    if (folder / "summary.json").exists():
        parser.error(f"argument --output-dir: {folder} holds a run already, pass another folder")

    started = time.perf_counter()
    try:
        experiment, model, settings, seconds = _set_up(args)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        parser.error(str(error))
    started -= seconds
    with _checkpoint_if_stopped(model, args, settings, started):
        _learn(model, experiment.n_timesteps)
        experiment.save_trained_model(model)
        assert model.env is not None
        model.env.close()
        trained = time.perf_counter()
        samples = draw(model, args.n_actions, args.seed)
        summary: dict[str, Any] = {
            "algo": args.algo,
            "seed": args.seed,
            **summarize(samples),
            "settings": settings,
            "n_actions": args.n_actions,
            "seconds": {"training": trained - started, "sampling": time.perf_counter() - trained},
            "device": str(model.device),
            "versions": {module.__name__: module.__version__ for module in (sb3_lql, stable_baselines3, th)},
            "model": str((Path(experiment.save_path) / f"{ENV_ID}.zip").relative_to(folder)),
        }
        if isinstance(model, LangevinAlgorithm):
            summary["by_inverse_temperature"] = measure_at_inverse_temperatures(model, args.n_actions, args.seed)
        if isinstance(model, DiffusionAlgorithm):
            summary["best_of_32"] = summarize(draw_best(model, args.n_actions, args.seed))
        run = Run(model, samples, summary)
        np.save(folder / "samples.npy", samples)
        drawn = figures.side_by_side([run]) | ({"steps": figures.steps(run)} if run.runs_a_chain else {})
        for name, figure in drawn.items():
            save_svg_and_png(figure, folder, name)
        summary["seconds"]["total"] = time.perf_counter() - started
        # Last, and in one stroke: where there is a summary, the run is complete
        write_json(folder / "summary.json", summary)
    discard_folder(folder / CHECKPOINTS)
    table = mode_table(measured_rows(run.name, summary))
    print(f"{table}Written to {folder}: summary.json, samples.npy, pictures, the agent")


def _learn(model: OffPolicyAlgorithm, n_timesteps: int) -> None:
    """Learn what is missing, with a progress bar."""
    progress = ProgressBarCallback()
    try:
        model.learn(n_timesteps - model.num_timesteps, callback=progress, reset_num_timesteps=False)
    except BaseException:
        # An open progress bar fails when the interpreter exits, and hides the reason
        progress.on_training_end()
        raise


@contextmanager
def _checkpoint_if_stopped(
    model: OffPolicyAlgorithm, args: argparse.Namespace, settings: dict[str, Any], started: float
) -> Iterator[None]:
    """Whatever stops the run within leaves a checkpoint, from which the same command resumes it."""
    try:
        yield
    except BaseException:
        if model.num_timesteps > 0:
            with interrupts_deferred():
                extra = {"run": _identify(args, settings), "seconds": time.perf_counter() - started}
                save_checkpoint(model, args.output_dir / CHECKPOINTS, keep=1, extra=extra)
                print(f"Stopped after {model.num_timesteps} steps. To resume: the same command", flush=True)
        raise


def _make_parser() -> argparse.ArgumentParser:
    """The command's options, of which every setting of the algorithm is one."""
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("--algo", choices=ALGORITHMS, default=DEFAULT, help="algorithm (default: %(default)s)")
    algo = choice.parse_known_args()[0].algo

    parser = argparse.ArgumentParser(
        description=f"Train {NAMES[algo]} on the paper's 2-D bandit, {ENV_ID}, draw actions and measure them.",
        parents=[choice],
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of training and sampling (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--n-actions", type=int, default=10_000, help="actions to draw (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: %(default)s)")
    described = f"of the bandit in {hyperparams_file(algo)}, and of {algo.upper()}"
    settings = parser.add_argument_group("settings", described)
    for name, default in _defaults(algo).items():
        settings.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            type=_value,
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=f"(default: {default})",
        )
    return parser


def _defaults(algo: str) -> dict[str, Any]:
    """The algorithm's hyperparameters for the bandit, and what its constructor takes besides."""
    entry = hyperparams_of(algo, ENV_ID)
    parameters = inspect.signature(ALGORITHMS[algo]).parameters.values()
    others = {parameter.name: parameter.default for parameter in parameters if parameter.name not in SET_BY_COMMAND}
    return entry | {name: default for name, default in others.items() if name not in entry}


def _value(text: str) -> Any:
    """A value as Python spells it ("1e-4", "(1.0, 1e-4)"), or as the RL Zoo's YAML files do ("true", "lin_1e-3")."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return yaml.safe_load(text)


def _set_up(args: argparse.Namespace) -> tuple[Experiment, OffPolicyAlgorithm, dict[str, Any], float]:
    """
    What ``sb3-lql train`` does before it trains; the model's ``learn`` is then called without the RL Zoo's, which would
    take a Ctrl-C for the end of the training. A run that was stopped is resumed: the last value is what it has taken,
    in seconds.
    """
    given = vars(args)
    experiment = Experiment.in_folder(
        args.output_dir,
        args.algo,
        ENV_ID,
        given | {"output_dir": str(args.output_dir)},
        hyperparams={name: given[name] for name in _defaults(args.algo).keys() & given.keys()},
        seed=args.seed,
        device=args.device,
        config=str(hyperparams_file(args.algo)),
    )
    model, settings = experiment.build()
    before = experiment.extra
    if before is None:
        return experiment, model, settings, 0.0
    if before["run"] != _identify(args, settings):
        raise ValueError(
            f"argument --output-dir: {args.output_dir} holds a run with other options that was stopped: pass those to "
            "resume it, or another folder"
        )
    experiment.resume(model)
    return experiment, model, settings, float(before["seconds"])


def _identify(args: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """What a run must have in common with one that it resumes."""
    return {"algo": args.algo, "seed": args.seed, "settings": settings}
