"""``sb3-lql multigoal``: train agents where there are four equally good goals, and count how many each reaches."""

import argparse
import time
from pathlib import Path
from typing import Any

import stable_baselines3
import torch as th

import sb3_lql
from sb3_lql.benchmark.bandit.runs import ALGORITHMS, NAMES
from sb3_lql.benchmark.experiment import Experiment
from sb3_lql.benchmark.figure_files import save_svg_and_png
from sb3_lql.benchmark.json_files import read_json, write_json
from sb3_lql.benchmark.multi_goal import figures
from sb3_lql.benchmark.multi_goal.episodes import ENV_ID, Episodes
from sb3_lql.benchmark.multi_goal.measures import COLUMNS, SITUATIONS, goal_table
from sb3_lql.benchmark.multi_goal.runs import measure
from sb3_lql.common.files import discard_folder
from sb3_lql.zoo.registry import hyperparams_file, hyperparams_of

#: In a run's folder, written last: where it is, the run is complete.
RECORD = "run.json"


def multi_goal() -> None:
    """Train each algorithm with each seed, unless that is done; write what all of them measure, and the picture."""
    parser = _make_parser()
    args = parser.parse_args()
    folder: Path = args.output_dir
    for option in ("seeds", "n_episodes", "n_more_timesteps"):
        if getattr(args, option) < 1:
            parser.error(f"argument --{option.replace('_', '-')}: {getattr(args, option)} is not positive")
    algos = list(dict.fromkeys(args.algo))
    try:
        runs = {
            algo: [_finished(args, algo, seed) for seed in range(args.first_seed, args.first_seed + args.seeds)]
            for algo in algos
        }
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        parser.error(str(error))

    # Of the first seed, as different agents have different favourites
    firsts = {NAMES[algo]: _folder(args, algo, args.first_seed) for algo in algos}
    shown = [
        (name, Episodes.load(run / "free.npz"), Episodes.load(run / "blocked.npz")) for name, run in firsts.items()
    ]
    save_svg_and_png(figures.paths(shown), folder, "paths")
    records = [run for of_algo in runs.values() for run in of_algo]
    write_json(folder / "runs.json", records)
    table = goal_table([(NAMES[algo], of_algo) for algo, of_algo in runs.items()])
    (folder / "table.md").write_text(table)
    print(f"{table}Written to {folder}: runs.json, table.md, paths (SVG and PNG), the agents")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"Train agents on {ENV_ID}, count the goals that they reach, as trained and with their favourite "
        "blocked, before and after further training there. The same command continues after a stop."
    )
    parser.add_argument("--algo", nargs="+", choices=ALGORITHMS, required=True, help="algorithms")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each algorithm (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0, help="the others follow it (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--n-timesteps", type=int, help="steps of a training (default: as in hyperparams/)")
    parser.add_argument(
        "--n-more-timesteps", type=int, default=2_000, help="steps of further training (default: %(default)s)"
    )
    parser.add_argument("--n-episodes", type=int, default=100, help="for each measurement (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: %(default)s)")
    return parser


def _folder(args: argparse.Namespace, algo: str, seed: int) -> Path:
    path: Path = args.output_dir / "runs" / algo / str(seed)
    return path


def _finished(args: argparse.Namespace, algo: str, seed: int) -> dict[str, Any]:
    """The record of a run, which is trained if there is none; what a stopped one has left is discarded."""
    folder = _folder(args, algo, seed)
    asked = {
        "algo": algo,
        "seed": seed,
        "settings": _settings(algo, args.n_timesteps),
        "n_episodes": args.n_episodes,
        "n_more_timesteps": args.n_more_timesteps,
    }
    record = read_json(folder / RECORD)
    if not record:
        discard_folder(folder)
        record = asked | _train(folder, asked, args.device)
        write_json(folder / RECORD, record)
    if changed := [name for name, value in asked.items() if record[name] != value]:
        raise ValueError(
            f"argument --output-dir: {folder} holds a run with another value of {', '.join(changed)}: pass that one, "
            "or another folder"
        )
    print(f"{NAMES[algo]}, seed {seed}: {_describe(record)}", flush=True)
    return record


def _settings(algo: str, n_timesteps: int | None) -> dict[str, Any]:
    """The algorithm's hyperparameters for the task."""
    entry = hyperparams_of(algo, ENV_ID)
    return entry if n_timesteps is None else entry | {"n_timesteps": n_timesteps}


def _train(folder: Path, asked: dict[str, Any], device: str) -> dict[str, Any]:
    """Train an agent, save it and what is drawn of it, and return what it measures."""
    started = time.perf_counter()
    algo, seed = asked["algo"], asked["seed"]
    experiment = Experiment.in_folder(
        folder,
        algo,
        ENV_ID,
        {"algo": algo, "env": ENV_ID, "seed": seed},
        hyperparams=asked["settings"],
        seed=seed,
        device=device,
        config=str(hyperparams_file(algo)),
    )
    model, _ = experiment.build()
    # Not by the RL Zoo, which takes a Ctrl-C for the end of the training
    model.learn(experiment.n_timesteps)
    trained = time.perf_counter()
    experiment.save_trained_model(model)
    measures, episodes = measure(model, asked["n_episodes"], asked["n_more_timesteps"], seed)
    for situation, of_situation in episodes.items():
        of_situation.save(folder / f"{situation}.npz")
    assert model.env is not None
    model.env.close()
    return {
        **measures,
        "seconds": {"training": trained - started, "total": time.perf_counter() - started},
        "device": str(model.device),
        "versions": {module.__name__: module.__version__ for module in (sb3_lql, stable_baselines3, th)},
    }


def _describe(record: dict[str, Any]) -> str:
    """Goals and returns in all situations, in a line."""
    goals, returns = (COLUMNS[name][1] for name in ("effective_goals", "mean_return"))
    return "; ".join(
        f"{description} {goals.format(record[name]['effective_goals'])} effective goals, "
        f"return {returns.format(record[name]['mean_return'])}"
        for name, description in SITUATIONS.items()
    )
