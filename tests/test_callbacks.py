"""Callbacks while LQL and NC-LQL learn."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.test_faults import Counter

#: Episodes of twenty steps
SHORT: dict[str, Any] = dict(env_kwargs=dict(max_episode_steps=20))


def test_eval_callback_evaluates_and_saves_the_best_model(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    callback = EvalCallback(
        make_vec_env("Pendulum-v1", **SHORT),
        eval_freq=30,
        n_eval_episodes=1,
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        deterministic=False,
        verbose=0,
    )
    algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(60, callback=callback)
    evaluations = np.load(tmp_path / "evaluations.npz")
    np.testing.assert_array_equal(evaluations["timesteps"], [30, 60])
    assert callback.best_mean_reward == evaluations["results"].mean(axis=1).max()
    best = algorithm.load(tmp_path / "best_model", device="cpu")
    assert best.predict(best.observation_space.sample())[0].shape == (1,)


def test_training_stops_at_a_reward_threshold(algorithm: Any, tiny: dict[str, Any]) -> None:
    stop = StopTrainingOnRewardThreshold(reward_threshold=-1e9)  # any return of Pendulum is above it
    callback = EvalCallback(
        make_vec_env("Pendulum-v1", **SHORT), callback_on_new_best=stop, eval_freq=20, n_eval_episodes=1
    )
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(100, callback=callback)
    assert model.num_timesteps == 20


def test_checkpoints_hold_the_model_and_its_replay_buffer(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    callback = CheckpointCallback(save_freq=30, save_path=str(tmp_path), save_replay_buffer=True)
    algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(60, callback=callback)
    model = algorithm.load(tmp_path / "rl_model_60_steps", env=make_vec_env("Pendulum-v1"), device="cpu")
    model.load_replay_buffer(tmp_path / "rl_model_replay_buffer_60_steps")
    assert (tmp_path / "rl_model_30_steps.zip").exists()
    assert model.num_timesteps == 60
    assert model._n_updates == 9  # the callback runs before the update of its step
    assert model.replay_buffer.size() == 59
    model.learn(3, reset_num_timesteps=False)


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_checkpoints_of_a_resumed_run_hold_the_users_settings(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, reset_num_timesteps: bool
) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(60)
    callback = CheckpointCallback(save_freq=5, save_path=str(tmp_path))
    model.learn(5, callback=callback, reset_num_timesteps=reset_num_timesteps)
    checkpoint = algorithm.load(next(tmp_path.glob("*.zip")), device="cpu")
    assert checkpoint.learning_starts == model.learning_starts == tiny["learning_starts"]


def test_training_stops_after_the_wanted_episodes(algorithm: Any, tiny: dict[str, Any]) -> None:
    env = make_vec_env("Pendulum-v1", n_envs=2, **SHORT)
    model = algorithm("MlpPolicy", env, **tiny).learn(10_000, callback=StopTrainingOnMaxEpisodes(max_episodes=1))
    assert model.num_timesteps == 40  # an episode in each of the two environments


def test_a_function_is_called_at_every_step_and_can_stop(algorithm: Any, tiny: dict[str, Any]) -> None:
    seen: list[int] = []

    def callback(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(variables["self"].num_timesteps)
        return len(seen) < 7

    algorithm("MlpPolicy", "Pendulum-v1", **tiny).learn(60, callback=callback)
    assert seen == list(range(1, 8))


@pytest.mark.parametrize("stop_after", [52, 60])
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("normalized", [False, True])
def test_learning_on_after_a_callback_stopped_it_continues_the_same_episodes(
    algorithm: Any, tiny: dict[str, Any], normalized: bool, n_envs: int, stop_after: int
) -> None:
    """Environments that allow no early reset; in the middle of an episode of ten steps, and at its end."""

    def make() -> Any:
        return Monitor(TimeLimit(Counter(), 10), allow_early_resets=False)

    env: Any = DummyVecEnv([make] * n_envs)
    noise = NormalActionNoise(np.zeros(1), np.full(1, 0.1))
    model = algorithm("MlpPolicy", VecNormalize(env) if normalized else env, action_noise=noise, **tiny)
    model.learn(1_000, callback=lambda variables, _: variables["self"].num_timesteps < stop_after * n_envs)
    buffer = model.replay_buffer
    assert model.num_timesteps == buffer.size() * n_envs == stop_after * n_envs
    model.learn(20 * n_envs, reset_num_timesteps=False)
    n_steps = stop_after + 20
    steps = np.arange(n_steps)[:, None].repeat(n_envs, axis=1)
    np.testing.assert_array_equal(buffer.observations[:n_steps, :, 0], steps)
    np.testing.assert_array_equal(buffer.next_observations[:n_steps, :, 0], steps + 1)
    np.testing.assert_array_equal(buffer.timeouts[:n_steps], (steps + 1) % 10 == 0)
    assert model._episode_num == n_envs * (n_steps // 10)
    assert len(model.ep_info_buffer) == n_envs * (n_steps // 10)


def test_logs_are_written_every_n_steps(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", **tiny)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(60, callback=LogEveryNTimesteps(n_steps=20), log_interval=None)
    lines = (tmp_path / "progress.csv").read_text().splitlines()
    header = next(line for line in lines if "time/total_timesteps" in line).split(",")
    column = header.index("time/total_timesteps")
    assert [int(line.split(",")[column]) for line in lines if line != ",".join(header)] == [20, 40, 60]
    assert "train/critic_loss" in header


class EachStep(BaseCallback):
    """Logs something at every step."""

    def _on_step(self) -> bool:
        self.logger.record("mine/step", self.num_timesteps)
        return True


def test_what_a_callback_logs_leaves_the_other_means_as_they_are(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    logs = []
    for name, callback in (("without", None), ("with", EachStep())):
        model = algorithm("MlpPolicy", make_vec_env("Pendulum-v1", **SHORT), seed=0, **tiny)
        model.set_logger(configure(str(tmp_path / name), ["csv"]))
        model.learn(100, callback=callback)
        with (tmp_path / name / "progress.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        logs.append({key: float(value) for key, value in last.items() if key.startswith("train/")})
    assert "train/critic_loss" in logs[0]
    assert logs[0] == logs[1]


class EventCounter(BaseCallback):
    """Counts what a callback is told."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []

    def _on_training_start(self) -> None:
        self.events.append("start")

    def _on_rollout_start(self) -> None:
        self.events.append("rollout")

    def _on_step(self) -> bool:
        self.events.append("step")
        return True

    def _on_training_end(self) -> None:
        self.events.append("end")


def test_a_callback_is_told_every_event(algorithm: Any, tiny: dict[str, Any]) -> None:
    each_step, every_five = EventCounter(), EventCounter()
    callbacks = CallbackList([each_step, EveryNTimesteps(n_steps=5, callback=every_five)])
    algorithm("MlpPolicy", "Pendulum-v1", train_freq=2, **tiny).learn(10, callback=callbacks)
    assert each_step.events == ["start", *["rollout", "step", "step"] * 5, "end"]
    assert every_five.events.count("step") == 2
