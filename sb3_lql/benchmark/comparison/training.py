"""One training run of a benchmark: evaluated at fixed points, gone on with from its last checkpoint."""

import argparse
import contextlib
import json
import os
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch as th
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql.benchmark import machine
from sb3_lql.benchmark.comparison.checkpoint import MODEL, RECORD, find_checkpoint, restore_random_states
from sb3_lql.benchmark.comparison.checkpoint import save_checkpoint as save
from sb3_lql.benchmark.comparison.evaluation import evaluate
from sb3_lql.benchmark.comparison.records import RUN_FILE, read_json, unstarted, write_json
from sb3_lql.benchmark.comparison.spec import Run

#: Seconds of training after which there is a checkpoint in any case.
CHECKPOINT_SECONDS = 300.0
#: Seconds between two messages about the progress.
REPORT_SECONDS = 5.0
PACKAGES = (*machine.PACKAGES, "rl_zoo3", "numpy", "gymnasium", "mujoco", "ray")

#: Told about the progress of a run.
Report = Callable[[dict[str, Any]], None]


def train(run: Run, folder: Path, *, config: str | None, device: str, n_threads: int, report: Report) -> None:
    """
    Train, evaluate and record one run. Where the folder has a checkpoint of it, training goes on from there. An error
    is recorded, not raised.

    :param run: the run
    :param folder: the run's folder, for ``run.json``, ``log.txt``, what the RL Zoo saves, and checkpoints until the end
    :param config: the RL Zoo's file of hyperparameters
    :param device: PyTorch's device, or "auto"
    :param n_threads: PyTorch's threads on the CPU
    :param report: called every few seconds, and at every evaluation
    """
    folder.mkdir(parents=True, exist_ok=True)
    th.set_num_threads(n_threads)
    with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            training = Training(run, folder, config, device, report)
            training.run()
        except Exception:
            traceback.print_exc()
            failure = {"status": "failed", "error": traceback.format_exc()}
            write_json(folder / RUN_FILE, unstarted(run) | read_json(folder / RUN_FILE) | failure)


class Training:
    """
    A run in this process. The arguments are those of :func:`train`.
    """

    def __init__(self, run: Run, folder: Path, config: str | None, device: str, report: Report) -> None:
        self.spec = run
        self.folder = folder
        self.report = report
        self.checkpoint = find_checkpoint(folder / "checkpoint")
        set_random_seed(run.seed)
        self.manager = ExperimentManager(
            # What `enjoy` looks for among a run's arguments, without objects that YAML would pickle
            argparse.Namespace(algo=run.algorithm.algo, env=run.task, seed=run.seed, env_kwargs=None),
            run.algorithm.algo,
            run.task,
            str(folder),
            n_timesteps=run.n_timesteps,
            eval_freq=-1,
            hyperparams=dict(run.algorithm.hyperparams),
            trained_agent="" if self.checkpoint is None else str(self.checkpoint / MODEL),
            seed=run.seed,
            verbose=0,
            device=device,
            config=config,
        )
        experiment = self.manager.setup_experiment()
        assert experiment is not None
        model, hyperparams = experiment
        if not isinstance(model, OffPolicyAlgorithm):
            raise TypeError(f"algo={run.algorithm.algo!r} does not learn from a replay buffer: leave it out.")
        self.model = model
        if self.n_timesteps <= model.learning_starts:
            raise ValueError(
                f"{self.n_timesteps} environment steps end before learning begins: pass more than "
                f"learning_starts={model.learning_starts}."
            )
        if self.checkpoint is None:
            self.record = self._new_record(hyperparams)
        else:
            restore_random_states(self.checkpoint, self._env)
            self.record = read_json(self.checkpoint / RECORD)
        attempt = {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "host": platform.node(),
            "pid": os.getpid(),
            "from_timesteps": model.num_timesteps,
        }
        # Attempts without a checkpoint of their own count too
        self.record["attempts"] = [*read_json(folder / RUN_FILE).get("attempts", []), attempt]
        # The RL Zoo leaves the env_kwargs of its hyperparameters out of evaluations
        self.manager.eval_env_kwargs = self.manager.env_kwargs
        self.eval_env = self.manager.create_envs(run.n_eval_episodes, eval_env=True, no_log=True)

    @property
    def n_timesteps(self) -> int:
        """Environment steps in all."""
        return int(self.manager.n_timesteps)

    @property
    def _env(self) -> VecEnv:
        assert self.model.env is not None
        return self.model.env

    def run(self) -> None:
        """Train to the end."""
        self._write("running")
        done = self.model.num_timesteps
        callback = _Milestones(self)
        if done < self.n_timesteps:
            self.model.learn(self.n_timesteps - done, callback=callback, reset_num_timesteps=self.checkpoint is None)
        self.manager.save_trained_model(self.model)
        for env in (self._env, self.eval_env):
            env.close()
        self._write("finished")
        shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)

    def evaluate(self, fraction: float, training_seconds: float) -> None:
        """
        Evaluate the agent and record it.

        :param fraction: progress of the training after its random steps
        :param training_seconds: what it has taken since its start
        """
        started = time.perf_counter()
        episodes = evaluate(self.model, self.eval_env, self.spec.seed)
        self.record["evaluations"].append(
            {
                "fraction": fraction,
                "timesteps": self.model.num_timesteps,
                "updates": self.model._n_updates,
                "training_seconds": round(training_seconds, 3),
                "evaluation_seconds": round(time.perf_counter() - started, 3),
                **episodes,
            }
        )

    def save_checkpoint(self, training_seconds: float) -> None:
        """
        :param training_seconds: what the training has taken since its start
        """
        self.record["training_seconds"] = training_seconds
        save(self.model, self.manager.env_name, self.record, self.folder / "checkpoint")
        self._write("running")

    def report_progress(self) -> None:
        """Tell how far the training is."""
        evaluations = self.record["evaluations"]
        self.report(
            {
                "timesteps": self.model.num_timesteps,
                "n_timesteps": self.n_timesteps,
                "evaluations": len(evaluations),
                "return": _mean(evaluations[-1]["deterministic"]["returns"]) if evaluations else None,
            }
        )

    def _new_record(self, hyperparams: dict[str, Any]) -> dict[str, Any]:
        run = self.spec
        return {
            **unstarted(run),
            "n_timesteps": self.n_timesteps,
            "learning_starts": self.model.learning_starts,
            "n_envs": self._env.num_envs,
            "hyperparams": json.loads(json.dumps(hyperparams, default=str)),
            "command": run.command(self.n_timesteps),
            "parameters": count_parameters(self.model),
            "versions": machine.versions(PACKAGES),
            "hardware": machine.hardware(str(self.model.device)),
        }

    def _write(self, status: str) -> None:
        write_json(self.folder / RUN_FILE, self.record | {"status": status, "error": None})


class _Milestones(BaseCallback):
    """Evaluates, saves and reports between updates and collection, where nothing is half done."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training
        n, first = training.spec.n_evaluations, training.model.learning_starts
        #: Progress of an evaluation, and the environment steps that it waits for.
        self.milestones = [(k / n, first + round(k / n * (training.n_timesteps - first))) for k in range(n + 1)]
        self.seconds = float(training.record["training_seconds"])
        self.checkpoint_seconds = self.seconds

    def _on_training_start(self) -> None:
        self.started = self.reported = time.perf_counter()

    def _on_rollout_start(self) -> None:
        self._pause_where_due()

    def _on_step(self) -> bool:
        if time.perf_counter() - self.reported > REPORT_SECONDS:
            self.reported = time.perf_counter()
            self.training.report_progress()
        return True

    def _on_training_end(self) -> None:
        self._pause_where_due()

    def _pause_where_due(self) -> None:
        with self._clock_stopped():
            evaluations = self.training.record["evaluations"]
            n_before = len(evaluations)
            for fraction, timesteps in self.milestones[n_before:]:
                if self.num_timesteps >= timesteps:
                    self.training.evaluate(fraction, self.seconds)
            if len(evaluations) > n_before or self.seconds - self.checkpoint_seconds > CHECKPOINT_SECONDS:
                self.checkpoint_seconds = self.seconds
                self.training.save_checkpoint(self.seconds)
                self.training.report_progress()

    @contextlib.contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        """What happens within does not count as training."""
        self.seconds += time.perf_counter() - self.started
        try:
            yield
        finally:
            self.started = time.perf_counter()


def count_parameters(model: BaseAlgorithm) -> dict[str, int]:
    """
    :param model: an agent
    :return: trained parameters of its actor, if it has one, and of its critic; target networks are copies
    """
    networks = {name: getattr(model.policy, name, None) for name in ("actor", "critic")}
    return {
        name: sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        for name, network in networks.items()
        if isinstance(network, th.nn.Module)
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
