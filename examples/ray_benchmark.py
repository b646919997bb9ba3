"""
Compare NC-LQL, LQL and SAC on one task, over seeds, on Ray, and write a report.

    python examples/ray_benchmark.py --task Pendulum-v1 --output results/pendulum
    python examples/ray_benchmark.py --output /shared/pendulum --address auto    # on a node of a Ray cluster

The script writes a spec, and hands it to ``sb3-lql benchmark``. Where it was stopped, the same command resumes. What
else can be in a spec: docs/benchmark.md. Nine runs of some minutes each; needs ``pip install ".[benchmark]"``.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

ALGORITHMS = {"NC-LQL": "nclql", "LQL": "lql", "SAC": "sac"}


def benchmark(*arguments: str | Path) -> None:
    """Run ``sb3-lql benchmark``."""
    subprocess.run([sys.executable, "-m", "sb3_lql.zoo.cli", "benchmark", *arguments], check=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the spec, train what is in it, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="Pendulum-v1", help="environment id (default: %(default)s)")
    parser.add_argument("--timesteps", type=int, default=5_000, help="of each run (default: %(default)s)")
    parser.add_argument("--learning-starts", type=int, default=1_000, help="random steps first (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 200, 300], help="(default: %(default)s)")
    parser.add_argument("--eval-episodes", type=int, default=20, help="of each evaluation (default: %(default)s)")
    parser.add_argument("--address", default="local", help="a Ray cluster's, or auto (default: this machine alone)")
    parser.add_argument("--output", type=Path, default=Path("results/ray_benchmark"), help="(default: %(default)s)")
    args = parser.parse_args(argv)

    # Other hyperparameters are those of the RL Zoo's files in hyperparams/
    hyperparams = dict(learning_starts=args.learning_starts)
    spec = dict(
        tasks={args.task: args.timesteps},
        algorithms={label: dict(algo=algo, hyperparams=hyperparams) for label, algo in ALGORITHMS.items()},
        seeds=args.seeds,
        n_eval_episodes=args.eval_episodes,
    )
    args.output.mkdir(parents=True, exist_ok=True)
    spec_file = args.output / "spec.yml"
    spec_file.write_text(yaml.safe_dump(spec, sort_keys=False))

    benchmark("run", spec_file, "--results", args.output, "--address", args.address)
    benchmark("report", args.output)


if __name__ == "__main__":
    main()
