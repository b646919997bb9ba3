"""Modules have moved since models were saved and code was written: their old names still lead there."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from sb3_lql import LQL, NCLQL

AGENTS = Path(__file__).parents[1] / "agents"
#: Modules that users' files name, or that the documentation has shown, with something that is in them.
OLD_NAMES = {
    "sb3_lql.common.buffer_files": "read_buffer",
    "sb3_lql.common.buffers": "Float32ReplayBuffer",
    "sb3_lql.common.callbacks": "SaveCheckpointCallback",
    "sb3_lql.common.checkpoint": "find_checkpoint",
    "sb3_lql.common.critics": "EnsembleCritic",
    "sb3_lql.common.device_buffers": "DeviceReplayBuffer",
    "sb3_lql.common.langevin": "LangevinSampler",
    "sb3_lql.common.policies": "LangevinPolicy",
    "sb3_lql.common.safe": "load_safe",
}


@pytest.mark.parametrize("name", OLD_NAMES)
def test_a_module_is_found_by_its_old_name(name: str) -> None:
    assert hasattr(importlib.import_module(name), OLD_NAMES[name])


@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_name_is_an_attribute_of_its_package(name: str) -> None:
    *_, last = name.split(".")
    assert getattr(importlib.import_module("sb3_lql.common"), last) is importlib.import_module(name)


@pytest.mark.parametrize("path", sorted(AGENTS.glob("**/*.zip")), ids=lambda path: path.stem)
def test_an_agent_that_was_saved_before_the_modules_moved_acts(path: Path) -> None:
    algorithm: Any = {"lql": LQL, "nclql": NCLQL}.get(path.parents[1].name)
    if algorithm is None:
        pytest.skip("an agent of Stable-Baselines3")
    model = algorithm.load(path, device="cpu")
    action, _ = model.predict(model.observation_space.sample(), deterministic=True)
    assert model.action_space.contains(action)
