"""The table of algorithms, read by all that lists them. Hyperparameters of each are in ``hyperparams/NAME.yml``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sb3_lql.baselines import DACER, DPMD, QSM, SDAC
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


def _sample_langevin(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "reward_scale": trial.suggest_float("reward_scale", 0.01, 10.0, log=True),
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


#: By name.
ALGORITHMS = {
    entry.name: entry
    for entry in (
        Entry(NCLQL, "NC-LQL", _sample_nclql, _convert_nclql),
        Entry(LQL, "LQL", _sample_lql, _convert_lql),
        Entry(SDAC, "SDAC"),
        Entry(DPMD, "DPMD"),
        Entry(QSM, "QSM"),
        Entry(DACER, "DACER"),
    )
}
#: Those whose policy is a Langevin chain, which the bandit's figures and the timings know.
LANGEVIN = {name: entry for name, entry in ALGORITHMS.items() if issubclass(entry.cls, LangevinAlgorithm)}
#: The algorithm of a command that is given none, and the one whose size and time count as 1 in reports.
DEFAULT = "nclql"
