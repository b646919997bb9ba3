"""The packaged hyperparameters, how they get to the user, and what the RL Zoo makes of them."""

import argparse
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rl_zoo3")

import rl_zoo3.exp_manager
import rl_zoo3.train
import rl_zoo3.utils
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import IdentityEnvBox
from torch import nn

import sb3_lql
from sb3_lql.zoo import hyperparams_file, register
from tests.zoo.conftest import ALGORITHMS, python

#: Those with an entry for few steps, and the paper's protocol as a preset.
FILES = ["nclql", "lql", "sac"]
RIVALS = ["qsm", "dipo", "dacer", "qvpo", "sdac", "dpmd", "mvp"]
COMPARED = ["comparedqsm", "compareddipo", "compareddacer", "comparedqvpo", "comparedsac"]

LONG = ["HalfCheetah", "Walker2d", "Humanoid", "Hopper", "Ant", "Swimmer"]
SHORT = ["Pusher", "Reacher", "InvertedDoublePendulum"]
#: Environment steps of each task in the paper. Pusher-v4 does not run with MuJoCo 3.
BUDGETS = {
    f"{task}-{version}": budget
    for tasks, budget in ((LONG, 5e6), (SHORT, 1e6))
    for task in tasks
    for version in ("v4", "v5")
    if (task, version) != ("Pusher", "v4")
}
TASKS = [*BUDGETS, "Pendulum-v1", "InvertedPendulum-v5", "MultimodalBandit-v0", "MultiGoal-v0", "default"]


@pytest.fixture(autouse=True)
def registered() -> None:
    """The RL Zoo knows our algorithms."""
    register()


def entries(algo: str, preset: str | None = None) -> dict[str, dict[str, Any]]:
    """The packaged file of an algorithm, parsed as the RL Zoo parses it."""
    path = hyperparams_file(algo, preset)
    assert path is not None
    parsed: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())
    return parsed


def construct(algo: str, task: str, folder: Path, preset: str | None = None) -> tuple[ExperimentManager, Any]:
    """The RL Zoo's reading of an entry, and the model of it: on a simpler environment, with a small replay buffer."""
    env_id = "MountainCarContinuous-v0" if task == "default" else task
    config = str(hyperparams_file(algo, preset))
    manager = ExperimentManager(argparse.Namespace(), algo, env_id, str(folder), config=config)
    hyperparams, *_ = manager._preprocess_hyperparams(manager.read_hyperparameters()[0])
    constructor: Any = rl_zoo3.ALGOS[algo]
    env = make_vec_env(IdentityEnvBox, n_envs=manager.n_envs)
    return manager, constructor(env=env, **hyperparams, buffer_size=10, device="cpu")


def hidden_sizes(model: Any) -> set[tuple[int, ...]]:
    """Sizes of the hidden layers of the networks that a model learns."""
    if not isinstance(model, SAC):
        return {tuple(model.policy.net_arch)}
    actor = [layer.out_features for layer in model.actor.latent_pi.modules() if isinstance(layer, nn.Linear)]
    critics = [
        [layer.out_features for layer in q_network.modules() if isinstance(layer, nn.Linear)][:-1]
        for q_network in model.critic.q_networks
    ]
    return {tuple(sizes) for sizes in (actor, *critics)}


# Registration


def test_register_twice_changes_the_dictionaries_of_the_rl_zoo_in_place() -> None:
    algorithms = rl_zoo3.ALGOS
    register()
    register()
    users: list[Any] = [rl_zoo3, rl_zoo3.utils, rl_zoo3.exp_manager, rl_zoo3.train]
    assert all(user.ALGOS is algorithms for user in users)
    for name, algorithm in ALGORITHMS.items():
        assert algorithms[name] is algorithm
        assert name in HYPERPARAMS_SAMPLER
        assert name in HYPERPARAMS_CONVERTER
    assert algorithms["ppo"] is PPO


def test_names_are_those_of_the_classes_in_lower_case() -> None:
    """The RL Zoo derives one from the other for model cards and plots."""
    assert all(name == rl_zoo3.ALGOS[name].__name__.lower() for name in ALGORITHMS)


def test_importing_the_library_imports_neither_the_zoo_nor_plots(tmp_path: Path) -> None:
    code = "import sys, sb3_lql; print(sorted({'rl_zoo3', 'optuna', 'matplotlib', 'ray'} & set(sys.modules)))"
    assert python("-c", code, folder=tmp_path).strip() == "[]"


# The files


def test_hyperparams_file_is_none_where_there_is_no_file() -> None:
    assert hyperparams_file("ppo") is None


def test_wheel_contains_the_files_within_the_package(tmp_path: Path) -> None:
    project = Path(sb3_lql.__file__).parents[1]
    if not (project / "pyproject.toml").is_file():
        pytest.skip("installed from a wheel already")
    if not list(metadata.distributions(name="pip")):  # importing pip would leave setuptools broken for other tests
        pytest.skip("pip is not installed")
    python("-m", "pip", "wheel", str(project), "--no-deps", "--wheel-dir", ".", folder=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for algo in (*FILES, *RIVALS, "compared"):
            path = hyperparams_file(algo)
            assert path is not None
            assert archive.read(f"sb3_lql/hyperparams/{algo}.yml") == path.read_bytes()
        for algo in FILES:
            path = hyperparams_file(algo, "paper")
            assert path is not None
            assert archive.read(f"sb3_lql/hyperparams/paper/{algo}.yml") == path.read_bytes()


def test_file_within_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a wheel puts it."""
    (tmp_path / "hyperparams").mkdir()
    packaged = tmp_path / "hyperparams" / "lql.yml"
    packaged.touch()
    monkeypatch.setattr(sb3_lql, "__file__", str(tmp_path / "__init__.py"))
    assert hyperparams_file("lql") == packaged


# Their entries


@pytest.mark.parametrize("algo", [*FILES, *RIVALS])
def test_file_has_the_tasks_of_the_paper_and_small_ones(algo: str) -> None:
    assert set(entries(algo)) == set(TASKS)
    assert set(entries(algo, "paper")) == set(BUDGETS if algo in FILES else TASKS)


@pytest.mark.parametrize("task", BUDGETS)
@pytest.mark.parametrize("algo", [*FILES, *RIVALS, "compared"])
def test_mujoco_task_has_the_budget_of_the_paper(algo: str, task: str) -> None:
    entry = entries(algo, "paper")[task]
    assert entry["n_timesteps"] == BUDGETS[task]
    assert entry["n_envs"] == 5
    assert entry["learning_starts"] == 30_000


@pytest.mark.parametrize("task", BUDGETS)
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_mujoco_task_leaves_the_settings_of_the_authors_to_the_constructor(algo: str, task: str) -> None:
    assert set(entries(algo, "paper")[task]) == {"n_envs", "policy", "n_timesteps", "learning_starts"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("algo", FILES)
def test_entry_constructs_a_model(algo: str, task: str, tmp_path: Path) -> None:
    manager, model = construct(algo, task, tmp_path)
    entry = entries(algo)[task]
    assert manager.n_timesteps == entry["n_timesteps"]
    assert model.n_envs == entry.get("n_envs", 1)
    assert model.learning_starts == entry["learning_starts"]
    if "learning_rate" in entry:
        assert model.learning_rate(1.0) == float(str(entry["learning_rate"]).removeprefix("lin_"))
    assert type(model) is rl_zoo3.ALGOS[algo]


@pytest.mark.parametrize("algo", [*RIVALS, *COMPARED])
def test_entries_of_rivals_construct_models(algo: str, tmp_path: Path) -> None:
    tasks = ["HalfCheetah-v5", "Pendulum-v1", "MultimodalBandit-v0", "default", "MultiGoal-v0"]
    for task in tasks[::3] if algo in COMPARED else tasks:
        model: Any = construct(algo, task, tmp_path)[1]
        assert type(model).__name__.lower() == algo
        assert model.learning_starts == entries(algo)[task]["learning_starts"]


@pytest.mark.parametrize(
    ("task", "preset"), [*((task, None) for task in TASKS), *((task, "paper") for task in BUDGETS)]
)
@pytest.mark.parametrize("algo", ["lql", "sac"])
def test_others_have_the_budget_update_ratio_and_network_size_of_nclql(
    algo: str, task: str, preset: str | None, tmp_path: Path
) -> None:
    manager, model = construct(algo, task, tmp_path, preset)
    our_manager, ours = construct("nclql", task, tmp_path, preset)
    assert manager.n_timesteps == our_manager.n_timesteps
    for name in ("n_envs", "learning_starts", "train_freq", "gradient_steps", "batch_size", "gamma", "tau"):
        assert getattr(model, name) == getattr(ours, name)
    assert hidden_sizes(model) == hidden_sizes(ours)
    if preset == "paper":
        assert hidden_sizes(model) == {(256, 256, 256)}
