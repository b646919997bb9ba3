"""The figures of a report. The numbers are those of :mod:`~sb3_lql.benchmark.comparison.aggregates`."""

from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

from sb3_lql.benchmark.comparison.aggregates import Aggregates, Average, Estimate, mean_interval
from sb3_lql.benchmark.comparison.results import Comparison

#: Colours of Okabe and Ito, which the colour-blind tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: Told apart by these where there are more algorithms than colours.
LINE_STYLES: tuple[LineStyleType, ...] = ("-", "--", ":")
#: An algorithm's colour and line style.
Look = tuple[str, LineStyleType]
#: Panels beside each other, and their width and height in inches.
N_COLUMNS = 3
PANEL = (3.2, 2.4)
#: Width and height of an entry of the legend, in inches.
ENTRY = (1.7, 0.2)
#: From this number of updates on, axes count thousands.
MANY_UPDATES = 10_000


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write a figure as SVG, and return its file name."""
    # The same figure gives the same file
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return f"{name}.svg"


def learning_curves(comparison: Comparison, mode: str, n_bootstrap: int) -> Figure:
    """Return over updates, a panel for each task: every seed, and the mean over those seeds that got furthest."""
    n_columns = min(N_COLUMNS, len(comparison.tasks))
    n_rows = -(-len(comparison.tasks) // n_columns)
    figure = Figure(figsize=(PANEL[0] * n_columns, PANEL[1] * n_rows), layout="constrained")
    panels: np.ndarray = figure.subplots(n_rows, n_columns, squeeze=False)
    last = max((e.updates for run in comparison.begun for e in run.evaluations), default=0)
    unit = 1_000 if last >= MANY_UPDATES else 1
    for axes, task in zip(panels.flat, comparison.tasks, strict=False):
        for algorithm, look in _looks(comparison.algorithms).items():
            _curve(axes, comparison, (task, algorithm, mode), look, unit, n_bootstrap)
        axes.set(title=_plain(task), xlabel="updates (thousands)" if unit > 1 else "updates")
    for axes in panels.flat[len(comparison.tasks) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("return")
    _legend(figure, comparison.algorithms)
    return figure


def normalized_performance(comparison: Comparison, performance: dict[str, list[Average | None]]) -> Figure:
    """
    Normalised performance and its standard error over the training (figure 5's last panel); points from fewer seeds
    than planned are hollow.
    """
    figure = Figure(figsize=(1.6 * PANEL[0], 1.4 * PANEL[1]), layout="constrained")
    axes = figure.subplots()
    for algorithm, (colour, style) in _looks(comparison.algorithms).items():
        points = [(step, point) for step, point in enumerate(performance[algorithm]) if point is not None]
        fractions = np.array([step / comparison.n_evaluations for step, _ in points])
        means = np.array([point.mean for _, point in points])
        errors = np.array([point.standard_error or 0.0 for _, point in points])
        axes.plot(fractions, means, color=colour, linestyle=style)
        axes.fill_between(fractions, means - errors, means + errors, color=colour, alpha=0.2, linewidth=0)
        for step, point in points:
            if step in comparison.progress_steps:
                filling = colour if point.n_seeds == len(comparison.seeds) else "white"
                x = step / comparison.n_evaluations
                axes.plot(x, point.mean, "o", markersize=5, color=colour, markerfacecolor=filling)
    axes.set(xlim=(-0.02, 1.02), xlabel="fraction of the steps after random ones", ylabel="normalised performance")
    axes.grid(alpha=0.3)
    _legend(figure, comparison.algorithms)
    return figure


def intervals(
    comparison: Comparison, aggregates: dict[str, Aggregates], improvements: dict[tuple[str, str], Estimate]
) -> Figure:
    """
    Interquartile mean, optimality gap and probability of improvement (if there are two algorithms) with their
    intervals.
    """
    colours = {name: colour for name, (colour, _) in _looks(comparison.algorithms).items()}
    probability = "probability of improvement"
    panels = {
        "interquartile mean (more is better)": {name: (found.iqm, colours[name]) for name, found in aggregates.items()},
        "optimality gap (less is better)": {
            name: (found.optimality_gap, colours[name]) for name, found in aggregates.items()
        },
        # Of the first algorithm: those of all pairs would be too many to see
        probability: {
            f"{x} > {y}": (found, colours[x]) for (x, y), found in improvements.items() if x == comparison.algorithms[0]
        },
    }
    shown = {title: rows for title, rows in panels.items() if rows}
    figure = Figure(figsize=(PANEL[0] * len(shown), 0.9 + 0.3 * max(map(len, shown.values()))), layout="constrained")
    for axes, (title, rows) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        _bars(axes, rows)
        axes.set_title(title, fontsize=9)
        if title == probability:
            axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle="--")
            axes.set_xlim(-0.03, 1.03)
    return figure


def _curve(
    axes: Axes, comparison: Comparison, drawn: tuple[str, str, str], look: Look, unit: int, n_bootstrap: int
) -> None:
    task, algorithm, mode = drawn
    colour, style = look
    runs = [run for run in comparison.of(task, algorithm) if run.evaluations]
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


def _bars(axes: Axes, rows: dict[str, tuple[Estimate, str]]) -> None:
    """A point for each estimate within its interval, from the top down."""
    for height, (estimate, colour) in enumerate(rows.values()):
        if estimate.interval is not None:
            axes.plot(estimate.interval, (height, height), color=colour, linewidth=6, alpha=0.4, solid_capstyle="butt")
        axes.plot(estimate.value, height, "|", color=colour, markersize=12, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), [_plain(name) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(alpha=0.3, axis="x")


def _legend(figure: Figure, algorithms: tuple[str, ...]) -> None:
    """Below the panels, for which the figure grows."""
    width, height = figure.get_size_inches()
    n_columns = max(1, int(width / ENTRY[0]))
    n_rows = -(-len(algorithms) // n_columns)
    figure.set_size_inches(width, height + ENTRY[1] * (n_rows + 1))
    lines = [Line2D([], [], color=colour, linestyle=style) for colour, style in _looks(algorithms).values()]
    names = [_plain(name) for name in algorithms]
    figure.legend(lines, names, loc="outside lower center", ncols=n_columns, frameon=False)


def _looks(algorithms: tuple[str, ...]) -> dict[str, Look]:
    return dict(zip(algorithms, cycle((colour, style) for style in LINE_STYLES for colour in PALETTE), strict=False))


def _plain(text: str) -> str:
    # Two dollars would be a formula
    return text.replace("$", r"\$")
