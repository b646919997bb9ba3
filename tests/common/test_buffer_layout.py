"""Replay buffers for another number of environments than they were filled from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env

from sb3_lql.common.buffer_layout import REPLAY_BUFFERS, with_n_envs
from sb3_lql.common.buffers import FIELDS, Float32ReplayBuffer, ImprovedDictReplayBuffer, ImprovedReplayBuffer
from sb3_lql.common.device_buffers import DeviceDictReplayBuffer, DeviceReplayBuffer

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)
DICT = spaces.Dict({"vector": BOX, "image": spaces.Box(0, 255, (3, 2, 2), np.uint8)})
ACTIONS = spaces.Box(-1.0, 1.0, (3,), np.float32)
INDEPENDENT: list[type[ReplayBuffer]] = [
    ReplayBuffer,
    Float32ReplayBuffer,
    DeviceReplayBuffer,
    DictReplayBuffer,
    ImprovedReplayBuffer,
    ImprovedDictReplayBuffer,
    DeviceDictReplayBuffer,
]


def numbered(buffer_class: type[ReplayBuffer], n_steps: int, n_envs: int, capacity: int = 12, **kwargs: Any) -> Any:
    """A buffer whose n-th transition has n in all places; every other one is an end, and every third a time limit."""
    is_dict = issubclass(buffer_class, DictReplayBuffer)
    space = DICT if is_dict else BOX
    buffer = buffer_class(capacity, space, ACTIONS, device="cpu", n_envs=n_envs, **kwargs)
    for step in range(n_steps):
        numbers = step * n_envs + np.arange(n_envs)
        vectors, images = np.tile(numbers[:, None], 2), np.tile(numbers[:, None, None, None], (1, 3, 2, 2))
        obs: Any = {"vector": vectors, "image": images} if is_dict else vectors
        infos = [{"TimeLimit.truncated": bool(number % 3 == 0)} for number in numbers]
        buffer.add(obs, obs, np.tile(numbers[:, None], 3), numbers.astype(float), numbers % 2 == 0, infos)
    return buffer


def contents(buffer: Any) -> list[list[float]]:
    """By transition, row by row: all of its numbers."""
    size = buffer.size() * buffer.n_envs
    parts = []
    for name in (name for name in FIELDS if hasattr(buffer, name)):
        field = getattr(buffer, name)
        for array in field.values() if isinstance(field, dict) else [field]:
            parts.append(np.asarray(array)[: buffer.size()].reshape(size, -1))
    rows: list[list[float]] = np.concatenate(parts, axis=1).tolist()
    return rows


@pytest.mark.parametrize("buffer_class", INDEPENDENT)
@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4), (2, 3), (3, 2)])
def test_every_transition_is_still_there_in_order(buffer_class: type[ReplayBuffer], before: int, after: int) -> None:
    n_transitions = 6 if before == 1 else 2 * before
    buffer = numbered(buffer_class, n_transitions // before, before)
    again = with_n_envs(buffer, after)
    assert type(again) is buffer_class
    assert again.n_envs == after
    assert again.buffer_size * after == 12
    old, new = contents(buffer), contents(again)
    assert new[: len(old)] == old
    assert len(new) - len(old) < after  # a last row that is filled up,
    assert new[len(old) :] == old[: len(new) - len(old)]  # with the oldest ones


@pytest.mark.parametrize("buffer_class", [ReplayBuffer, DeviceReplayBuffer])
def test_the_oldest_transitions_of_a_full_buffer_are_the_next_to_be_overwritten(
    buffer_class: type[ReplayBuffer],
) -> None:
    buffer = numbered(buffer_class, n_steps=5, n_envs=4)  # of three steps: the first two are gone
    again = with_n_envs(buffer, 3)
    assert (again.full, again.pos) == (True, 0)
    assert np.asarray(again.rewards).flatten().tolist() == list(range(8, 20))


def test_a_buffer_that_cannot_be_divided_grows() -> None:
    again = with_n_envs(numbered(ReplayBuffer, n_steps=4, n_envs=3), 5)
    assert (again.buffer_size, again.n_envs, again.full) == (3, 5, True)
    assert sorted(set(again.rewards.flatten().tolist())) == list(range(12))


@pytest.mark.parametrize("n_envs", [1, 3])
def test_an_empty_buffer_stays_empty(n_envs: int) -> None:
    again = with_n_envs(numbered(ReplayBuffer, n_steps=0, n_envs=2), n_envs)
    assert (again.size(), again.pos, again.full, again.n_envs) == (0, 0, False, n_envs)


def test_what_fits_and_what_is_not_known_stays_the_same_object() -> None:
    class Mine(ReplayBuffer):
        pass

    fits, mine = numbered(ReplayBuffer, 2, 2), numbered(Mine, 2, 2)
    assert with_n_envs(fits, 2) is fits
    assert Mine not in REPLAY_BUFFERS
    assert with_n_envs(mine, 3) is mine


def test_transitions_that_depend_on_the_next_one_are_not_moved() -> None:
    once = numbered(ReplayBuffer, 2, 2, optimize_memory_usage=True, handle_timeout_termination=False)
    with pytest.raises(ValueError, match="ReplayBuffer with optimize_memory_usage=True was filled from n_envs=2"):
        with_n_envs(once, 3)
    with pytest.raises(ValueError, match="NStepReplayBuffer was filled from n_envs=2"):
        with_n_envs(numbered(NStepReplayBuffer, 2, 2), 3)
    goals = spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), BOX))
    hindsight = HerReplayBuffer(10, goals, ACTIONS, env=make_vec_env("Pendulum-v1"), device="cpu", n_envs=2)
    with pytest.raises(ValueError, match="HerReplayBuffer was filled from n_envs=2"):
        with_n_envs(hindsight, 1)


@pytest.mark.parametrize("after", [1, 3])
def test_a_model_learns_on_from_what_more_or_fewer_environments_gave(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, after: int
) -> None:
    sac = SAC("MlpPolicy", make_vec_env("Pendulum-v1", 4), buffer_size=1_000, device="cpu").learn(60)
    sac.save_replay_buffer(tmp_path / "buffer")
    model = algorithm("MlpPolicy", make_vec_env("Pendulum-v1", after), **tiny)
    model.load_replay_buffer(tmp_path / "buffer")
    model.train(gradient_steps=2, batch_size=8)
    assert model.replay_buffer.n_envs == 4
    model.learn(6)
    assert (model.replay_buffer.n_envs, model.replay_buffer.size()) == (after, (60 + 6) // after)


def test_a_model_says_so_before_it_collects_what_its_buffer_cannot_take(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    several = algorithm("MlpPolicy", make_vec_env("Pendulum-v1", 2), n_steps=3, **tiny).learn(60)
    several.save_replay_buffer(tmp_path / "buffer")
    model = algorithm("MlpPolicy", "Pendulum-v1", n_steps=3, **tiny)
    model.load_replay_buffer(tmp_path / "buffer")
    model.train(gradient_steps=2, batch_size=8)
    with pytest.raises(ValueError, match=r"steps of n_envs=1.*model\.replay_buffer = None"):
        model.learn(6)
    assert model.replay_buffer.size() == 30
    model.replay_buffer = None
    assert model.learn(6).replay_buffer.size() == 6
