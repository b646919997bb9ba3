"""Files that are damaged or forged are refused with an error that names them, and nothing in them is run."""

import builtins
import importlib
import itertools
import math
import os
import pickle
import random
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_lql import LQL, NCLQL
from sb3_lql.saving.safe import load_safe, save_safe
from tests.saving import mutations

#: Most seconds that a refusal may take, on a slow machine that is busy.
PATIENCE = 5.0
#: Most bytes of Python and NumPy to refuse a file of some 100 kB.
LITTLE = 100e6


@pytest.fixture(scope="module")
def model() -> Any:
    """Small, and with something of everything that a file can hold."""
    settings: dict[str, Any] = dict(
        learning_rate=LinearSchedule(1e-3, 1e-4, 0.5),
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        policy_kwargs=dict(
            net_arch=[4, 4],
            n_critics=2,
            activation_fn=nn.Mish,
            normalize_images=True,
            optimizer_kwargs=dict(eps=1e-6, betas=(0.8, 0.9), amsgrad=False),
        ),
        replay_buffer_kwargs=dict(handle_timeout_termination=False),
        train_freq=(2, "step"),
        n_noise_levels=2,
        sigma_max=0.5,
    )
    sizes: dict[str, Any] = dict(learning_starts=4, buffer_size=20, batch_size=4, seed=0, device="cpu")
    return NCLQL("MlpPolicy", VecNormalize(make_vec_env("Pendulum-v1")), **settings, **sizes).learn(8)


@pytest.fixture(scope="module")
def honest(model: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of it, which can be loaded."""
    path = tmp_path_factory.mktemp("honest") / "model.safetensors"
    save_safe(model, path)
    load_safe(NCLQL, path, device="cpu")  # which imports whatever PyTorch puts off
    return path.read_bytes()


class Guard:
    """
    Loads files, and watches meanwhile what Python does: the interpreter itself reports it, so that there is no way
    around. The functions that run code are replaced, besides, by ones that only report.
    """

    FORBIDDEN = (
        *("import", "exec", "compile", "marshal.", "pickle.", "os.", "shutil.", "subprocess.", "socket.", "ctypes."),
        *("code.", "urllib.", "glob.", "tempfile.", "cpython.run"),
    )
    FUNCTIONS: tuple[tuple[Any, str], ...] = (
        *((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (th, "load"), (importlib, "import_module")),
        *((builtins, "eval"), (builtins, "exec"), (os, "system"), (subprocess, "Popen"), (zipfile, "ZipFile")),
    )
    #: Where the machine says how much memory it has.
    ALLOWED_PLACES = ("/proc/", "/sys/")

    def __init__(self) -> None:
        self.path: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.path is None:
            return
        elsewhere = event == "open" and str(arguments[0]) != str(self.path)
        if event.startswith(self.FORBIDDEN) or (elsewhere and not str(arguments[0]).startswith(self.ALLOWED_PLACES)):
            self.seen.append(f"{event} {str(arguments)[:200]}")

    def _report(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **_: self.seen.append(f"{name} {str(arguments)[:200]}")

    def load(self, path: Path, content: bytes) -> Any:
        """
        :return: the model, or the error
        """
        path.write_bytes(content)
        self.seen.clear()
        with pytest.MonkeyPatch.context() as patch:
            for module, name in self.FUNCTIONS:
                patch.setattr(module, name, self._report(name))
            self.path = path
            try:
                return load_safe(NCLQL, path, device="cpu")
            except Exception as error:
                return error
            finally:
                self.path = None


GUARD = Guard()


def complaint(path: Path, content: bytes) -> str | None:
    """What is wrong with how a file was refused; ``None`` if nothing is."""
    started = time.monotonic()
    outcome = GUARD.load(path, content)
    seconds = time.monotonic() - started
    if GUARD.seen:
        return f"did {GUARD.seen}"
    if type(outcome) is not ValueError:
        return f"ended in {type(outcome)}: {str(outcome)[:200]}"
    if path.name not in str(outcome) or len(str(outcome)) > 1000:
        return f"says {str(outcome)[:1200]}"
    return f"took {seconds} seconds" if seconds > PATIENCE else None


#: What malicious files would make in the working directory.
MARKER = Path("made-by-a-malicious-file")
#: Generators of files that must be refused, all of them.
FAMILIES: dict[str, Callable[[bytes], mutations.Mutations]] = {
    "truncated": mutations.truncated,
    "flipped": mutations.flipped,
    "lengths": mutations.lengths,
    "headers": mutations.headers,
    "strangers": lambda content: mutations.strangers(content, MARKER.name),
    "tensors": mutations.tensors,
    "entries": mutations.entries,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_and_forged_files_are_refused(
    honest: bytes, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mutated.safetensors"
    complaints = {name: complaint(path, content) for name, content in FAMILIES[family](honest)}
    assert complaints
    assert not {name: text for name, text in complaints.items() if text is not None}
    assert list(tmp_path.iterdir()) == [path]  # nothing was made


def test_the_marker_is_made_by_those_who_do_unpickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    malicious = dict(mutations.strangers(b"\0" * 16, MARKER.name))
    pickle.loads(malicious["pickle of protocol 4"])
    assert MARKER.exists()


def test_there_are_hundreds_of_them(honest: bytes) -> None:
    files = (content for generate in FAMILIES.values() for _, content in generate(honest))
    different = set(itertools.islice(files, 300))
    assert len(different) >= 200
    assert honest not in different


def is_number(value: Any, low: float = -sys.float_info.max, high: float = sys.float_info.max) -> bool:
    return type(value) in (int, float) and low <= value <= high and (is_count(value, -(2**63)) or type(value) is float)


def is_count(value: Any, low: int = 1, high: float = 2**63 - 1) -> bool:
    return type(value) is int and low <= value <= high


def is_flag(value: Any) -> bool:
    return type(value) is bool


def is_positive(value: Any) -> bool:
    # Far from where a step of the chain overflows float32, which is refused as well
    return is_number(value, 0.0, 1e30) and value > 0


#: What may stand in an entry, as the documentation of the arguments has it; elsewhere, only what does stand there.
LEGAL: dict[str, Callable[[Any], bool]] = {
    **{f"arguments.{name}": is_count for name in ("target_update_interval", "train_freq", "n_langevin_steps")},
    "arguments.batch_size": lambda v: is_count(v, 1, 10**5),
    "arguments.n_steps": lambda v: is_count(v, 1, 10**4),
    "arguments.learning_rate": lambda v: is_number(v, 0.0),
    "arguments.learning_rate.$schedule.start": lambda v: is_number(v, 0.0),
    "arguments.learning_rate.$schedule.end": lambda v: is_number(v, 0.0),
    "arguments.learning_rate.$schedule.end_fraction": lambda v: is_number(v, 0.0) and v > 0,
    "arguments.buffer_size": lambda v: is_count(v, 1, 10**9),
    "arguments.learning_starts": lambda v: is_number(v, 0.0),
    "arguments.tau": lambda v: is_number(v, 0.0, 1.0),
    "arguments.gamma": lambda v: is_number(v, 0.0, 1.0),
    "arguments.train_freq.$tuple.0": is_count,
    "arguments.gradient_steps": lambda v: is_count(v, -1, 10**4),
    "arguments.action_noise": lambda v: v is None,
    "arguments.action_noise.$noise.mean": is_number,
    "arguments.action_noise.$noise.sigma": lambda v: is_number(v, 0.0),
    "arguments.action_noise.$noise.mean.$array.1.0": is_number,
    "arguments.action_noise.$noise.sigma.$array.1.0": lambda v: is_number(v, 0.0),
    **{f"arguments.action_noise.$noise.{name}.$array.1": lambda v: v == [1] for name in ("mean", "sigma")},
    "arguments.replay_buffer_class": lambda v: v is None,
    "arguments.replay_buffer_kwargs": lambda v: v == {} and type(v) is dict,
    "arguments.replay_buffer_kwargs.handle_timeout_termination": is_flag,
    "arguments.optimize_memory_usage": is_flag,
    "arguments.inverse_temperature": is_positive,
    "arguments.langevin_step_size": is_positive,
    "arguments.n_noise_levels": is_count,
    "arguments.sigma_max": lambda v: is_positive(v) and v >= 0.001,
    "arguments.sigma_min": lambda v: is_positive(v) and v <= 0.5,
    "arguments.normalize_score": is_flag,
    "arguments.reward_scale": lambda v: is_number(v) and v > 0,
    "arguments.stats_window_size": is_count,
    "arguments.target_entropy": lambda v: is_number(v, -100.0, math.log(2)),
    "arguments.policy_kwargs.activation_fn": lambda v: v == {"$class": "Tanh"},
    "arguments.policy_kwargs.normalize_images": is_flag,
    "arguments.policy_kwargs.optimizer_kwargs": lambda v: v is None or (v == {} and type(v) is dict),
    "arguments.policy_kwargs.optimizer_kwargs.eps": lambda v: is_number(v, 0.0),
    "arguments.verbose": lambda v: is_count(v, 0, 2),
    "arguments.seed": lambda v: v is None or is_count(v, 0, 2**32 - 1),
    "arguments.n_action_samples": is_count,
    "arguments.compile": lambda v: v is None or is_flag(v),
    "arguments.bfloat16_chain": is_flag,
    "arguments.overlap_updates": is_flag,
    **{
        f"counters.{name}": lambda v: is_count(v, 0)
        for name in ("num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "_episode_num", "_n_updates")
    },
    "n_envs": is_count,
    "progress_remaining": lambda v: is_number(v, high=1.0),
    **{f"optimizer.0.{name}": lambda v: is_number(v, 0.0) for name in ("lr", "eps", "weight_decay")},
    **{f"optimizer.0.betas.$tuple.{i}": lambda v: type(v) is float and 0 <= v < 1 for i in range(2)},
    **{
        f"arguments.policy_kwargs.optimizer_kwargs.betas.$tuple.{i}": lambda v: type(v) is float and 0 <= v < 1
        for i in (0, 1)
    },
    **{f"normalization.{name}": is_flag for name in ("training", "norm_obs", "norm_reward")},
    **{f"normalization.{name}": lambda v: is_number(v, 0.0) for name in ("gamma", "epsilon")},
    **{
        f"normalization.{name}": lambda v: is_number(v, 0.0) or v == {"$float": "inf"}
        for name in ("clip_obs", "clip_reward")
    },
}
#: Of every type, and of every size.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 3, -1, 2**31 + 0.5, 1.5, -0.5, 1e308, 2**70, -(2**70), "", "../../etc/passwd", "3"),
    *([], [1], [[[]]], {}, {"os": "system"}, {"$class": "Tanh"}, {"$class": "os.system"}, {"$float": "inf"}),
    *({"$float": "nan"}, {"$tuple": [1]}, {"$custom": "x"}, {"$array": ["float32", [1e300]]}, {"$pickle": "gASVCg=="}),
    *({"$schedule": {"class": "eval"}}, {"$noise": {"class": "os.system", "mean": 0}}, "x" * 10**5),
)


#: Values to try in an entry, legal and illegal ones; 99 are all there are, and take minutes.
N_LEGAL, N_ILLEGAL = 1, 3


def replacements(document: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any, bool]]:
    """Entries, values that they do not have, and whether those are legal."""
    draw = random.Random(0)
    for path in mutations.walk(document):
        before = mutations.at(document, path)
        others = [value for value in VALUES if type(value) is not type(before) or value != before]
        is_legal = LEGAL.get(".".join(map(str, path)), lambda _: False)
        for legal, n_tried in ((True, N_LEGAL), (False, N_ILLEGAL)):
            values = [value for value in others if is_legal(value) == legal]
            yield from ((path, value, legal) for value in draw.sample(values, min(n_tried, len(values))))


def test_entries_may_hold_what_is_documented_and_nothing_else(honest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mutated.safetensors"
    document, tensors = mutations.unpack(honest)
    wrong: dict[str, Any] = {}
    n_legal = n_refused = 0
    for keys, value, legal in replacements(document):
        entry = ".".join(map(str, keys))
        content = mutations.pack(mutations.replaced(document, keys, value), tensors)
        if legal:
            n_legal += 1
            text = flaw(path, content, entry, value)
        else:
            n_refused += 1
            text = complaint(path, content)
        if text is not None:
            wrong[f"{entry}={value!r}"[:100]] = text
    print(f"{n_refused} refused, {n_legal} harmless")  # noqa: T201
    assert wrong == {}
    assert n_legal > 40
    assert n_refused > 200


def flaw(path: Path, content: bytes, entry: str, value: Any) -> str | None:
    """What is wrong with a model of a file that is harmless; ``None`` if nothing is."""
    model = GUARD.load(path, content)
    if isinstance(model, Exception) or GUARD.seen:
        return f"ended in {model!r} {GUARD.seen}"
    section, _, name = entry.partition(".")
    name = {"stats_window_size": "_stats_window_size"}.get(name, name)
    plain = "." not in name and name != "train_freq" and not isinstance(value, dict)
    if section in ("arguments", "counters") and plain and getattr(model, name) != value:
        return f"is {getattr(model, name)!r}"
    # Another chain than a deterministic one would first be compiled, where compile=True
    action, _ = model.predict(np.zeros(3, np.float32), deterministic=True)
    return None if model.action_space.contains(action) else f"acts {action}"


#: What takes memory or time if it is believed: entries, and the value they get.
ABSURD: dict[str, Any] = {
    "arguments.policy_kwargs.net_arch.0": [10**5, 10**9, 2**62],
    "arguments.policy_kwargs.net_arch": [[10**6] * 2, [1] * 40_000, {"qf": [10**9, 10**9]}, {"qf": [4] * 40_000}],
    "arguments.policy_kwargs.n_critics": [10**6, 10**12, 2**62],
    "arguments.n_noise_levels": [10**6, 10**9, 10**15, 2**62],
    "arguments.n_langevin_steps": [50_001, 10**6, 10**9, 2**62],
    "arguments.n_action_samples": [10**6, 10**12],
    "arguments.batch_size": [10**7, 2**31, 2**62],
    "arguments.n_steps": [10**5, 2**31, 2**62],
    "arguments.gradient_steps": [10**6, 2**62],
    "arguments.buffer_size": [10**10, 10**15, 2**62],
    "arguments.stats_window_size": [10**9, 2**62],
    "n_envs": [10**6, 10**12, 2**62],
    "observation_space": [
        {"type": "Discrete", "n": 10**15, "start": 0, "dtype": "int64"},
        {"type": "MultiBinary", "n": 10**12},
        {"type": "MultiBinary", "n": [2**33, 2**31]},
        {"type": "MultiBinary", "n": [1] * 100_000},
        {"type": "Dict", "spaces": [["a", {"type": "MultiBinary", "n": 10**12}]]},
        {"type": "Dict", "spaces": [["a", {"type": "Dict", "spaces": []}]]},
    ],
    "arguments.policy_kwargs.features_extractor_kwargs": [{"features_dim": 10**12}],
    "arguments.policy_kwargs.optimizer_kwargs": [{"betas": [0.9] * 100_000}],
}


@pytest.mark.parametrize("entry", ABSURD)
def test_absurd_sizes_are_refused_without_taking_memory(honest: bytes, tmp_path: Path, entry: str) -> None:
    resource = pytest.importorskip("resource")
    document, tensors = mutations.unpack(honest)
    keys = tuple(int(key) if key.isdigit() else key for key in entry.split("."))
    forged = [mutations.pack(mutations.replaced(document, keys, value), tensors) for value in ABSURD[entry]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        complaints = [complaint(tmp_path / "mutated.safetensors", content) for content in forged]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert complaints == [None] * len(forged)
    assert peak < LITTLE
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < LITTLE


#: Pixels of a side of a large image, of a file of megabytes.
IMAGE_SIDE = 2_000


def test_large_images_are_refused_in_the_memory_of_their_bounds(tmp_path: Path) -> None:
    env = DummyVecEnv([lambda: FakeImageEnv(screen_height=36, screen_width=36, discrete=False)])
    policy_kwargs = dict(net_arch=[4], features_extractor_kwargs=dict(features_dim=4))
    path = tmp_path / "image.safetensors"
    save_safe(LQL("CnnPolicy", env, policy_kwargs=policy_kwargs, buffer_size=2, device="cpu"), path)
    document, tensors = mutations.unpack(path.read_bytes())
    shape = (tensors["observation_space.low"].shape[0], IMAGE_SIDE, IMAGE_SIDE)
    for name, bound in (("low", 0), ("high", 255)):
        tensors[f"observation_space.{name}"] = th.full(shape, bound, dtype=th.uint8)
    path.write_bytes(mutations.pack(document, tensors))
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="features_extractor"):
            load_safe(LQL, path, device="cpu")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * size


def test_a_file_larger_than_the_memory_is_not_read(
    honest: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sb3_lql.saving.safe.files.memory", lambda _: len(honest))
    text = str(GUARD.load(tmp_path / "model.safetensors", honest))
    assert f"its {len(honest)} bytes are too many" in text


def test_what_a_stranger_is_gets_said(honest: bytes, model: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    model.save(path)
    assert "a zip file, as SB3's save writes it: pass it to load, if you trust" in str(
        GUARD.load(path, path.read_bytes())
    )
    text = str(GUARD.load(tmp_path / "model.safetensors", pickle.dumps(model.get_parameters())))
    assert "a pickle, which can run any code" in text
    assert GUARD.seen == []


def test_the_guard_sees_what_is_forbidden(tmp_path: Path, honest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for forbidden in (
        lambda: pickle.loads(pickle.dumps(1)),
        lambda: eval("1"),
        lambda: Path(__file__).read_text(),
        lambda: __import__("this"),
        lambda: th.load(__file__),
    ):
        monkeypatch.setattr("sb3_lql.saving.safe.models.read_file", lambda _, call=forbidden: call())
        GUARD.load(tmp_path / "model.safetensors", honest)
        assert GUARD.seen
