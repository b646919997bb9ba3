"""When a training run of a benchmark is evaluated and saved."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import BaseCallback

from sb3_lql.collecting.collection import CollectionMixin

if TYPE_CHECKING:
    from sb3_lql.benchmark.comparison.training import Training

#: Seconds of training after which there is a checkpoint in any case.
CHECKPOINT_SECONDS = 300.0
#: Seconds between two messages about the progress.
MESSAGE_SECONDS = 5.0


class Milestones(BaseCallback):
    """
    Evaluates, saves and tells between updates and collection, where nothing is half done.

    :param training: the run
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training
        n, first = training.spec.n_evaluations, training.model.learning_starts
        #: Progress of an evaluation, and the environment steps that it waits for.
        self.milestones = [(k / n, first + round(k / n * (training.n_timesteps - first))) for k in range(n + 1)]
        self.seconds = float(training.record["training_seconds"])
        self.checkpoint_seconds = self.seconds

    def _on_training_start(self) -> None:
        self.started = self.told = time.perf_counter()

    def _on_rollout_start(self) -> None:
        self._pause_where_due()

    def _on_step(self) -> bool:
        if time.perf_counter() - self.told > MESSAGE_SECONDS:
            with self._clock_stopped():
                self.training.tell()
            self.told = time.perf_counter()
        return True

    def _on_rollout_end(self) -> None:
        # The first updates may follow at once, whenever the steps do not come out even
        if not self.training.record["evaluations"] and self.num_timesteps >= self.milestones[0][1]:
            with self._clock_stopped():
                self.training.evaluate(0.0, self.seconds)

    def _on_training_end(self) -> None:
        self._pause_where_due()

    def _pause_where_due(self) -> None:
        evaluations = self.training.record["evaluations"]
        due = [fraction for fraction, steps in self.milestones[len(evaluations) :] if self.num_timesteps >= steps]
        now = self.seconds + time.perf_counter() - self.started
        if not due and now - self.checkpoint_seconds < CHECKPOINT_SECONDS:
            return
        if isinstance(self.model, CollectionMixin):
            self.model.train_postponed()
        with self._clock_stopped():
            for fraction in due:
                self.training.evaluate(fraction, self.seconds)
            self.checkpoint_seconds = self.seconds
            self.training.save_checkpoint(self.seconds)
            self.training.tell()

    @contextlib.contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        """What happens within does not count as training."""
        self.seconds += time.perf_counter() - self.started
        try:
            yield
        finally:
            self.started = time.perf_counter()
