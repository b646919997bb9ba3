"""The report of a benchmark: one text, as Markdown with its figures beside it and as an HTML page that holds all."""

from pathlib import Path

from sb3_lql.benchmark.comparison import figures, sections
from sb3_lql.benchmark.comparison.aggregates import (
    COVERAGE,
    SHARE_OF_EARLIEST,
    ReturnsOf,
    aggregates,
    baseline,
    improvements,
    mean_returns,
    normalized_scores,
    performance,
    returns_over_training,
)
from sb3_lql.benchmark.comparison.markup import text, to_html
from sb3_lql.benchmark.comparison.references import References, load_references
from sb3_lql.benchmark.comparison.results import MODES, Comparison, read_results
from sb3_lql.benchmark.figure_files import save_figure


def write_report(results: Path, output: Path, *, n_bootstrap: int = 2000) -> Path:
    """
    Write ``report.md``, ``report.html`` and ``figures/``, and return the path of the HTML page. The same results,
    complete or not, give the same files; ValueError if there are none, or damaged ones.
    """
    comparison = read_results(results)
    references = load_references()
    folder = output / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    markdown = "\n".join(
        [
            sections.summary(comparison),
            sections.unfinished(comparison),
            _returns(comparison, "Final return", "a run's mean return after its last update", mean_returns),
            _returns_over_training(comparison),
            _learning_curves(comparison, folder, n_bootstrap),
            _normalized(comparison, references, folder, n_bootstrap),
            _costs(comparison),
            _published(comparison, references),
            f"## All runs\n\n{sections.run_table(comparison)}",
        ]
    )
    (output / "report.md").write_text(markdown, encoding="utf-8")
    page = output / "report.html"
    page.write_text(to_html(markdown, f"Benchmark {comparison.name}", output), encoding="utf-8")
    return page


def _returns(comparison: Comparison, title: str, what: str, of: ReturnsOf) -> str:
    parts = [f"## {title}\n", f"Mean ± standard deviation over seeds of {what}.\n"]
    parts += [f"### {mode.capitalize()}\n\n{sections.returns(comparison, of, mode)}" for mode in MODES]
    return "\n".join(parts)


def _returns_over_training(comparison: Comparison) -> str:
    what = "a run's mean return over all evaluations after updates, the area under its learning curve"
    section = _returns(comparison, "Return over the training", what, returns_over_training)
    if len(comparison.algorithms) < 2:
        return section
    tables = [sections.improvement_by_task(comparison, returns_over_training, mode) for mode in MODES]
    parts = [
        section,
        "### Who learns earlier\n",
        "Share of pairs of runs in which the one of the first algorithm has more, and p by the two-sided rank test of "
        "Mann and Whitney, not corrected for the number of tests.\n",
    ]
    parts += [f"{mode.capitalize()}:\n\n{table}" for mode, table in zip(MODES, tables, strict=True)]
    return "\n".join(parts)


def _learning_curves(comparison: Comparison, folder: Path, n_bootstrap: int) -> str:
    parts = [
        "## Learning curves\n",
        f"Return over updates (the paper's iterations). Faint: each seed. Strong: the mean, with its {COVERAGE:.0%} "
        f"bootstrap interval ({n_bootstrap:,} resamples), over the seeds that have got furthest. A panel has the range "
        "of the evaluations after updates, but for single seeds far below the others; curves may begin below it. Where "
        f"there are more than {figures.N_TOGETHER} algorithms, each has a panel with the first. "
        "A title names the algorithm, or of four or more the two, that learn earliest, and in what share of pairs of "
        f"runs they have more return over the training than another, if in {SHARE_OF_EARLIEST:.0%} or more: with five "
        "seeds or more, all finished.\n",
    ]
    for mode in MODES:
        figure = figures.learning_curves(comparison, mode, n_bootstrap)
        name = save_figure(figure, folder / f"learning_curves_{mode}.svg")
        parts.append(f"### {mode.capitalize()}\n\n![Return over updates, {mode}](figures/{name})\n")
    return "\n".join(parts)


def _normalized(comparison: Comparison, references: References, folder: Path, n_bootstrap: int) -> str:
    normalizers = references.normalizers
    parts = [
        "## Normalised performance\n",
        "100 * (return - random) / (reference - random), where random and reference are, for each task:\n",
        sections.normalizers(comparison, normalizers),
    ]
    if not any(task in normalizers for task in comparison.tasks):
        return "\n".join([*parts, "No task has a reference, so there are no aggregates.\n"])
    parts.append(
        "Mean ± standard error over seeds of each seed's mean over tasks, at fractions of the steps after the random "
        "ones. A seed counts only if it has all tasks, and an algorithm with two such seeds. Hollow points are of "
        "fewer seeds than planned.\n"
    )
    for mode in MODES:
        points = performance(comparison, normalizers, mode)
        parts += [f"### {mode.capitalize()}\n", sections.normalized_performance(comparison, points)]
        if any(point is not None for of_algorithm in points.values() for point in of_algorithm):
            name = save_figure(figures.normalized_performance(comparison, points), folder / f"normalized_{mode}.svg")
            parts.append(f"![Normalised performance, {mode}](figures/{name})\n")
    if len(comparison.tasks) < 2:
        return "\n".join(parts)
    parts.append(
        "## Aggregates\n\nAt the end, over tasks and seeds, in units of a normalised score of 100, with rliable's "
        f"stratified bootstrap ({n_bootstrap:,} resamples); from few seeds, its intervals are too narrow. The "
        "optimality gap is the mean of what scores lack to 1. The probability of improvement is that of a run of the "
        "first algorithm to be better than a run of another, mean over tasks.\n"
    )
    for mode in MODES:
        matrices = normalized_scores(comparison, normalizers, mode, comparison.n_evaluations)
        found, pairs = aggregates(matrices, n_bootstrap), improvements(matrices, n_bootstrap)
        parts += [f"### {mode.capitalize()}\n", sections.aggregate_table(comparison, found)]
        if pairs:
            parts.append(sections.improvement_table(pairs))
        if found:
            name = save_figure(figures.intervals(comparison, found, pairs), folder / f"aggregates_{mode}.svg")
            parts.append(f"![Aggregates, {mode}](figures/{name})\n")
    return "\n".join(parts)


def _costs(comparison: Comparison) -> str:
    base = text(baseline(comparison))
    parts = [
        f"## Parameters\n\nTrained parameters, without target networks, and their ratio to {base}'s.\n",
        sections.parameter_table(comparison),
        f"## Time for an update\n\nWith the environment's steps, without evaluations, and its ratio to {base}'s: "
        "median over seeds of the median over the stretches between evaluations. The first, which may compile, does "
        "not count. Runs share their machine with others.\n",
        sections.time_table(comparison),
    ]
    if len({run.hardware for run in comparison.begun}) > 1:
        parts.append("The runs are of different hardware: their times do not compare.\n")
    return "\n".join(parts)


def _published(comparison: Comparison, references: References) -> str:
    entries = [
        entry
        for entry in references.published
        if not entry.tasks or any(task in comparison.tasks for task in entry.tasks)
    ]
    if not entries:
        return ""
    title = "## Published elsewhere, other budgets, not part of any statistic here"
    return f"{title}\n\n{sections.published_table(entries)}"
