"""``sb3-lql benchmark``: compare algorithms on tasks, over seeds, and report the results."""

import argparse
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

import rl_zoo3
from filelock import FileLock, Timeout

from sb3_lql.benchmark.comparison.agents import save_agents
from sb3_lql.benchmark.comparison.cluster import run_all
from sb3_lql.benchmark.comparison.figures import learning_curves
from sb3_lql.benchmark.comparison.records import PLAN_FILE, RUN_FILE, status_of, write_plan
from sb3_lql.benchmark.comparison.report import write_report
from sb3_lql.benchmark.comparison.results import MODES, part_of, read_results
from sb3_lql.benchmark.comparison.spec import Run, read_spec
from sb3_lql.benchmark.comparison.training import train
from sb3_lql.benchmark.figure_files import save_figure
from sb3_lql.benchmark.json_files import read_json
from sb3_lql.zoo.registry import hyperparams_file, register


def benchmark() -> None:
    """Run a benchmark, report on one, draw its curves, or save its best agents."""
    parser = _make_parser()
    args = parser.parse_args()
    try:
        args.function(args)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare algorithms on tasks, over seeds.")
    commands = parser.add_subparsers(required=True, metavar="{run,report,curves,agents}")

    run = commands.add_parser("run", help="train and evaluate all runs of a spec, or resume them")
    run.add_argument("spec", type=Path, metavar="SPEC.yml", help="what to compare; see docs/benchmark.md")
    run.add_argument("--results", type=Path, help="folder for all that is written (default: results/NAME_OF_SPEC)")
    run.add_argument("--address", help="a Ray cluster's address, or auto (default: this machine alone)")
    run.add_argument("--threads", type=int, default=1, help="CPU threads of a run (default: %(default)s)")
    run.add_argument("--cpus-per-run", type=float, help="cores that a run takes (default: as many as threads)")
    run.add_argument("--gpus-per-run", type=float, default=0.0, help="GPUs, such as 0.2 (default: %(default)s)")
    run.add_argument("--device", help="cpu, cuda, ... (default: auto with --gpus-per-run, cpu without)")
    run.set_defaults(function=_run)

    report = commands.add_parser("report", help="write a page with curves, tables and intervals")
    report.add_argument("results", type=Path, metavar="RESULTS", help="what `run` has written, complete or not")
    report.add_argument("--output", type=Path, help="folder for the page and its data (default: RESULTS/report)")
    report.set_defaults(function=_report)

    curves = commands.add_parser("curves", help="draw the learning curves of some tasks and algorithms")
    curves.add_argument("results", type=Path, metavar="RESULTS", help="what `run` has written, complete or not")
    curves.add_argument("output", type=Path, metavar="FILE", help="figure, such as curves.png or curves.svg")
    curves.add_argument("--tasks", nargs="+", help="(default: all)")
    curves.add_argument("--algorithms", nargs="+", help="labels of the spec (default: all)")
    curves.add_argument("--mode", choices=list(MODES), default="deterministic", help="(default: %(default)s)")
    curves.set_defaults(function=_curves)

    agents = commands.add_parser("agents", help="save the policies of the best seeds, for sb3-lql enjoy")
    agents.add_argument("results", type=Path, metavar="RESULTS", help="what `run` has written")
    agents.add_argument("--output", type=Path, default=Path("agents"), help="folder for them (default: %(default)s)")
    agents.set_defaults(function=_agents)
    return parser


def _run(args: argparse.Namespace) -> None:
    if args.threads < 1:
        raise ValueError(f"--threads {args.threads} is not positive")
    cpus: float = args.threads if args.cpus_per_run is None else args.cpus_per_run
    if cpus <= 0 or args.gpus_per_run < 0:
        raise ValueError("--cpus-per-run must be positive, --gpus-per-run at least 0.")
    spec = read_spec(args.spec, set(rl_zoo3.ALGOS))
    results = (args.results or Path("results") / spec.name).resolve()
    results.mkdir(parents=True, exist_ok=True)
    runs = list(spec.runs())
    device = args.device or ("auto" if args.gpus_per_run else "cpu")
    try:
        with FileLock(results / ".lock", timeout=0):
            write_plan(spec, results, shlex.join(["sb3-lql", "benchmark", *sys.argv[1:]]))
            run_all(
                runs,
                results,
                partial(_train, device=device, n_threads=args.threads),
                address=args.address,
                cpus_per_run=cpus,
                gpus_per_run=args.gpus_per_run,
            )
    except Timeout:
        raise ValueError(f"another process writes to {results}: wait for it, or pass another --results") from None
    statuses = [status_of(results / "runs" / run.name) for run in runs]
    print(_describe(statuses))
    print(f"Report: sb3-lql benchmark report {shlex.quote(str(results))}")
    if set(statuses) != {"finished"}:
        sys.exit(1)


def _describe(statuses: Collection[str]) -> str:
    """What has become of runs, and what the same command would do."""
    counts = Counter(status if status in ("finished", "failed") else "left" for status in statuses)
    text = f"{counts['finished']} of {len(statuses)} runs are finished"
    if counts["failed"]:
        text += f", {counts['failed']} failed"
    if counts["left"]:
        text += f", {counts['left']} not yet"
    remedies = {"left": "continues what is not finished", "failed": "tries again what failed"}
    todo = [remedy for status, remedy in remedies.items() if counts[status]]
    return f"{text}. The same command {' and '.join(todo)}." if todo else f"{text}."


def _train(run: Run, folder: Path, *, device: str, n_threads: int) -> None:
    """Train one run in a process of its own, where the RL Zoo does not know our algorithms yet."""
    register()
    config = run.algorithm.config or hyperparams_file(run.algorithm.algo)
    train(run, folder, config=None if config is None else str(config), device=device, n_threads=n_threads)


def _report(args: argparse.Namespace) -> None:
    output: Path = args.output or args.results / "report"
    page = write_report(args.results, output)
    # With these files beside it, a page can be made again wherever it goes
    for file in (PLAN_FILE, *(f"runs/{name}/{RUN_FILE}" for name in read_json(args.results / PLAN_FILE)["runs"])):
        if (args.results / file).is_file() and output.resolve() != args.results.resolve():
            (output / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(args.results / file, output / file)
    print(f"Written: {page}")


def _curves(args: argparse.Namespace) -> None:
    comparison = part_of(read_results(args.results), args.tasks, args.algorithms)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    save_figure(learning_curves(comparison, args.mode, n_bootstrap=2000), args.output)
    print(f"Written: {args.output}")


def _agents(args: argparse.Namespace) -> None:
    for folder in save_agents(args.results, args.output):
        print(f"Written: {folder}")
