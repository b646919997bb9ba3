"""The numbers of a report are those that one works out by hand."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rliable")

from rliable import metrics

from sb3_lql.benchmark.comparison import aggregates
from sb3_lql.benchmark.comparison.aggregates import Average
from sb3_lql.benchmark.comparison.references import Anchor, Normalizer
from sb3_lql.benchmark.comparison.results import Comparison, read_results
from tests.benchmark.comparison import folders

MODE = "stochastic"
#: A score is ten times the return in A, and half of what the return has above 100 in B.
NORMALIZERS = {
    "A-v0": Normalizer(Anchor(0, "here"), Anchor(10, "here")),
    "B-v0": Normalizer(Anchor(100, "here"), Anchor(300, "here")),
}


def compare(folder: Path, finals: dict[tuple[str, str, int], float], seeds: list[int]) -> Comparison:
    """Runs whose return is the given one at all evaluations; the others are missing."""
    algorithms = list(dict.fromkeys(algorithm for algorithm, _, _ in finals))
    folders.plan(folder, algorithms, ["A-v0", "B-v0"], seeds)
    for (algorithm, task, seed), value in finals.items():
        folders.run(folder, task, algorithm, seed, [value] * 6)
    return read_results(folder)


def test_average_has_the_deviation_of_a_sample() -> None:
    found = aggregates.average([1.0, 2.0, 6.0])
    # Squares of -2, -1 and 3 over n - 1 = 2
    assert found is not None
    assert (found.mean, found.n_seeds) == (3, 3)
    assert found.deviation == pytest.approx(7**0.5)
    assert found.standard_error == pytest.approx((7 / 3) ** 0.5)
    assert aggregates.average([4.0]) == Average(4.0, None, 1)
    assert Average(4.0, None, 1).standard_error is None
    assert aggregates.average([]) is None


def test_performance_is_the_mean_over_seeds_of_each_seeds_mean_over_tasks(tmp_path: Path) -> None:
    finals = {("X", "A-v0", 1): 5.0, ("X", "B-v0", 1): 300.0, ("X", "A-v0", 2): 5.0, ("X", "B-v0", 2): 200.0}
    comparison = compare(tmp_path, finals, [1, 2])
    last = aggregates.performance(comparison, NORMALIZERS, MODE)["X"][-1]
    # Seed 1: (50 + 100) / 2, seed 2: (50 + 50) / 2
    assert last is not None
    assert (last.mean, last.n_seeds) == (62.5, 2)
    assert last.standard_error == pytest.approx(12.5)  # half the distance of two values


def test_performance_counts_at_each_progress_the_seeds_that_got_there(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["X"], ["A-v0", "B-v0"], [1, 2, 3])
    for seed, n_done in ((1, 5), (2, 4), (3, 3)):
        folders.run(tmp_path, "A-v0", "X", seed, [float(seed * step) for step in range(6)])
        folders.run(tmp_path, "B-v0", "X", seed, [100.0] * (n_done + 1), status="running")
    points = aggregates.performance(read_results(tmp_path), NORMALIZERS, MODE)["X"]
    # Score of step k with a seed: (10 * seed * k + 0) / 2. At the end there is one seed, which is no mean
    found = [None if point is None else (point.mean, point.n_seeds) for point in points]
    assert found == [(10.0 * k, 3) for k in range(4)] + [(30.0, 2), None]


def test_seed_without_one_of_the_tasks_is_left_out_altogether(tmp_path: Path) -> None:
    finals = {("X", task, seed): 100.0 for task in ("A-v0", "B-v0") for seed in (1, 2, 3)}
    finals |= {("Y", "A-v0", 1): 10.0, ("Y", "A-v0", 3): 1.0, ("Y", "B-v0", 3): 120.0, ("Z", "A-v0", 1): 1.0}
    matrices = aggregates.normalized_scores(compare(tmp_path, finals, [1, 2, 3]), NORMALIZERS, MODE, 5)
    assert matrices["X"].tolist() == [[1000, 0]] * 3
    assert matrices["Y"].tolist() == [[10, 10]]  # seed 3: 10 * 1 and (120 - 100) / 2
    assert matrices["Z"].shape == (0, 2)
    assert set(aggregates.aggregates(matrices, 10)) == {"X"}  # Y has one seed
    assert set(aggregates.improvements(matrices, 10)) == set()


def test_task_without_a_reference_is_no_part_of_the_scores(tmp_path: Path) -> None:
    comparison = compare(tmp_path, {("X", "A-v0", 1): 5.0}, [1])
    only_a = {"A-v0": NORMALIZERS["A-v0"]}
    assert aggregates.normalized_scores(comparison, only_a, MODE, 5)["X"].tolist() == [[50]]
    assert aggregates.normalized_scores(comparison, {}, MODE, 5)["X"].size == 0
    assert aggregates.performance(comparison, {}, MODE)["X"] == [None] * 6


def test_aggregates_are_interquartile_mean_and_optimality_gap() -> None:
    matrix = np.array([[0.0, 10.0], [60.0, 300.0], [20.0, 30.0], [50.0, 40.0]])
    found = aggregates.aggregates({"X": matrix}, 50)["X"]
    assert found.iqm.value == pytest.approx((0.2 + 0.3 + 0.4 + 0.5) / 4)  # without the two least and the two most
    assert found.optimality_gap.value == pytest.approx(1 - (0.1 + 0.2 + 0.3 + 0.4 + 0.5 + 0.6 + 1.0) / 8)
    assert found.n_seeds == 4


def test_probability_of_improvement_counts_pairs_of_runs_and_ties_half() -> None:
    matrices = {"X": np.array([[1.0, 3.0], [2.0, 3.0]]), "Y": np.array([[0.0, 1.0], [2.0, 1.0], [1.5, 1.0]])}
    found = aggregates.improvements(matrices, 50)[("X", "Y")]
    # Task 1: 1 > 0, 2 > 0, 2 > 1.5 and half of 2 = 2, of six pairs; task 2: all
    assert found.value == pytest.approx((3.5 / 6 + 1) / 2)
    assert found.value == pytest.approx(metrics.probability_of_improvement(matrices["X"], matrices["Y"]))


def test_rank_test_is_exact() -> None:
    """Of the 252 orders of five runs and five, two have all pairs on one side, and two have all but one there."""
    low = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert aggregates.rank_test(low, [6.0, 7.0, 8.0, 9.0, 10.0]) == pytest.approx(2 / 252)
    assert aggregates.rank_test([6.0, 7.0, 8.0, 9.0, 10.0], low) == pytest.approx(2 / 252)
    assert aggregates.rank_test(low, [4.5, 7.0, 8.0, 9.0, 10.0]) == pytest.approx(4 / 252)


def test_improvement_is_of_the_first_algorithm_over_each_other() -> None:
    matrices = {name: np.array([[value], [value]]) for name, value in dict(X=3.0, Y=2.0, Z=3.0).items()}
    found = aggregates.improvements(matrices, 10)
    assert {pair: estimate.value for pair, estimate in found.items()} == {
        ("X", "Y"): 1.0,
        ("X", "Z"): 0.5,
    }


def test_interval_of_two_seeds_reaches_from_one_to_the_other() -> None:
    # Resampled means are 0, 1/2 and 1, with a quarter, a half and a quarter of the probability
    found = aggregates.aggregates({"X": np.array([[0.0], [100.0]])}, 200)["X"]
    assert found.iqm.interval == (0.0, 1.0)
    assert found.optimality_gap.interval == (0.0, 1.0)
    low, high = aggregates.mean_interval(np.array([[0.0, 5.0], [1.0, 5.0]]), 200)
    assert (low.tolist(), high.tolist()) == ([0.0, 5.0], [1.0, 5.0])


def test_interval_of_a_mean_is_that_of_the_normal_law_for_many_seeds() -> None:
    values = np.random.default_rng(1).normal(size=(400, 1))
    low, high = aggregates.mean_interval(values, 4_000)
    error = 1.96 * values.std(ddof=1) / 400**0.5
    assert low.item() == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high.item() == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_a_single_seed_is_no_aggregate() -> None:
    matrices = {"X": np.array([[1.0, 2.0]]), "Y": np.array([[1.0, 2.0], [3.0, 4.0]])}
    assert list(aggregates.aggregates(matrices, 10)) == ["Y"]
    assert aggregates.improvements(matrices, 10) == {}


def test_bootstrap_is_repeatable_and_leaves_numpys_random_numbers_as_they_were() -> None:
    matrices = {"X": np.random.default_rng(0).normal(size=(5, 3)), "Y": np.random.default_rng(1).normal(size=(5, 3))}
    found = []
    for seed in (1, 2):
        np.random.seed(seed)
        expected = np.random.RandomState(seed).random(3)
        found.append((aggregates.aggregates(matrices, 20), aggregates.improvements(matrices, 20)))
        np.testing.assert_array_equal(np.random.random(3), expected)
    assert found[0] == found[1]


def test_time_for_an_update_leaves_out_what_comes_before_the_first_evaluation_after_updates(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["X", "Y"], ["A-v0"], [1, 2, 3, 4])
    # 800 updates from one evaluation to the next; half a minute of compilation before the first
    for seed, seconds in ((1, 4.0), (2, 8.0), (3, 24.0)):
        folders.run(tmp_path, "A-v0", "X", seed, float, seconds=lambda step, s=seconds: 30 * (step > 0) + s * step)
    folders.run(tmp_path, "A-v0", "X", 4, float, n_done=1, status="running")
    folders.run(tmp_path, "A-v0", "Y", 1, float, n_done=2, status="failed", seconds=lambda step: 2.0 * step)
    times = aggregates.update_times(read_results(tmp_path))["A-v0"]
    assert {name: (time.milliseconds, time.n_seeds) for name, time in times.items()} == {"X": (10, 3), "Y": (2.5, 1)}


def test_a_stretch_with_a_compilation_does_not_count(tmp_path: Path) -> None:
    """As after a resume: 800 updates take 8 seconds in two stretches of three, and 100 in the third."""
    folders.plan(tmp_path, ["X"], ["A-v0"], [1])
    folders.run(tmp_path, "A-v0", "X", 1, float, n_done=4, seconds=[0, 50, 58, 158, 166].__getitem__)
    assert aggregates.update_times(read_results(tmp_path))["A-v0"]["X"].milliseconds == 10


def test_parameters_are_those_of_all_trained_networks(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["SAC", "NC-LQL"], ["A-v0", "B-v0"], [1])
    folders.run(tmp_path, "A-v0", "SAC", 1, float, parameters={"actor": 200, "critic": 500})
    folders.run(tmp_path, "A-v0", "NC-LQL", 1, float, parameters={"critic": 475})
    comparison = read_results(tmp_path)
    assert aggregates.parameter_counts(comparison) == {"A-v0": {"SAC": 700, "NC-LQL": 475}}
    assert aggregates.baseline(comparison) == "NC-LQL"


def test_baseline_is_the_first_algorithm_where_there_is_no_nc_lql(tmp_path: Path) -> None:
    assert aggregates.baseline(compare(tmp_path, {("Y", "A-v0", 1): 1.0, ("X", "A-v0", 1): 1.0}, [1])) == "Y"
