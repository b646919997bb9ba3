"""Whatever an argument is of, the algorithm, its family or all, ``help`` describes it."""

import inspect
from typing import Any

import pytest

from sb3_lql import baselines


@pytest.mark.parametrize("name", baselines.__all__)
def test_help_describes_every_argument(name: str) -> None:
    algorithm: Any = getattr(baselines, name)
    assert not [each for each in inspect.signature(algorithm).parameters if f":param {each}:" not in algorithm.__doc__]
