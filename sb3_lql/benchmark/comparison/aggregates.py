"""The numbers of a report: means, normalised performance, aggregates with intervals, sizes and times."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, zip_longest

import numpy as np
from rliable import library, metrics
from scipy import stats

from sb3_lql.algorithms import ALGORITHMS, DEFAULT
from sb3_lql.benchmark.comparison.references import Normalizer
from sb3_lql.benchmark.comparison.results import Comparison, RunResult

#: Takes runs, a mode and an evaluation's number, such as the last's, and gives a return of each run that has one.
ReturnsOf = Callable[[Sequence[RunResult], str, int], list[float]]

#: Coverage of every interval.
COVERAGE = 0.95
#: Fewest seeds of which an algorithm is said to learn earliest, as those of two or three lie apart by chance.
SEEDS_OF_EARLIEST = 5
#: Share of pairs from which on it is, midway between chance and all.
SHARE_OF_EARLIEST = 0.75
#: The algorithm whose size and time count as 1, as in the paper's tables 2 and 3.
BASELINE = ALGORITHMS[DEFAULT].label


@dataclass(frozen=True)
class Average:
    """A mean over seeds."""

    mean: float
    #: Standard deviation over the seeds (n - 1 in the denominator); None for a single one.
    deviation: float | None
    n_seeds: int

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; None for a single seed."""
        return None if self.deviation is None else self.deviation / self.n_seeds**0.5

    @property
    def interval(self) -> tuple[float, float]:
        """The mean less and plus its standard error; of a single seed, the mean twice."""
        error = self.standard_error or 0.0
        return self.mean - error, self.mean + error


@dataclass(frozen=True)
class UpdateTime:
    """Time for an update, median over seeds."""

    milliseconds: float
    n_seeds: int


@dataclass(frozen=True)
class Estimate:
    """An estimate and its bootstrap interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Aggregates:
    """Aggregates of rliable over tasks and seeds, in units of a normalised score of 100."""

    iqm: Estimate
    #: Mean of what scores lack to 1.
    optimality_gap: Estimate
    n_seeds: int


def average(values: Sequence[float] | np.ndarray) -> Average | None:
    """Mean and deviation of one number per seed; None without any."""
    if len(values) == 0:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Average(float(np.mean(values)), deviation, len(values))


def mean_returns(runs: Sequence[RunResult], mode: str, step: int) -> list[float]:
    """Mean returns of those runs that have got to evaluation number ``step``."""
    return [found for run in runs if (found := run.mean_return(mode, step)) is not None]


def returns_over_training(runs: Sequence[RunResult], mode: str, n_evaluations: int) -> list[float]:
    """Of complete runs, the mean over all evaluations after updates: the area under the learning curve."""
    complete = [run.updated for run in runs if len(run.evaluations) > n_evaluations]
    return [float(np.mean([evaluation.mean_return(mode) for evaluation in updated])) for updated in complete]


def learned_range(comparison: Comparison, task: str, mode: str) -> tuple[float, float] | None:
    """
    Range of a task's mean returns after updates, without single runs that lie below all algorithms' middle ones by
    more than half of what those and the best span; None before any update.
    """
    found, middles = [], []
    for algorithm in comparison.algorithms:
        for evaluations in zip_longest(*(run.updated for run in comparison.of(task, algorithm))):
            returns = [evaluation.mean_return(mode) for evaluation in evaluations if evaluation is not None]
            found += returns
            middles.append(float(np.median(returns)))
    if not found:
        return None
    worst, best = min(middles), max(found)
    return max(min(found), worst - (best - worst) / 2), best


def normalized_scores(
    comparison: Comparison, normalizers: dict[str, Normalizer], mode: str, step: int
) -> dict[str, np.ndarray]:
    """
    Normalised scores by algorithm, shape (n_complete_seeds, n_tasks), over the tasks that have a normalizer. A seed
    with a task missing is left out altogether, so that no algorithm gains by missing a hard task.
    """
    tasks = [task for task in comparison.tasks if task in normalizers]
    found = {(run.algorithm, run.task, run.seed): run.mean_return(mode, step) for run in comparison.runs}
    matrices = {}
    for algorithm in comparison.algorithms:
        rows = []
        for seed in comparison.seeds:
            row = [(task, found.get((algorithm, task, seed))) for task in tasks]
            complete = [normalizers[task].score(mean) for task, mean in row if mean is not None]
            if tasks and len(complete) == len(tasks):
                rows.append(complete)
        matrices[algorithm] = np.array(rows).reshape(len(rows), len(tasks))
    return matrices


def performance(
    comparison: Comparison, normalizers: dict[str, Normalizer], mode: str
) -> dict[str, list[Average | None]]:
    """
    Normalised performance over the training (table 1): over seeds, of each seed's mean over the tasks. By algorithm,
    for each evaluation; None where fewer than two seeds are complete.
    """
    steps = [normalized_scores(comparison, normalizers, mode, step) for step in range(comparison.n_evaluations + 1)]
    return {
        algorithm: [
            average(matrices[algorithm].mean(axis=1)) if len(matrices[algorithm]) > 1 else None for matrices in steps
        ]
        for algorithm in comparison.algorithms
    }


def aggregates(matrices: dict[str, np.ndarray], n_bootstrap: int) -> dict[str, Aggregates]:
    """Aggregates of the matrices of :func:`normalized_scores`, of algorithms with two complete seeds or more."""
    measures = metrics.aggregate_iqm, metrics.aggregate_optimality_gap
    found = {}
    for algorithm, matrix in matrices.items():
        if len(matrix) > 1:
            iqm, gap = _estimates([matrix / 100], measures, n_bootstrap)
            found[algorithm] = Aggregates(iqm, gap, len(matrix))
    return found


def improvements(matrices: dict[str, np.ndarray], n_bootstrap: int) -> dict[tuple[str, str], Estimate]:
    """
    Probability that a run of the first algorithm is better than one of another, mean over tasks; for all that have two
    complete seeds or more, if the first has.
    """
    first, *others = matrices
    return {
        (first, other): _estimates([matrices[first], matrices[other]], [probability_of_improvement], n_bootstrap)[0]
        for other in others
        if min(len(matrices[first]), len(matrices[other])) > 1
    }


def mean_interval(values: np.ndarray, n_bootstrap: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Ends of the percentile interval of the mean over seeds, shape (n_points,) each; values have shape (n_seeds,
    n_points).
    """
    drawn = np.random.default_rng(0).integers(len(values), size=(n_bootstrap, len(values)))
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail], axis=0)
    return low, high


def earliest(comparison: Comparison, task: str, mode: str) -> tuple[tuple[str, ...], float] | None:
    """
    The algorithm that learns earliest on a task, and the smallest share of pairs of runs in which it has more return
    over the training than another; of four algorithms or more, the two whose smallest share over the others is
    largest, where that is clear and no single one's is. A share is little above a half where none is earliest. None if
    it cannot be told: of fewer than five seeds or two algorithms, or where a run is not finished.
    """
    if len(comparison.algorithms) < 2 or len(comparison.seeds) < SEEDS_OF_EARLIEST:
        return None
    areas = {
        name: np.array(returns_over_training(comparison.of(task, name), mode, comparison.n_evaluations))
        for name in comparison.algorithms
    }
    if any(len(found) < len(comparison.seeds) for found in areas.values()):
        return None

    def share(names: tuple[str, ...]) -> float:
        others = areas.keys() - set(names)
        return min(probability_of_improvement(areas[name], areas[other]) for name in names for other in others)

    sizes = (1, 2) if len(areas) > 3 else (1,)
    leading = [max(combinations(areas, size), key=share) for size in sizes]
    found = [(names, share(names)) for names in leading]
    return next((each for each in found if each[1] >= SHARE_OF_EARLIEST), found[0])


def baseline(comparison: Comparison) -> str:
    """The algorithm whose size and time count as 1."""
    return BASELINE if BASELINE in comparison.algorithms else comparison.algorithms[0]


def parameter_counts(comparison: Comparison) -> dict[str, dict[str, int]]:
    """Number of trained parameters, by task and by those algorithms that have a run."""
    counts: dict[str, dict[str, int]] = {}
    for run in comparison.begun:
        counts.setdefault(run.task, {}).setdefault(run.algorithm, sum(run.n_parameters.values()))
    return counts


def update_times(comparison: Comparison) -> dict[str, dict[str, UpdateTime]]:
    """
    Time of training for an update, with the environment's steps: the median over seeds of the median over the stretches
    between evaluations. Compilation falls in the first of them, which is left out; so are algorithms without two
    evaluations after updates.
    """
    times: dict[str, dict[str, UpdateTime]] = {}
    for task in comparison.tasks:
        for algorithm in comparison.algorithms:
            found = [time for run in comparison.of(task, algorithm) if (time := _update_time(run)) is not None]
            if found:
                times.setdefault(task, {})[algorithm] = UpdateTime(float(np.median(found)), len(found))
    return times


def _update_time(run: RunResult) -> float | None:
    stretches = [
        (after.training_seconds - before.training_seconds) / (after.updates - before.updates)
        for before, after in pairwise(run.updated)
        if after.updates > before.updates
    ]
    return 1_000 * float(np.median(stretches)) if stretches else None


def probability_of_improvement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of pairs of runs, of shape (n_seeds, ...) each, in which the first is better; ties count half."""
    # rliable's own has a p-value of each task, which makes it slow
    difference = first[:, None] - second[None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def rank_test(first: Sequence[float], second: Sequence[float]) -> float:
    """The p-value of Mann and Whitney's two-sided test that runs of two algorithms rank alike; exact without ties."""
    return float(stats.mannwhitneyu(first, second).pvalue)  # type: ignore[attr-defined]


def _estimates(
    matrices: list[np.ndarray], measures: Sequence[Callable[..., float]], n_bootstrap: int
) -> list[Estimate]:
    """Measures with their stratified bootstrap intervals."""

    def measured(*resampled: np.ndarray) -> np.ndarray:
        return np.array([measure(*resampled) for measure in measures])

    # rliable resamples by NumPy's global generator, whatever random_state it is given
    state = np.random.get_state()
    np.random.seed(0)
    try:
        _, intervals = library.get_interval_estimates(
            {"": matrices}, measured, reps=n_bootstrap, confidence_interval_size=COVERAGE
        )
    finally:
        np.random.set_state(state)
    found = zip(measured(*matrices), intervals[""].T, strict=True)
    return [Estimate(float(value), (float(low), float(high))) for value, (low, high) in found]
