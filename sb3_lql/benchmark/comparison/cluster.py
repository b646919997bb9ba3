"""The runs of a benchmark side by side, on this machine or a cluster, by Ray Tune."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.experiment import Trial
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sb3_lql.benchmark.comparison.records import RUN_FILE, read_json, status_of
from sb3_lql.benchmark.comparison.spec import Run
from sb3_lql.benchmark.comparison.training import Report

#: Times that a run whose worker has died begins again from its last checkpoint.
MAX_RESTARTS = 10


class Train(Protocol):
    """Trains one run, in a worker: (run, folder, report)."""

    def __call__(self, run: Run, folder: Path, report: Report) -> None: ...


def run_all(
    runs: Sequence[Run],
    results: Path,
    train: Train,
    *,
    address: str | None = None,
    cpus_per_run: float = 1.0,
    gpus_per_run: float = 0.0,
) -> None:
    """
    Train the runs that are not finished, as many at once as there is room for.

    :param runs: the runs, in the order in which they begin
    :param results: folder for all that is written, which all machines of a cluster see
    :param train: trains one of them
    :param address: a cluster's; by default this machine is the cluster
    :param cpus_per_run: CPU cores that a run takes
    :param gpus_per_run: GPUs that a run takes, such as 0.2 for five runs on each
    """
    waiting = {run.name: run for run in runs if status_of(results / "runs" / run.name) != "finished"}
    if not waiting:
        return
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean what they meant
    ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    try:
        trainable = tune.with_parameters(_train, train=train, runs=waiting, folder=results / "runs")
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus_per_run, "gpu": gpus_per_run}),
            param_space={"name": tune.grid_search(list(waiting))},
            tune_config=tune.TuneConfig(trial_name_creator=_trial_name, trial_dirname_creator=_trial_name),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(results),
                failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
                callbacks=[ProgressDisplay(len(runs), len(runs) - len(waiting))],
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        ray.shutdown()


def _train(config: dict[str, Any], train: Train, runs: Mapping[str, Run], folder: Path) -> None:
    """What Ray calls in a worker."""
    run = runs[config["name"]]
    train(run, folder / run.name, tune.report)
    record = read_json(folder / run.name / RUN_FILE)
    tune.report({"status": record["status"], "error": record["error"]})


def _trial_name(trial: Trial) -> str:
    return str(trial.config["name"]).replace("/", "_")


class ProgressDisplay(tune.Callback):
    """
    A bar for all runs and one for each that is running; a line for each that has ended.

    :param n_runs: number of runs
    :param n_finished: number of those that were finished before
    """

    def __init__(self, n_runs: int, n_finished: int) -> None:
        self.n_runs = n_runs
        self.n_finished = n_finished

    def setup(self, *args: Any, **info: Any) -> None:
        # Not before: Tune pickles its callbacks, which a terminal does not bear
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self.progress = Progress(*columns, TimeElapsedColumn())
        self.total = self.progress.add_task("all runs", total=self.n_runs, completed=self.n_finished, note="")
        self.tasks: dict[str, TaskID] = {}
        self.progress.start()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        name = trial.config["name"]
        if name in self.tasks:
            self.progress.console.print(f"{name}: its worker died, going on from the last checkpoint")
        else:
            self.tasks[name] = self.progress.add_task(name, total=None, note="")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if "timesteps" in result:
            note = "" if result["return"] is None else f"return {result['return']:.1f}"
            task = self.tasks[trial.config["name"]]
            self.progress.update(task, completed=result["timesteps"], total=result["n_timesteps"], note=note)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        result = trial.last_result
        status = result.get("status", "stopped")
        error = f": {result['error'].strip().splitlines()[-1]}" if result.get("error") else ""
        self._end(trial.config["name"], f"{status}{error}")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._end(trial.config["name"], f"failed: its worker died more than {MAX_RESTARTS} times")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        self.progress.stop()

    def _end(self, name: str, outcome: str) -> None:
        self.progress.console.print(f"{name}: {outcome}", highlight=False, markup=False)
        self.progress.remove_task(self.tasks.pop(name))
        self.progress.advance(self.total)
