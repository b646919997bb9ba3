"""What the RL Zoo must know of LQL and NC-LQL."""

from pathlib import Path
from typing import Any

import rl_zoo3
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

import sb3_lql
from sb3_lql.zoo.hyperparams_opt import convert_lql_params, convert_nclql_params, sample_lql_params, sample_nclql_params


def register() -> None:
    """
    Add ``lql`` and ``nclql`` to the algorithms, samplers and converters of the RL Zoo, in place.

    Called in a ``custom_envs.py`` of the working directory, it makes the stock ``python -m rl_zoo3.train`` know them.
    Calling it twice does no harm.
    """
    rl_zoo3.ALGOS.update(lql=sb3_lql.LQL, nclql=sb3_lql.NCLQL)
    HYPERPARAMS_SAMPLER.update(lql=sample_lql_params, nclql=sample_nclql_params)
    converters: dict[str, Any] = HYPERPARAMS_CONVERTER
    converters.update(lql=convert_lql_params, nclql=convert_nclql_params)


def hyperparams_file(algo: str) -> Path | None:
    """
    :param algo: name of an algorithm, such as "nclql"
    :return: the YAML file of our hyperparameters for it, ``None`` if there is none
    """
    package = Path(sb3_lql.__file__).parent
    # In a wheel the files lie within the package, in a checkout beside it
    candidates = (folder / "hyperparams" / f"{algo}.yml" for folder in (package, package.parent))
    return next((path for path in candidates if path.is_file()), None)
