"""What the runs of a benchmark have left in its results folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sb3_lql.benchmark.comparison.records import PLAN_FILE, RUN_FILE, read_json
from sb3_lql.benchmark.comparison.spec import N_PROGRESS_POINTS, slug

#: The two ways that actions are chosen in an evaluation, and what they are.
MODES = {
    "deterministic": "noise-free chain from the centre of the box; SAC's mean action",
    "stochastic": "one draw from the policy for each action",
}


@dataclass(frozen=True)
class Evaluation:
    """
    One evaluation of an agent.

    :param updates: updates before it, the paper's iterations
    :param training_seconds: time of the training before it, without evaluations
    :param returns: return of each episode, by mode
    """

    updates: int
    training_seconds: float
    returns: dict[str, tuple[float, ...]]

    def score(self, mode: str) -> float:
        """
        :param mode: one of :data:`MODES`
        :return: mean return over the episodes
        """
        return float(np.mean(self.returns[mode]))


@dataclass(frozen=True)
class RunResult:
    """
    One run that was planned.

    :param task: environment's id
    :param algorithm: label of the algorithm
    :param seed: seed of the run
    :param status: ``"missing"`` (not begun), ``"running"`` (or stopped), ``"finished"`` or ``"failed"``
    :param error: traceback of one that failed
    :param n_timesteps: environment steps
    :param learning_starts: those of them before the first update
    :param n_eval_episodes: episodes of an evaluation in each mode
    :param n_parameters: trained parameters of each network
    :param versions: versions of the software
    :param hardware: what it ran on
    :param n_attempts: how often it was started or resumed
    :param command: the command that trains the same agent by itself
    :param evaluations: evaluation ``k`` of ``n`` at the fraction ``k / n`` of the steps, as far as the run has got
    """

    task: str
    algorithm: str
    seed: int
    status: str = "missing"
    error: str = ""
    n_timesteps: int = 0
    learning_starts: int = 0
    n_eval_episodes: int = 0
    n_parameters: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: str = ""
    n_attempts: int = 0
    command: str = ""
    evaluations: tuple[Evaluation, ...] = ()

    def score(self, mode: str, step: int) -> float | None:
        """
        :param mode: one of :data:`MODES`
        :param step: number of the evaluation, from 0
        :return: mean return over its episodes, or None if the run has not got that far
        """
        return self.evaluations[step].score(mode) if step < len(self.evaluations) else None


@dataclass(frozen=True)
class Comparison:
    """
    What was planned and what has come of it.

    :param name: name of the benchmark
    :param command: the command that ran it
    :param algorithms: labels, the first one is set against the others
    :param tasks: environments' ids
    :param seeds: seeds of every algorithm on every task
    :param n_evaluations: evaluations of a run, besides the one before the first update
    :param runs: all planned runs
    """

    name: str
    command: str
    algorithms: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    n_evaluations: int
    runs: tuple[RunResult, ...]

    @property
    def begun(self) -> list[RunResult]:
        """The runs whose training has begun: neither missing nor failed before it."""
        return [run for run in self.runs if run.hardware]

    @property
    def progress_steps(self) -> list[int]:
        """Numbers of the evaluations at 0.2, 0.4, 0.6, 0.8 and 1.0 of the steps."""
        return [self.n_evaluations * point // N_PROGRESS_POINTS for point in range(1, N_PROGRESS_POINTS + 1)]

    def of(self, task: str, algorithm: str) -> list[RunResult]:
        """
        :param task: environment's id
        :param algorithm: label of the algorithm
        :return: the runs of the algorithm on the task, one for each seed
        """
        return [run for run in self.runs if (run.task, run.algorithm) == (task, algorithm)]


def read_results(folder: Path) -> Comparison:
    """
    :param folder: results folder of ``sb3-lql benchmark run``
    :return: its content
    :raises ValueError: if it is no such folder, if no run has begun, or if one of its files is damaged
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {PLAN_FILE}: pass the results folder of `sb3-lql benchmark run`.")
    plan = read_json(path)
    try:
        labels = {slug(label): label for label in plan["algorithms"]}
        n_evaluations = int(plan["evaluations"])
        runs = []
        for name in plan["runs"]:
            task, folder_name, seed = name.rsplit("/", 2)
            run = RunResult(task, labels[folder_name], int(seed), command=plan.get("commands", {}).get(name, ""))
            file = folder / "runs" / name / RUN_FILE
            runs.append(_read_run(run, file, n_evaluations) if file.is_file() else run)
        comparison = Comparison(
            name=plan["name"],
            command=plan["command"],
            algorithms=tuple(plan["algorithms"]),
            tasks=tuple(plan["tasks"]),
            seeds=tuple(plan["seeds"]),
            n_evaluations=n_evaluations,
            runs=tuple(runs),
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}.") from error
    if all(run.status == "missing" for run in comparison.runs):
        raise ValueError(f"{folder} holds no run yet: run its benchmark first, with `{comparison.command}`.")
    return comparison


def _read_run(planned: RunResult, path: Path, n_evaluations: int) -> RunResult:
    content = read_json(path)
    try:
        fractions = [entry["fraction"] for entry in content["evaluations"]]
        expected = [step / n_evaluations for step in range(n_evaluations + 1)][: len(fractions)]
        if len(fractions) != len(expected) or not np.allclose(fractions, expected):
            raise ValueError(f"evaluations at {fractions} of the steps, where {n_evaluations} were planned")
        if content["algorithm"] != planned.algorithm:
            raise ValueError(f"a run of {content['algorithm']}, where one of {planned.algorithm} was planned")
        return RunResult(
            task=planned.task,
            algorithm=planned.algorithm,
            seed=planned.seed,
            status=content["status"],
            error=content["error"] or "",
            n_attempts=len(content["attempts"]),
            command=content["command"],
            **(_settings(content) if "hardware" in content else {}),
            evaluations=tuple(_evaluation(entry) for entry in content["evaluations"]),
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}.") from error


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """What is known of a run once its agent is built."""
    # An attempt may go on elsewhere
    machines = [attempt.get("hardware", content["hardware"]) for attempt in content["attempts"]]
    return {
        "n_timesteps": int(content["n_timesteps"]),
        "learning_starts": int(content["learning_starts"]),
        "n_eval_episodes": int(content["n_eval_episodes"]),
        "n_parameters": {name: int(count) for name, count in content["parameters"].items()},
        "versions": dict(content["versions"]),
        "hardware": "; then ".join(dict.fromkeys(map(_describe, machines))),
    }


def _describe(machine: dict[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB; "
        f"device {machine['device']}, threads of a run: {machine['threads']}"
    )


def _evaluation(entry: dict[str, Any]) -> Evaluation:
    returns = {mode: tuple(map(float, entry[mode]["returns"])) for mode in MODES}
    if not all(returns.values()):
        raise ValueError("an evaluation without episodes")
    return Evaluation(int(entry["updates"]), float(entry["training_seconds"]), returns)
