"""The commands on the paper's 2-D bandit: train an agent and measure its actions; compare runs."""

import argparse
import ast
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3
import torch as th
import yaml
from rl_zoo3.exp_manager import ExperimentManager

import sb3_lql
from sb3_lql.benchmark.bandit import figures
from sb3_lql.benchmark.bandit.measures import summarize
from sb3_lql.benchmark.bandit.runs import ALGORITHMS, Run, draw, measure_at_inverse_temperatures
from sb3_lql.common.algorithm import LangevinAlgorithm
from sb3_lql.zoo.registry import hyperparams_file

ENV_ID = "MultimodalBandit-v0"


def bandit() -> None:
    """``sb3-lql bandit``: train one agent, draw actions, write them with their measures and pictures."""
    args = _parse_arguments()
    folder: Path = args.output_dir
    started = time.perf_counter()
    model, settings, path = _train(args)
    trained = time.perf_counter()
    samples = draw(model, args.n_actions, args.seed)
    summary = {
        "algo": args.algo,
        "seed": args.seed,
        **summarize(samples),
        "inverse_temperatures": measure_at_inverse_temperatures(model, args.n_actions, args.seed),
        "settings": settings,
        "n_actions": args.n_actions,
        "seconds": {"training": trained - started, "sampling": time.perf_counter() - trained},
        "device": str(model.device),
        "versions": {module.__name__: module.__version__ for module in (sb3_lql, stable_baselines3, th)},
        "model": str(path.relative_to(folder)),
    }
    np.save(folder / "samples.npy", samples)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _draw_figures(Run(model, summary), samples, folder)
    shares = ", ".join(f"{name} {summary[name]:.3f}" for name in ("top", "right", "bottom", "left", "sum", "low"))
    print(f"{shares}; reward {summary['reward_mean']:.3f} ± {summary['reward_std']:.3f}")
    print(f"Written to {folder}: summary.json, samples.npy, pictures, the agent")


def _parse_arguments() -> argparse.Namespace:
    """The command's options, of which every hyperparameter of the algorithm's YAML entry is one."""
    choice = argparse.ArgumentParser(add_help=False)
    choice.add_argument("--algo", choices=ALGORITHMS, default="nclql", help="algorithm (default: %(default)s)")
    algo = choice.parse_known_args()[0].algo

    parser = argparse.ArgumentParser(
        description=f"Train {ALGORITHMS[algo][1]} on the paper's 2-D bandit, {ENV_ID}, draw actions and measure them.",
        parents=[choice],
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of training and sampling (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--n-actions", type=int, default=10_000, help="actions to draw (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: %(default)s)")
    hyperparams = parser.add_argument_group("hyperparameters", "as in the RL Zoo's YAML files")
    for name, default in _entry(algo).items():
        flag = "--" + name.replace("_", "-")
        hyperparams.add_argument(flag, type=_value, metavar="VALUE", dest=name, help=f"(default: {default})")
    parser.set_defaults(env_kwargs=None)  # which `enjoy` looks for among the arguments of a run
    args = parser.parse_args()
    if args.n_actions < 1:
        parser.error(f"argument --n-actions: {args.n_actions} is not positive")
    return args


def _entry(algo: str) -> dict[str, Any]:
    """The algorithm's hyperparameters for the bandit."""
    entry: dict[str, Any] = yaml.safe_load(Path(str(hyperparams_file(algo))).read_text())[ENV_ID]
    return entry


def _value(text: str) -> Any:
    """A Python literal, or the text itself, which the RL Zoo may know how to read ("lin_1e-3")."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _train(args: argparse.Namespace) -> tuple[Any, dict[str, Any], Path]:
    """Train as ``sb3-lql train`` does; return the model, its hyperparameters and the zip in which it lies."""
    overrides = {name: value for name in _entry(args.algo) if (value := getattr(args, name)) is not None}
    manager = ExperimentManager(
        args,
        args.algo,
        ENV_ID,
        str(args.output_dir),
        eval_freq=-1,
        hyperparams=overrides,
        seed=args.seed,
        verbose=0,
        device=args.device,
        config=str(hyperparams_file(args.algo)),
    )
    experiment = manager.setup_experiment()
    assert experiment is not None
    model, settings = experiment
    model.learn(manager.n_timesteps, progress_bar=True)
    manager.save_trained_model(model)
    return model, dict(settings), Path(manager.save_path) / f"{ENV_ID}.zip"


def _draw_figures(run: Run, samples: np.ndarray, folder: Path) -> None:
    figures.save(figures.samples([run], [samples]), folder, "samples")
    figures.save(figures.from_grid([run]), folder, "from_grid")
    if isinstance(run.model, LangevinAlgorithm):
        figures.save(figures.value_maps([run]), folder, "value_maps")
        figures.save(figures.temperatures([run]), folder, "temperatures")
        figures.save(figures.steps(run), folder, "steps")
