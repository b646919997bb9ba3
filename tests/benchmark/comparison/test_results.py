"""A results folder is read as it is: complete, begun or damaged."""

import json
from pathlib import Path

import pytest

from sb3_lql.benchmark.comparison.results import part_of, read_results
from tests.benchmark.comparison import folders


def test_run_is_read_with_the_mean_return_of_its_episodes(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["NC-LQL"], ["Hopper-v5"], [100], n_evaluations=5)
    evaluations = [
        {
            "fraction": step / 5,
            "timesteps": 0,
            "updates": 10 * step,
            "training_seconds": 2.0 * step,
            "evaluation_seconds": 1.0,
            "deterministic": {"returns": [1.0, 2.0, 6.0 * step], "lengths": [1, 1, 1]},
            "stochastic": {"returns": [-1.0], "lengths": [1]},
        }
        for step in range(6)
    ]
    parameters = {"actor": 3, "critic": 4}
    folders.run(tmp_path, "Hopper-v5", "NC-LQL", 100, [], evaluations=evaluations, parameters=parameters)
    comparison = read_results(tmp_path)
    (run,) = comparison.runs
    assert (run.task, run.algorithm, run.seed, run.status) == ("Hopper-v5", "NC-LQL", 100, "finished")
    assert run.mean_return("deterministic", 2) == (1 + 2 + 12) / 3
    assert run.mean_return("stochastic", 5) == -1
    assert run.evaluations[3].updates == 30
    assert run.n_parameters == parameters
    assert comparison.progress_steps == [1, 2, 3, 4, 5]


def test_forty_evaluations_have_the_five_points_of_progress_among_them(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["SAC"], ["Hopper-v5"], [1], n_evaluations=40)
    folders.run(tmp_path, "Hopper-v5", "SAC", 1, float)
    assert read_results(tmp_path).progress_steps == [8, 16, 24, 32, 40]


def test_runs_that_are_missing_partial_or_failed_are_kept_apart(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["NC-LQL"], ["ALE/Pong-v5"], [1, 2, 3, 4])
    folders.run(tmp_path, "ALE/Pong-v5", "NC-LQL", 1, float)
    folders.run(tmp_path, "ALE/Pong-v5", "NC-LQL", 2, float, n_done=2, status="running")
    folders.run(tmp_path, "ALE/Pong-v5", "NC-LQL", 3, [], status="failed", error="Traceback\nValueError: no")
    comparison = read_results(tmp_path)
    runs = comparison.of("ALE/Pong-v5", "NC-LQL")
    assert [(run.seed, run.status) for run in runs] == [(1, "finished"), (2, "running"), (3, "failed"), (4, "missing")]
    assert [run.mean_return("stochastic", 3) for run in runs] == [3, None, None, None]
    assert runs[2].error == "Traceback\nValueError: no"
    assert [run.seed for run in comparison.begun] == [1, 2, 3]


def test_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no benchmark\.json: pass the results folder of `sb3-lql benchmark run`"):
        read_results(tmp_path)


def test_benchmark_of_which_no_run_has_begun_is_refused(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["SAC"], ["Hopper-v5"], [1])
    with pytest.raises(ValueError, match=r"holds no run yet: run its benchmark first, with `sb3-lql benchmark run "):
        read_results(tmp_path)


@pytest.mark.parametrize("name", ["benchmark.json", "run.json"])
@pytest.mark.parametrize("content", ['{"task": ', "[]", "{}", '{"runs": 3, "algorithms": [], "evaluations": []}'])
def test_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    folders.plan(tmp_path, ["SAC"], ["Hopper-v5"], [1])
    path = folders.run(tmp_path, "Hopper-v5", "SAC", 1, float)
    (path if name == "run.json" else tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged: "):
        read_results(tmp_path)


def test_run_of_another_plan_is_refused(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["SAC"], ["Hopper-v5"], [1], n_evaluations=10)
    folders.run(tmp_path, "Hopper-v5", "SAC", 1, float)
    folders.plan(tmp_path, ["SAC"], ["Hopper-v5"], [1], n_evaluations=5)
    with pytest.raises(ValueError, match=r"run\.json is damaged: .* where 5 were planned"):
        read_results(tmp_path)


def test_evaluation_without_episodes_is_refused(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["SAC"], ["Hopper-v5"], [1])
    path = folders.run(tmp_path, "Hopper-v5", "SAC", 1, float)
    content = json.loads(path.read_text())
    content["evaluations"][0]["stochastic"]["returns"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"run\.json is damaged: .* at `\$\.evaluations\[0\]\.stochastic\.returns`"):
        read_results(tmp_path)


def test_part_of_a_comparison_has_its_runs_in_the_order_asked_for(tmp_path: Path) -> None:
    folders.plan(tmp_path, ["NC-LQL", "LQL", "SAC"], ["A-v0", "B-v0"], [1])
    for task in ("A-v0", "B-v0"):
        for algorithm in ("NC-LQL", "LQL", "SAC"):
            folders.run(tmp_path, task, algorithm, 1, float)
    comparison = read_results(tmp_path)
    part = part_of(comparison, ["B-v0"], ["SAC", "NC-LQL"])
    assert (part.tasks, part.algorithms) == (("B-v0",), ("SAC", "NC-LQL"))
    assert sorted((run.task, run.algorithm) for run in part.runs) == [("B-v0", "NC-LQL"), ("B-v0", "SAC")]
    assert part_of(comparison, None, None) == comparison
    with pytest.raises(ValueError, match=r"has no task 'C-v0': choose from A-v0, B-v0\."):
        part_of(comparison, ["C-v0"], None)
    with pytest.raises(ValueError, match="has no algorithm 'TD3'"):
        part_of(comparison, None, ["TD3"])
