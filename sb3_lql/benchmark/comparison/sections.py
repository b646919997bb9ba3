"""The text of a report, section by section, as Markdown."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from operator import attrgetter

import numpy as np

from sb3_lql.benchmark.comparison.aggregates import (
    COVERAGE,
    Aggregates,
    Average,
    Estimate,
    ReturnsOf,
    average,
    baseline,
    parameter_counts,
    probability_of_improvement,
    rank_test,
    update_times,
)
from sb3_lql.benchmark.comparison.markup import code, text
from sb3_lql.benchmark.comparison.references import Normalizer, Published
from sb3_lql.benchmark.comparison.results import MODES, Comparison, RunResult
from sb3_lql.benchmark.tables import markdown_table

#: What a cell shows that has no number.
NOTHING = "\N{EN DASH}"


def summary(comparison: Comparison) -> str:
    """The title and what was run."""
    finished = sum(run.status == "finished" for run in comparison.runs)
    steps: dict[str, list[str]] = {}
    for run in comparison.begun:
        budget = f"{run.n_timesteps:,}, of which {run.learning_starts:,} before the first update"
        if run.task not in steps.setdefault(budget, []):
            steps[budget].append(run.task)
    versions = dict.fromkeys((name, version) for run in comparison.begun for name, version in run.versions.items())
    episodes = dict.fromkeys(str(run.n_eval_episodes) for run in comparison.begun)
    title = (
        f"# Benchmark {text(comparison.name)}\n\n{_list(comparison.algorithms)} on {_list(comparison.tasks)}; "
        f"{_seeds(comparison.seeds)}. {finished} of {len(comparison.runs)} runs are finished.\n\n"
    )
    command = f"- Command: {text(comparison.command)}\n"
    if not comparison.begun:
        return title + command
    lines = [
        f"- Environment steps of a run: {'; '.join(f'{budget}: {_list(tasks)}' for budget, tasks in steps.items())}.",
        f"- Evaluations of a run: {comparison.n_evaluations}, and one before the first update; "
        f"of {' or '.join(episodes)} episodes in each of two modes:",
        *(f"    - {mode}: {meaning}" for mode, meaning in MODES.items()),
        f"- Hardware: {' / '.join(dict.fromkeys(text(run.hardware) for run in comparison.begun))}.",
        f"- Versions: {', '.join(f'{text(name)} {text(version)}' for name, version in versions)}.",
    ]
    return title + "".join(f"{line}\n" for line in lines) + command


def unfinished(comparison: Comparison) -> str:
    """A warning that names the runs that are missing, incomplete or failed; empty if there are none."""
    open_runs = [run for run in comparison.runs if run.status != "finished"]
    if not open_runs:
        return ""
    missing: dict[str, list[int]] = {}
    partial, failed = [], []
    for run in open_runs:
        name = f"{text(run.algorithm)} on {text(run.task)}"
        if run.status == "missing":
            missing.setdefault(name, []).append(run.seed)
        elif run.status == "failed":
            last = ((run.error or "").strip() or "no error recorded").splitlines()[-1]
            failed.append(f"failed: {name}, seed {run.seed}, at {_progress(comparison, run)}: {text(last)}")
        else:
            partial.append(f"running or stopped: {name}, seed {run.seed}, at {_progress(comparison, run)}")
    not_begun = [f"not begun: {name}, {_seeds(seeds)}" for name, seeds in missing.items()]
    lines = [f"**{len(open_runs)} of {len(comparison.runs)} runs are not finished.**", ""]
    lines += [f"- {item}" for item in failed + partial + not_begun]
    return "".join(f"> {line}".rstrip() + "\n" for line in lines)


def returns(comparison: Comparison, of: ReturnsOf, mode: str) -> str:
    """Table of returns by task and algorithm: ``of`` the runs, in the mode, with their number of evaluations."""

    def cell(task: str, algorithm: str) -> str:
        found = average(of(comparison.of(task, algorithm), mode, comparison.n_evaluations))
        return _average(found, attrgetter("deviation"), comparison)

    return _by_task(comparison, cell)


def improvement_by_task(comparison: Comparison, of: ReturnsOf, mode: str) -> str:
    """Table of the shares of pairs in which a run of the first algorithm has more than one of another, and p-values."""
    first, *others = comparison.algorithms

    def cell(task: str, other: str) -> str:
        x, y = (of(comparison.of(task, name), mode, comparison.n_evaluations) for name in (first, other))
        if min(len(x), len(y)) < 2:
            return NOTHING
        return f"{probability_of_improvement(np.array(x), np.array(y)):.2f} (p = {rank_test(x, y):.2g})"

    rows = [[text(task), *(cell(task, other) for other in others)] for task in comparison.tasks]
    return markdown_table([f"{text(first)} ahead of", *map(text, others)], rows)


def normalized_performance(comparison: Comparison, performance: dict[str, list[Average | None]]) -> str:
    """Table of normalised performance over the training (table 1 of the paper)."""
    steps = comparison.progress_steps
    spread = attrgetter("standard_error")
    rows = [
        [text(algorithm), *(_average(points[step], spread, comparison) for step in steps)]
        for algorithm, points in performance.items()
    ]
    return markdown_table(["Progress", *(f"{step / comparison.n_evaluations:.1f}" for step in steps)], rows)


def normalizers(comparison: Comparison, known: dict[str, Normalizer]) -> str:
    """Table of what counts as 0 and as 100."""
    rows = []
    for task in comparison.tasks:
        if (entry := known.get(task)) is None:
            rows.append([text(task), NOTHING, "none: this task is not part of the aggregates", NOTHING, ""])
            continue
        ends = [(_number(end.value), text(end.source)) for end in (entry.random, entry.reference)]
        rows.append([text(task), *ends[0], *ends[1]])
    return markdown_table(["Task", "Random = 0", "Source", "Reference = 100", "Source"], rows)


def aggregate_table(comparison: Comparison, aggregates: dict[str, Aggregates]) -> str:
    """Table of interquartile mean and optimality gap."""
    rows = []
    for algorithm in comparison.algorithms:
        found = aggregates.get(algorithm)
        cells = [_estimate(found.iqm), _estimate(found.optimality_gap)] if found else [NOTHING, NOTHING]
        rows.append(
            [text(algorithm), *cells, f"{found.n_seeds if found else 'fewer than 2'} of {len(comparison.seeds)}"]
        )
    return markdown_table(["", "Interquartile mean", "Optimality gap", "Complete seeds"], rows)


def improvement_table(improvements: dict[tuple[str, str], Estimate]) -> str:
    """Table of the probabilities that the first algorithm is better than each of the others."""
    rows = [[f"{text(first)} over {text(other)}", _estimate(found)] for (first, other), found in improvements.items()]
    return markdown_table(["", "Probability of improvement"], rows)


def parameter_table(comparison: Comparison) -> str:
    """Table of trained parameters and their ratios (table 2 of the paper)."""
    counts = parameter_counts(comparison)

    def cell(task: str, algorithm: str) -> str:
        found = counts.get(task, {})
        if algorithm not in found:
            return NOTHING
        return f"{found[algorithm]:,}{_ratio(found, algorithm, baseline(comparison))}"

    return _by_task(comparison, cell)


def time_table(comparison: Comparison) -> str:
    """Table of the time for an update and its ratios (table 3 of the paper)."""
    times = update_times(comparison)

    def cell(task: str, algorithm: str) -> str:
        found = {name: time.milliseconds for name, time in times.get(task, {}).items()}
        if algorithm not in found:
            return NOTHING
        ratio = _ratio(found, algorithm, baseline(comparison))
        return f"{_number(found[algorithm])} ms{ratio}{_count(times[task][algorithm].n_seeds, comparison)}"

    return _by_task(comparison, cell)


def published_table(entries: Iterable[Published]) -> str:
    """Table of numbers published elsewhere."""
    header = ["Method", "Metric", "Value", "Budget", "Source"]
    cells = [(entry.method, entry.metric, entry.value, entry.budget, entry.source) for entry in entries]
    return markdown_table(header, [[text(cell) for cell in row] for row in cells])


def run_table(comparison: Comparison) -> str:
    """Table of all planned runs."""
    header = ["Task", "Algorithm", "Seed", "Status", "Progress", "Updates"]
    header += [f"Final return, {mode}" for mode in MODES] + ["Training time", "Attempts", "Command"]
    rows = []
    for run in (
        run for task in comparison.tasks for name in comparison.algorithms for run in comparison.of(task, name)
    ):
        finals = [run.mean_return(mode, comparison.n_evaluations) for mode in MODES]
        last = run.evaluations[-1] if run.evaluations else None
        rows.append(
            [
                *(text(run.task), text(run.algorithm), str(run.seed), text(run.status), _progress(comparison, run)),
                f"{last.updates:,}" if last else NOTHING,
                *(NOTHING if final is None else _number(final) for final in finals),
                str(timedelta(seconds=round(last.training_seconds))) if last else NOTHING,
                str(len(run.attempts)),
                code(run.command),
            ]
        )
    return markdown_table(header, rows)


def _by_task(comparison: Comparison, cell: Callable[[str, str], str]) -> str:
    rows = [[text(task), *(cell(task, name) for name in comparison.algorithms)] for task in comparison.tasks]
    return markdown_table(["Task", *map(text, comparison.algorithms)], rows)


def _average(found: Average | None, spread: Callable[[Average], float | None], comparison: Comparison) -> str:
    if found is None:
        return NOTHING
    decimals = _decimals(found.mean)
    width = "" if (size := spread(found)) is None else f" ± {size:,.{decimals}f}"
    return f"{found.mean:,.{decimals}f}{width}{_count(found.n_seeds, comparison)}"


def _estimate(found: Estimate) -> str:
    low, high = found.interval
    return f"{found.value:.3f} ({COVERAGE:.0%}: {low:.3f} to {high:.3f})"


def _ratio(found: dict[str, int] | dict[str, float], algorithm: str, base: str) -> str:
    return f" ({found[algorithm] / found[base]:.3f})" if found.get(base) else ""


def _count(n_seeds: int, comparison: Comparison) -> str:
    planned = len(comparison.seeds)
    if planned == 1:
        return " (1 seed)"
    return "" if n_seeds == planned else f" ({n_seeds} of {planned} seeds)"


def _number(value: float) -> str:
    return f"{value:,.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    size = abs(value)
    return 0 if size >= 1_000 else 1 if size >= 100 else 2


def _progress(comparison: Comparison, run: RunResult) -> str:
    return f"{max(len(run.evaluations) - 1, 0) / comparison.n_evaluations:.0%}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(map(text, names))


def _seeds(seeds: Iterable[int]) -> str:
    values = list(seeds)
    return f"{'seed' if len(values) == 1 else 'seeds'} {_list(map(str, values))}"
