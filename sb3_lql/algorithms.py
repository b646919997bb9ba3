"""The table of algorithms, read by all that lists them. Hyperparameters of each are in ``hyperparams/NAME.yml``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sb3_lql.baselines import DACER, DIPO, DPMD, MVP, QSM, QVPO, SDAC
from sb3_lql.baselines.compared import ComparedDACER, ComparedDIPO, ComparedQSM, ComparedQVPO
from sb3_lql.engine.algorithm import ChainAlgorithm
from sb3_lql.langevin.family import LangevinAlgorithm
from sb3_lql.lql import LQL
from sb3_lql.nclql import NCLQL

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Entry:
    """
    One algorithm.

    :param cls: its class
    :param label: its name in tables and figures
    :param sample: what Optuna stores of a trial, besides the parameters that all algorithms have; nothing by default
    :param convert: makes constructor arguments of that, in place; by default they are
    """

    cls: type[ChainAlgorithm]
    label: str
    sample: Callable[[optuna.Trial], dict[str, Any]] = lambda trial: {}
    convert: Callable[[dict[str, Any]], None] = lambda params: None

    @property
    def name(self) -> str:
        """Its name on the command line and in the RL Zoo."""
        return self.cls.__name__.lower()


def _sample_reward_scale(trial: optuna.Trial) -> dict[str, Any]:
    return {"reward_scale": trial.suggest_float("reward_scale", 0.01, 10.0, log=True)}


def _sample_langevin(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_reward_scale(trial) | {
        "inverse_temperature": trial.suggest_float("inverse_temperature", 1.0, 1000.0, log=True),
    }


def _sample_nclql(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_langevin(trial) | {
        "langevin_step_size": trial.suggest_float("langevin_step_size", 1e-5, 1e-3, log=True),
        "n_langevin_steps": trial.suggest_int("n_langevin_steps", 1, 4),
        "n_noise_levels": trial.suggest_int("n_noise_levels", 3, 15),
        "sigma_max": trial.suggest_float("sigma_max", 0.03, 1.0, log=True),
        "sigma_ratio": trial.suggest_float("sigma_ratio", 3.0, 300.0, log=True),
    }


def _convert_nclql(params: dict[str, Any]) -> None:
    params["sigma_min"] = params["sigma_max"] / params.pop("sigma_ratio")


def _sample_lql(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_langevin(trial) | {
        "first_step_size": trial.suggest_float("first_step_size", 1e-3, 1.0, log=True),
        "last_step_size": trial.suggest_float("last_step_size", 1e-5, 1e-3, log=True),
        "n_langevin_steps": trial.suggest_int("n_langevin_steps", 5, 30),
    }


def _convert_lql(params: dict[str, Any]) -> None:
    params["langevin_step_size"] = (params.pop("first_step_size"), params.pop("last_step_size"))


def _sample_actor(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_reward_scale(trial) | {
        "actor_learning_rate": trial.suggest_float("actor_learning_rate", 3e-5, 1e-3, log=True),
    }


def _sample_diffusion(trial: optuna.Trial, most_steps: int = 20) -> dict[str, Any]:
    return _sample_actor(trial) | {
        "n_denoising_steps": trial.suggest_int("n_denoising_steps", 5, most_steps),
    }


def _sample_temperature(trial: optuna.Trial, intervals: tuple[int, ...] = (50, 250, 1000)) -> dict[str, Any]:
    return _sample_diffusion(trial) | {
        "noise_scale": trial.suggest_float("noise_scale", 0.03, 0.3, log=True),
        "initial_temperature": trial.suggest_float("initial_temperature", 0.3, 5.0, log=True),
        "temperature_interval": trial.suggest_categorical("temperature_interval", intervals),
    }


def _sample_dacer(trial: optuna.Trial) -> dict[str, Any]:
    # Where the temperature is due, mixtures are fitted to the actions of a minibatch, which takes half a minute
    return _sample_temperature(trial, intervals=(5_000, 10_000, 20_000))


def _sample_best_of(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_temperature(trial) | {
        "n_action_samples": trial.suggest_categorical("n_action_samples", [4, 8, 16, 32]),
    }


def _sample_qsm(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_diffusion(trial) | {
        "gradient_scale": trial.suggest_float("gradient_scale", 5.0, 500.0, log=True),
        "noise_scale": trial.suggest_float("noise_scale", 0.03, 0.3, log=True),
    }


def _sample_dipo(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_diffusion(trial, most_steps=100) | {
        "n_action_gradient_steps": trial.suggest_int("n_action_gradient_steps", 5, 40),
        "action_learning_rate": trial.suggest_float("action_learning_rate", 3e-3, 0.1, log=True),
    }


def _sample_qvpo(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_diffusion(trial) | {
        "uniform_weight": trial.suggest_float("uniform_weight", 2e-3, 0.1, log=True),
        "n_policy_samples": trial.suggest_categorical("n_policy_samples", [16, 32, 64]),
        "n_behavior_samples": trial.suggest_int("n_behavior_samples", 1, 8),
    }


def _sample_mvp(trial: optuna.Trial) -> dict[str, Any]:
    return _sample_actor(trial) | {
        "velocity_weight": trial.suggest_float("velocity_weight", 0.25, 2.0, log=True),
        "n_action_samples": trial.suggest_categorical("n_action_samples", [8, 16, 32]),
    }


#: By name.
ALGORITHMS = {
    entry.name: entry
    for entry in (
        Entry(NCLQL, "NC-LQL", _sample_nclql, _convert_nclql),
        Entry(LQL, "LQL", _sample_lql, _convert_lql),
        Entry(QSM, "QSM", _sample_qsm),
        Entry(DIPO, "DIPO", _sample_dipo),
        Entry(DACER, "DACER", _sample_dacer),
        Entry(QVPO, "QVPO", _sample_qvpo),
        Entry(SDAC, "SDAC", _sample_best_of),
        Entry(DPMD, "DPMD", _sample_best_of),
        Entry(MVP, "MVP", _sample_mvp),
        Entry(ComparedQSM, "QSM (compared)", _sample_diffusion),
        Entry(ComparedDIPO, "DIPO (compared)", _sample_dipo),
        Entry(ComparedDACER, "DACER (compared)", _sample_dacer),
        Entry(ComparedQVPO, "QVPO (compared)", _sample_diffusion),
    )
}
#: Those whose policy is a Langevin chain, which the bandit's figures and the timings know.
LANGEVIN = {name: entry for name, entry in ALGORITHMS.items() if issubclass(entry.cls, LangevinAlgorithm)}
#: The algorithm of a command that is given none, and the one whose size and time count as 1 in reports.
DEFAULT = "nclql"
