"""Settings and fixtures of the whole suite."""

from typing import Any

import pytest
import torch as th

from sb3_lql import LQL, NCLQL

# The nets of the tests are tiny: threads would only wait for each other, and for the other workers of pytest-xdist
th.set_num_threads(1)


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
