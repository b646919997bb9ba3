"""Updates beside the environments' steps: nothing is lost, nothing but the moment changes."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from torch import nn


class WatchedVecEnv(DummyVecEnv):
    """Notes when it is sent actions and asked for results."""

    def __init__(self, env_fns: Any, events: list[str]) -> None:
        super().__init__(env_fns)
        self.events = events

    def step_async(self, actions: np.ndarray) -> None:
        self.events.append("send")
        super().step_async(actions)

    def step_wait(self) -> Any:
        self.events.append("receive")
        return super().step_wait()


def watched(algorithm: Any, events: list[str], monkeypatch: pytest.MonkeyPatch, **kwargs: Any) -> Any:
    model = algorithm("MlpPolicy", WatchedVecEnv([lambda: gym.make("Pendulum-v1")] * 2, events), **kwargs)
    update = model._update

    def noted(*args: Any) -> Any:
        events.append("update")
        return update(*args)

    monkeypatch.setattr(model, "_update", noted)
    return model


@pytest.mark.parametrize(("overlap", "rhythm"), [(True, "send update receive"), (False, "send receive update")])
def test_updates_are_made_between_sending_actions_and_receiving_results_if_asked(
    algorithm: Any, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch, overlap: bool, rhythm: str
) -> None:
    events: list[str] = []
    settings = tiny | dict(learning_starts=4)
    model = watched(algorithm, events, monkeypatch, overlap_updates=overlap, **settings).learn(20)
    # Ten steps of two environments; the updates begin after the third step, and the last one is never left out
    assert events.count("update") == model._n_updates == 8
    assert " ".join(events).count(rhythm) == 8 - overlap
    assert events[-1] == "update"


def test_several_updates_after_several_steps_are_made_in_the_first_step_of_the_next_rollout(
    algorithm: Any, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    settings = tiny | dict(learning_starts=3, train_freq=2, gradient_steps=3)
    model = watched(algorithm, events, monkeypatch, overlap_updates=True, **settings).learn(12)
    step, three = ["send", "receive"], ["update"] * 3
    assert events == 2 * step + ["send", *three, "receive", *step] + ["send", *three, "receive", *step] + three
    assert model._n_updates == 9


def test_actions_are_chosen_before_the_updates_that_run_beside_their_step(algorithm: Any, tiny: dict[str, Any]) -> None:
    """The one difference: an action is one update behind."""
    n_updates_at_action: dict[bool, list[int]] = {True: [], False: []}
    for overlap, seen in n_updates_at_action.items():
        model = algorithm("MlpPolicy", "Pendulum-v1", overlap_updates=overlap, **tiny | dict(learning_starts=5))
        predict = model.predict

        def noted(*args: Any, seen: list[int] = seen, model: Any = model, predict: Any = predict, **kw: Any) -> Any:
            seen.append(model._n_updates)
            return predict(*args, **kw)

        model.predict = noted
        model.learn(10)
    assert n_updates_at_action[False] == [0, 1, 2, 3, 4]
    assert n_updates_at_action[True] == [0, 0, 1, 2, 3]


def test_no_update_is_lost_or_left_behind_when_a_callback_stops(algorithm: Any, tiny: dict[str, Any]) -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps < 20

    model = algorithm("MlpPolicy", "Pendulum-v1", overlap_updates=True, **tiny | dict(learning_starts=5))
    model.learn(50, callback=Stop())
    assert model._n_updates == 14  # those after steps 6 to 19
    model.train(2, 8)  # now, as there is nothing to wait for
    assert model._n_updates == 16


def test_other_processes_work_meanwhile_and_survive_a_failed_update(algorithm: Any, tiny: dict[str, Any]) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1", 2, vec_env_cls=SubprocVecEnv), gamma=0.99)
    model = algorithm("MlpPolicy", env, overlap_updates=True, **tiny | dict(learning_starts=10))
    model.learn(40)
    assert model._n_updates == 15
    before = nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()
    model.replay_buffer.rewards[:] = np.nan
    with pytest.raises(ValueError, match="critic_loss was nan"):
        model.learn(40, reset_num_timesteps=False)
    assert th.equal(nn.utils.parameters_to_vector(model.policy.parameters()), before)
    # The environments still answer, and no stale result is waiting in a pipe
    model.replay_buffer.reset()
    model.learn(40)
    env.close()


def test_a_model_that_overlaps_is_saved_and_loaded(algorithm: Any, tiny: dict[str, Any], tmp_path: Any) -> None:
    model = algorithm("MlpPolicy", "Pendulum-v1", overlap_updates=True, **tiny).learn(60)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=model.get_env())
    assert loaded.overlap_updates
    assert loaded.learn(10, reset_num_timesteps=False)._n_updates == 10


def test_an_update_that_a_callback_asks_for_is_not_lost(algorithm: Any, tiny: dict[str, Any]) -> None:
    class TrainToo(BaseCallback):
        def _on_rollout_end(self) -> None:
            self.model.train(2, 8)  # type: ignore[attr-defined]

        def _on_step(self) -> bool:
            return True

    model = algorithm("MlpPolicy", "Pendulum-v1", overlap_updates=True, **tiny | dict(learning_starts=5))
    model.learn(20, callback=TrainToo())
    assert model._n_updates == 15 + 2 * 20


def test_environments_are_reset_after_an_update_that_failed_beside_them(algorithm: Any, tiny: dict[str, Any]) -> None:
    """Else a stored transition would span the step whose result nobody saw."""
    model = algorithm("MlpPolicy", "Pendulum-v1", overlap_updates=True, **tiny | dict(learning_starts=5)).learn(20)
    model.replay_buffer.rewards[:] = np.nan
    with pytest.raises(ValueError, match="critic_loss"):
        model.learn(20, reset_num_timesteps=False)
    assert model._last_obs is None


def test_hindsight_is_refused_as_it_asks_busy_environments(algorithm: Any, tiny: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="overlap_updates=True does not go with HerReplayBuffer"):
        algorithm(
            "MultiInputPolicy",
            BitFlippingEnv(continuous=True),
            replay_buffer_class=HerReplayBuffer,
            overlap_updates=True,
            **tiny,
        )
