"""
Tune NC-LQL with Optuna in many processes, on one machine or many: workers share nothing but the study's storage.

    python examples/distributed_optuna.py --workers 4 --storage /shared/pendulum.journal

On other machines, run the same command: their workers join the study, until it has ``--trials`` trials. The storage is
a file that all machines see (NFS will do), or a database (pip install psycopg2-binary):

    python examples/distributed_optuna.py --workers 4 --storage postgresql://user:password@host/database
"""

import argparse
import multiprocessing
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import torch as th
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_lql import NCLQL


def objective(trial: optuna.Trial, args: argparse.Namespace) -> float:
    """Mean return after a short training."""
    trial.set_user_attr("worker", f"{platform.node()}:{os.getpid()}")
    model = NCLQL(
        "MlpPolicy",
        args.env,
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        learning_starts=args.learning_starts,
        tau=trial.suggest_float("tau", 1e-3, 0.1, log=True),
        inverse_temperature=trial.suggest_float("inverse_temperature", 10.0, 1_000.0, log=True),
        reward_scale=trial.suggest_float("reward_scale", 0.01, 1.0, log=True),
        policy_kwargs=dict(net_arch=[64, 64]),
        device="cpu",
    )
    model.learn(args.timesteps)
    # All trials begin in the same states
    mean, _ = evaluate_policy(model, make_vec_env(args.env, seed=1), args.eval_episodes, deterministic=True)
    return float(np.mean(mean))


def open_study(args: argparse.Namespace) -> optuna.Study:
    """The study in the storage; a new one if there is none."""
    storage: str | JournalStorage = args.storage
    if "://" not in args.storage:
        Path(args.storage).parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(args.storage))
    return optuna.create_study(
        storage=storage,
        study_name=args.study_name,
        # Workers keep away from what others are trying
        sampler=optuna.samplers.TPESampler(constant_liar=True),
        direction="maximize",
        load_if_exists=True,
    )


def work(args: argparse.Namespace) -> None:
    """What a worker does, in a process of its own."""
    th.set_num_threads(1)  # the other cores are the other workers'
    open_study(args).optimize(
        lambda trial: objective(trial, args),
        # Those that failed or are running count too
        callbacks=[MaxTrialsCallback(args.trials, states=None)],
        catch=ValueError,  # a training that diverges
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Start workers, wait for them, and say what they have found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="environment id (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes on this machine (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=50, help="of all workers together (default: %(default)s)")
    parser.add_argument("--storage", default="logs/optuna.journal", help="a file or a URL (default: %(default)s)")
    parser.add_argument("--study-name", default="nclql", help="(default: %(default)s)")
    parser.add_argument("--timesteps", type=int, default=3_000, help="of a trial (default: %(default)s)")
    parser.add_argument("--learning-starts", type=int, default=1_000, help="random steps first (default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=10, help="(default: %(default)s)")
    args = parser.parse_args(argv)

    study = open_study(args)
    context = multiprocessing.get_context("spawn")  # a fork of a process with PyTorch's threads may hang
    workers = [context.Process(target=work, args=(args,)) for _ in range(args.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit("A worker has failed: its error is above. What the others have found stays in the storage.")
    print(f"{len(study.trials)} trials; the best has a mean return of {study.best_value:.1f} with {study.best_params}")


if __name__ == "__main__":
    main()
