"""What a benchmark compares: algorithms x tasks x seeds, from a YAML file."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

from sb3_lql.common.validation import check_count

#: Progress at which table 1 of the paper compares, in fifths; the number of evaluations is a multiple of it.
N_PROGRESS_POINTS = 5
N_EVAL_EPISODES = 20


def slug(label: str) -> str:
    """An algorithm's label as a folder's name."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")


@dataclass(frozen=True)
class Algorithm:
    """One of the things compared."""

    #: What the report calls it.
    label: str
    #: What the RL Zoo calls it.
    algo: str
    #: Changes to the RL Zoo's hyperparameters.
    hyperparams: dict[str, Any] = field(default_factory=dict)
    #: YAML file with the RL Zoo's hyperparameters; by default the packaged one.
    config: str | None = None

    @property
    def slug(self) -> str:
        """The label as a folder's name."""
        return slug(self.label)


@dataclass(frozen=True)
class Run:
    """One training run."""

    algorithm: Algorithm
    task: str
    seed: int
    #: Environment steps with the random ones; 0 for the RL Zoo's number.
    n_timesteps: int
    #: During training, besides the one before the first update.
    n_evaluations: int
    n_eval_episodes: int

    @property
    def name(self) -> str:
        """The run's folder below those of all runs."""
        return f"{self.task}/{self.algorithm.slug}/{self.seed}"

    @property
    def command(self) -> str:
        """The command that trains the same agent by itself, given the same device and number of threads."""
        parts = ["sb3-lql", "train", "--algo", self.algorithm.algo, "--env", self.task, "--seed", str(self.seed)]
        if self.n_timesteps:
            parts += ["-n", str(self.n_timesteps)]
        parts += ["--eval-freq", "-1"]
        if self.algorithm.config is not None:
            parts += ["--conf-file", self.algorithm.config]
        if self.algorithm.hyperparams:
            parts += ["-params", *(f"{name}:{value!r}" for name, value in self.algorithm.hyperparams.items())]
        return shlex.join(parts)


@dataclass(frozen=True)
class Spec:
    """A benchmark."""

    name: str
    #: Environment steps by environment's id, as in :class:`Run`.
    tasks: dict[str, int]
    #: The first is set against the others.
    algorithms: tuple[Algorithm, ...]
    seeds: tuple[int, ...]
    n_evaluations: int = N_PROGRESS_POINTS
    n_eval_episodes: int = N_EVAL_EPISODES

    def runs(self) -> Iterator[Run]:
        """All runs; seed by seed, so that a benchmark that is stopped early has something of everything."""
        for seed in self.seeds:
            for task, n_timesteps in self.tasks.items():
                for algorithm in self.algorithms:
                    yield Run(algorithm, task, seed, n_timesteps, self.n_evaluations, self.n_eval_episodes)


def read_spec(path: Path, algos: set[str]) -> Spec:
    """
    The benchmark in a YAML file, of algorithms that the RL Zoo knows as ``algos``. Raises ValueError or TypeError,
    naming the entry, if the file says something else.
    """
    try:
        entries = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}") from error
    try:
        entries = _checked(entries, {"tasks", "algorithms", "seeds"}, {"evaluations", "n_eval_episodes"})
        spec = Spec(
            name=path.stem,
            tasks={task: _check_task(task, steps) for task, steps in _mapping("tasks", entries["tasks"]).items()},
            algorithms=tuple(
                _read_algorithm(str(label), settings, algos, path.parent)
                for label, settings in _mapping("algorithms", entries["algorithms"]).items()
            ),
            seeds=tuple(check_count("seeds", seed, low=0) for seed in _list("seeds", entries["seeds"])),
            n_evaluations=check_count("evaluations", entries.get("evaluations", N_PROGRESS_POINTS)),
            n_eval_episodes=check_count("n_eval_episodes", entries.get("n_eval_episodes", N_EVAL_EPISODES)),
        )
        if spec.n_evaluations % N_PROGRESS_POINTS:
            raise ValueError(f"evaluations={spec.n_evaluations} is no multiple of {N_PROGRESS_POINTS}: pass one.")
        names = [run.name for run in spec.runs()]
        if len(set(names)) < len(names):
            raise ValueError("two runs are the same: name every seed once, and algorithms more differently.")
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from error
    return spec


def _read_algorithm(label: str, settings: Any, algos: set[str], folder: Path) -> Algorithm:
    settings = _checked(settings, {"algo"}, {"hyperparams", "config"}, f"algorithms: {label}: ")
    if settings["algo"] not in algos:
        raise ValueError(f"algorithms: {label}: algo={settings['algo']!r} is unknown: pass one of {sorted(algos)}.")
    # The YAML file of an algorithm that is not ours lies beside the spec, wherever the command is called
    config = settings.get("config")
    path = None if config is None else (folder / str(config)).resolve()
    if path is not None and not path.is_file():
        raise ValueError(f"algorithms: {label}: config={config!r} is no file: pass a YAML file of the RL Zoo's form.")
    hyperparams = settings.get("hyperparams") or {}
    if not isinstance(hyperparams, dict):
        raise ValueError(f"algorithms: {label}: hyperparams={hyperparams!r} must map names to values.")
    algorithm = Algorithm(label, settings["algo"], hyperparams, None if path is None else str(path))
    if not algorithm.slug:
        raise ValueError(f"algorithms: {label!r} has no letter or digit: pass a label that can name a folder.")
    return algorithm


def _check_task(task: Any, n_timesteps: Any) -> int:
    try:
        gym.spec(str(task))
    except gym.error.Error as error:
        raise ValueError(f"tasks: {task!r} is no registered environment: {error}") from error
    return 0 if n_timesteps is None else check_count(f"tasks: {task}", n_timesteps)


def _checked(entries: Any, needed: set[str], optional: set[str], where: str = "") -> dict[str, Any]:
    """Entries whose names are those that are allowed, with all that are needed."""
    names = set(_mapping(f"{where}the entries", entries))
    if missing := sorted(needed - names):
        raise ValueError(f"{where}{', '.join(missing)} missing: the entries are {sorted(needed | optional)}.")
    if unknown := sorted(map(str, names - needed - optional)):
        raise ValueError(f"{where}{', '.join(unknown)} unknown: the entries are {sorted(needed | optional)}.")
    return dict(entries)


def _mapping(name: str, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{name}={value!r} must be a mapping with at least one entry.")
    return value


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name}={value!r} must be a list with at least one entry.")
    return value
