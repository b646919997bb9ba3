"""Settings and fixtures of the whole suite."""

import os
from typing import Any

# Before torch is imported, and for the commands that tests run: with nets this small, threads would only wait for each
# other and for the other workers of pytest-xdist
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from sb3_lql import LQL, NCLQL
from sb3_lql.common import acceleration
from sb3_lql.common.acceleration import GraphedFunction
from tests.operations import record_on_cpu


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Commands and examples first, whose files take longest: so the workers of ``make test`` end at the same time."""
    items.sort(key=lambda item: item.path.parent.name != "zoo" and item.path.name != "test_examples.py")


@pytest.fixture(params=[LQL, NCLQL], ids=["LQL", "NCLQL"])
def algorithm(request: pytest.FixtureRequest) -> Any:
    """Each of the two algorithm classes."""
    return request.param


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Constructor arguments that make a model fast to build and to train; the chain keeps its shape."""
    return dict(
        policy_kwargs=dict(net_arch=[16, 16]),
        buffer_size=2_000,
        learning_starts=50,
        batch_size=32,
        n_langevin_steps=2,
        device="cpu",
    )


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lets graphed functions record on the CPU; the recordings that were made."""
    made: list[Any] = []

    def record(*args: Any) -> Any:
        made.append(record_on_cpu(*args))
        return made[-1]

    monkeypatch.setattr(GraphedFunction, "DEVICE_TYPE", "cpu")
    monkeypatch.setattr(GraphedFunction, "_warm_up", lambda self, args, last: self.function(*args))
    monkeypatch.setattr(acceleration, "record_cuda_graph", record)
    return made
