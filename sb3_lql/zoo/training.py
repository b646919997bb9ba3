"""``sb3-lql train``: the RL Zoo's, with checkpoints from which it resumes."""

import argparse
import importlib
import shlex
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql.algorithms import DEFAULT
from sb3_lql.benchmark.experiment import Experiment
from sb3_lql.collecting.interrupts import interrupts_deferred
from sb3_lql.collecting.workers import subprocesses, watch_workers
from sb3_lql.saving.callbacks import SaveCheckpointCallback
from sb3_lql.saving.checkpoint import CHECKPOINTS, MODEL, find_checkpoint
from sb3_lql.zoo.registry import PRESETS, hyperparams_file

#: Seconds that processes of environments have to close after an interrupt, and again to end by SIGTERM.
PATIENCE = 3.0


def train() -> None:
    """Train an agent, by our hyperparameters. ``-i`` also takes a checkpoint, or a folder with checkpoints."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo", default=DEFAULT, help=argparse.SUPPRESS)
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="hyperparameters of the paper's protocol (default: for few steps on one machine)",
    )
    parser.add_argument("-conf", "--conf-file", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint-freq", type=int, help="save a checkpoint every so many steps")
    parser.add_argument("--keep-checkpoints", type=int, default=2, help="the newest that are kept (default: 2)")
    parser.add_argument(
        "-i",
        "--trained-agent",
        type=Path,
        help="an agent (.zip) to train further, or a checkpoint, or a folder of checkpoints, to resume from",
    )
    options, rest = parser.parse_known_args(sys.argv[1:])
    for flag, value in (
        ("--checkpoint-freq", options.checkpoint_freq),
        ("--keep-checkpoints", options.keep_checkpoints),
    ):
        if value is not None and value < 1:
            parser.error(f"argument {flag}: {value} is too small, pass an integer of at least 1")
    if "-h" in rest or "--help" in rest:
        print(f"{parser.format_help()}\nand the options of the RL Zoo:\n")
    if options.preset is not None and options.conf_file is not None:
        parser.error(f"--preset {options.preset} and --conf-file {options.conf_file}: pass one of them")
    if options.preset is not None and hyperparams_file(options.algo) is None:
        parser.error(
            f"--preset {options.preset}: there are no hyperparameters of ours for {options.algo}, pass --conf-file"
        )
    rest += ["--algo", options.algo]
    if (config := options.conf_file or hyperparams_file(options.algo, options.preset)) is not None:
        rest += ["--conf-file", str(config)]
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
        InterruptibleExperiment, checkpoint_freq=options.checkpoint_freq, keep_checkpoints=options.keep_checkpoints
    )
    module.train()


class InterruptibleExperiment(Experiment):
    """
    An experiment that leaves a checkpoint whatever stops it; a second Ctrl-C or SIGTERM does not cut that short.
    Without a ``checkpoint_freq``, in environment steps, that one is the only one.
    """

    def __init__(self, *args: Any, checkpoint_freq: int | None, keep_checkpoints: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.checkpoint_freq = checkpoint_freq
        self.saver = SaveCheckpointCallback(
            1 if checkpoint_freq is None else checkpoint_freq,
            Path(self.save_path) / CHECKPOINTS,
            keep_checkpoints,
            verbose=1,
        )

    def create_callbacks(self) -> None:
        """Make the RL Zoo's callbacks, and the one that saves checkpoints every so many steps, if asked for."""
        super().create_callbacks()  # type: ignore[no-untyped-call]
        if self.checkpoint_freq is not None:
            self.callbacks.append(self.saver)

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        model = super()._load_pretrained_agent(hyperparams, env)
        if self.checkpoint is not None:
            assert isinstance(model, OffPolicyAlgorithm)
            self.resume(model)
            print(f"Resuming after {model.num_timesteps} of {self.n_timesteps} steps, from {self.checkpoint}")
        return model

    def learn(self, model: BaseAlgorithm) -> None:
        """Train; after a checkpoint, to the number of steps that the whole training was to have."""
        learn = model.learn
        if self.checkpoint is not None:
            self.n_timesteps = max(self.n_timesteps - model.num_timesteps, 0)
            learn = partial(learn, reset_num_timesteps=False)

        assert model.env is not None
        watch_workers(model.env)  # which LQL and NC-LQL do themselves: one that hangs is not waited for
        self._stopped = False
        self._until_saved = ExitStack()

        def learn_and_keep(*args: Any, **kwargs: Any) -> BaseAlgorithm:
            try:
                learn(*args, **kwargs)
                self._until_saved.enter_context(interrupts_deferred())
            except BaseException as error:
                self._stopped = True
                self._until_saved.enter_context(interrupts_deferred())
                self._save_what_there_is(model)
                if _began_as_interrupt(error):  # which is all that the RL Zoo expects
                    raise KeyboardInterrupt from error
                raise
            return model

        # The RL Zoo's own `learn` passes no arguments on, and closes the environments before it saves the model: one
        # that hangs would cost that
        stand_in: Any = SimpleNamespace(learn=learn_and_keep, env=SimpleNamespace(close=lambda: None))
        try:
            super().learn(stand_in)
        except BaseException:
            self._until_saved.close()
            self._close(model)
            raise

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        """
        Save what the RL Zoo saves, and close the environments. Interrupts since the end of the training wait until it
        is saved.
        """
        try:
            with self._until_saved:
                super().save_trained_model(model)
        finally:
            self._close(model)

    def _close(self, model: BaseAlgorithm) -> None:
        assert model.env is not None
        if not self._stopped:
            model.env.close()
            return
        close_or_end(model.env)
        for callback in self.callbacks:
            if isinstance(callback, EvalCallback):  # a process of its environments would not let this one end
                close_or_end(callback.eval_env)

    def _save_what_there_is(self, model: BaseAlgorithm) -> None:
        if not isinstance(model, OffPolicyAlgorithm) or model.num_timesteps == 0:
            return
        print(f"Stopped after {model.num_timesteps} steps. Saving a checkpoint ...", flush=True)
        self.saver.init_callback(model)
        try:
            self.saver.save()
        except Exception as error:
            print(f"No checkpoint could be saved in {self.saver.save_path}: {error!r}", flush=True)
        else:
            folder = shlex.quote(str(self.saver.save_path))
            print(f"To resume: the same command with -i {folder}", flush=True)


def _began_as_interrupt(error: BaseException | None) -> bool:
    """Whether this is an interrupt, or an error of code that one has reached at a bad moment, such as tqdm's."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def close_or_end(env: VecEnv) -> None:
    """Close environments, and end those of their processes that do not: their simulator may hang."""
    closed = Event()
    Thread(target=_end_processes, args=(env, closed), daemon=True).start()
    try:
        with suppress(OSError, EOFError):  # of processes that the interrupt has ended too
            env.close()
    finally:
        closed.set()


def _end_processes(env: VecEnv, closed: Event) -> None:
    base = subprocesses(env)
    for end in ("terminate", "kill"):
        if closed.wait(PATIENCE):
            return
        for process in [] if base is None else base.processes:
            getattr(process, end)()
