"""What the runs of a benchmark have left in its results folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from sb3_lql.benchmark.comparison.records import PLAN_FILE, RUN_FILE
from sb3_lql.benchmark.comparison.spec import N_PROGRESS_POINTS, slug
from sb3_lql.benchmark.json_files import read_as

#: The two ways that actions are chosen in an evaluation, and what they are.
MODES = {
    "deterministic": "predict(deterministic=True): a chain without noise, SAC's mean action",
    "stochastic": "one draw from the policy for each action",
}


class Episodes(msgspec.Struct, frozen=True):
    """The episodes of an evaluation in one mode."""

    returns: Annotated[tuple[float, ...], msgspec.Meta(min_length=1)]


class Evaluation(msgspec.Struct, frozen=True):
    """One evaluation of an agent, in both :data:`MODES`."""

    #: Progress of the training after its random steps.
    fraction: float
    #: Updates before it, the paper's iterations.
    updates: int
    #: Time of the training before it, without evaluations.
    training_seconds: float
    deterministic: Episodes
    stochastic: Episodes

    def mean_return(self, mode: str) -> float:
        """Mean return over the episodes."""
        return float(np.mean(getattr(self, mode).returns))


class Machine(msgspec.Struct, frozen=True):
    """What :func:`~sb3_lql.benchmark.machine.hardware` says of a machine."""

    processor: str
    cores: int | None
    memory_gb: float
    device: str
    threads: int

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gb} GB; device {self.device}, "
            f"threads of a run: {self.threads}"
        )


class Attempt(msgspec.Struct, frozen=True):
    """One start of a run, or one resumption."""

    #: None in files of before this was recorded.
    hardware: Machine | None = None


class RunResult(msgspec.Struct, frozen=True):
    """One run that was planned. What follows the command is known once its agent is built."""

    task: str
    algorithm: str
    seed: int
    #: "missing" (not begun), "running" (or stopped), "finished" or "failed".
    status: Literal["missing", "running", "finished", "failed"]
    #: The algorithm's name on the command line.
    algo: str = ""
    #: Traceback of one that failed.
    error: str | None = None
    attempts: tuple[Attempt, ...] = ()
    #: Evaluation ``k`` of ``n`` at the fraction ``k / n`` of the steps, as far as the run has got.
    evaluations: tuple[Evaluation, ...] = ()
    #: Trains the same agent by itself.
    command: str = ""
    #: What it began on.
    machine: Machine | None = msgspec.field(default=None, name="hardware")
    n_timesteps: int = 0
    #: Environment steps before the first update.
    learning_starts: int = 0
    #: In each mode.
    n_eval_episodes: int = 0
    #: Trained parameters of each network.
    n_parameters: dict[str, int] = msgspec.field(default_factory=dict, name="parameters")
    versions: dict[str, str] = {}

    @property
    def hardware(self) -> str:
        """What it ran on, in the order of its attempts; empty if its agent was never built."""
        if self.machine is None:
            return ""
        return "; then ".join(dict.fromkeys(str(attempt.hardware or self.machine) for attempt in self.attempts))

    @property
    def updated(self) -> list[Evaluation]:
        """The evaluations after updates."""
        return [evaluation for evaluation in self.evaluations if evaluation.updates > 0]

    def mean_return(self, mode: str, step: int) -> float | None:
        """Mean return over the episodes of evaluation number ``step``; None if the run has not got that far."""
        return self.evaluations[step].mean_return(mode) if step < len(self.evaluations) else None


#: Task, folder's name of the algorithm, seed.
RunName = Annotated[str, msgspec.Meta(pattern=r".+/.+/\d+$")]


class Comparison(msgspec.Struct, frozen=True):
    """What was planned and what has come of it."""

    name: str
    command: str
    #: Labels; the first is set against the others.
    algorithms: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    #: Evaluations of a run, besides the one before the first update.
    n_evaluations: Annotated[int, msgspec.Meta(ge=1)] = msgspec.field(name="evaluations")
    #: Folders of all planned runs.
    run_names: tuple[RunName, ...] = msgspec.field(name="runs")
    commands: dict[str, str] = {}
    runs: tuple[RunResult, ...] = msgspec.field(default=(), name="results")  # not in the file

    @property
    def begun(self) -> list[RunResult]:
        """The runs whose training has begun: neither missing nor failed before it."""
        return [run for run in self.runs if run.hardware]

    @property
    def algos(self) -> dict[str, str]:
        """Names on the command line, by label; an empty one where no run has begun."""
        known = {run.algorithm: run.algo for run in self.runs if run.algo}
        return {label: known.get(label, "") for label in self.algorithms}

    @property
    def progress_steps(self) -> list[int]:
        """Numbers of the evaluations at 0.2, 0.4, 0.6, 0.8 and 1.0 of the steps."""
        return [self.n_evaluations * point // N_PROGRESS_POINTS for point in range(1, N_PROGRESS_POINTS + 1)]

    def of(self, task: str, algorithm: str) -> list[RunResult]:
        """The runs of the algorithm on the task, one for each seed."""
        return [run for run in self.runs if (run.task, run.algorithm) == (task, algorithm)]


def read_results(folder: Path) -> Comparison:
    """
    The content of a results folder of ``sb3-lql benchmark run``. Raises ValueError if it is no such folder, if no run
    has begun, or if one of its files is damaged.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {PLAN_FILE}: pass the results folder of `sb3-lql benchmark run`.")
    plan = read_as(Comparison, path)
    runs = tuple(_read_run(name, folder / "runs" / name / RUN_FILE, plan) for name in plan.run_names)
    if all(run.status == "missing" for run in runs):
        raise ValueError(f"{folder} holds no run yet: run its benchmark first, with `{plan.command}`.")
    return msgspec.structs.replace(plan, runs=runs)


def part_of(comparison: Comparison, tasks: Sequence[str] | None, algorithms: Sequence[str] | None) -> Comparison:
    """The comparison on some tasks of some algorithms, in that order; ValueError for what it does not have."""
    for kind, wanted, known in (
        ("task", tasks, comparison.tasks),
        ("algorithm", algorithms, comparison.algorithms),
    ):
        if unknown := [name for name in wanted or () if name not in known]:
            raise ValueError(f"{comparison.name} has no {kind} {unknown[0]!r}: choose from {', '.join(known)}.")
    return msgspec.structs.replace(
        comparison,
        tasks=tuple(tasks or comparison.tasks),
        algorithms=tuple(algorithms or comparison.algorithms),
        runs=tuple(
            run
            for run in comparison.runs
            if run.task in (tasks or comparison.tasks) and run.algorithm in (algorithms or comparison.algorithms)
        ),
    )


def _read_run(name: str, path: Path, plan: Comparison) -> RunResult:
    task, folder, seed = name.rsplit("/", 2)
    if not path.is_file():
        algorithm = next((label for label in plan.algorithms if slug(label) == folder), folder)
        return RunResult(task, algorithm, int(seed), "missing", command=plan.commands.get(name, ""))
    run = read_as(RunResult, path)
    if (run.task, slug(run.algorithm), run.seed) != (task, folder, int(seed)):
        raise ValueError(f"{path} is damaged: a run of {run.algorithm} on {run.task}, where {name} was planned.")
    fractions = [evaluation.fraction for evaluation in run.evaluations]
    expected = [step / plan.n_evaluations for step in range(plan.n_evaluations + 1)][: len(fractions)]
    if len(fractions) != len(expected) or not np.allclose(fractions, expected):
        raise ValueError(
            f"{path} is damaged: evaluations at {fractions} of the steps, where {plan.n_evaluations} were planned."
        )
    return run
