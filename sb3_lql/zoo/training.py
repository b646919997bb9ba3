"""``sb3-lql train``: the RL Zoo's, with checkpoints from which it goes on."""

import argparse
import importlib
import shlex
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql.common.callbacks import SaveCheckpointCallback
from sb3_lql.common.checkpoint import MANIFEST, MODEL, check_whole, find_checkpoint, restore

#: In the RL Zoo's folder of a run.
FOLDER = "checkpoints"


def train() -> None:
    """
    Train an agent. ``-i`` also takes a checkpoint, or a folder with checkpoints.

    :raises SystemExit: with status 2 for bad options
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--checkpoint-freq", type=int, help="save a checkpoint every so many steps")
    parser.add_argument("--keep-checkpoints", type=int, default=2, help="the newest that are kept (default: 2)")
    parser.add_argument("-i", "--trained-agent", type=Path)
    options, rest = parser.parse_known_args(sys.argv[1:])
    if "-h" in rest or "--help" in rest:
        print(f"{parser.format_help()}\nand the options of the RL Zoo:\n")
    if options.trained_agent is not None:
        agent = options.trained_agent
        if agent.is_dir():
            if (checkpoint := find_checkpoint(agent)) is None:
                parser.error(f"-i {agent}: there is no checkpoint in this folder.")
            agent = checkpoint / MODEL
        rest += ["-i", str(agent)]
    sys.argv = [sys.argv[0], *rest]
    module = importlib.import_module("rl_zoo3.train")
    module.ExperimentManager = partial(  # type: ignore[attr-defined]
        ResumableExperiment, checkpoint_freq=options.checkpoint_freq, keep_checkpoints=options.keep_checkpoints
    )
    module.train()


class ResumableExperiment(ExperimentManager):
    """
    The RL Zoo's experiment. Given a checkpoint's model, it goes on with that training as if nothing had happened; and
    whatever stops it leaves a checkpoint.

    :param checkpoint_freq: environment steps between two checkpoints; ``None`` for one when it is stopped
    :param keep_checkpoints: how many of the newest are kept
    """

    def __init__(self, *args: Any, checkpoint_freq: int | None, keep_checkpoints: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        folder = Path(self.trained_agent).parent
        self.checkpoint = folder if self.continue_training and (folder / MANIFEST).is_file() else None
        if self.checkpoint is not None:
            check_whole(self.checkpoint)
        self.checkpoint_freq = checkpoint_freq
        self.saver = SaveCheckpointCallback(
            1 if checkpoint_freq is None else checkpoint_freq,
            Path(self.save_path) / FOLDER,
            keep_checkpoints,
            verbose=1,
        )

    def create_callbacks(self) -> None:
        """Make the RL Zoo's callbacks, and the one for checkpoints if there shall be some on the way."""
        super().create_callbacks()  # type: ignore[no-untyped-call]
        if self.checkpoint_freq is not None:
            self.callbacks.append(self.saver)

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        model = super()._load_pretrained_agent(hyperparams, env)
        if self.checkpoint is not None:
            assert isinstance(model, OffPolicyAlgorithm)
            restore(model, self.checkpoint)
            print(f"Going on after {model.num_timesteps} of {self.n_timesteps} steps, from {self.checkpoint}")
        return model

    def learn(self, model: BaseAlgorithm) -> None:
        """
        Train; after a checkpoint, to the number of steps that the whole training was to have.

        :param model: the model
        """
        learn = model.learn
        if self.checkpoint is not None:
            self.n_timesteps = max(self.n_timesteps - model.num_timesteps, 0)
            learn = partial(learn, reset_num_timesteps=False)

        def learn_and_keep(*args: Any, **kwargs: Any) -> BaseAlgorithm:
            try:
                return learn(*args, **kwargs)
            except BaseException:
                self._save_what_there_is(model)
                raise

        def close() -> None:
            assert model.env is not None
            with suppress(OSError, EOFError):  # of processes that Ctrl-C has ended too
                model.env.close()

        # The RL Zoo's own `learn` passes no arguments on, and closes the environments before it saves the model
        super().learn(SimpleNamespace(learn=learn_and_keep, env=SimpleNamespace(close=close)))  # type: ignore[arg-type]

    def _save_what_there_is(self, model: BaseAlgorithm) -> None:
        if not isinstance(model, OffPolicyAlgorithm) or model.num_timesteps == 0:
            return
        self.saver.init_callback(model)
        try:
            self.saver.save()
        except Exception as error:
            print(f"No checkpoint could be saved in {self.saver.save_path}: {error!r}")
        else:
            print(f"To go on: the same command with -i {shlex.quote(str(self.saver.save_path))}")
