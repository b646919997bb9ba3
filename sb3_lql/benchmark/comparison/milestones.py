"""When a training run of a benchmark is evaluated and saved."""

import contextlib
import time
from collections.abc import Callable, Iterator

from stable_baselines3.common.callbacks import BaseCallback

from sb3_lql.collecting.collection import CollectionMixin

#: Seconds of training after which there is a checkpoint in any case.
CHECKPOINT_SECONDS = 300.0


class Milestones(BaseCallback):
    """
    Evaluates and saves between updates and collection, where nothing is half done.

    ``milestones`` are the evaluations that are missing: progress, and the environment steps that each waits for.
    ``seconds`` is what the training has taken before; ``evaluate`` gets the progress and the seconds so far, ``save``
    the seconds.
    """

    def __init__(
        self,
        milestones: list[tuple[float, int]],
        seconds: float,
        evaluate: Callable[[float, float], None],
        save: Callable[[float], None],
    ) -> None:
        super().__init__()
        self.milestones = milestones
        self.seconds = self.checkpoint_seconds = seconds
        self.evaluate = evaluate
        self.save = save

    def _on_training_start(self) -> None:
        self.started = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self._pause_where_due()

    def _on_rollout_end(self) -> None:
        # The first updates may follow at once, whenever the steps do not come out even
        if self._due() and self.milestones[0][0] == 0:
            with self._clock_stopped():
                self.evaluate(self.milestones.pop(0)[0], self.seconds)

    def _on_training_end(self) -> None:
        self._pause_where_due()

    def _due(self) -> bool:
        return bool(self.milestones) and self.num_timesteps >= self.milestones[0][1]

    def _pause_where_due(self) -> None:
        now = self.seconds + time.perf_counter() - self.started
        if not self._due() and now - self.checkpoint_seconds < CHECKPOINT_SECONDS:
            return
        if isinstance(self.model, CollectionMixin):
            self.model.train_postponed()
        with self._clock_stopped():
            while self._due():
                self.evaluate(self.milestones.pop(0)[0], self.seconds)
            self.checkpoint_seconds = self.seconds
            self.save(self.seconds)

    @contextlib.contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        """What happens within does not count as training."""
        self.seconds += time.perf_counter() - self.started
        try:
            yield
        finally:
            self.started = time.perf_counter()
