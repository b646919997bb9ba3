"""Optuna's search spaces, and the way from what Optuna stores to constructor arguments."""

from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_offpolicy_params, sample_her_params

from sb3_lql.algorithms import Entry

#: What the RL Zoo's ``sample_her_params`` suggests.
HER_PARAMS = ("n_sampled_goal", "goal_selection_strategy")


def sample(
    entry: Entry, trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """Constructor arguments for a trial. The RL Zoo passes ``n_actions`` and ``n_envs``, which are not used."""
    params: dict[str, Any] = {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 2e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 5, 9),
        "tau": trial.suggest_float("tau", 1e-3, 0.08, log=True),
        "net_arch": trial.suggest_categorical("net_arch", ["small", "medium", "large"]),
        **entry.sample(trial),
    }
    # For people: the values behind the encoded ones
    trial.set_user_attr("gamma", 1 - params["one_minus_gamma"])
    trial.set_user_attr("batch_size", 2 ** params["batch_size_pow"])
    if additional_args["using_her_replay_buffer"]:
        params = sample_her_params(trial, params, additional_args["her_kwargs"])
    return convert(entry, params)


def convert(entry: Entry, params: dict[str, Any]) -> dict[str, Any]:
    """Constructor arguments from the parameters of a trial."""
    hyperparams: dict[str, Any] = convert_offpolicy_params(params)
    # Which the RL Zoo would leave to the constructor
    her_kwargs = {key: hyperparams.pop(key) for key in HER_PARAMS if key in hyperparams}
    if her_kwargs:
        hyperparams["replay_buffer_kwargs"] = her_kwargs
    entry.convert(hyperparams)
    return hyperparams
