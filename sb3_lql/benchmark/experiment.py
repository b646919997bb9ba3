"""The RL Zoo's experiment, and how one resumes from a checkpoint."""

import argparse
import json
from pathlib import Path
from typing import Any

from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql.common.buffers import end_episodes
from sb3_lql.saving.checkpoint import CHECKPOINTS, MANIFEST, MODEL, check_whole, find_checkpoint, read_manifest, restore


class Experiment(ExperimentManager):
    """The RL Zoo's experiment, which can also continue from a checkpoint; a damaged one raises ValueError."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        folder = Path(self.trained_agent).parent
        self.checkpoint = folder if self.continue_training and (folder / MANIFEST).is_file() else None
        if self.checkpoint is not None:
            check_whole(self.checkpoint)

    @classmethod
    def in_folder(cls, folder: Path, algo: str, task: str, args: dict[str, Any], **kwargs: Any) -> "Experiment":
        """
        An experiment without evaluations of its own, which continues from the folder's last checkpoint if there is one.
        ``args`` are recorded for ``enjoy`` as YAML, so they hold plain values only.
        """
        checkpoint = find_checkpoint(folder / CHECKPOINTS)
        return cls(
            argparse.Namespace(**args, env_kwargs=None),  # which `enjoy` looks for
            algo,
            task,
            str(folder),
            eval_freq=-1,
            trained_agent="" if checkpoint is None else str(checkpoint / MODEL),
            verbose=0,
            **kwargs,
        )

    def build(self) -> tuple[OffPolicyAlgorithm, dict[str, Any]]:
        """
        The model, not resumed yet, and its hyperparameters as JSON has them. Raises ValueError if training ends before
        the model learns anything, TypeError if the algorithm is not off-policy.
        """
        experiment = self.setup_experiment()
        assert experiment is not None
        model, hyperparams = experiment
        if not isinstance(model, OffPolicyAlgorithm):
            raise TypeError(f"algo={self.algo!r} does not learn from a replay buffer: leave it out.")
        if self.n_timesteps <= model.learning_starts:
            raise ValueError(
                f"n_timesteps={self.n_timesteps} ends before learning begins: pass more than "
                f"learning_starts={model.learning_starts}."
            )
        return model, json.loads(json.dumps(hyperparams, default=str))

    @property
    def extra(self) -> dict[str, Any] | None:
        """What was saved in the checkpoint besides the model; None without a checkpoint."""
        return None if self.checkpoint is None else read_manifest(self.checkpoint)["extra"]

    def resume(self, model: OffPolicyAlgorithm) -> None:
        """
        Restore what the RL Zoo has not loaded: replay buffer, normalization statistics, random states. Does nothing
        without a checkpoint; raises ValueError if the checkpoint is of another model.
        """
        if self.checkpoint is not None:
            restore(model, self.checkpoint)
            assert model.replay_buffer is not None
            end_episodes(model.replay_buffer)
