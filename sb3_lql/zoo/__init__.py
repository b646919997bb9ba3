"""The RL Zoo with our algorithms registered."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sb3_lql.zoo.registry import hyperparams_file, register

__all__ = ["hyperparams_file", "register"]


def __getattr__(name: str) -> Any:
    # Imported when they are used: the command must be able to start where the RL Zoo is missing, to say so
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("sb3_lql.zoo.registry"), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'{error}: pip install "sb3_lql[zoo]"', name=error.name) from error
