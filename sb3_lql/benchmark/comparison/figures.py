"""The figures of a report. The numbers are those of :mod:`~sb3_lql.benchmark.comparison.aggregates`."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from sb3_lql.benchmark.comparison.aggregates import (
    SEEDS_OF_EARLIEST,
    SHARE_OF_EARLIEST,
    Aggregates,
    Average,
    Estimate,
    earliest,
    learned_range,
    mean_interval,
)
from sb3_lql.benchmark.comparison.results import Comparison, RunResult, part_of
from sb3_lql.benchmark.looks import Look, looks

#: As many algorithms share a panel; of more, each has one of its own, with the first for comparison.
N_TOGETHER = 9
#: Panels beside each other, of all algorithms or of two, their width and height in inches, and a single one's width.
N_COLUMNS, N_COLUMNS_OF_TWO = 2, 3
PANEL = (3.2, 2.4)
SINGLE_WIDTH = 4.8
#: Width and height of an entry of the legend, in inches, and its letters in a line.
ENTRY = (1.9, 0.2)
N_LETTERS = 24
#: Letters in a line of a panel's title.
N_TITLE_LETTERS = 36
#: From this number of updates on, axes count thousands.
MANY_UPDATES = 10_000


def learning_curves(comparison: Comparison, mode: str, n_bootstrap: int) -> Figure:
    """
    Return over updates, a panel for each task: every seed, and the mean over those seeds that got furthest. Titles name
    the algorithm that learns earliest. Of many algorithms, a panel for each and the first.
    """
    begun = {run.task for run in comparison.begun}
    tasks = [task for task in comparison.tasks if task in begun or not begun]
    first, *others = comparison.algorithms
    together = len(comparison.algorithms) <= N_TOGETHER
    groups = [comparison.algorithms] if together else [(first, other) for other in others]
    panels = [part_of(comparison, [task], group) for task in tasks for group in groups]
    n_columns = min(N_COLUMNS if together else N_COLUMNS_OF_TWO, len(panels))
    n_rows = -(-len(panels) // n_columns)
    width = PANEL[0] * n_columns if len(panels) > 1 else SINGLE_WIDTH
    figure = Figure(figsize=(width, (PANEL[1] + 0.5) * n_rows), layout="constrained")
    grid: np.ndarray = figure.subplots(n_rows, n_columns, squeeze=False)
    last = max((e.updates for run in comparison.begun for e in run.evaluations), default=0)
    unit = 1_000 if last >= MANY_UPDATES else 1
    for axes, panel in zip(grid.flat, panels, strict=False):
        found = looks(panel.algos)
        for algorithm, look in found.items():
            _curve(axes, panel.of(panel.tasks[0], algorithm), mode, look, unit, n_bootstrap)
        task = [_wrapped(panel.tasks[0])] if together or len(tasks) > 1 else []
        axes.set_title("\n".join([*task, *_who_is_earliest(panel, mode)]), fontsize=10)
        axes.set_xlabel("updates (thousands)" if unit > 1 else "updates")
        _show_learned(axes, panel, mode)
        _count_steps(axes, panel, unit)
        if not together:
            axes.legend(_lines(found), map(_wrapped, found), fontsize=8, framealpha=0.6)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("return")
    if together:
        _legend(figure, looks(comparison.algos))
    return figure


def normalized_performance(comparison: Comparison, performance: dict[str, list[Average | None]]) -> Figure:
    """
    Normalised performance and its standard error over the training (figure 5's last panel); points from fewer seeds
    than planned are hollow.
    """
    figure = Figure(figsize=(1.6 * PANEL[0], 1.4 * PANEL[1]), layout="constrained")
    axes = figure.subplots()
    drawn = {name: look for name, look in looks(comparison.algos).items() if any(performance[name])}
    for algorithm, (colour, style) in drawn.items():
        points = [(step, point) for step, point in enumerate(performance[algorithm]) if point is not None]
        fractions = np.array([step / comparison.n_evaluations for step, _ in points])
        low, high = np.transpose([point.interval for _, point in points])
        axes.plot(fractions, [point.mean for _, point in points], color=colour, linestyle=style)
        axes.fill_between(fractions, low, high, color=colour, alpha=0.2, linewidth=0)
        for step, point in points:
            if step in comparison.progress_steps:
                filling = colour if point.n_seeds == len(comparison.seeds) else "white"
                x = step / comparison.n_evaluations
                axes.plot(x, point.mean, "o", markersize=5, color=colour, markerfacecolor=filling)
    # Untrained agents may be far below
    trained = [point.interval for name in drawn for point in performance[name][1:] if point is not None]
    if trained:
        axes.set_ylim(*_with_margin(np.min(trained), np.max(trained)))
    axes.set(xlim=(-0.02, 1.02), xlabel="fraction of the steps after random ones", ylabel="normalised performance")
    axes.set_title(_who_is_highest(comparison, performance), fontsize=10)
    axes.grid(alpha=0.3)
    _legend(figure, drawn)
    return figure


def intervals(
    comparison: Comparison, aggregates: dict[str, Aggregates], improvements: dict[tuple[str, str], Estimate]
) -> Figure:
    """
    Interquartile mean, optimality gap and probability of improvement (if there are two algorithms) with their
    intervals.
    """
    colours = {name: colour for name, (colour, _) in looks(comparison.algos).items()}
    probability = "probability of improvement"
    panels = {
        "interquartile mean (more is better)": {name: (found.iqm, colours[name]) for name, found in aggregates.items()},
        "optimality gap (less is better)": {
            name: (found.optimality_gap, colours[name]) for name, found in aggregates.items()
        },
        probability: {f"{x} > {y}": (found, colours[x]) for (x, y), found in improvements.items()},
    }
    shown = {title: rows for title, rows in panels.items() if rows}
    heights = [0.7 + 0.3 * sum(_wrapped(name).count("\n") + 1 for name in rows) for rows in shown.values()]
    figure = Figure(figsize=(1.6 * PANEL[0], sum(heights)), layout="constrained")
    panels = figure.subplots(len(shown), 1, height_ratios=heights)
    for axes, (title, rows) in zip(panels, shown.items(), strict=True):
        _bars(axes, rows)
        axes.set_title(title, fontsize=9)
        if title == probability:
            axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle="--")
            axes.set_xlim(-0.03, 1.03)
    return figure


def _curve(axes: Axes, runs: list[RunResult], mode: str, look: Look, unit: int, n_bootstrap: int) -> None:
    colour, style = look
    runs = [run for run in runs if run.evaluations]
    length = max((len(run.evaluations) for run in runs), default=0)
    width, alpha = (1.8, 1.0) if len(runs) == 1 else (0.7, 0.4)
    for run in runs:
        updates = [evaluation.updates / unit for evaluation in run.evaluations]
        returns = [evaluation.mean_return(mode) for evaluation in run.evaluations]
        axes.plot(updates, returns, color=colour, linestyle=style, linewidth=width, alpha=alpha)
    # The same seeds all along a mean, so that no seed's end makes a step in it
    furthest = [run.evaluations for run in runs if len(run.evaluations) == length]
    if len(furthest) > 1:
        values = np.array([[evaluation.mean_return(mode) for evaluation in evaluations] for evaluations in furthest])
        updates = np.mean([[evaluation.updates / unit for evaluation in run] for run in furthest], axis=0)
        axes.plot(updates, values.mean(axis=0), color=colour, linestyle=style, linewidth=1.8)
        axes.fill_between(updates, *mean_interval(values, n_bootstrap), color=colour, alpha=0.18, linewidth=0)
    axes.grid(alpha=0.3)


def _who_is_earliest(panel: Comparison, mode: str) -> list[str]:
    """Lines of a title that say its message; none if it cannot be told."""
    found = earliest(panel, panel.tasks[0], mode)
    if found is None:
        return []
    names, share = found
    two = len(panel.algorithms) == 2
    pairs = "all pairs" if share == 1 else f"{'' if two else '≥ '}{100 * share:.0f} % of pairs"
    clear = share >= SHARE_OF_EARLIEST
    who = f"{' and '.join(names)} {'earlier' if two else 'earliest,'}"
    message = f"{who} in {pairs}" if clear else "none is clearly earliest"
    return [_wrapped(message, N_TITLE_LETTERS)]


def _who_is_highest(comparison: Comparison, performance: dict[str, list[Average | None]]) -> str:
    """
    A title: which two are highest at the end, if all have five complete seeds or more; else empty. None is highest
    whose standard error reaches the next one's.
    """
    ends = {name: points[-1] for name, points in performance.items()}
    finals = {name: end for name, end in ends.items() if end and end.n_seeds == len(comparison.seeds)}
    if len(comparison.seeds) < SEEDS_OF_EARLIEST or len(finals) < max(2, len(ends)):
        return ""
    (first, most), (second, next_most), *_ = sorted(finals.items(), key=lambda found: -found[1].mean)
    clear = most.interval[0] > next_most.interval[1]
    who = f"{first} is highest ({most.mean:.1f}), then {second} ({next_most.mean:.1f})"
    return _wrapped(f"At the end {who if clear else 'none is clearly highest'}", N_TITLE_LETTERS)


def _show_learned(axes: Axes, panel: Comparison, mode: str) -> None:
    """Agents that have not learned may do a hundred times worse."""
    found = learned_range(panel, panel.tasks[0], mode)
    if found is not None:
        axes.set_ylim(*_with_margin(*found))


def _with_margin(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _count_steps(axes: Axes, panel: Comparison, unit: int) -> None:
    """A second axis for environment steps, if all of a task's runs take as many for an update."""
    found = {
        (run.learning_starts, round(last.fraction * (run.n_timesteps - run.learning_starts) / last.updates, 6))
        for run in panel.begun
        if run.evaluations and (last := run.evaluations[-1]).updates > 0
    }
    if len(found) == 1:
        ((first, ratio),) = found
        start = first / unit

        def to_steps(updates: ArrayLike) -> ArrayLike:
            return start + np.asarray(updates) * ratio

        def to_updates(steps: ArrayLike) -> ArrayLike:
            return (np.asarray(steps) - start) / ratio

        steps = axes.secondary_xaxis("top", functions=(to_steps, to_updates))
        steps.set_xlabel("environment steps (thousands)" if unit > 1 else "environment steps", fontsize=8)
        steps.tick_params(labelsize=8)


def _bars(axes: Axes, rows: dict[str, tuple[Estimate, str]]) -> None:
    """A point for each estimate within its interval, from the top down."""
    for height, (estimate, colour) in enumerate(rows.values()):
        axes.plot(estimate.interval, (height, height), color=colour, linewidth=6, alpha=0.4, solid_capstyle="butt")
        axes.plot(estimate.value, height, "|", color=colour, markersize=12, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), [_wrapped(name) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x")


def _legend(figure: Figure, drawn: dict[str, Look]) -> None:
    """Below the panels, for which the figure grows."""
    width, height = figure.get_size_inches()
    names = [_wrapped(name) for name in drawn]
    n_columns = min(len(names), max(1, int(width / ENTRY[0])))
    n_lines = -(-len(names) // n_columns) * max(name.count("\n") + 1 for name in names)
    figure.set_size_inches(width, height + ENTRY[1] * (n_lines + 1))
    figure.legend(_lines(drawn), names, loc="outside lower center", ncols=n_columns, frameon=False)


def _lines(drawn: dict[str, Look]) -> list[Line2D]:
    return [Line2D([], [], color=colour, linestyle=style) for colour, style in drawn.values()]


def _wrapped(text: str, n_letters: int = N_LETTERS) -> str:
    return _plain(textwrap.fill(text, n_letters, break_on_hyphens=False, break_long_words=False))


def _plain(text: str) -> str:
    # Two dollars would be a formula
    return text.replace("$", r"\$")
