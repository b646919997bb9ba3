"""The best agents of a benchmark as they are passed on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rl_zoo3")

import rl_zoo3
from stable_baselines3.common.env_util import make_vec_env

from sb3_lql import LQL
from sb3_lql.benchmark.comparison.agents import save_agents, strip
from sb3_lql.benchmark.comparison.records import PLAN_FILE, RUN_FILE
from sb3_lql.benchmark.comparison.spec import Algorithm, Run
from sb3_lql.benchmark.comparison.training import train
from sb3_lql.benchmark.json_files import read_json, write_json
from sb3_lql.zoo import hyperparams_file, register

TASK = "Pendulum-v1"
TINY = {"learning_starts": 20, "batch_size": 8, "buffer_size": 100, "policy_kwargs": "dict(net_arch=[64, 64])"}
TINY |= {"env_kwargs": {"max_episode_steps": 10}}
OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def results_of(folder: Path, algo: str, returns: dict[int, float]) -> Path:
    """A results folder in which the seeds have those returns at the end."""
    register()
    runs = [Run(Algorithm("mine", algo, TINY), TASK, seed, 40, 5, 1) for seed in returns]
    for run in runs:
        run_folder = folder / "runs" / run.name
        config = str(hyperparams_file(algo))
        train(run, run_folder, config=config, device="cpu", n_threads=1)
        record = read_json(run_folder / RUN_FILE)
        record["evaluations"][-1]["deterministic"]["returns"] = [returns[run.seed]]
        write_json(run_folder / RUN_FILE, record)
    write_json(folder / PLAN_FILE, {"runs": [run.name for run in runs]})
    return folder


@pytest.mark.parametrize("algo", ["nclql", "sac"])
def test_best_seed_acts_as_it_did_and_is_smaller(tmp_path: Path, algo: str) -> None:
    results = results_of(tmp_path / "results", algo, {1: -5.0, 2: -3.0})
    (folder,) = save_agents(results, tmp_path / "agents")
    assert folder == tmp_path / "agents" / "mine" / algo / f"{TASK}_1"
    trained = results / "runs" / TASK / "mine" / "2" / algo / f"{TASK}_1" / f"{TASK}.zip"
    saved = folder / f"{TASK}.zip"
    # Half of the critics, and of three parts the two that are the optimiser's
    assert saved.stat().st_size < 0.6 * trained.stat().st_size
    load: Any = rl_zoo3.ALGOS[algo].load
    before, after = load(trained, device="cpu"), load(saved, device="cpu")
    for deterministic in (True, False):
        actions = []
        for model in (before, after):
            model.set_random_seed(0)
            actions.append(model.predict(OBSERVATIONS, deterministic=deterministic)[0])
        np.testing.assert_array_equal(*actions)
    assert (folder / TASK / "config.yml").is_file()
    card = (folder / "README.md").read_text()
    assert f"sb3-lql enjoy --algo {algo} --env {TASK} -f agents/mine" in card
    assert "40 environment steps, 20 of them random; 20 updates" in card
    assert "-3.0 ± 0.0 deterministic" in card
    assert "1: -5.0, 2: -3.0" in card
    assert "--seed 2 -n 40" in card


def test_agent_that_was_stripped_can_go_on_learning(tmp_path: Path) -> None:
    model = LQL("MlpPolicy", TASK, learning_starts=5, batch_size=4, buffer_size=50, policy_kwargs=dict(net_arch=[8]))
    model.learn(10)
    strip(model)
    model.save(tmp_path / "agent")
    again = LQL.load(tmp_path / "agent", env=make_vec_env(TASK))
    critic, target = again.critic.state_dict(), again.critic_target.state_dict()
    assert all(np.array_equal(critic[name], target[name]) for name in critic)
    again.learn(10)
    assert not all(np.array_equal(again.critic.state_dict()[name], target[name]) for name in critic)


def test_results_without_a_finished_run_have_no_agent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no finished run"):
        save_agents(tmp_path, tmp_path / "agents")
