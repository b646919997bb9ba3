"""What the RL Zoo must know of our algorithms."""

from functools import partial
from pathlib import Path
from typing import Any

import rl_zoo3
import yaml
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

import sb3_lql
from sb3_lql.algorithms import ALGORITHMS
from sb3_lql.baselines.compared import ComparedSAC
from sb3_lql.zoo.hyperparams_opt import convert, sample

#: Folders within that of our hyperparameters, of which each is a protocol other than the default.
PRESETS = ("paper",)


def register() -> None:
    """
    Add our algorithms, with their samplers and converters, to those of the RL Zoo, in place.

    Called in a ``custom_envs.py`` of the working directory, it makes the stock ``python -m rl_zoo3.train`` know them.
    Calling it twice does no harm.
    """
    samplers: dict[str, Any] = HYPERPARAMS_SAMPLER
    converters: dict[str, Any] = HYPERPARAMS_CONVERTER
    for name, entry in ALGORITHMS.items():
        rl_zoo3.ALGOS[name] = entry.cls
        samplers[name] = partial(sample, entry)
        converters[name] = partial(convert, entry)
    name = ComparedSAC.__name__.lower()
    rl_zoo3.ALGOS[name] = ComparedSAC
    samplers[name], converters[name] = samplers["sac"], converters["sac"]


def hyperparams_file(algo: str, preset: str | None = None) -> Path | None:
    """
    :param algo: name of an algorithm, such as "nclql"
    :param preset: one of :data:`PRESETS`; algorithms without a file there have that protocol as their default
    :return: the YAML file of our hyperparameters for it, ``None`` if there is none
    """
    package = Path(sb3_lql.__file__).parent
    if algo.startswith("compared") and algo in ALGORITHMS:
        algo = "compared"  # whose settings are constructors' defaults
    names = [f"{preset}/{algo}.yml"] * (preset is not None) + [f"{algo}.yml"]
    # In a wheel the files lie within the package, in a checkout beside it
    candidates = (folder / "hyperparams" / name for name in names for folder in (package, package.parent))
    return next((path for path in candidates if path.is_file()), None)


def hyperparams_of(algo: str, env_id: str) -> dict[str, Any]:
    """
    :param algo: name of one of our algorithms, or "sac"
    :param env_id: an environment that its file names
    :return: our hyperparameters for it
    """
    path = hyperparams_file(algo)
    assert path is not None, f"no hyperparameters for {algo}"
    entry: dict[str, Any] = yaml.safe_load(path.read_text())[env_id]
    return entry
