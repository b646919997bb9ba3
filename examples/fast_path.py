"""
Does the fast path learn what the plain one learns? Returns of NC-LQL on MuJoCo, eager, compiled and in bfloat16.

    python examples/fast_path.py Reacher-v5 compiled 100 >> fast_path.jsonl

Five environments, random transitions first, then one update for each step of the five; the mean and standard deviation
of ten episodes, played by the stochastic policy, after every so many updates.
"""

import argparse
import json
import time
from typing import Any

import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_lql import NCLQL

VARIANTS: dict[str, dict[str, Any]] = {
    "eager": dict(compile=False),
    "compiled": dict(compile=True),
    "bfloat16": dict(compile=True, bfloat16_chain=True),
}
N_ENVS = 5


def main() -> None:
    """Train one agent and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env_id")
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("seed", type=int)
    parser.add_argument("--warm-up", type=int, default=30_000, help="random transitions (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=1_000, help="updates per evaluation (default: %(default)s)")
    parser.add_argument("--evaluations", type=int, default=2, help="(default: %(default)s)")
    args = parser.parse_args()

    started = time.perf_counter()
    env = make_vec_env(args.env_id, N_ENVS, seed=args.seed)
    model = NCLQL("MlpPolicy", env, learning_starts=args.warm_up, seed=args.seed, **VARIANTS[args.variant])
    model.learn(args.warm_up)
    returns = {}
    for _ in range(args.evaluations):
        model.learn(args.updates * N_ENVS, reset_num_timesteps=False)
        mean, std = evaluate_policy(model, make_vec_env(args.env_id, seed=args.seed + 1), 10, deterministic=False)
        returns[model._n_updates] = [mean, std]
    print(
        json.dumps(
            dict(
                env_id=args.env_id,
                variant=args.variant,
                seed=args.seed,
                returns=returns,
                q_mean=model.logger.name_to_value["train/q_mean"],
                seconds=time.perf_counter() - started,
                threads=th.get_num_threads(),
                torch=th.__version__,
            )
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
