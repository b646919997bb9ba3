"""Actions drawn from an agent, and the folder that a run is loaded from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_lql import LQL, NCLQL
from sb3_lql.benchmark.bandit.chains import normal_starts, trajectories
from sb3_lql.benchmark.bandit.landscape import smoothed_reward
from sb3_lql.benchmark.bandit.measures import summarize
from sb3_lql.benchmark.bandit.runs import Run, draw, draw_at, draw_with_perfect_critic, measure_at_inverse_temperatures
from sb3_lql.envs.multimodal_bandit import MODES

ENV_ID = "MultimodalBandit-v0"


@pytest.fixture
def model(tiny: dict[str, Any]) -> LQL:
    """An untrained agent."""
    return LQL("MlpPolicy", ENV_ID, seed=0, **tiny)


def test_actions_are_drawn_from_normal_starts(model: LQL) -> None:
    expected = trajectories(model, normal_starts(20, seed=3), seed=3)[-1]
    np.testing.assert_array_equal(draw(model, 20, seed=3), expected)


def test_drawing_at_another_temperature_leaves_the_agents_own(model: LQL) -> None:
    before = draw(model, 20, seed=0)
    np.testing.assert_array_equal(draw_at(model, 500.0, 20, seed=0), before)
    warm = draw_at(model, 1.0, 20, seed=0)
    assert not np.array_equal(warm, before)
    assert model.inverse_temperature == 500
    np.testing.assert_array_equal(draw(model, 20, seed=0), before)


def test_agent_is_measured_from_w_1_to_500(model: LQL) -> None:
    measured = measure_at_inverse_temperatures(model, 50, seed=0)
    temperatures = [entry.pop("inverse_temperature") for entry in measured]
    assert (min(temperatures), max(temperatures)) == (1, 500)  # the interval of appendix C.1
    for w, entry in zip(temperatures, measured, strict=True):
        assert entry == summarize(draw_at(model, w, 50, seed=0))


def test_with_a_perfect_critic_a_plain_chain_ends_in_the_mode_that_its_start_ascends_to() -> None:
    chain: dict[str, Any] = dict(n_langevin_steps=100, langevin_step_size=1e-5, inverse_temperature=5_000.0)
    model = LQL("MlpPolicy", ENV_ID, policy_kwargs=dict(net_arch=[8]), device="cpu", **chain)
    actions = draw_with_perfect_critic(model, 2_000, seed=0)

    # Noise-free ascent from the same starts, in steps of 0.01 of the critics' box
    ascending = th.as_tensor(normal_starts(2_000, seed=0) / 2).clamp(-1, 1)
    for _ in range(300):
        gradient = th.func.grad(lambda a: smoothed_reward(a, 0.0).sum())(ascending)
        ascending = (ascending + 0.01 * th.nn.functional.normalize(gradient, dim=1)).clamp(-1, 1)

    def nearest(points: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.linalg.norm(points[:, None] - MODES, axis=-1).argmin(axis=1)
        return found

    # All but the few that start on the watershed
    assert (nearest(actions) == nearest(2 * ascending.numpy())).mean() > 0.95


def test_with_a_perfect_critic_the_annealed_chain_uses_its_noise_levels() -> None:
    """Table 4: 0.993 of NC-LQL's actions are in high modes, 0.570 of LQL's; the same chain on one level is LQL's."""
    chain: dict[str, Any] = dict(sigma_max=0.3, sigma_min=0.1, policy_kwargs=dict(net_arch=[8]), device="cpu")
    annealed = NCLQL("MlpPolicy", ENV_ID, inverse_temperature=400.0, **chain)
    assert summarize(draw_with_perfect_critic(annealed, 2_000, seed=0))["sum"] > 0.98


def save_run(model: LQL, folder: Path, **summary: Any) -> None:
    """What makes a folder a run."""
    model.save(folder / "model")
    np.save(folder / "samples.npy", draw(model, 5, seed=0))
    (folder / "summary.json").write_text(json.dumps(dict(algo="lql", seed=4, model="model.zip") | summary))


def test_run_is_loaded_with_its_samples(model: LQL, tmp_path: Path) -> None:
    save_run(model, tmp_path)
    run = Run.load(tmp_path)
    assert (run.name, run.algo, run.seed, run.runs_a_chain) == ("LQL", "lql", 4, True)
    np.testing.assert_array_equal(run.samples, draw(run.langevin_model, 5, seed=0))


@pytest.mark.parametrize("damage", ["no summary", "half a summary", "other summary", "no agent", "no samples", "algo"])
def test_folder_without_a_complete_run_is_refused(model: LQL, tmp_path: Path, damage: str) -> None:
    save_run(model, tmp_path, **dict(algo="ppo") if damage == "algo" else {})
    if damage == "no summary":
        (tmp_path / "summary.json").unlink()
    elif damage == "half a summary":
        (tmp_path / "summary.json").write_text('{"algo": ')
    elif damage == "other summary":
        (tmp_path / "summary.json").write_text("[]")
    elif damage == "no agent":
        (tmp_path / "model.zip").unlink()
    elif damage == "no samples":
        (tmp_path / "samples.npy").unlink()
    with pytest.raises(ValueError, match=r"holds no complete run of `sb3-lql bandit` .*: pass the --output-dir of one"):
        Run.load(tmp_path)
