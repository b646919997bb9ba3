"""Checkpoints: what they hold, and what a kill or a full disk leaves."""

import hashlib
import json
import pickle
import random
import signal
import subprocess
import sys
import time
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, VecTransposeImage

from sb3_lql import LQL, NCLQL
from sb3_lql.common.buffer_files import read_buffer
from sb3_lql.common.device_buffers import DeviceReplayBuffer
from sb3_lql.common.files import UNFINISHED
from sb3_lql.saving.callbacks import SaveCheckpointCallback
from sb3_lql.saving.checkpoint import (
    CHUNK_BYTES,
    _checksum_of_file,
    checkpoints,
    find_checkpoint,
    read_manifest,
    restore,
)


def make_env(n_envs: int = 2, normalized: bool = False, **kwargs: Any) -> Any:
    env = make_vec_env("Pendulum-v1", n_envs, seed=1, env_kwargs=dict(max_episode_steps=20), **kwargs)
    return VecNormalize(env) if normalized else env


def parameters(model: Any) -> list[th.Tensor]:
    """Weights of critics and targets, and the optimiser's state."""
    state = model.policy.optimizer.state_dict()["state"]
    moments = [th.as_tensor(value) for entry in state.values() for _, value in sorted(entry.items())]
    return [*(value.clone() for value in model.policy.state_dict().values()), *moments]


@pytest.mark.parametrize("settings", [dict(normalized=True), dict(n_steps=3), dict(on_device=True)], ids=str)
def test_updates_go_on_bit_for_bit(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    """N updates, a break and N more are 2N updates."""
    settings = dict(settings)
    normalized = settings.pop("normalized", False)
    if settings.pop("on_device", False):
        settings = dict(replay_buffer_class=DeviceReplayBuffer)
    model = algorithm("MlpPolicy", make_env(normalized=normalized), seed=3, **tiny, **settings).learn(100)
    model.train(10)
    model.save_checkpoint(tmp_path)
    model.train(10)
    again = algorithm.load_checkpoint(tmp_path, make_env(normalized=normalized), device="cpu")
    again.train(10)
    check_same(again, model)


#: Goes on with a checkpoint, makes ten updates and saves another.
GO_ON = """
import sys
import sb3_lql
from tests.saving.test_checkpoint import make_env
algorithm, folder = sys.argv[1:]
model = getattr(sb3_lql, algorithm).load_checkpoint(folder, make_env(), device="cpu")
model.train(10)
model.save_checkpoint(folder)
"""


@pytest.mark.slow
def test_updates_go_on_bit_for_bit_in_another_process(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    model = algorithm("MlpPolicy", make_env(), seed=3, **tiny).learn(100)
    model.save_checkpoint(tmp_path)
    model.train(10)
    subprocess.run([sys.executable, "-c", GO_ON, algorithm.__name__, str(tmp_path)], check=True)
    check_same(algorithm.load_checkpoint(tmp_path, make_env(), device="cpu"), model)


def check_same(one: Any, other: Any) -> None:
    assert one._n_updates == other._n_updates
    pairs = list(zip(parameters(one), parameters(other), strict=True))
    assert len(pairs) > 20
    assert all(th.equal(*pair) for pair in pairs)


def test_checkpoint_holds_all_random_states(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    def draws(model: Any) -> list[Any]:
        observations = np.zeros((5, 3), np.float32)
        return [
            random.random(),
            np.random.random(),
            model.predict(observations)[0].tolist(),
            model.action_space.sample().tolist(),
            model.env.reset().tolist(),
        ]

    model = algorithm("MlpPolicy", make_env(), seed=3, **tiny).learn(60)
    model.save_checkpoint(tmp_path)
    expected = draws(model)
    again = algorithm.load_checkpoint(tmp_path, make_env(), device="cpu")
    assert draws(again) == expected


def test_training_goes_on_without_warm_up_and_at_its_place_in_the_schedule(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    def schedule(remaining: float) -> float:
        return 1e-3 * remaining

    model = algorithm("MlpPolicy", make_env(), schedule, **tiny)

    def stop(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        return bool(variables["self"].num_timesteps < 120)

    model.learn(200, callback=stop)
    model.save_checkpoint(tmp_path)
    again = algorithm.load_checkpoint(tmp_path, make_env(), device="cpu")
    assert (again.num_timesteps, again._n_updates) == (120, model._n_updates)
    rates: list[float] = []

    def note(variables: dict[str, Any], _: dict[str, Any]) -> bool:
        rates.append(again.policy.optimizer.param_groups[0]["lr"])
        return True

    again.learn(80, callback=note, reset_num_timesteps=False)
    assert again.num_timesteps == 200
    assert again._n_updates == model._n_updates + 40
    # The rate of the step before: the second call sees that of 122 of 200 steps
    np.testing.assert_allclose(rates[1], 1e-3 * (1 - 122 / 200))


def test_interrupted_overlapping_updates_are_made_before_saving(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    callback = SaveCheckpointCallback(20, tmp_path, keep=None)
    algorithm("MlpPolicy", make_env(), overlap_updates=True, **tiny).learn(100, callback=callback)
    found = checkpoints(tmp_path)
    assert [path.name for path in found] == [f"{n:06d}_{20 * n}_steps" for n in range(1, 6)]
    manifests = [json.loads((path / "checkpoint.json").read_text()) for path in found]
    # Two environments: an update every two steps, from the 52nd step on
    assert [manifest["n_updates"] for manifest in manifests] == [0, 0, 5, 15, 25]


def test_normalisation_is_restored(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    """What was learned; and the settings, but for environments whose user has chosen some."""
    env = make_env(normalized=True)
    settings = dict(clip_obs=7.0, clip_reward=3.0, gamma=0.9, epsilon=1e-3, norm_reward=False, training=True)
    vars(env).update(settings)
    model = algorithm("MlpPolicy", env, **tiny).learn(100)
    model.save_checkpoint(tmp_path)
    wrapped = make_env(normalized=True)
    own = dict(clip_obs=8.0, clip_reward=4.0, gamma=0.8, epsilon=1e-4, norm_reward=True, training=False)
    vars(wrapped).update(own)
    for given, expected in ((make_env(), settings), (wrapped, own)):
        again = algorithm.load_checkpoint(tmp_path, given, device="cpu").get_vec_normalize_env()
        np.testing.assert_array_equal(again.obs_rms.mean, env.obs_rms.mean)
        np.testing.assert_array_equal(again.obs_rms.var, env.obs_rms.var)
        np.testing.assert_array_equal(again.ret_rms.var, env.ret_rms.var)
        assert again.obs_rms.count == env.obs_rms.count
        assert {name: getattr(again, name) for name in expected} == expected
    assert algorithm.load_checkpoint(tmp_path, wrapped, device="cpu").env is wrapped


@pytest.mark.parametrize("settings", [dict(norm_obs=False), dict(norm_obs=True, norm_reward=False)], ids=str)
def test_part_of_what_vec_normalize_does_is_restored(
    tiny: dict[str, Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    env = VecNormalize(make_env(), **settings)
    LQL("MlpPolicy", env, **tiny).learn(60).save_checkpoint(tmp_path)
    for given in (make_env(), VecNormalize(make_env(), **settings)):
        again: Any = LQL.load_checkpoint(tmp_path, given, device="cpu").get_vec_normalize_env()
        assert {name: getattr(again, name) for name in settings} == settings
        assert again.ret_rms.var == env.ret_rms.var
        assert ("obs_rms" in vars(again)) == settings["norm_obs"]


class OwnNormalize(VecNormalize):
    """Of a user."""


def test_vec_normalize_of_the_users_own_is_asked_for(tiny: dict[str, Any], tmp_path: Path) -> None:
    LQL("MlpPolicy", OwnNormalize(make_env()), **tiny).learn(10).save_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="made with OwnNormalize: pass environments wrapped in one"):
        LQL.load_checkpoint(tmp_path, make_env(), device="cpu")
    again = LQL.load_checkpoint(tmp_path, OwnNormalize(make_env()), device="cpu")
    assert type(again.get_vec_normalize_env()) is OwnNormalize


def test_hindsight_goes_on(algorithm: Any, tiny: dict[str, Any], tmp_path: Path) -> None:
    env = BitFlippingEnv(n_bits=3, continuous=True, max_steps=4)
    model = algorithm("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, seed=0, **tiny).learn(70)
    model.save_checkpoint(tmp_path)
    again = algorithm.load_checkpoint(tmp_path, BitFlippingEnv(n_bits=3, continuous=True, max_steps=4), device="cpu")
    assert again.replay_buffer.pos == 70
    start = int(again.replay_buffer._current_ep_start[0])
    assert start < 70  # an episode was being played
    again.learn(10, reset_num_timesteps=False)
    # It ended at the seam, and the next one began there
    assert (again.replay_buffer.ep_length[start:70, 0] == 70 - start).all()
    assert again.replay_buffer.ep_start[70, 0] == 70


def test_what_does_not_fit_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    model = LQL("MlpPolicy", make_env(), **tiny).learn(10)
    checkpoint = model.save_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        LQL.load_checkpoint(tmp_path / "elsewhere", make_env())
    with pytest.raises(ValueError, match="made with algorithm='LQL', not 'NCLQL': load it with the same"):
        NCLQL.load_checkpoint(tmp_path, make_env())
    with pytest.raises(ValueError, match="made with n_envs=2, not 3: load it with the same"):
        LQL.load_checkpoint(tmp_path, make_env(3))
    with pytest.raises(ValueError, match="made without VecNormalize"):
        LQL.load_checkpoint(tmp_path, make_env(normalized=True))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        LQL.load_checkpoint(tmp_path, make_vec_env("MountainCarContinuous-v0", 2))
    with pytest.raises(ValueError, match="This model has no env"):
        LQL.load(checkpoint / "model.zip").save_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "missing", "empty"])
def test_damaged_checkpoint_is_refused_whatever_part_it_is(tiny: dict[str, Any], tmp_path: Path, damage: str) -> None:
    checkpoint: Any = LQL("MlpPolicy", make_env(normalized=True), **tiny).learn(10).save_checkpoint(tmp_path)
    parts = list(checkpoint.iterdir())
    assert len(parts) == 6
    for part in parts:
        content = part.read_bytes()
        part.write_bytes(content[:-5] if damage == "cut short" else b"")
        if damage == "missing":
            part.unlink()
        with pytest.raises(ValueError, match=r"is damaged: .*; take an older checkpoint|holds no checkpoint"):
            LQL.load_checkpoint(checkpoint, make_env())
        part.write_bytes(content)
    (checkpoint / "checkpoint.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is damaged: .* does not name"):
        LQL.load_checkpoint(checkpoint, make_env())


def flip(part: Path, bit: int) -> bytes:
    """Flip a bit of a file, and return what it held before."""
    before = part.read_bytes()
    damaged = bytearray(before)
    damaged[bit // 8] ^= 1 << bit % 8
    part.write_bytes(damaged)
    return before


def test_one_flipped_bit_is_noticed_before_anything_is_unpickled(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint: Any = LQL("MlpPolicy", make_env(normalized=True), **tiny).learn(10).save_checkpoint(tmp_path)
    env = make_env(normalized=True)

    def unpickle(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.loads", unpickle)
    monkeypatch.setattr("sb3_lql.LQL.load", unpickle)
    rng = random.Random(0)
    parts = list(checkpoint.iterdir())
    assert len(parts) == 6
    for part in parts:
        for _ in range(10):
            content = flip(part, rng.randrange(8 * part.stat().st_size))
            with pytest.raises(ValueError, match=r"is damaged: .*; take an older checkpoint \(there is no") as error:
                LQL.load_checkpoint(tmp_path, env)
            # Where the manifest is no JSON any more, the parser says so
            assert part.name in str(error.value) or part.name == "checkpoint.json"
            part.write_bytes(content)
    with pytest.raises(AssertionError, match="unpickled"):  # undamaged
        LQL.load_checkpoint(tmp_path, env)


def test_every_byte_of_the_manifest_counts(tiny: dict[str, Any], tmp_path: Path) -> None:
    checkpoint: Any = LQL("MlpPolicy", make_env(), **tiny).learn(10).save_checkpoint(tmp_path)
    manifest = checkpoint / "checkpoint.json"
    before = read_manifest(checkpoint)
    for byte in range(manifest.stat().st_size - 1):  # but for the last line's end
        content = flip(manifest, 8 * byte + byte % 8)
        with pytest.raises(ValueError, match="is damaged"):
            read_manifest(checkpoint)
        manifest.write_bytes(content)
    assert read_manifest(checkpoint) == before


def test_error_names_the_newest_older_checkpoint_that_is_whole(tiny: dict[str, Any], tmp_path: Path) -> None:
    model: Any = LQL("MlpPolicy", make_env(), **tiny).learn(10)
    first, second, third, fourth = [model.save_checkpoint(tmp_path) for _ in range(4)]
    for checkpoint in (third, second):
        flip(checkpoint / "replay_buffer.arrays", 9)
    message = f"{third} is damaged: replay_buffer.arrays .* take an older checkpoint: {first}."
    with pytest.raises(ValueError, match=message):
        LQL.load_checkpoint(third, make_env())
    (tmp_path / "best").symlink_to(third.name)
    with pytest.raises(ValueError, match=f"take an older checkpoint: {first}."):
        LQL.load_checkpoint(tmp_path / "best", make_env())
    assert LQL.load_checkpoint(tmp_path, make_env(), device="cpu").num_timesteps == 10
    flip(fourth / "model.zip", 999)
    with pytest.raises(ValueError, match=f"{fourth} is damaged: model.zip .* take an older checkpoint: {first}."):
        LQL.load_checkpoint(tmp_path, make_env())


def test_checkpoint_from_before_there_were_checksums_is_loaded(
    algorithm: Any, tiny: dict[str, Any], tmp_path: Path
) -> None:
    model = algorithm("MlpPolicy", make_env(), seed=3, **tiny).learn(100)
    checkpoint = model.save_checkpoint(tmp_path)
    manifest = json.loads((checkpoint / "checkpoint.json").read_text())
    del manifest["sha256"]
    manifest["bytes"] = {name: part["bytes"] for name, part in manifest.pop("parts").items()}
    (checkpoint / "checkpoint.json").write_text(json.dumps(manifest, indent=1) + "\n")
    check_same(algorithm.load_checkpoint(tmp_path, make_env(), device="cpu"), model)
    (checkpoint / "random_states.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"random_states.pkl does not have \d+ bytes"):
        algorithm.load_checkpoint(tmp_path, make_env(), device="cpu")


def test_checksums_take_no_memory_for_the_file(tmp_path: Path) -> None:
    path = tmp_path / "part"
    with path.open("wb") as file:
        file.truncate(50 * CHUNK_BYTES)
    tracemalloc.start()
    try:
        checksum = _checksum_of_file(path)
        assert tracemalloc.get_traced_memory()[1] < 5 * CHUNK_BYTES
    finally:
        tracemalloc.stop()
    assert checksum == hashlib.sha256(bytes(50 * CHUNK_BYTES)).hexdigest()


@pytest.mark.parametrize("exists", [True, False], ids=["to a folder", "to nothing yet"])
def test_folder_for_checkpoints_may_be_a_link(tiny: dict[str, Any], tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "disk").mkdir()
    link = tmp_path / "checkpoints"
    link.symlink_to("disk")
    model: Any = LQL("MlpPolicy", make_env(), **tiny).learn(10)
    model.save_checkpoint(link, keep=1)
    newest = model.save_checkpoint(link, keep=1)
    assert link.is_symlink()
    assert (newest.parent, list(link.iterdir())) == (link, [newest])
    assert LQL.load_checkpoint(link, make_env(), device="cpu").num_timesteps == 10


ONCE = dict(handle_timeout_termination=False)


@pytest.mark.parametrize(
    ("made_with", "changed", "message"),
    [
        ({}, dict(buffer_size=5_000), "buffer_size=2000, not 5000"),
        ({}, dict(n_steps=3), "n_steps=1, not 3"),
        (dict(n_steps=3), dict(n_steps=1), "n_steps=3, not 1"),
        (dict(n_steps=3), dict(gamma=0.5), "gamma=0.99, not 0.5"),
        ({}, dict(replay_buffer_class=DeviceReplayBuffer), "replay_buffer_class='Float32ReplayBuffer', not 'DeviceRep"),
        ({}, dict(replay_buffer_kwargs=ONCE), "replay_buffer_kwargs={}, not {'handle_timeout_termination': False}"),
        (
            dict(replay_buffer_kwargs=ONCE),
            dict(optimize_memory_usage=True),
            "optimize_memory_usage=False, not True",
        ),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored")
def test_what_the_replay_buffer_was_made_with_cannot_be_changed(
    algorithm: Any,
    tiny: dict[str, Any],
    tmp_path: Path,
    made_with: dict[str, Any],
    changed: dict[str, Any],
    message: str,
) -> None:
    algorithm("MlpPolicy", make_env(), **tiny, **made_with).learn(10).save_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=f"was made with {message}.*: load it with the same"):
        algorithm.load_checkpoint(tmp_path, make_env(), device="cpu", **changed)
    again = algorithm.load_checkpoint(tmp_path, make_env(), device="cpu", learning_rate=0.5, tau=0.5)
    assert (again.learning_rate, again.tau) == (0.5, 0.5)


def test_discount_may_be_changed_where_the_replay_buffer_has_none(tiny: dict[str, Any], tmp_path: Path) -> None:
    LQL("MlpPolicy", make_env(), **tiny).learn(10).save_checkpoint(tmp_path)
    assert LQL.load_checkpoint(tmp_path, make_env(), device="cpu", gamma=0.5).gamma == 0.5


def test_checkpoint_with_a_replay_buffer_from_elsewhere_can_be_loaded(tiny: dict[str, Any], tmp_path: Path) -> None:
    """``load_replay_buffer``, like SB3's, takes one of another size."""
    other = LQL("MlpPolicy", make_env(), **tiny | dict(buffer_size=200)).learn(60)
    other.save_replay_buffer(tmp_path / "buffer")
    model = LQL("MlpPolicy", make_env(), **tiny)
    model.load_replay_buffer(tmp_path / "buffer")
    model.save_checkpoint(tmp_path)
    again = LQL.load_checkpoint(tmp_path, make_env(), device="cpu").replay_buffer
    assert again is not None
    assert (again.buffer_size, again.pos) == (100, 30)


def test_two_replay_buffers_are_never_held_at_once(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = LQL("MlpPolicy", make_env(), replay_buffer_class=DeviceReplayBuffer, **tiny).learn(10)
    path = trained.save_checkpoint(tmp_path)
    model = LQL.load(path / "model.zip", make_env(), device="cpu")
    own = weakref.ref(model.replay_buffer)
    held: list[Any] = []

    def read(folder: Path) -> Any:
        held.append(own())
        return read_buffer(folder)

    monkeypatch.setattr("sb3_lql.saving.checkpoint.read_buffer", read)
    restore(model, path)
    assert held == [None]
    assert model.replay_buffer is not None
    assert model.replay_buffer.pos == 5


class Camera(gym.Env[Any, Any]):
    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (36, 36, 3), np.uint8), "speed": spaces.Box(-1, 1, (3,))}
    )
    action_space = spaces.Box(-1.0, 1.0, (1,))

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


@pytest.mark.parametrize(
    ("transposed", "keys"), [(True, ["speed"]), (True, ["image", "speed"]), (False, ["image", "speed"])]
)
def test_bare_environments_with_images_are_wrapped(
    tiny: dict[str, Any], tmp_path: Path, transposed: bool, keys: list[str]
) -> None:
    def bare() -> VecEnv:
        return DummyVecEnv([Camera])

    venv = VecTransposeImage(bare()) if transposed else bare()
    model = LQL("MultiInputPolicy", VecNormalize(venv, norm_obs_keys=keys), **tiny).learn(10)
    model.save_checkpoint(tmp_path)
    again = LQL.load_checkpoint(tmp_path, bare(), device="cpu")
    before, after = model.get_vec_normalize_env(), again.get_vec_normalize_env()
    assert before is not None
    assert after is not None
    assert type(after.venv) is type(before.venv)
    np.testing.assert_array_equal(after.obs_rms["speed"].mean, before.obs_rms["speed"].mean)
    assert again.learn(3, reset_num_timesteps=False).num_timesteps == 13


class Spaces(gym.Env[Any, Any]):
    """:param observations: their space; :param actions: theirs"""

    def __init__(self, observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observations, actions

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


OBSERVATIONS, ACTIONS = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32)
OTHER_SPACES: dict[str, tuple[spaces.Space[Any], spaces.Space[Any]]] = {
    "bounds": (spaces.Box(-2.0, 2.0, (3,), np.float32), ACTIONS),
    "one bound": (spaces.Box(np.array([-1, -1, -2]), np.array([1, 1, 1]), dtype=np.float32), ACTIONS),
    "dtype": (spaces.Box(-1.0, 1.0, (3,), np.float64), ACTIONS),
    "shape": (spaces.Box(-1.0, 1.0, (4,), np.float32), ACTIONS),
    "type": (spaces.MultiBinary(3), ACTIONS),
    "dict": (spaces.Dict(obs=OBSERVATIONS), ACTIONS),
    "action bounds": (OBSERVATIONS, spaces.Box(-2.0, 2.0, (1,), np.float32)),
    "action shape": (OBSERVATIONS, spaces.Box(-1.0, 1.0, (2,), np.float32)),
    "action dtype": (OBSERVATIONS, spaces.Box(-1.0, 1.0, (1,), np.float64)),
}


@pytest.mark.parametrize("safe", [False, True], ids=["checkpoint", "safe file"])
@pytest.mark.parametrize("other", OTHER_SPACES.values(), ids=OTHER_SPACES.keys())
def test_normalised_training_does_not_go_on_in_environments_of_other_spaces(
    tiny: dict[str, Any], tmp_path: Path, other: tuple[Any, Any], safe: bool
) -> None:
    """Whether these are in no ``VecNormalize``, in one of their own, or in the one that was saved with the others."""
    env = VecNormalize(DummyVecEnv([lambda: Spaces(OBSERVATIONS, ACTIONS)]))
    model = LQL("MlpPolicy", env, **tiny).learn(10)
    env.save(str(tmp_path / "statistics"))
    model.save_safe(tmp_path / "model")
    model.save_checkpoint(tmp_path / "checkpoints")

    def load(env: VecEnv) -> Any:
        if safe:
            return LQL.load_safe(tmp_path / "model", env, device="cpu")
        return LQL.load_checkpoint(tmp_path / "checkpoints", env, device="cpu")

    def bare() -> VecEnv:
        return DummyVecEnv([lambda: Spaces(*other)])

    given: list[VecEnv] = [bare()]
    if isinstance(other[0], spaces.Box):
        own: Any = VecNormalize(bare())
        own.obs_rms.mean = own.obs_rms.mean + 5.0
        given.append(own)
    if other[0].shape == (3,):
        given.append(VecNormalize.load(str(tmp_path / "statistics"), bare()))
    for each in given:
        before = pickle.dumps(vars(each).get("obs_rms"))
        with pytest.raises(ValueError, match="spaces do not match"):
            load(each)
        assert pickle.dumps(vars(each).get("obs_rms")) == before  # nor was it given anything
    assert load(DummyVecEnv([lambda: Spaces(OBSERVATIONS, ACTIONS)])).get_vec_normalize_env() is not None


@pytest.mark.parametrize(("save_freq", "error"), [(0, ValueError), (1.5, TypeError)])
def test_callback_checks_its_arguments(tmp_path: Path, save_freq: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="save_freq"):
        SaveCheckpointCallback(save_freq, tmp_path)


def test_callback_keeps_the_newest(algorithm: Any, tiny: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    model = algorithm("MlpPolicy", make_env(), **tiny)
    model.learn(45, callback=SaveCheckpointCallback(10, tmp_path, keep=2, verbose=1))
    assert [path.name for path in checkpoints(tmp_path)] == ["000004_40_steps", "000005_46_steps"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000004_40_steps", "000005_46_steps"]
    assert "Saved" in capsys.readouterr().out
    # A second training counts its steps from zero: what is newest is not what has most steps
    model.learn(10, callback=SaveCheckpointCallback(10, tmp_path, keep=2))
    found = find_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "000006_10_steps"
    assert algorithm.load_checkpoint(tmp_path, make_env(), device="cpu").num_timesteps == 10


@pytest.mark.parametrize(("keep", "error"), [(0, ValueError), (-5, ValueError), (1.5, TypeError), ("x", TypeError)])
def test_a_number_to_keep_is_refused_before_anything_is_written_or_deleted(
    tiny: dict[str, Any], tmp_path: Path, keep: Any, error: type[Exception]
) -> None:
    model: Any = LQL("MlpPolicy", make_env(), **tiny).learn(10)
    first = model.save_checkpoint(tmp_path)
    with pytest.raises(error, match=f"keep={keep!r}"):
        model.save_checkpoint(tmp_path, keep=keep)
    assert find_checkpoint(tmp_path) == first


# Kills and full disks


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("broken", ["save", "write_buffer", "training_states", "fsync", "rename"])
def test_full_disk_leaves_the_last_checkpoint(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    model: Any = LQL("MlpPolicy", make_env(), **tiny).learn(60)
    first = model.save_checkpoint(tmp_path, keep=1)
    content = {path.name: path.read_bytes() for path in first.iterdir()}
    model.learn(10, reset_num_timesteps=False)
    with monkeypatch.context() as patch:
        where: Any = {
            "save": "sb3_lql.saving.mixin.SavingMixin.save",
            "write_buffer": "sb3_lql.saving.checkpoint.write_buffer",
            "training_states": "sb3_lql.saving.checkpoint.training_states",
            "fsync": "os.fsync",
            "rename": "pathlib.Path.rename",
        }[broken]
        patch.setattr(where, no_space)
        with pytest.raises(OSError, match="No space"):
            model.save_checkpoint(tmp_path, keep=1)
    assert list(tmp_path.iterdir()) == [first]
    assert {path.name: path.read_bytes() for path in first.iterdir()} == content
    second = model.save_checkpoint(tmp_path, keep=1)
    assert list(tmp_path.iterdir()) == [second]


def test_cleaning_up_cannot_spoil_a_checkpoint_that_is_whole(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LQL("MlpPolicy", make_env(), **tiny).learn(10)
    model.save_checkpoint(tmp_path)
    stranger = tmp_path / f"final.zip{UNFINISHED}elsewhere-1"  # of a model.save that was killed
    stranger.write_text("half of it")
    with monkeypatch.context() as patch:
        patch.setattr("os.rmdir", no_space)
        second = model.save_checkpoint(tmp_path, keep=1)
        assert checkpoints(tmp_path) == [second]
        patch.setattr(
            "pathlib.Path.rename", lambda path, target: path.replace(target) if UNFINISHED in path.name else no_space()
        )
        third = model.save_checkpoint(tmp_path, keep=1)
        assert checkpoints(tmp_path) == [second, third]
    fourth = model.save_checkpoint(tmp_path, keep=1)
    assert sorted(tmp_path.iterdir()) == [fourth, stranger]


#: Trains and saves as often as it can, until it is killed.
TRAIN = """
import sys
from sb3_lql import LQL
from sb3_lql.saving.callbacks import SaveCheckpointCallback
from tests.saving.test_checkpoint import make_env
folder = sys.argv[1]
kwargs = dict(learning_starts=10, buffer_size=2000, policy_kwargs=dict(net_arch=[8]), device="cpu", compile=False)
model = LQL("MlpPolicy", make_env(), **kwargs)
model.learn(10**6, callback=SaveCheckpointCallback(2, folder, keep=2, verbose=1))
"""


@pytest.mark.slow
def test_killed_process_leaves_whole_checkpoints(tmp_path: Path) -> None:
    rng = random.Random(0)
    last = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-u", "-c", TRAIN, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline().startswith(b"Saved")
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        model = LQL.load_checkpoint(tmp_path, make_env(), device="cpu")
        assert model.replay_buffer is not None
        assert model.replay_buffer.pos * 2 == model.num_timesteps
        found = find_checkpoint(tmp_path)
        assert found is not None
        number = int(found.name.partition("_")[0])
        assert number >= last + 3
        last = number
    model.save_checkpoint(tmp_path, keep=1)
    assert len(list(tmp_path.iterdir())) == 1  # what was not finished is gone too
