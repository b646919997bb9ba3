"""Optuna's search spaces, and the way from what Optuna stores to constructor arguments."""

from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_offpolicy_params, sample_her_params

#: What the RL Zoo's ``sample_her_params`` suggests.
HER_PARAMS = ("n_sampled_goal", "goal_selection_strategy")


def _sample_shared_params(trial: optuna.Trial, additional_args: dict[str, Any]) -> dict[str, Any]:
    """What LQL and NC-LQL are tuned over alike, in the form that the RL Zoo's off-policy converter takes."""
    params: dict[str, Any] = {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 2e-3, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 5, 9),
        "tau": trial.suggest_float("tau", 1e-3, 0.08, log=True),
        "reward_scale": trial.suggest_float("reward_scale", 0.01, 10.0, log=True),
        "inverse_temperature": trial.suggest_float("inverse_temperature", 1.0, 1000.0, log=True),
        "net_arch": trial.suggest_categorical("net_arch", ["small", "medium", "large"]),
    }
    # For people: the values behind the encoded ones
    trial.set_user_attr("gamma", 1 - params["one_minus_gamma"])
    trial.set_user_attr("batch_size", 2 ** params["batch_size_pow"])
    if additional_args["using_her_replay_buffer"]:
        params = sample_her_params(trial, params, additional_args["her_kwargs"])
    return params


def _convert_shared_params(params: dict[str, Any]) -> dict[str, Any]:
    """The RL Zoo's off-policy converter; those of HER, which it would leave to the constructor, go to the buffer."""
    hyperparams: dict[str, Any] = convert_offpolicy_params(params)
    her_kwargs = {key: hyperparams.pop(key) for key in HER_PARAMS if key in hyperparams}
    if her_kwargs:
        hyperparams["replay_buffer_kwargs"] = her_kwargs
    return hyperparams


def sample_lql_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    :param trial: the trial
    :param n_actions: number of action coordinates, not used
    :param n_envs: number of environments, not used
    :param additional_args: what the RL Zoo says of HER
    :return: constructor arguments of :class:`~sb3_lql.LQL`
    """
    params = _sample_shared_params(trial, additional_args) | {
        "first_step_size": trial.suggest_float("first_step_size", 1e-3, 1.0, log=True),
        "last_step_size": trial.suggest_float("last_step_size", 1e-5, 1e-3, log=True),
        "n_langevin_steps": trial.suggest_int("n_langevin_steps", 5, 30),
    }
    return convert_lql_params(params)


def convert_lql_params(params: dict[str, Any]) -> dict[str, Any]:
    """
    :param params: parameters of a trial
    :return: constructor arguments of :class:`~sb3_lql.LQL`
    """
    hyperparams = _convert_shared_params(params)
    hyperparams["langevin_step_size"] = (hyperparams.pop("first_step_size"), hyperparams.pop("last_step_size"))
    return hyperparams


def sample_nclql_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    :param trial: the trial
    :param n_actions: number of action coordinates, not used
    :param n_envs: number of environments, not used
    :param additional_args: what the RL Zoo says of HER
    :return: constructor arguments of :class:`~sb3_lql.NCLQL`
    """
    params = _sample_shared_params(trial, additional_args) | {
        "langevin_step_size": trial.suggest_float("langevin_step_size", 1e-5, 1e-3, log=True),
        "n_langevin_steps": trial.suggest_int("n_langevin_steps", 1, 4),
        "n_noise_levels": trial.suggest_int("n_noise_levels", 3, 15),
        "sigma_max": trial.suggest_float("sigma_max", 0.03, 1.0, log=True),
        "sigma_ratio": trial.suggest_float("sigma_ratio", 3.0, 300.0, log=True),
    }
    return convert_nclql_params(params)


def convert_nclql_params(params: dict[str, Any]) -> dict[str, Any]:
    """
    :param params: parameters of a trial
    :return: constructor arguments of :class:`~sb3_lql.NCLQL`
    """
    hyperparams = _convert_shared_params(params)
    hyperparams["sigma_min"] = hyperparams["sigma_max"] / hyperparams.pop("sigma_ratio")
    return hyperparams
