"""``sb3-lql speed``: what an update, a chain and ``predict`` cost on this machine."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.utils import get_device
from torch.profiler import ProfilerActivity, profile

from sb3_lql.algorithms import ALGORITHMS, DEFAULT, LANGEVIN
from sb3_lql.benchmark import machine
from sb3_lql.benchmark.json_files import write_json
from sb3_lql.benchmark.parameters import count_parameters
from sb3_lql.benchmark.speed import (
    SIZES,
    Entry,
    make_comparison,
    make_entries,
    make_model,
    make_sac,
    measure,
    parameters_table,
    speed_table,
    summarize,
)

#: Rows of the profile.
N_OPERATORS = 12
EXPLANATION = (
    "The reference of an update and of predict is the naive one, that of a chain the bare matrix products, elsewhere\n"
    "the library without compilation. An iteration is a step of an environment that costs next to nothing, and an\n"
    "update.\n"
    "The first call compiles, unless PyTorch finds the code in its cache on disk: TORCHINDUCTOR_FORCE_DISABLE_CACHES=1."
)


def speed() -> None:
    """Time all entries for each size, print tables and write the figures."""
    parser = _make_parser()
    args = parser.parse_args()
    for name in ("batch_size", "repetitions"):
        if getattr(args, name) < 1:
            parser.error(f"argument --{name.replace('_', '-')}: {getattr(args, name)} is not positive")
    if args.device == "cuda" and not th.cuda.is_available():
        parser.error("argument --device: PyTorch finds no CUDA device here, pass cpu or auto")
    if args.jax is not None and args.algo != [DEFAULT]:
        parser.error(f"argument --jax: that code is {DEFAULT} alone, leave out --algo {' '.join(args.algo)}")
    if args.output is not None and not args.output.parent.is_dir():
        parser.error(f"argument --output: there is no folder {args.output.parent}, make it first")

    device = get_device(args.device).type
    report: dict[str, Any] = {
        "command": shlex.join(["sb3-lql", "speed", *sys.argv[1:]]),
        "versions": machine.versions(),
        "cpu": machine.processor(),
        "threads": th.get_num_threads(),
        "device": device,
        "device_name": machine.device_name(device),
        "algo": args.algo,
        "batch_size": args.batch_size,
        "repetitions": args.repetitions,
        "sizes": {},
    }
    print(f"{report['cpu']}, {report['threads']} threads; device: {report['device_name']}\n")
    alone = len(args.algo) == 1 and args.algo[0] in LANGEVIN
    for size in dict.fromkeys(args.size):
        try:
            report["sizes"][size] = (_measure_one if alone else _compare)(size, args, device)
        except ValueError as error:
            parser.error(str(error))
        if args.output is not None:  # after each size: an interruption leaves those that are done
            write_json(args.output, report)
    if alone:
        print(EXPLANATION)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Time updates, Langevin chains and predict: an obvious implementation, the library with and "
        "without compilation, SB3's SAC, and a chain's matrix products alone. Of several algorithms, or one without a "
        f"Langevin chain, time updates and predict beside {DEFAULT} and SAC. All take turns, on random data."
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: %(default)s)")
    parser.add_argument(
        "--size",
        choices=SIZES,
        nargs="+",
        default=["halfcheetah"],
        metavar="TASK",
        help=f"tasks whose observations and actions to imitate: {', '.join(SIZES)} (default: halfcheetah)",
    )
    parser.add_argument(
        "--algo",
        choices=ALGORITHMS,
        nargs="+",
        default=[DEFAULT],
        metavar="ALGO",
        help=f"one or several of {', '.join(ALGORITHMS)} (default: {DEFAULT})",
    )
    parser.add_argument("--batch-size", type=int, default=256, help="transitions per update (default: %(default)s)")
    parser.add_argument("--repetitions", type=int, default=50, help="measured calls of each (default: %(default)s)")
    parser.add_argument(
        "--jax", type=Path, metavar="PATH", help="time the code of NC-LQL's authors too, in this clone of it"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled library")
    parser.add_argument("--profile", action="store_true", help="print the operators of one update that cost the most")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="file for all figures")
    return parser


def _measure_one(size: str, args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """Print a table of one Langevin algorithm, and the profile if asked for; return the table's figures."""
    compiled = not args.no_compile
    if compiled:
        th.compiler.reset()  # as in a process of its own: PyTorch would generalise over the sizes that it has seen
    entries = make_entries(size, args.algo[0], device, args.batch_size, compiled, args.jax)
    figures = _measure(entries, size, args, device)
    if args.profile:
        name = "compiled" if compiled else "eager"
        (update,) = (entry.call for entry in entries if (entry.group, entry.name) == ("update", name))
        print(f"One update, {name}:\n\n{_profile_table(update, device)}", flush=True)
    return figures


def _compare(size: str, args: argparse.Namespace, device: str) -> dict[str, Any]:
    """Print tables of several algorithms; return their figures."""
    names = dict.fromkeys([DEFAULT, *args.algo])
    models = {ALGORITHMS[name].label: make_model(size, name, device, compiled=not args.no_compile) for name in names}
    sac = make_sac(size, device)
    figures = _measure(make_comparison(models, sac, size, args.batch_size), size, args, device)
    counts = {name: sum(count_parameters(model).values()) for name, model in {**models, "SAC": sac}.items()}
    print(f"{parameters_table(counts)}", flush=True)
    return {"timings": figures, "parameters": counts}


def _measure(entries: list[Entry], size: str, args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    """Time entries, print their table and return its figures."""
    figures = summarize(measure(entries, args.repetitions, device))
    observation_dim, action_dim = SIZES[size]
    print(
        f"{', '.join(args.algo)}, {size} ({observation_dim} observations, {action_dim} actions), batches of "
        f"{args.batch_size}, {args.repetitions} repetitions:\n\n{speed_table(figures)}",
        flush=True,
    )
    return figures


def _profile_table(call: Callable[[], object], device: str) -> str:
    """PyTorch's table of the operators that take the most time by themselves, on the GPU if the call runs there."""
    on_gpu = device == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        call()
        if on_gpu:
            th.cuda.synchronize()
    by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=by, row_limit=N_OPERATORS))
