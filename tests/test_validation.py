"""Bad arguments are refused at once, by name and value; the signature is the one that is promised."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.noise import NormalActionNoise
from torch import nn

from sb3_lql import LQL, NCLQL

NAN, INF = math.nan, math.inf

#: Arguments of both algorithms, with values that must raise a ValueError.
BAD_VALUES: dict[str, list[Any]] = {
    "learning_rate": [NAN, INF, -1e-3],
    "buffer_size": [0, -1],
    "learning_starts": [-1, NAN, INF],
    "batch_size": [0, -1],
    "tau": [NAN, -0.1, 1.1, INF],
    "gamma": [NAN, -0.1, 1.1, INF],
    "train_freq": [0, -1],
    "gradient_steps": [-2],
    "n_steps": [0, -1],
    "inverse_temperature": [NAN, INF, -1.0, 0.0],
    "langevin_step_size": [NAN, INF, -1e-4, 0.0],
    "n_langevin_steps": [0, -1],
    "reward_scale": [NAN, INF, -1.0, 0.0],
    "target_update_interval": [0, -1],
    "n_action_samples": [0, -1],
    "stats_window_size": [0, -1],
    "seed": [-1, 2**32],
    "env": [None],
    "device": ["foo"],
}
NCLQL_BAD_VALUES: dict[str, list[Any]] = {
    "n_noise_levels": [0, -1],
    "sigma_max": [NAN, INF, -0.1, 0.0],
    "sigma_min": [NAN, INF, -0.1, 0.0],
}

COUNTS = [
    *("buffer_size", "batch_size", "gradient_steps", "n_steps", "n_langevin_steps", "n_action_samples"),
    "stats_window_size",
]
NUMBERS = [
    *("tau", "gamma", "learning_rate", "learning_starts", "inverse_temperature", "langevin_step_size", "reward_scale")
]
FLAGS = [
    "normalize_score",
    "bfloat16_chain",
    "overlap_updates",
    "compile",
    "optimize_memory_usage",
    "_init_setup_model",
]
#: Values that are of the wrong type, among the arguments that are neither numbers nor flags.
BAD_TYPES: dict[str, list[Any]] = {
    "env": [5],
    "action_noise": ["x", 0.1],
    "tensorboard_log": [5],
    "policy_kwargs": ["x", 5, [1]],
    "replay_buffer_class": ["x", 5],
    "replay_buffer_kwargs": [5],
    "seed": ["x", 1.5],
    "verbose": ["x", None],
}
#: The same of ``policy_kwargs``.
BAD_POLICY_TYPES: dict[str, list[Any]] = {
    "activation_fn": ["relu", None, nn.functional.relu, dict],
    "optimizer_class": ["adam", None],
    "optimizer_kwargs": ["x", 5],
    "features_extractor_class": ["x", 5],
    "normalize_images": ["no"],
}


def build(algorithm: Any, **kwargs: Any) -> Any:
    settings: dict[str, Any] = dict(env="Pendulum-v1", buffer_size=10, policy_kwargs=dict(net_arch=[4]), device="cpu")
    return algorithm("MlpPolicy", **(settings | kwargs))


def cases(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in table.items() for value in values]


def named(name: str, value: Any) -> str:
    """Pattern of a message that holds the argument's name and its value."""
    return re.escape(f"{name}={value!r}")


@pytest.mark.parametrize(("name", "value"), cases(BAD_VALUES))
def test_a_value_out_of_range_is_refused(algorithm: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=named(name, value)):
        build(algorithm, **{name: value})


@pytest.mark.parametrize(("name", "value"), cases(NCLQL_BAD_VALUES))
def test_a_noise_schedule_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=named(name, value)):
        build(NCLQL, **{name: value})


@pytest.mark.parametrize("value", [1.5, "2", None, True])
@pytest.mark.parametrize("name", COUNTS)
def test_what_is_no_integer_is_refused_where_things_are_counted(algorithm: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=named(name, value)):
        build(algorithm, **{name: value})


@pytest.mark.parametrize("value", ["0.5", None, True])
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_is_refused(algorithm: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=named(name, value)):
        build(algorithm, **{name: value})


@pytest.mark.parametrize("value", ["no", 1])
@pytest.mark.parametrize("name", FLAGS)
def test_what_is_neither_true_nor_false_is_refused(algorithm: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=named(name, value)):
        build(algorithm, **{name: value})


@pytest.mark.parametrize(("name", "value"), cases(BAD_TYPES))
def test_a_value_of_the_wrong_type_is_refused(algorithm: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=named(name, value)):
        build(algorithm, **{name: value})


@pytest.mark.parametrize(("name", "value"), cases(BAD_POLICY_TYPES))
def test_a_value_of_the_wrong_type_is_refused_in_policy_kwargs(algorithm: Any, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=named(name, value)):
        build(algorithm, policy_kwargs={name: value})


def test_noise_of_another_shape_is_refused(algorithm: Any) -> None:
    with pytest.raises(ValueError, match=r"action_noise has shape \(3,\), and actions have \(1,\)"):
        build(algorithm, action_noise=NormalActionNoise(np.zeros(3), np.ones(3)))


def test_an_optimiser_that_evaluates_losses_itself_is_refused(algorithm: Any) -> None:
    with pytest.raises(ValueError, match="optimizer_class=LBFGS"):
        build(algorithm, policy_kwargs=dict(optimizer_class=th.optim.LBFGS))


def test_a_learning_rate_of_the_optimiser_is_refused(algorithm: Any) -> None:
    with pytest.raises(ValueError, match=r"optimizer_kwargs=\{'lr': 0.1\} has 'lr'.*pass learning_rate"):
        build(algorithm, policy_kwargs=dict(optimizer_kwargs=dict(lr=0.1)))


def test_a_learning_rate_may_be_a_number_of_numpys(algorithm: Any) -> None:
    assert build(algorithm, learning_rate=np.float32(0.5)).learning_rate == 0.5


@pytest.mark.parametrize("schedule", [lambda _: "x", lambda: 1.0])
def test_a_function_that_is_no_schedule_is_refused(algorithm: Any, schedule: Any) -> None:
    with pytest.raises(TypeError, match=r"learning_rate=<function .* is no schedule"):
        build(algorithm, learning_rate=schedule)


@pytest.mark.parametrize("value", [NAN, INF, -0.1])
def test_a_schedule_that_starts_out_of_range_is_refused(algorithm: Any, value: float) -> None:
    with pytest.raises(ValueError, match=named("learning_rate", value)):
        build(algorithm, learning_rate=lambda _: value)


@pytest.mark.parametrize("bad", [NAN, INF, -1.0, 0.0])
@pytest.mark.parametrize("position", [0, 1])
def test_both_step_sizes_of_a_pair_are_checked(bad: float, position: int) -> None:
    pair = (bad, 1e-4) if position == 0 else (1.0, bad)
    with pytest.raises(ValueError, match=named("langevin_step_size", bad)):
        build(LQL, langevin_step_size=pair)


@pytest.mark.parametrize("step_sizes", [(), (1.0,), (1.0, 0.1, 0.01)])
def test_step_sizes_come_in_pairs_only(step_sizes: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=named("langevin_step_size", step_sizes)):
        build(LQL, langevin_step_size=step_sizes)


def test_nclql_takes_no_pair_of_step_sizes() -> None:
    with pytest.raises(TypeError, match=named("langevin_step_size", (1.0, 1e-4))):
        build(NCLQL, langevin_step_size=(1.0, 1e-4))


def test_noise_that_grows_along_the_chain_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma_max=0\.1 is below sigma_min=0\.2"):
        build(NCLQL, sigma_max=0.1, sigma_min=0.2)
    assert build(NCLQL, sigma_max=0.1, sigma_min=0.1).policy.sampler.sigmas.tolist() == pytest.approx([0.1] * 10)


@pytest.mark.parametrize(
    "kwargs",
    [dict(sigma_max=1e30, sigma_min=1e-30), dict(inverse_temperature=1e300), dict(sigma_max=1e21, sigma_min=1.0)],
)
def test_a_step_that_overflows_is_refused(kwargs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lower .*inverse_temperature.*langevin_step_size.*sigma_max"):
        build(NCLQL, **kwargs)


def test_a_step_that_overflows_is_refused_when_the_temperature_is_set_later(algorithm: Any) -> None:
    model = build(algorithm)
    with pytest.raises(ValueError, match="inverse_temperature"):
        model.inverse_temperature = 1e300


@pytest.mark.parametrize("value", [NAN, INF, -1, -1e6])
def test_learn_refuses_a_number_of_steps_that_is_none(algorithm: Any, value: float) -> None:
    model = build(algorithm)
    with pytest.raises(ValueError, match=named("total_timesteps", value)):
        model.learn(value)
    assert model.num_timesteps == 0


@pytest.mark.parametrize("value", [NAN, -1.0, 0.0])
def test_a_temperature_is_checked_whenever_it_is_set(algorithm: Any, value: float) -> None:
    model = build(algorithm)
    with pytest.raises(ValueError, match=named("inverse_temperature", value)):
        model.inverse_temperature = value
    assert model.inverse_temperature == model.policy.sampler.inverse_temperature == 500.0


def test_gsde_is_refused_in_policy_kwargs_too(algorithm: Any) -> None:
    with pytest.raises(ValueError, match="use_sde"):
        build(algorithm, policy_kwargs=dict(use_sde=True))


@pytest.mark.parametrize("kwargs", [dict(tau=0.0), dict(tau=1), dict(gamma=0), dict(gamma=1.0), dict(learning_rate=0)])
def test_the_ends_of_closed_ranges_are_allowed(algorithm: Any, kwargs: dict[str, float]) -> None:
    (name,) = kwargs
    assert getattr(build(algorithm, **kwargs), name) == kwargs[name]


#: The promised arguments of NCLQL, in their order. Renaming or moving one breaks users.
CONTRACT: dict[str, Any] = dict(
    policy=inspect.Parameter.empty,
    env=inspect.Parameter.empty,
    learning_rate=1e-4,
    buffer_size=1_000_000,
    learning_starts=100,
    batch_size=256,
    tau=0.005,
    gamma=0.99,
    train_freq=1,
    gradient_steps=1,
    action_noise=None,
    replay_buffer_class=None,
    replay_buffer_kwargs=None,
    optimize_memory_usage=False,
    n_steps=1,
    inverse_temperature=500.0,
    langevin_step_size=1e-4,
    n_langevin_steps=2,
    n_noise_levels=10,
    sigma_max=0.1,
    sigma_min=0.001,
    target_entropy="auto",
    normalize_score=True,
    reward_scale=0.2,
    target_update_interval=1,
    stats_window_size=100,
    tensorboard_log=None,
    policy_kwargs=None,
    verbose=0,
    seed=None,
    device="auto",
    _init_setup_model=True,
)


def test_arguments_and_their_defaults_are_as_promised(algorithm: Any) -> None:
    expected = dict(CONTRACT)
    if algorithm is LQL:
        expected["n_langevin_steps"] = 20
        for name in ("n_noise_levels", "sigma_max", "sigma_min"):
            del expected[name]
        expected |= dict(sampler="langevin", n_particles=16, n_rungs=20, soft_backup=False)
    parameters = inspect.signature(algorithm).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == ["policy", "env", "learning_rate"]
    beyond_sb3 = dict(n_action_samples=1, compile=None, bfloat16_chain=False, overlap_updates=False, use_sde=False)
    assert {p.name: p.default for p in parameters} == expected | beyond_sb3


def test_an_attribute_has_the_name_of_its_argument(algorithm: Any) -> None:
    model = build(algorithm)
    own = inspect.signature(algorithm).parameters.keys() - {"policy_kwargs", "stats_window_size", "_init_setup_model"}
    assert not {name for name in own if not hasattr(model, name)}


def parameters_of(algorithm: type) -> dict[str, str]:
    """What the docstring says of each argument."""
    entries = re.findall(r":param (\w+): (.*?)(?=\n:)", inspect.cleandoc(algorithm.__doc__ or ""), flags=re.DOTALL)
    return {name: " ".join(text.split()) for name, text in entries}


def test_both_algorithms_document_every_argument_and_the_shared_ones_alike() -> None:
    documented = {model_class: parameters_of(model_class) for model_class in (LQL, NCLQL)}
    for model_class, entries in documented.items():
        assert list(entries) == list(inspect.signature(model_class).parameters)
    of_their_own = {"langevin_step_size", "n_langevin_steps", "normalize_score", "inverse_temperature"}
    for name in (documented[LQL].keys() & documented[NCLQL].keys()) - of_their_own:
        assert documented[LQL][name] == documented[NCLQL][name]


def test_use_sde_is_refused_by_load_too(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    algorithm("MlpPolicy", "Pendulum-v1", **tiny).save(tmp_path / "model")
    with pytest.raises(ValueError, match="use_sde"):
        algorithm.load(tmp_path / "model", use_sde=True)


@pytest.mark.parametrize("name", ["sampler", "n_action_samples", "bfloat16_chain", "use_sde"])
def test_policy_kwargs_do_not_take_what_the_algorithm_sets(algorithm: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs={name: True})
