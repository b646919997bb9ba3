"""Callbacks for ``learn``."""

import warnings
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql.collecting.interrupts import interrupts_deferred
from sb3_lql.common.validation import check_count
from sb3_lql.saving.checkpoint import save_checkpoint


class SaveCheckpointCallback(BaseCallback):
    """
    Saves checkpoints from which a training can resume, unlike SB3's ``CheckpointCallback``, whose files lack the random
    states and pile up. It saves between updates and collection, at the end of the training, and when an exception,
    Ctrl-C or SIGTERM ends it. Inside an SB3 event callback such as ``EveryNTimesteps`` it is not notified of rollouts,
    and saves only at the end.

    :param save_freq: environment steps between two checkpoints, counted over all environments
    :param save_path: folder for checkpoints
    :param keep: number of newest checkpoints to keep; ``None`` for all
    :param verbose: 1 to print the name of each checkpoint
    :raises TypeError: for numbers of the wrong type
    :raises ValueError: for numbers below 1
    """

    def __init__(self, save_freq: int, save_path: str | Path, keep: int | None = 2, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.save_freq = check_count("save_freq", save_freq)
        self.save_path = Path(save_path)
        self.keep = None if keep is None else check_count("keep", keep)

    #: Steps at the last checkpoint.
    _saved = -1

    def _on_training_start(self) -> None:
        self._saved = self.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps - self._saved >= self.save_freq:
            self.save()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self.save()

    def on_interruption(self) -> None:
        """Save a checkpoint, without hiding the exception that ends the training."""
        if self._saved < 0:  # training had not started
            return
        try:
            with interrupts_deferred():
                self.save()
        except Exception as error:
            warnings.warn(f"No checkpoint could be saved in {self.save_path}: {error!r}", stacklevel=2)

    def save(self) -> None:
        """Save a checkpoint now, unless there is one for this step."""
        if self.model.num_timesteps == self._saved:
            return
        assert isinstance(self.model, OffPolicyAlgorithm)
        checkpoint = save_checkpoint(self.model, self.save_path, self.keep)
        self._saved = self.model.num_timesteps
        if self.verbose >= 1:
            print(f"Saved {checkpoint}")  # noqa: T201
