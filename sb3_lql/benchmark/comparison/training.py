"""One training run of a benchmark: evaluated at fixed points, resumed from its last checkpoint."""

import contextlib
import os
import platform
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql.benchmark import machine
from sb3_lql.benchmark.comparison.evaluation import evaluate
from sb3_lql.benchmark.comparison.milestones import Milestones
from sb3_lql.benchmark.comparison.records import RUN_FILE, record_failure, status_of, unstarted
from sb3_lql.benchmark.comparison.spec import Run
from sb3_lql.benchmark.experiment import Experiment
from sb3_lql.benchmark.json_files import read_json, write_json
from sb3_lql.benchmark.parameters import count_parameters
from sb3_lql.common.files import discard_folder
from sb3_lql.saving.checkpoint import CHECKPOINTS, save_checkpoint

PACKAGES = (*machine.PACKAGES, "sb3_contrib", "rl_zoo3", "numpy", "gymnasium", "mujoco", "ray")


class TakenOverError(Exception):
    """Another process has taken this run over."""


def train(run: Run, folder: Path, *, config: str | None, device: str, n_threads: int) -> None:
    """
    Train, evaluate and record one run. Where the folder has a checkpoint of it, training resumes from there. An error
    is recorded, not raised.

    The folder gets ``run.json``, ``log.txt``, what the RL Zoo saves, and checkpoints until the end. ``config`` is the
    RL Zoo's file of hyperparameters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if status_of(folder) == "finished":  # by a process that died before it could say so
        discard_folder(folder / CHECKPOINTS)
        return
    th.set_num_threads(n_threads)
    with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            Training(run, folder, config, device).run()
        except TakenOverError:
            traceback.print_exc()
        except Exception:
            traceback.print_exc()
            record_failure(run, folder, traceback.format_exc())


class Training:
    """
    A run in this process; the arguments are those of :func:`train`. Raises ValueError if the run cannot learn anything,
    or is not the one that was begun, and TypeError if the algorithm is not off-policy.
    """

    def __init__(self, run: Run, folder: Path, config: str | None, device: str) -> None:
        self.spec = run
        self.folder = folder
        set_random_seed(run.seed)
        self.experiment = Experiment.in_folder(
            folder,
            run.algorithm.algo,
            run.task,
            {"algo": run.algorithm.algo, "env": run.task, "seed": run.seed},
            n_timesteps=run.n_timesteps,
            hyperparams=dict(run.algorithm.hyperparams),
            seed=run.seed,
            device=device,
            config=config,
        )
        model, hyperparams = self.experiment.build()
        self.model = model
        self.record = self._new_record(hyperparams, device)
        self._resume()
        self.attempt = {
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "host": platform.node(),
            "pid": os.getpid(),
            "from_timesteps": model.num_timesteps,
            "versions": self.record["versions"],
            "hardware": self.record["hardware"],
        }
        # Attempts without a checkpoint of their own count too
        self.record["attempts"] = [*read_json(folder / RUN_FILE).get("attempts", []), self.attempt]
        # The RL Zoo leaves the env_kwargs of its hyperparameters out of evaluations
        self.experiment.eval_env_kwargs = self.experiment.env_kwargs
        self.eval_env = self.experiment.create_envs(run.n_eval_episodes, eval_env=True, no_log=True)

    @property
    def n_timesteps(self) -> int:
        """Environment steps in all."""
        return int(self.experiment.n_timesteps)

    @property
    def _env(self) -> VecEnv:
        assert self.model.env is not None
        return self.model.env

    def run(self) -> None:
        """Train to the end."""
        self.begin()
        done = self.model.num_timesteps
        if done < self.n_timesteps:
            milestones = self._milestones()[len(self.record["evaluations"]) :]
            callback = Milestones(milestones, self.record["training_seconds"], self.evaluate, self.save_checkpoint)
            self.model.learn(self.n_timesteps - done, callback=callback, reset_num_timesteps=done == 0)
        self.experiment.save_trained_model(self.model)
        for env in (self._env, self.eval_env):
            env.close()
        self.write("finished")
        discard_folder(self.folder / CHECKPOINTS)

    def _milestones(self) -> list[tuple[float, int]]:
        """Progress of each evaluation after the random steps, and the environment steps that it waits for."""
        n, first = self.spec.n_evaluations, self.model.learning_starts
        return [(k / n, first + round(k / n * (self.n_timesteps - first))) for k in range(n + 1)]

    def evaluate(self, fraction: float, training_seconds: float) -> None:
        """Evaluate the agent and record it; ``fraction`` is the progress after the random steps."""
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
        """Save the model and its record so far; TakenOverError if another process has taken the run over."""
        self._check_ownership()
        self.record["training_seconds"] = training_seconds
        save_checkpoint(self.model, self.folder / CHECKPOINTS, keep=1, extra=self.record)
        self.write("running")

    def _new_record(self, hyperparams: dict[str, Any], device: str) -> dict[str, Any]:
        return {
            **unstarted(self.spec),
            "command": f"{self.spec.command} --num-threads {th.get_num_threads()} --device {device}",
            "n_timesteps": self.n_timesteps,
            "learning_starts": self.model.learning_starts,
            "n_envs": self._env.num_envs,
            "hyperparams": hyperparams,
            "parameters": count_parameters(self.model),
            "versions": machine.versions(PACKAGES),
            "hardware": machine.hardware(str(self.model.device)),
        }

    def _resume(self) -> None:
        """Resume from the last checkpoint and its record, if there is one."""
        if (before := self.experiment.extra) is None:
            return
        if before["hyperparams"] != self.record["hyperparams"]:
            raise ValueError(
                f"the run began with the hyperparameters {before['hyperparams']}, which are now "
                f"{self.record['hyperparams']}: restore them, or pass another --results."
            )
        self.experiment.resume(self.model)
        self.record |= {name: before[name] for name in ("training_seconds", "evaluations")}

    def begin(self) -> None:
        """Put this attempt on record: whatever process had the run before has lost it."""
        write_json(self.folder / RUN_FILE, self.record | {"status": "running", "error": None})

    def write(self, status: str) -> None:
        """Write the record, with the evaluations so far; TakenOverError if another process has taken the run over."""
        self._check_ownership()
        write_json(self.folder / RUN_FILE, self.record | {"status": status, "error": None})

    def _check_ownership(self) -> None:
        """On a cluster, a worker that was believed dead may live: what counts is the attempt that began last."""
        last = read_json(self.folder / RUN_FILE)["attempts"][-1]
        if last != self.attempt:
            raise TakenOverError(f"{last['host']}, process {last['pid']}, has taken this run over.")
