"""A change of the structure changes no number: a few updates compute what they computed when they were recorded."""

import json
from typing import Any

import pytest

from tests.trace import FILE, SETTINGS, trace

#: Machines round differently, and chains of normalised scores let that grow.
TOLERANCE = 2e-3


def flat(value: Any, path: str = "") -> dict[str, float]:
    if isinstance(value, dict):
        return {key: x for name, part in value.items() for key, x in flat(part, f"{path}/{name}").items()}
    if isinstance(value, list):
        return {key: x for index, part in enumerate(value) for key, x in flat(part, f"{path}/{index}").items()}
    return {path: value}


@pytest.mark.parametrize("name", SETTINGS)
def test_training_computes_what_it_computed_when_it_was_recorded(name: str) -> None:
    """Recorded by ``python -m tests.trace``."""
    assert flat(trace(name)) == pytest.approx(flat(json.loads(FILE.read_text())[name]), rel=TOLERANCE, abs=TOLERANCE)
