"""On a GPU: the updates and actions of every algorithm as CUDA graphs are the plain ones, and checkpoints resume."""

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch as th

from sb3_lql import LQL, export
from sb3_lql.algorithms import ALGORITHMS
from tests.baselines.checks import TINY, resumed_beside

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="no GPU")

TEMPERED = dict(sampler="tempered", n_particles=4, n_rungs=3, inverse_temperature="auto", soft_backup=True)
CASES: dict[str, tuple[Any, dict[str, Any]]] = {name: (entry.cls, {}) for name, entry in ALGORITHMS.items()}
CASES["lql-tempered"] = (LQL, TEMPERED)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    return CASES[request.param]


@pytest.fixture(autouse=True)
def no_refusals() -> Iterator[None]:
    """A warning would say that something was not compiled or recorded."""
    with warnings.catch_warnings():
        for message in ("CUDA graphs are not used", "torch.compile failed"):
            warnings.filterwarnings("error", message)
        yield


def learned(case: tuple[Any, dict[str, Any]], **changes: Any) -> Any:
    algorithm, arguments = case
    return algorithm("MlpPolicy", "Pendulum-v1", **TINY | arguments | dict(device="cuda") | changes).learn(40)


def assert_close(model: Any, expected: Any) -> None:
    """That two models have learned the same, but for the order of sums."""
    for name, value in expected.policy.state_dict().items():
        difference = (model.policy.state_dict()[name] - value).abs().max()
        assert difference <= 1e-3 * (1 + value.abs().max()), name


def test_replayed_updates_and_actions_are_the_plain_ones(case: tuple[Any, dict[str, Any]]) -> None:
    plain, replayed = learned(case, compile=False), learned(case)
    assert_close(replayed, plain)
    obs = plain._last_obs
    expected = plain.predict(obs, deterministic=True)[0]
    for _ in range(5):  # the last are replays
        assert replayed.predict(obs, deterministic=True)[0] == pytest.approx(expected, abs=1e-2)


def test_an_agent_that_was_dropped_is_no_fault_of_the_next() -> None:
    """Garbage with recordings of its own, which the collector comes upon while others are recorded."""
    case = CASES["nclql"]
    gc.collect()
    thresholds = gc.get_threshold()
    try:
        gc.set_threshold(100_000)
        learned(case)
        gc.set_threshold(1)  # at every allocation, now
        learned(case)
    finally:
        gc.set_threshold(*thresholds)


def test_an_export_draws_nothing_from_the_gpus_generator(tmp_path: Path) -> None:
    model = learned(CASES["lql-tempered"])
    before = th.cuda.get_rng_state()
    export(model, tmp_path / "policy.pt", format="torchscript", deterministic=False)
    assert th.equal(th.cuda.get_rng_state(), before)


def test_a_checkpoint_resumes(case: tuple[Any, dict[str, Any]], tmp_path: Path) -> None:
    model = learned(case)
    assert_close(resumed_beside(model, tmp_path), model)
