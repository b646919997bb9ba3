"""What a benchmark's YAML file may say."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

pytest.importorskip("rl_zoo3")

import rl_zoo3
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.env_util import make_vec_env

from sb3_lql.benchmark.comparison.spec import Algorithm, Run, Spec, read_spec
from sb3_lql.zoo import register

SPECS = sorted((Path(__file__).parents[3] / "benchmarks").glob("*.yml"))
ALGOS = {"nclql", "lql", "sac", "tqc"}
VALID: dict[str, Any] = {
    "tasks": {"Pendulum-v1": 500, "Reacher-v5": None},
    "algorithms": {"NC-LQL": {"algo": "nclql"}, "NC-LQL, w = 5": {"algo": "nclql", "hyperparams": {"tau": 0.1}}},
    "seeds": [100, 200],
}


def written(folder: Path, **changes: Any) -> Path:
    """A spec's file; a change to ``None`` leaves an entry out."""
    path = folder / "mine.yml"
    entries = {name: entry for name, entry in {**VALID, **changes}.items() if entry is not None}
    path.write_text(yaml.safe_dump(entries))
    return path


def test_spec_has_every_algorithm_on_every_task_with_every_seed(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, evaluations=10, n_eval_episodes=3), ALGOS)
    runs = list(spec.runs())
    assert spec.name == "mine"
    assert len(runs) == 2 * 2 * 2
    assert runs[0] == Run(Algorithm("NC-LQL", "nclql"), "Pendulum-v1", 100, 500, 10, 3)
    assert {run.name for run in runs} == {
        f"{task}/{algorithm}/{seed}"
        for task in ("Pendulum-v1", "Reacher-v5")
        for algorithm in ("nc-lql", "nc-lql-w-5")
        for seed in (100, 200)
    }
    # Stopped early, a benchmark has everything with its first seeds
    assert [run.seed for run in runs] == 4 * [100] + 4 * [200]


def test_defaults_are_those_of_the_paper_s_table_1(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path), ALGOS)
    assert (spec.n_evaluations, spec.n_eval_episodes) == (5, 20)
    assert spec.tasks["Reacher-v5"] == 0  # the RL Zoo's


def test_command_trains_the_same_agent() -> None:
    algorithm = Algorithm("mine", "lql", {"langevin_step_size": [1.0, 1e-4], "policy_kwargs": "dict(net_arch=[8])"})
    assert Run(algorithm, "Pendulum-v1", 3, 500, 5, 20).command == (
        "sb3-lql train --algo lql --env Pendulum-v1 --seed 3 -n 500 --eval-freq -1 "
        "-params 'langevin_step_size:[1.0, 0.0001]' 'policy_kwargs:'\"'\"'dict(net_arch=[8])'\"'\"''"
    )


def test_hyperparameters_of_another_algorithm_lie_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "tqc.yml").touch()
    path = written(tmp_path, algorithms={"TQC": {"algo": "tqc", "config": "tqc.yml"}})
    (algorithm,) = read_spec(path, ALGOS).algorithms
    assert algorithm.config == str(tmp_path / "tqc.yml")
    assert f"--conf-file {tmp_path / 'tqc.yml'}" in Run(algorithm, "Reacher-v5", 1, 0, 5, 20).command


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": None}, "tasks missing"),
        ({"tasks": {}}, "tasks={} must be a mapping"),
        ({"tasks": ["Pendulum-v1"]}, "must be a mapping"),
        ({"tasks": {"Nowhere-v0": None}}, "'Nowhere-v0' is no registered environment"),
        ({"tasks": {"Pendulum-v1": 0}}, "Pendulum-v1=0 is too small"),
        ({"algorithms": {"mine": {"algo": "unheard"}}}, "mine: algo='unheard' is unknown"),
        ({"algorithms": {"mine": {}}}, "must be a mapping with at least one entry"),
        ({"algorithms": {"mine": {"algo": "lql", "hyperparam": {"tau": 1}}}}, "mine: hyperparam unknown"),
        ({"algorithms": {"mine": {"algo": "lql", "hyperparams": ["tau"]}}}, "must map names to values"),
        ({"algorithms": {"mine": {"algo": "tqc", "config": "nowhere.yml"}}}, "config='nowhere.yml' is no file"),
        ({"algorithms": {"?": {"algo": "lql"}}}, "can name a folder"),
        ({"algorithms": {"..": {"algo": "lql"}}}, "can name a folder"),
        ({"algorithms": {"A b": {"algo": "lql"}, "a-B": {"algo": "sac"}}}, "two runs are the same"),
        ({"seeds": [1, 1]}, "two runs are the same"),
        ({"seeds": []}, "must be a list with at least one entry"),
        ({"seeds": 3}, "must be a list"),
        ({"seeds": [-1]}, "seeds=-1 is too small"),
        ({"evaluations": 4}, "evaluations=4 is no multiple of 5"),
        ({"evaluations": 0}, "evaluations=0 is too small"),
        ({"n_eval_episodes": 0}, "n_eval_episodes=0 is too small"),
        ({"seed": 1}, "seed unknown"),
    ],
)
def test_mistake_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ValueError, match=rf"{path.name}: ") as caught:
        read_spec(path, ALGOS)
    assert message in str(caught.value)


@pytest.mark.parametrize("number", [1.5, "1e4", True])
def test_number_of_another_type_is_named(tmp_path: Path, number: object) -> None:
    with pytest.raises(TypeError, match="Pendulum-v1"):
        read_spec(written(tmp_path, tasks={"Pendulum-v1": number}), ALGOS)


@pytest.mark.parametrize("text", ["[", "- a list", ""])
def test_file_that_is_no_spec_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"broken\.yml"):
        read_spec(path, ALGOS)
    with pytest.raises(ValueError, match=r"nowhere\.yml cannot be read"):
        read_spec(tmp_path / "nowhere.yml", ALGOS)


# The specs of this project


def packaged(name: str) -> Spec:
    register()
    (path,) = (path for path in SPECS if path.stem == name)
    return read_spec(path, set(rl_zoo3.ALGOS))


@pytest.mark.parametrize("name", [path.stem for path in SPECS])
def test_documentation_counts_the_runs(name: str) -> None:
    page = (SPECS[0].parents[1] / "docs" / "benchmark.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}.yml` |"))
    assert row.endswith(f" {len(list(packaged(name).runs()))} |")


@pytest.mark.parametrize("name", [path.stem for path in SPECS])
def test_settings_can_be_constructed(name: str) -> None:
    for algorithm in packaged(name).algorithms:
        construct: Any = rl_zoo3.ALGOS[algorithm.algo]
        # Noise is the RL Zoo's to make
        settings = {name: value for name, value in algorithm.hyperparams.items() if not name.startswith("noise_")}
        if isinstance(code := settings.get("policy_kwargs"), str):  # which the RL Zoo evaluates
            settings["policy_kwargs"] = eval(code, {"nn": nn})
        construct("MlpPolicy", "Pendulum-v1", buffer_size=1, **settings)


def test_tqc_may_join(tmp_path: Path) -> None:
    """With the hyperparameters of its file, on every task of the paper."""
    register()
    config = str(SPECS[0].parent / "hyperparams" / "tqc.yml")
    for task in packaged("paper").tasks:
        manager = ExperimentManager(argparse.Namespace(), "tqc", task, str(tmp_path), config=config)
        hyperparams, *_ = manager._preprocess_hyperparams(manager.read_hyperparameters()[0])
        construct: Any = rl_zoo3.ALGOS["tqc"]
        model = construct(env=make_vec_env("Pendulum-v1", n_envs=5), **hyperparams, buffer_size=5)
        assert model.policy.net_arch == [256, 256, 256]
        assert (manager.n_envs, model.learning_starts) == (5, 30_000)


def test_paper_s_comparison() -> None:
    spec = packaged("paper")
    assert len(spec.tasks) == 9
    # 5 environments; the paper's 1M and 200,000 iterations follow 30,000 random steps
    assert {(steps - 30_000) / 5 for steps in spec.tasks.values()} == {1_000_000, 200_000}
    assert {algorithm.algo for algorithm in spec.algorithms} >= {"sac", "lql", "nclql"}
    assert spec.seeds == (100, 200, 300, 400, 500)
    assert (spec.n_evaluations, spec.n_eval_episodes) == (40, 20)
