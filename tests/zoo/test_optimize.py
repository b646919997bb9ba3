"""Tuning with Optuna: the search spaces, and ``train -optimize`` followed by ``train --trial-id``."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rl_zoo3")

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, TrialState
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, IdentityEnvBox

from sb3_lql.algorithms import ALGORITHMS as TABLE
from sb3_lql.zoo import register
from tests.zoo.conftest import ALGORITHMS, SHORT_EPISODES, TINY_BUFFERS, sb3_lql

WITHOUT_HER: dict[str, Any] = {"using_her_replay_buffer": False, "her_kwargs": {}}

#: The least and the greatest suggestion for every parameter.
SHARED_RANGES: dict[str, tuple[Any, Any]] = {
    "one_minus_gamma": (1e-4, 0.03),
    "learning_rate": (1e-5, 2e-3),
    "batch_size_pow": (5, 9),
    "tau": (1e-3, 0.08),
    "reward_scale": (0.01, 10.0),
    "inverse_temperature": (1.0, 1000.0),
    "net_arch": ("small", "large"),
}
RANGES: dict[str, dict[str, tuple[Any, Any]]] = {
    "lql": SHARED_RANGES
    | {"first_step_size": (1e-3, 1.0), "last_step_size": (1e-5, 1e-3), "n_langevin_steps": (5, 30)},
    "nclql": SHARED_RANGES
    | {
        "langevin_step_size": (1e-5, 1e-3),
        "n_langevin_steps": (1, 4),
        "n_noise_levels": (3, 15),
        "sigma_max": (0.03, 1.0),
        "sigma_ratio": (3.0, 300.0),
    },
}


@pytest.fixture(autouse=True)
def registered() -> None:
    """The RL Zoo knows our algorithms."""
    register()


@pytest.fixture(params=ALGORITHMS)
def algo(request: pytest.FixtureRequest) -> str:
    """The name of each algorithm."""
    name: str = request.param
    return name


def sample(algo: str, trial: Any, additional_args: dict[str, Any] = WITHOUT_HER) -> dict[str, Any]:
    """What the RL Zoo passes to the constructor in a trial."""
    sampled: dict[str, Any] = HYPERPARAMS_SAMPLER[algo](trial, 1, 1, additional_args)
    return sampled


def convert(algo: str, params: dict[str, Any]) -> dict[str, Any]:
    """What the RL Zoo makes of a trial's stored parameters."""
    converter: Any = HYPERPARAMS_CONVERTER[algo]
    converted: dict[str, Any] = converter(params)
    return converted


def random_trials(n_trials: int = 20) -> list[optuna.Trial]:
    """Trials of a random search."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask() for _ in range(n_trials)]


def construct(algo: str, sampled: dict[str, Any]) -> Any:
    """A model with the arguments that were sampled."""
    return ALGORITHMS[algo]("MlpPolicy", IdentityEnvBox(), buffer_size=10, device="cpu", **sampled)


# The search spaces


def test_constructor_takes_every_sample(algo: str) -> None:
    for trial in random_trials():
        sampled = sample(algo, trial)
        model = construct(algo, sampled)
        assert all(getattr(model, name) == value for name, value in sampled.items())


@pytest.mark.parametrize("name", [name for name in TABLE if name not in ALGORITHMS])
def test_constructors_of_the_rivals_take_every_sample(name: str) -> None:
    for trial in random_trials(5):
        sampled = sample(name, trial)
        cls: Any = TABLE[name].cls
        model = cls("MlpPolicy", IdentityEnvBox(), buffer_size=10, device="cpu", **sampled)
        assert all(getattr(model, key) == value for key, value in sampled.items())
        assert "actor_learning_rate" in sampled


@pytest.mark.parametrize("name", [name for name in TABLE if name not in ALGORITHMS])
def test_spaces_of_the_rivals_contain_their_defaults(name: str) -> None:
    defaults = {key: each.default for key, each in inspect.signature(TABLE[name].cls).parameters.items()}
    trial: Any = FixedTrial(defaults)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a value out of range is a warning, an unknown choice an error
        sampled = TABLE[name].sample(trial)
    assert sampled == {key: defaults[key] for key in sampled}


@pytest.mark.parametrize("name", ["dacer", "compareddacer"])
def test_dacer_fits_mixtures_at_few_updates(name: str) -> None:
    """Each time takes half a minute: at most one in 5,000."""
    assert all(sample(name, trial)["temperature_interval"] >= 5_000 for trial in random_trials())


@pytest.mark.parametrize("end", [0, 1], ids=["least", "greatest"])
def test_constructor_takes_the_ends_of_the_ranges(algo: str, end: int) -> None:
    trial = FixedTrial({name: ends[end] for name, ends in RANGES[algo].items()})
    model = construct(algo, sample(algo, trial))
    assert model.gamma == 1 - RANGES[algo]["one_minus_gamma"][end]
    assert model.batch_size == (32, 512)[end]
    assert model.policy.net_arch == ([64, 64], [256, 256, 256])[end]


def test_sampled_noise_is_annealed_from_the_greater_to_the_lesser() -> None:
    for trial in random_trials():
        sampled = sample("nclql", trial)
        assert 0 < sampled["sigma_min"] < sampled["sigma_max"]
        assert sampled["sigma_max"] / sampled["sigma_min"] == pytest.approx(trial.params["sigma_ratio"])


def test_sampled_steps_of_lql_shrink_along_the_chain() -> None:
    for trial in random_trials():
        first, last = sample("lql", trial)["langevin_step_size"]
        assert 0 < last <= first
        assert (first, last) == (trial.params["first_step_size"], trial.params["last_step_size"])


def test_converter_gives_back_what_was_sampled(algo: str) -> None:
    for trial in random_trials():
        sampled = sample(algo, trial)
        assert convert(algo, trial.params) == sampled


def test_converter_leaves_the_stored_parameters_alone(algo: str) -> None:
    (trial,) = random_trials(1)
    sample(algo, trial)
    params = trial.params
    convert(algo, params)
    assert params == trial.params


def test_trial_tells_gamma_and_batch_size_to_people(algo: str) -> None:
    for trial in random_trials(3):
        sampled = sample(algo, trial)
        assert trial.user_attrs == {"gamma": sampled["gamma"], "batch_size": sampled["batch_size"]}


# Hindsight experience replay


def test_constructor_takes_samples_for_her_and_keeps_the_other_arguments_of_the_buffer(algo: str) -> None:
    her_kwargs = {"copy_info_dict": True}
    for trial in random_trials(3):
        sampled = sample(algo, trial, {"using_her_replay_buffer": True, "her_kwargs": her_kwargs})
        model: Any = ALGORITHMS[algo](
            "MultiInputPolicy",
            BitFlippingEnv(continuous=True),
            buffer_size=100,
            device="cpu",
            replay_buffer_class=HerReplayBuffer,
            **sampled,
        )
        assert model.replay_buffer.copy_info_dict
        assert model.replay_buffer.n_sampled_goal == trial.params["n_sampled_goal"]
        strategy = model.replay_buffer.goal_selection_strategy
        assert strategy.name.lower() == trial.params["goal_selection_strategy"]
    assert her_kwargs == {"copy_info_dict": True}


def test_converter_gives_back_what_was_sampled_for_her(algo: str) -> None:
    for trial in random_trials():
        sampled = sample(algo, trial, {"using_her_replay_buffer": True, "her_kwargs": {}})
        assert set(sampled["replay_buffer_kwargs"]) == {"n_sampled_goal", "goal_selection_strategy"}
        assert convert(algo, trial.params) == sampled


# The commands


def test_train_with_a_trial_id_uses_the_values_of_that_trial_of_the_study(algo: str, tmp_path: Path) -> None:
    study_options = ("--storage", "study.log", "--study-name", "tuning")
    train = ("train", "--algo", algo, *SHORT_EPISODES, "-params", *TINY_BUFFERS, "-n", "55", "--seed", "1")

    tune = ("-optimize", "--n-trials", "2", "--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots")
    output = sb3_lql(*train, *tune, *study_options, folder=tmp_path)
    assert "Number of finished trials:  2" in output
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    trials = optuna.load_study(study_name="tuning", storage=storage).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.COMPLETE]
    expected = convert(algo, trials[1].params)
    assert expected != convert(algo, trials[0].params)

    output = sb3_lql(*train, "--trial-id", "1", *study_options, "--eval-freq", "-1", folder=tmp_path)
    assert "Loading from Optuna study..." in output
    # The command's own options come last
    del expected["batch_size"]
    (agent,) = tmp_path.rglob("Pendulum-v1.zip")
    config = yaml.unsafe_load((agent.parent / "Pendulum-v1/config.yml").read_text())
    assert {name: config[name] for name in expected} == expected
    model: Any = ALGORITHMS[algo].load(agent, device="cpu")
    assert model.learning_rate(1.0) == expected.pop("learning_rate")
    used = {name: getattr(model, name) for name in expected}
    # SB3 saves a tuple as a list
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in used.items()} == expected
