"""The best agents of a benchmark, small enough to be passed on, with a card each."""

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import rl_zoo3
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

from sb3_lql.benchmark.comparison.records import PLAN_FILE, RUN_FILE
from sb3_lql.benchmark.comparison.results import MODES
from sb3_lql.benchmark.comparison.spec import slug
from sb3_lql.benchmark.json_files import read_json

CARD = """\
# {algorithm} on {task}

{which}. It acts; to learn further it lacks its optimisers' states and its replay buffer.

- Play it: `sb3-lql enjoy --algo {algo} --env {task} -f {folder}`
- Train it: `{command}`
- Budget: {n_timesteps:,} environment steps, {learning_starts:,} of them random; {updates:,} updates
- Return of {n_episodes} episodes, mean ± standard deviation: {deterministic} deterministic, {stochastic} stochastic
- The same mean for all seeds, deterministic: {seeds}
- Versions: {versions}
"""


def save_agents(results: Path, output: Path) -> list[Path]:
    """
    For each algorithm and task save the policy of the finished run with the highest deterministic return, where
    ``sb3-lql enjoy --folder`` looks for it, with a card. Returns the agents' folders.

    Raises ValueError if no run is finished, or if the results have no agents, as a report's copy has none.
    """
    groups = defaultdict(list)
    for name in read_json(results / PLAN_FILE).get("runs", []):
        record = read_json(results / "runs" / name / RUN_FILE)
        if record.get("status") == "finished" and record["evaluations"]:
            groups[record["algorithm"], record["task"]].append((_mean_return(record), name, record))
    if not groups:
        raise ValueError(f"{results} has no finished run: finish one with `sb3-lql benchmark run`.")
    folders = []
    for (label, task), runs in groups.items():
        _, name, record = max(runs, key=lambda run: run[0])
        algo = record["algo"]
        trained = _newest(results / "runs" / name / algo, task)
        folder = output / slug(label) / algo / f"{task}_1"
        (folder / task).mkdir(parents=True, exist_ok=True)
        model = rl_zoo3.ALGOS[algo].load(trained / f"{task}.zip", device="cpu")
        strip(model)
        model.save(folder / f"{task}.zip")
        for file in ("args.yml", "config.yml", "vecnormalize.pkl"):
            if (trained / task / file).is_file():
                shutil.copy(trained / task / file, folder / task)
        (folder / "README.md").write_text(_card(record, runs, f"{output.name}/{slug(label)}"))
        folders.append(folder)
    return folders


def strip(model: BaseAlgorithm) -> None:
    """
    Leave out of a model what only its training needs: the optimisers' states, and target networks of their own. The
    targets become the networks themselves, which are then saved once.
    """
    for name in model._get_torch_save_params()[0]:
        if isinstance(optimizer := recursive_getattr(model, name), th.optim.Optimizer):
            optimizer.state.clear()
    for name in ("actor", "critic"):
        network, target = (getattr(model.policy, attribute, None) for attribute in (name, f"{name}_target"))
        if isinstance(network, th.nn.Module) and isinstance(target, th.nn.Module):
            for parameter, copy in zip(network.parameters(), target.parameters(), strict=True):
                copy.data = parameter.data


def _card(record: dict[str, Any], runs: list[tuple[float, str, dict[str, Any]]], folder: str) -> str:
    last = record["evaluations"][-1]
    modes = {mode: last[mode]["returns"] for mode in MODES}
    return CARD.format(
        **{name: record[name] for name in ("algorithm", "algo", "task", "command", "n_timesteps", "learning_starts")},
        **{mode: f"{np.mean(returns):.1f} ± {np.std(returns):.1f}" for mode, returns in modes.items()},
        folder=folder,
        which=f"The best of {len(runs)} seeds by its final return" if len(runs) > 1 else "A single seed",
        n_episodes=record["n_eval_episodes"],
        updates=last["updates"],
        seeds=", ".join(f"{other['seed']}: {mean:.1f}" for mean, _, other in runs),
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    )


def _mean_return(record: dict[str, Any]) -> float:
    return float(np.mean(record["evaluations"][-1]["deterministic"]["returns"]))


def _newest(folder: Path, task: str) -> Path:
    """The RL Zoo's folder of the last attempt, the one that was finished."""
    attempts = [path for path in folder.glob(f"{task}_*") if (path / f"{task}.zip").is_file()]
    if not attempts:
        raise ValueError(f"{folder} has no {task}.zip: pass the folder that `sb3-lql benchmark run` has written.")
    return max(attempts, key=lambda path: int(path.name.rpartition("_")[2]))
