"""The runs of a benchmark side by side, on this machine or a cluster, by Ray Tune."""

import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.experiment import Trial
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sb3_lql.benchmark.comparison.records import RUN_FILE, read_json, status_of
from sb3_lql.benchmark.comparison.spec import Run
from sb3_lql.benchmark.comparison.training import Listener, record_failure

#: Times that a run whose worker has died begins again from its last checkpoint.
MAX_RESTARTS = 10
#: Seconds in which a benchmark that gets SIGTERM is to stop in order; Slurm kills after 30.
GRACE = 15.0


class Train(Protocol):
    """What a worker does."""

    def __call__(self, run: Run, folder: Path, listener: Listener) -> None:
        """Train one run, in its folder, and tell the listener how it goes."""


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
    :raises ValueError: if this machine has less than a run takes
    """
    waiting = {run.name: run for run in runs if status_of(results / "runs" / run.name) != "finished"}
    if not waiting:
        return
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean what they meant
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # its advice on stopping and resuming is not ours
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address or "local", log_to_driver=False, logging_level=logging.WARNING)
    try:
        if callable(on_sigterm):  # which Ray has replaced by one that aborts the process
            signal.signal(signal.SIGTERM, _in_time(on_sigterm))
        _check_room(address, cpus_per_run, gpus_per_run)
        trainable = tune.with_parameters(_train, train=train, runs=waiting, folder=results / "runs")
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus_per_run, "gpu": gpus_per_run}),
            param_space={"name": tune.grid_search(list(waiting))},
            tune_config=tune.TuneConfig(trial_name_creator=_trial_name, trial_dirname_creator=_trial_name),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(results),
                failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
                callbacks=[ProgressDisplay(waiting, len(runs) - len(waiting), results / "runs")],
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        ray.shutdown()


def _in_time(on_sigterm: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
    """
    A handler that also ends this process if it does not end by itself. A signal to all processes of a job reaches Ray's
    too, and Ray would wait for a minute for those to come back. The runs are as whole as their last checkpoints.
    """

    def end(number: int) -> None:
        os.write(2, b"Ray does not stop: ending without it. The same command continues the runs.\n")
        os._exit(128 + number)

    def handle(number: int, frame: FrameType | None) -> None:
        timer = Timer(GRACE, end, [number])
        timer.daemon = True
        timer.start()
        on_sigterm(number, frame)

    return handle


def _train(config: dict[str, Any], train: Train, runs: Mapping[str, Run], folder: Path) -> None:
    """What Ray calls in a worker."""
    run = runs[config["name"]]
    train(run, folder / run.name, tune.report)
    record = read_json(folder / run.name / RUN_FILE)
    tune.report({"status": record["status"], "error": record["error"]})


def _check_room(address: str | None, cpus: float, gpus: float) -> None:
    """Ray would wait for ever for a machine that can hold a run; a cluster may get one."""
    if address is not None:
        return
    machine: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if wanted > (found := machine.get(name, 0.0)):
            raise ValueError(f"a run takes {wanted:g} {name}s, and this machine has {found:g}: pass less.")


def _trial_name(trial: Trial) -> str:
    return str(trial.config["name"]).replace("/", "_")


class ProgressDisplay(tune.Callback):
    """
    A bar for all runs and one for each that is running; a line for each that has ended.

    :param runs: the runs that are not finished
    :param n_finished: number of those that are
    :param folder: folder of the runs
    """

    def __init__(self, runs: Mapping[str, Run], n_finished: int, folder: Path) -> None:
        self.runs = runs
        self.n_finished = n_finished
        self.folder = folder

    def setup(self, *args: Any, **info: Any) -> None:
        """Draw the bar of all runs."""
        # Not before: Tune pickles its callbacks, which a terminal does not bear
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self.progress = Progress(*columns, TimeElapsedColumn())
        n_runs = self.n_finished + len(self.runs)
        self.total = self.progress.add_task("all runs", total=n_runs, completed=self.n_finished, note="")
        self.bars: dict[str, TaskID] = {}
        self.progress.start()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Draw a run's bar, or say that the run begins again."""
        name = trial.config["name"]
        if name in self.bars:
            self._print(f"{name}: its worker died, resuming from the last checkpoint")
        else:
            self.bars[name] = self.progress.add_task(name, total=None, note="")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Move a run's bar."""
        if "timesteps" in result:
            note = "" if result["return"] is None else f"return {result['return']:.1f}"
            bar = self.bars[trial.config["name"]]
            self.progress.update(bar, completed=result["timesteps"], total=result["n_timesteps"], note=note)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Take a run's bar away, and say how it ended."""
        result = trial.last_result
        status = result.get("status", "stopped")
        self._end(trial, f"{status}: {_last_line(result['error'])}" if result.get("error") else status)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record a run whose worker died too often: nobody is left to do it who was there."""
        name = trial.config["name"]
        error = f"its worker died {MAX_RESTARTS + 1} times: {trial.get_error()}"
        record_failure(self.runs[name], self.folder / name, error)
        self._end(trial, f"failed: {_last_line(error)}")

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Leave the terminal as it was."""
        self.progress.stop()

    def _end(self, trial: Trial, outcome: str) -> None:
        name = trial.config["name"]
        self._print(f"{name}: {outcome}")
        # One whose worker could not begin has none
        if (bar := self.bars.pop(name, None)) is not None:
            self.progress.remove_task(bar)
        self.progress.advance(self.total)

    def _print(self, line: str) -> None:
        self.progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _last_line(error: str) -> str:
    return error.strip().splitlines()[-1]
