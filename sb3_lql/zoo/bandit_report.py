"""The commands that compare runs of ``sb3-lql bandit`` in pictures and tables, and samplers by their distances."""

import argparse
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from sb3_lql.benchmark.bandit import figures
from sb3_lql.benchmark.bandit.distances import distance_table, measure_distances
from sb3_lql.benchmark.bandit.landscape import exact_landscape, learned_landscape
from sb3_lql.benchmark.bandit.measures import measured_rows, mode_table, summarize
from sb3_lql.benchmark.bandit.runs import ALGORITHMS, Run, draw_with_perfect_critic
from sb3_lql.benchmark.bandit.tempering import estimate_table
from sb3_lql.benchmark.figure_files import save_svg_and_png
from sb3_lql.benchmark.json_files import write_json


def report() -> None:
    """``sb3-lql bandit_report``: tabulate all runs, and draw the first one of each algorithm."""
    parser = argparse.ArgumentParser(description="Compare runs of `sb3-lql bandit` in pictures and tables.")
    _add_arguments(parser)
    args = parser.parse_args()
    runs = _load(parser, args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    firsts = [next(of_algo) for _, of_algo in groupby(runs, key=lambda run: run.name)]
    langevin = [run for run in firsts if run.is_langevin]

    stepwise = {f"steps_{run.algo}": figures.steps(run) for run in firsts if run.runs_a_chain}
    drawn = figures.side_by_side(firsts) | stepwise | ({"laws": figures.laws(langevin)} if langevin else {})
    for name, figure in drawn.items():
        save_svg_and_png(figure, args.output_dir, name)
    write_json(args.output_dir / "runs.json", [run.summary for run in runs])
    rows = [row for run in runs for row in measured_rows(_label(run), run.summary)]
    for run in langevin:
        actions = draw_with_perfect_critic(run.langevin_model, len(run.samples), run.seed)
        rows.append((f"{_label(run)}, with a perfect critic", summarize(actions)))
    tables = mode_table(rows)
    for run in langevin:
        rows = [(f"w = {entry['inverse_temperature']}", entry) for entry in run.summary["by_inverse_temperature"]]
        tables += f"\n{_label(run)}:\n\n{mode_table(rows)}"
    (args.output_dir / "tables.md").write_text(f"# Modes reached, and what w does\n\n{tables}")
    print(f"{tables}\nWritten to {args.output_dir}: {', '.join(drawn)} (SVG and PNG), runs.json, tables.md")


def distances() -> None:
    """``sb3-lql bandit_distances``: how close samplers come to exp(w * Q) / Z, for the reward and learned critics."""
    parser = argparse.ArgumentParser(
        description="Total variation and KL divergence between samples and exp(w * Q) / Z, for the true reward as Q "
        "and for the critics of runs of `sb3-lql bandit`."
    )
    _add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of all draws (default: %(default)s)")
    parser.add_argument("--n-actions", type=int, default=10_000, help="actions of each sampler (default: %(default)s)")
    parser.add_argument("--inverse-temperatures", type=float, nargs="+", default=[1, 5, 20, 100, 500], help="w")
    parser.add_argument("--chain-lengths", type=int, nargs="+", default=[20, 100, 1_000], help="steps of a chain")
    parser.add_argument(
        "--longest-plain-chain", type=int, default=10_000, help="further steps of plain chains on the true reward"
    )
    parser.add_argument("--bfloat16-chain", action="store_true", help="multiply the critics' hidden layers in bfloat16")
    args = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    try:
        learned = {}
        for run in _load(parser, args):
            policy = run.langevin_model.policy
            if not run.is_tempered:
                policy.bfloat16_chain |= args.bfloat16_chain
            learned[f"{_label(run)}, its critic"] = learned_landscape(policy)
        # Smoothed as far as the first critic that has noise levels
        sigmas = [landscape.sigmas for landscape in learned.values()]
        smoothed = exact_landscape(next((scales for scales in sigmas if len(scales) > 1), sigmas[0]))
        args.output_dir.mkdir(parents=True, exist_ok=True)
        for name, landscape in {"the true reward": smoothed, **learned}.items():
            longest = max(args.chain_lengths) if name in learned else args.longest_plain_chain
            results[name] = []
            for distance in measure_distances(
                landscape, args.n_actions, args.seed, args.inverse_temperatures, args.chain_lengths, longest
            ):
                print(f"{name}: {', '.join(f'{key} {value}' for key, value in distance.items())}", flush=True)
                results[name].append(distance)
            write_json(args.output_dir / "distances.json", results)
    except ValueError as error:
        parser.error(str(error))
    tables = "\n".join(f"Q is {name}:\n\n{distance_table(entries)}" for name, entries in results.items())
    tables += "\nWhat tempered samplers estimate, exact value \\| mean ± standard deviation of the chains:\n"
    tables += "".join(f"\nQ is {name}:\n\n{estimate_table(entries)}" for name, entries in results.items())
    (args.output_dir / "distances.md").write_text(tables)
    print(f"{tables}\nWritten to {args.output_dir}: distances.json, distances.md")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of `sb3-lql bandit`")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--device", default="cpu", help="of the critics: cpu, cuda, ... (default: %(default)s)")


def _load(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[Run]:
    """The runs, sorted by algorithm and seed."""
    try:
        runs = [Run.load(folder, args.device) for folder in args.runs]
    except ValueError as error:
        parser.error(str(error))
    runs.sort(key=lambda run: (list(ALGORITHMS).index(run.algo), run.name, run.seed))
    for run, following in pairwise(runs):
        if _label(run) == _label(following):
            parser.error(f"two of the runs are of {_label(run)}: pass one of them")
    return runs


def _label(run: Run) -> str:
    return f"{run.name}, seed {run.seed}"
