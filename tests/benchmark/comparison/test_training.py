"""One run of a benchmark in this process: what it records, and how it goes on."""

import random
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rl_zoo3")

import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_lql import NCLQL
from sb3_lql.benchmark.comparison import training
from sb3_lql.benchmark.comparison.evaluation import evaluate
from sb3_lql.benchmark.comparison.records import RUN_FILE
from sb3_lql.benchmark.comparison.spec import Algorithm, Run
from sb3_lql.benchmark.comparison.training import TakenOverError, Training, train
from sb3_lql.benchmark.json_files import read_json
from sb3_lql.saving.checkpoint import find_checkpoint
from sb3_lql.saving.random_states import random_states_kept
from sb3_lql.zoo import hyperparams_file, register
from tests.zoo.conftest import sb3_lql

TASK = "Pendulum-v1"
LEARNING_STARTS = 20
N_TIMESTEPS = 70
TINY = {
    "learning_starts": LEARNING_STARTS,
    "batch_size": 8,
    "buffer_size": 500,
    "policy_kwargs": "dict(net_arch=[8])",
    "env_kwargs": {"max_episode_steps": 15},
}


@pytest.fixture(autouse=True)
def registered() -> None:
    """The RL Zoo knows our algorithms."""
    register()


def tiny_run(algo: str = "nclql", **changes: Any) -> Run:
    """A run of a second."""
    return Run(Algorithm(algo, algo, TINY | changes), TASK, 1, N_TIMESTEPS, n_evaluations=5, n_eval_episodes=2)


def trained(run: Run, folder: Path) -> dict[str, Any]:
    """The record of a run after its training."""
    config = str(hyperparams_file(run.algorithm.algo))
    train(run, folder, config=config, device="cpu", n_threads=1)
    return read_json(folder / RUN_FILE)


def interrupted(monkeypatch: pytest.MonkeyPatch, run: Run, folder: Path, after: int) -> dict[str, Any]:
    """The record of a run that broke during the evaluation that follows ``after`` others."""

    def evaluate_once_too_often(*args: Any) -> Any:
        if len(read_json(folder / RUN_FILE)["evaluations"]) == after:
            raise ConnectionError("gone")
        return evaluate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate", evaluate_once_too_often)
        return trained(run, folder)


def no_space(*args: Any, **kwargs: Any) -> None:
    raise OSError(28, "No space left on device")


# What a run records


@pytest.mark.parametrize("algo", ["nclql", "lql", "sac"])
def test_run_is_evaluated_at_fractions_of_its_updates(tmp_path: Path, algo: str) -> None:
    record = trained(tiny_run(algo), tmp_path)
    assert record["status"] == "finished"
    assert record["error"] is None
    assert [evaluation["fraction"] for evaluation in record["evaluations"]] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert [evaluation["timesteps"] for evaluation in record["evaluations"]] == [20, 30, 40, 50, 60, 70]
    assert [evaluation["updates"] for evaluation in record["evaluations"]] == [0, 10, 20, 30, 40, 50]
    seconds = [evaluation["training_seconds"] for evaluation in record["evaluations"]]
    assert seconds == sorted(seconds)
    for evaluation in record["evaluations"]:
        for mode in ("deterministic", "stochastic"):
            assert evaluation[mode]["lengths"] == [15, 15]
            assert all(-16.3 * 15 <= value <= 0 for value in evaluation[mode]["returns"])  # the bounds of its reward
    assert record["n_timesteps"] == N_TIMESTEPS
    assert record["hyperparams"]["learning_starts"] == LEARNING_STARTS
    assert {"python", "torch", "sb3_lql", "gymnasium"} <= set(record["versions"])
    assert record["hardware"]["threads"] == 1
    assert not (tmp_path / "checkpoints").exists()
    assert not list(tmp_path.glob("*.unfinished"))


def test_training_is_that_of_the_recorded_command(tmp_path: Path) -> None:
    """Evaluations and checkpoints leave no trace in what is learned."""
    record = trained(tiny_run(), tmp_path / "benchmark")
    _, *arguments = shlex.split(record["command"])
    sb3_lql(*arguments, folder=tmp_path)
    zip_file = Path("nclql") / f"{TASK}_1" / f"{TASK}.zip"
    ours = NCLQL.load(tmp_path / "benchmark" / zip_file)
    theirs = NCLQL.load(tmp_path / "logs" / zip_file)
    for name, parameter in theirs.policy.state_dict().items():
        assert th.equal(ours.policy.state_dict()[name], parameter), name


@pytest.mark.parametrize(
    ("changes", "first_steps"),
    [({"n_envs": 3}, 21), ({"train_freq": [1, "episode"]}, 30), ({"train_freq": 7}, 21)],
)
def test_first_evaluation_is_before_the_first_update(tmp_path: Path, changes: dict[str, Any], first_steps: int) -> None:
    """Wherever the random steps end within a rollout."""
    first, *later = trained(tiny_run(**changes), tmp_path)["evaluations"]
    assert (first["timesteps"], first["updates"]) == (first_steps, 0)
    assert later[0]["updates"] > 0
    assert [evaluation["fraction"] for evaluation in later] == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_no_update_is_postponed_at_an_evaluation(tmp_path: Path) -> None:
    record = trained(tiny_run(overlap_updates=True), tmp_path)
    assert [evaluation["updates"] for evaluation in record["evaluations"]] == [0, 10, 20, 30, 40, 50]


def test_error_is_recorded_with_what_was_asked_for(tmp_path: Path) -> None:
    record = trained(tiny_run(gamma=3), tmp_path)
    assert record["status"] == "failed"
    assert "gamma=3" in record["error"]
    assert record["evaluations"] == record["attempts"] == []
    assert (record["task"], record["algo"], record["seed"]) == (TASK, "nclql", 1)
    assert "gamma=3" in (tmp_path / "log.txt").read_text()


def test_run_that_ends_before_it_learns_is_an_error(tmp_path: Path) -> None:
    assert "pass more than learning_starts=70" in trained(tiny_run(learning_starts=N_TIMESTEPS), tmp_path)["error"]


# Going on


def test_run_goes_on_from_its_last_checkpoint_and_has_each_evaluation_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = interrupted(monkeypatch, tiny_run(), tmp_path, after=3)
    assert broken["status"] == "failed"
    assert len(broken["evaluations"]) == 3
    assert find_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "000002_40_steps"
    record = trained(tiny_run(), tmp_path)
    assert record["status"] == "finished"
    assert record["evaluations"][:3] == broken["evaluations"]
    assert [evaluation["updates"] for evaluation in record["evaluations"]] == [0, 10, 20, 30, 40, 50]
    seconds = [evaluation["training_seconds"] for evaluation in record["evaluations"]]
    assert seconds == sorted(seconds)
    assert [attempt["from_timesteps"] for attempt in record["attempts"]] == [0, 40]


def begin(run: Run, folder: Path) -> Training:
    config = str(hyperparams_file(run.algorithm.algo))
    return Training(run, folder, config, "cpu")


def began(training: Training) -> Training:
    """With its attempt on record."""
    training.begin()
    return training


@pytest.mark.parametrize("algo", ["nclql", "sac"])
@pytest.mark.parametrize("steps", [55, 10], ids=["trained", "random steps"])
def test_checkpoint_brings_back_everything(tmp_path: Path, algo: str, steps: int) -> None:
    run = tiny_run(algo, normalize=True)
    first = began(begin(run, tmp_path))
    first.model.learn(steps)
    first.save_checkpoint(1.5)
    draws = [random.random(), np.random.random(), th.rand(3).tolist()]
    env_draws = [generator.random() for generator in first._env.get_attr("np_random")]
    action_draw = first.model.action_space.sample().tolist()
    again = begin(run, tmp_path)
    assert again.model.action_space.sample().tolist() == action_draw
    assert [random.random(), np.random.random(), th.rand(3).tolist()] == draws
    assert [generator.random() for generator in again._env.get_attr("np_random")] == env_draws
    assert again.record["training_seconds"] == 1.5

    old: Any
    new: Any
    old, new = first.model, again.model
    assert (new.num_timesteps, new._n_updates, new._episode_num) == (steps, old._n_updates, old._episode_num)
    for name, parameter in old.policy.state_dict().items():
        assert th.equal(new.policy.state_dict()[name], parameter), name
    states = [
        list((model.policy if algo == "nclql" else model.policy.critic).optimizer.state_dict()["state"].values())
        for model in (old, new)
    ]
    assert bool(states[0]) == (steps > LEARNING_STARTS)
    for state, restored in zip(*states, strict=True):
        assert all(th.equal(th.as_tensor(state[name]), th.as_tensor(restored[name])) for name in state)
    assert new.replay_buffer.pos == old.replay_buffer.pos
    # Where the episodes that were being played end
    assert new.replay_buffer.timeouts[steps - 1].all()
    for name in ("observations", "next_observations", "actions", "rewards", "dones"):
        filled = slice(0, old.replay_buffer.pos)
        np.testing.assert_array_equal(
            getattr(new.replay_buffer, name)[filled], getattr(old.replay_buffer, name)[filled], name
        )
    before, after = (model.get_vec_normalize_env().obs_rms for model in (old, new))
    np.testing.assert_array_equal(after.mean, before.mean)
    assert after.count == before.count


def test_finished_run_is_left_alone(tmp_path: Path) -> None:
    """Its worker may die between the end and the message that it is the end."""
    record = trained(tiny_run(), tmp_path)
    (tmp_path / "checkpoints" / "70").mkdir(parents=True)
    assert trained(tiny_run(), tmp_path) == record
    assert not (tmp_path / "checkpoints").exists()


def test_run_is_not_gone_on_with_under_other_hyperparameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = interrupted(monkeypatch, tiny_run(), tmp_path, after=3)
    record = trained(tiny_run(gamma=0.5), tmp_path)
    assert record["status"] == "failed"
    assert "restore them, or pass another --results" in record["error"]
    assert record["evaluations"] == broken["evaluations"]
    assert trained(tiny_run(), tmp_path)["status"] == "finished"


def test_process_that_was_believed_dead_writes_no_more(tmp_path: Path) -> None:
    run = tiny_run()
    first = began(begin(run, tmp_path))
    first.model.learn(30)
    for fraction in (0.0, 0.2):
        first.evaluate(fraction, 1.0)
    first.save_checkpoint(1.0)
    second = began(begin(run, tmp_path))
    first.model.learn(10, reset_num_timesteps=False)
    with pytest.raises(TakenOverError, match="has taken this run over"):
        first.save_checkpoint(2.0)
    with pytest.raises(TakenOverError, match="has taken this run over"):
        first.write("finished")
    assert find_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "000001_30_steps"
    second.run()
    record = read_json(tmp_path / RUN_FILE)
    assert record["status"] == "finished"
    assert len(record["attempts"]) == 2


def test_damaged_record_is_an_error(tmp_path: Path) -> None:
    assert read_json(tmp_path / "missing.json") == {}
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(ValueError, match=r"half\.json is damaged"):
        read_json(tmp_path / "half.json")


# Evaluation


def test_evaluation_leaves_no_trace_and_is_repeatable() -> None:
    env: Any = VecNormalize(make_vec_env("Pendulum-v1", n_envs=1, seed=0))
    model = NCLQL("MlpPolicy", env, learning_starts=5, batch_size=4, buffer_size=50, policy_kwargs=dict(net_arch=[4]))
    model.learn(20)
    eval_env: Any = VecNormalize(make_vec_env("Pendulum-v1", n_envs=3), training=False, norm_reward=False)
    with random_states_kept():
        expected = [random.random(), np.random.random(), float(th.rand(()))]
    first = evaluate(model, eval_env, seed=5)
    assert [random.random(), np.random.random(), float(th.rand(()))] == expected
    assert evaluate(model, eval_env, seed=5) == first
    assert evaluate(model, eval_env, seed=6) != first
    assert env.obs_rms.count == eval_env.obs_rms.count
    assert len(first["stochastic"]["returns"]) == 3
    assert first["stochastic"]["returns"] != first["deterministic"]["returns"]
