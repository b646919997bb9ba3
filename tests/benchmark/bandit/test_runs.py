"""Actions drawn from an agent, and the folder that a run is loaded from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_lql import LQL
from sb3_lql.benchmark.bandit.measures import summarize
from sb3_lql.benchmark.bandit.runs import (
    INVERSE_TEMPERATURES,
    Run,
    draw,
    draw_with_perfect_critic,
    measure_at_inverse_temperatures,
)


@pytest.fixture
def model(tiny: dict[str, Any]) -> LQL:
    """An untrained agent."""
    return LQL("MlpPolicy", "MultimodalBandit-v0", seed=0, **tiny)


def test_drawing_at_another_temperature_leaves_the_agents_own(model: LQL) -> None:
    before = draw(model, 20, seed=0)
    hot = draw(model, 20, seed=0, inverse_temperature=1.0)
    assert model.inverse_temperature == 500
    assert not np.array_equal(hot, before)
    np.testing.assert_array_equal(draw(model, 20, seed=0), before)


def test_agent_is_measured_at_all_temperatures(model: LQL) -> None:
    measured = measure_at_inverse_temperatures(model, 100, seed=0)
    assert [entry.pop("inverse_temperature") for entry in measured] == list(INVERSE_TEMPERATURES)
    assert measured[-1] == summarize(draw(model, 100, seed=0))  # w = 500 is its own
    assert measured[0] == summarize(draw(model, 100, seed=0, inverse_temperature=1.0))


def test_with_a_perfect_critic_a_plain_chain_is_stuck_in_the_nearest_mode() -> None:
    """Small steps uphill all the way: every action ends in a mode, not many more than half in a high one (table 4)."""
    chain: dict[str, Any] = dict(n_langevin_steps=100, langevin_step_size=1e-4, inverse_temperature=500.0)
    model = LQL("MlpPolicy", "MultimodalBandit-v0", policy_kwargs=dict(net_arch=[8]), device="cpu", **chain)
    measures = summarize(draw_with_perfect_critic(model.policy, 2_000, seed=0))
    assert measures["sum"] + measures["low"] > 0.99
    assert measures["sum"] == pytest.approx(0.570, abs=0.1)


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no summary\.json: pass the --output-dir of an `sb3-lql bandit`"):
        Run.load(tmp_path)
