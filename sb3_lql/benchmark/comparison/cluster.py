"""The runs of a benchmark side by side, on this machine or a cluster, by Ray."""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import Any

import numpy as np
import ray
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from sb3_lql.benchmark.comparison.records import RUN_FILE, record_failure, status_of
from sb3_lql.benchmark.comparison.spec import Run
from sb3_lql.benchmark.json_files import read_json

#: Times that a run whose worker has died resumes from its last checkpoint.
MAX_RESTARTS = 10
#: Seconds between two looks at the records of runs.
POLL_SECONDS = 2.0
#: Seconds in which a benchmark that gets SIGTERM is to stop in order; Slurm kills after 30.
GRACE = 15.0


def run_all(
    runs: Sequence[Run],
    results: Path,
    train: Callable[[Run, Path], None],
    *,
    address: str | None = None,
    cpus_per_run: float = 1.0,
    gpus_per_run: float = 0.0,
) -> None:
    """
    Train the runs that are not finished, in their order, as many at once as there is room for. Ctrl-C stops them.

    All machines of a cluster must see ``results``. Without an ``address`` this machine is the cluster; ValueError if it
    has less than a run takes.
    """
    folder = results / "runs"
    waiting = [run for run in runs if status_of(folder / run.name) != "finished"]
    if not waiting:
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    ray.init(address or "local", log_to_driver=False, logging_level=logging.WARNING)
    try:
        if callable(on_sigterm):  # which Ray has replaced by one that aborts the process
            signal.signal(signal.SIGTERM, _in_time(on_sigterm))
        _check_room(address, cpus_per_run, gpus_per_run)
        worker = ray.remote(
            num_cpus=cpus_per_run,
            num_gpus=gpus_per_run,
            max_calls=1,  # a process for each run: PyTorch's compiler generalises over all that it has seen
            max_retries=MAX_RESTARTS,
            retry_exceptions=True,
        )(_call)
        tasks = {worker.remote(train, run, folder / run.name): run for run in waiting}
        with suppress(KeyboardInterrupt), ProgressDisplay(waiting, len(runs) - len(waiting), folder) as display:
            while tasks:
                done, _ = ray.wait(list(tasks), timeout=POLL_SECONDS)
                display.update(tasks.values())
                for task in done:
                    run = tasks.pop(task)
                    try:
                        ray.get(task)
                    except ray.exceptions.RayError as error:
                        # A dead worker cannot record its own failure
                        record_failure(run, folder / run.name, f"its worker died {MAX_RESTARTS + 1} times: {error}")
                    display.end(run)
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, on_sigterm)


def _call(train: Callable[[Run, Path], None], run: Run, folder: Path) -> None:
    """What a worker does, as a function: Ray takes no ``functools.partial``."""
    train(run, folder)


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


def _check_room(address: str | None, cpus: float, gpus: float) -> None:
    """Ray would wait for ever for a machine that can hold a run; a cluster may get one."""
    if address is not None:
        return
    machine: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, wanted in (("CPU", cpus), ("GPU", gpus)):
        if wanted > (found := machine.get(name, 0.0)):
            raise ValueError(f"a run takes {wanted:g} {name}s, and this machine has {found:g}: pass less.")


class ProgressDisplay:
    """
    A bar for all runs and one for each that is running, of its evaluations; a line for each that has ended. The records
    in ``folder`` tell how the runs go; ``runs`` are those that are not finished.
    """

    def __init__(self, runs: Sequence[Run], n_finished: int, folder: Path) -> None:
        self.folder = folder
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        self.progress = Progress(*columns, TimeElapsedColumn())
        self.total = self.progress.add_task("all runs", total=n_finished + len(runs), completed=n_finished, note="")
        self.bars: dict[str, TaskID] = {}
        self.n_attempts = {run.name: self._count_attempts(run) for run in runs}

    def __enter__(self) -> "ProgressDisplay":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def update(self, runs: Iterable[Run]) -> None:
        """Draw the bars of runs that have begun, and say which have begun again."""
        for run in runs:
            if (n_attempts := self._count_attempts(run)) > self.n_attempts[run.name]:
                self.n_attempts[run.name] = n_attempts
                if run.name in self.bars:
                    self._print(f"{run.name}: its worker died, resuming from the last checkpoint")
                else:
                    self.bars[run.name] = self.progress.add_task(run.name, total=run.n_evaluations + 1, note="")
            if run.name in self.bars and (evaluations := self._record(run)["evaluations"]):
                note = f"return {np.mean(evaluations[-1]['deterministic']['returns']):.1f}"
                self.progress.update(self.bars[run.name], completed=len(evaluations), note=note)

    def end(self, run: Run) -> None:
        """Remove a run's bar, and say how it ended."""
        record = self._record(run)
        error = record.get("error")
        self._print(f"{run.name}: {record['status']}{f': {error.strip().splitlines()[-1]}' if error else ''}")
        if run.name in self.bars:  # one whose worker could not begin has none
            self.progress.remove_task(self.bars.pop(run.name))
        self.progress.advance(self.total)

    def _record(self, run: Run) -> dict[str, Any]:
        return read_json(self.folder / run.name / RUN_FILE)

    def _count_attempts(self, run: Run) -> int:
        return len(self._record(run).get("attempts", []))

    def _print(self, line: str) -> None:
        self.progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
