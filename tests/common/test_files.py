"""Files and folders in one stroke, replay buffers on disk."""

import errno
import os
import pickle
import platform
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import BaseBuffer, DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_lql.common.buffer_files import ARRAYS, STATE, read_buffer, write_buffer
from sb3_lql.common.buffers import Float32ReplayBuffer, end_episodes
from sb3_lql.common.device_buffers import DeviceDictReplayBuffer, DeviceReplayBuffer
from sb3_lql.common.files import UNFINISHED, atomic_folder, atomic_write, discard_folder, discard_unfinished

BOX = spaces.Box(-1.0, 1.0, (3,), np.float64)
DICT = spaces.Dict({"image": spaces.Box(0, 255, (2, 2), np.uint8), "speed": BOX})


def fill_the_disk(file: BinaryIO) -> None:
    file.write(b"half of it")
    raise OSError("No space left on device")


def test_file_keeps_its_content_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(OSError, match="No space"), atomic_write(path) as file:
        fill_the_disk(file)
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def umask() -> Iterator[None]:
    """New files are 0640, whatever the user's settings are."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def write(path: Path, content: bytes = b"new") -> None:
    with atomic_write(path) as file:
        file.write(content)


@pytest.mark.usefixtures("umask")
def test_file_keeps_its_permissions_and_a_new_one_follows_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for mode in (0o600, 0o660, 0o604, 0o755):
        path.chmod(mode)
        with atomic_write(path) as file:
            (unfinished,) = set(tmp_path.iterdir()) - {path}
            assert stat.S_IMODE(unfinished.stat().st_mode) == mode  # nobody else reads it while it is written
            file.write(b"newer")
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"newer", mode)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_file_keeps_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    path.chmod(0o2664)
    write(path)
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (1234, 2345, 0o2664)


def test_owner_that_may_not_be_kept_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o660)
    asked = []

    def refuse(*args: Any) -> None:
        asked.append(args[1:])
        raise PermissionError

    monkeypatch.setattr("os.chown", refuse)
    write(path)
    assert len(asked) == 2
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o660)


@pytest.mark.parametrize("exists", [True, False], ids=["to a file", "to nothing yet"])
def test_links_stay_and_lead_to_the_new_content(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "data" / "real"
    if exists:
        target.parent.mkdir()
        target.write_bytes(b"old")
    (tmp_path / "links").mkdir()
    first, second = tmp_path / "links" / "first", tmp_path / "second"
    first.symlink_to(Path("..") / "data" / "real")
    second.symlink_to(first)
    for link in (first, second):
        write(link, link.name.encode())
        assert first.is_symlink()
        assert second.is_symlink()
        assert not target.is_symlink()
        assert target.read_bytes() == link.name.encode()
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(OSError, match="No space"), atomic_write(second) as file:
        fill_the_disk(file)
    assert target.read_bytes() == b"second"


@pytest.mark.parametrize("letter", ["a", "\u00e9"])
def test_the_longest_name_that_a_disk_takes_can_be_written(tmp_path: Path, letter: str) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    with atomic_write(path) as file:
        file.write(b"content")
    assert [path.read_bytes(), *tmp_path.iterdir()] == [b"content", path]


def test_links_in_a_circle_are_refused_as_by_open(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_symlink()) == ["a", "b"]


def test_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that may be written to, in a folder that may not, also for root."""
    path = tmp_path / "file"
    path.write_bytes(b"old content that is longer")
    path.chmod(0o660)
    access = os.access
    monkeypatch.setattr("os.access", lambda place, mode: Path(place) != tmp_path and access(place, mode))
    return path


def test_in_a_read_only_folder_a_file_is_written_over(unwritable: Path) -> None:
    inode = unwritable.stat().st_ino
    with pytest.raises(OSError, match="No space"), atomic_write(unwritable) as file:
        fill_the_disk(file)
    assert unwritable.read_bytes() == b"old content that is longer"
    write(unwritable)
    after = unwritable.stat()
    assert (unwritable.read_bytes(), after.st_ino, stat.S_IMODE(after.st_mode)) == (b"new", inode, 0o660)
    assert list(unwritable.parent.iterdir()) == [unwritable]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EPERM], ids=["mounted", "somebody else's"])
def test_file_that_cannot_be_replaced_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old content that is longer")

    def refuse(*_: Any) -> None:
        raise OSError(code, "cannot be replaced")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    write(path)
    assert path.read_bytes() == b"new"
    with pytest.raises(OSError, match="cannot be replaced"):
        write(tmp_path / "no file yet")
    assert list(tmp_path.iterdir()) == [path]


def test_device_stays_a_device(tmp_path: Path) -> None:
    reader, writer = os.openpty()
    path = Path(os.ttyname(writer))
    write(path, b"to a terminal")
    assert path.is_char_device()
    assert os.read(reader, 100) == b"to a terminal"
    os.close(reader)
    os.close(writer)


def test_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with pytest.raises(OSError, match="No space"), atomic_folder(path) as folder, (folder / "part").open("wb") as file:
        fill_the_disk(file)
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(path) as folder:
        (folder / "part").write_text("whole")
        assert not path.exists()
    assert (path / "part").read_text() == "whole"
    with pytest.raises(OSError, match="not empty"), atomic_folder(path) as folder:
        (folder / "part").write_text("of another")
    assert (path / "part").read_text() == "whole"


def test_only_what_dead_processes_have_left_is_discarded(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = platform.node()
    alive = [f"7{UNFINISHED}{here}-{os.getppid()}", f"7{UNFINISHED}elsewhere-{dead.pid}", "7", "7.zip"]
    others = [f"model.zip{UNFINISHED}{here}-{dead.pid}", f"data{UNFINISHED}{here}-{dead.pid}"]
    for name in (*alive, *others, f"7{UNFINISHED}{here}-{dead.pid}", f"8{UNFINISHED}{here}-{os.getpid()}"):
        (tmp_path / name).mkdir()
    (tmp_path / f"9{UNFINISHED}{here}-{dead.pid}").write_text("a file")
    discard_unfinished(tmp_path, r"\d+")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*alive, *others, f"9{UNFINISHED}{here}-{dead.pid}"}


def test_folder_that_is_being_deleted_bears_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()

    def killed(path: Path, ignore_errors: bool) -> None:
        raise SystemExit

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(SystemExit):
        discard_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    discard_folder(tmp_path / "never was")


def test_of_a_folder_that_is_a_link_only_the_link_is_discarded(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "link").symlink_to("archive")
    discard_folder(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


# Replay buffers


def filled(buffer_class: type[ReplayBuffer], n_filled: int, n_envs: int = 2, **kwargs: Any) -> ReplayBuffer:
    """A buffer for 40 steps of each environment, with so many that differ from each other."""
    space: Any = DICT if issubclass(buffer_class, DictReplayBuffer) else BOX
    rng = np.random.default_rng(0)
    buffer = buffer_class(40 * n_envs, space, BOX, device="cpu", n_envs=n_envs, **kwargs)

    def observe() -> Any:
        values = {
            "image": rng.integers(1, 255, (n_envs, 2, 2), np.uint8),
            "speed": rng.uniform(0.1, 1.0, (n_envs, 3)),
        }
        return values if space is DICT else values["speed"]

    for _ in range(n_filled):
        buffer.add(
            observe(), observe(), rng.uniform(0.1, 1.0, (n_envs, 3)), rng.random(n_envs), np.ones(n_envs), [{}, {}]
        )
    return buffer


def arrays_of(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    """All arrays of a buffer by name."""
    arrays: dict[str, np.ndarray] = {}
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        value = getattr(buffer, name, None)
        parts = value if isinstance(value, dict) else {"": value}
        arrays |= {f"{name}.{key}": np.asarray(part) for key, part in parts.items() if part is not None}
    return arrays


CLASSES: list[Any] = [
    pytest.param(ReplayBuffer, {}, id="SB3"),
    pytest.param(Float32ReplayBuffer, {}, id="float32"),
    pytest.param(
        Float32ReplayBuffer,
        dict(optimize_memory_usage=True, handle_timeout_termination=False),
        id="observations once",
    ),
    pytest.param(DictReplayBuffer, {}, id="dict"),
    pytest.param(DeviceReplayBuffer, {}, id="device"),
    pytest.param(DeviceDictReplayBuffer, {}, id="device dict"),
    pytest.param(NStepReplayBuffer, dict(n_steps=4, gamma=0.9), id="n-step"),
]


@pytest.mark.parametrize(("buffer_class", "kwargs"), CLASSES)
@pytest.mark.parametrize("n_filled", [0, 1, 25, 39, 40, 55])
def test_buffer_comes_back_as_it_was(tmp_path: Path, buffer_class: Any, kwargs: dict[str, Any], n_filled: int) -> None:
    buffer = filled(buffer_class, n_filled, **kwargs)
    write_buffer(buffer, tmp_path)
    again = read_buffer(tmp_path)
    assert type(again) is buffer_class
    assert (again.pos, again.full, again.n_envs) == (buffer.pos, buffer.full, buffer.n_envs)
    before, after = arrays_of(buffer), arrays_of(again)
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert after[name].dtype == array.dtype
        np.testing.assert_array_equal(after[name], array, name)
    if n_filled > 1:
        samples = []
        for each in (buffer, again):
            np.random.seed(0)
            samples.append(each.sample(16))
        assert th.equal(samples[0].rewards, samples[1].rewards)
        again.add(*transition(buffer_class))  # it can be written to
        assert again.pos == (buffer.pos + 1) % 40


def transition(buffer_class: Any) -> tuple[Any, ...]:
    speed = np.ones((2, 3))
    image = np.ones((2, 2, 2), np.uint8)
    observation: Any = {"image": image, "speed": speed} if issubclass(buffer_class, DictReplayBuffer) else speed
    return observation, observation, speed, np.ones(2), np.zeros(2), [{}, {}]


@pytest.mark.parametrize("buffer_class", [ReplayBuffer, DeviceReplayBuffer])
def test_only_what_is_filled_is_written(tmp_path: Path, buffer_class: Any) -> None:
    observation_space = spaces.Box(-1.0, 1.0, (100,), np.float32)
    buffer = buffer_class(10_000, observation_space, BOX, device="cpu")
    ones = np.ones((1, 100), np.float32)
    for _ in range(50):
        buffer.add(ones, ones, np.ones((1, 3)), np.ones(1), np.zeros(1), [{}])
    write_buffer(buffer, tmp_path)
    transition = 2 * 400 + 3 * 4 + 3 * 4
    # The row after the last one goes along, and the bounds of the spaces
    assert 51 * transition <= (tmp_path / ARRAYS).stat().st_size < 54 * transition
    assert (tmp_path / STATE).stat().st_size < 20_000


def test_array_of_another_kind_that_is_as_long_is_kept_whole(tmp_path: Path) -> None:
    buffer: Any = filled(ReplayBuffer, 5)
    buffer.priorities = np.ones(40)
    write_buffer(buffer, tmp_path)
    assert read_buffer(tmp_path).priorities.sum() == 40  # type: ignore[attr-defined]


def test_memory_is_not_doubled(tmp_path: Path) -> None:
    """Neither by writing nor by reading: 200 MB of transitions, and a tenth of it besides."""
    space = spaces.Box(-1.0, 1.0, (2_500,), np.float32)
    buffer = ReplayBuffer(10_000, space, BOX, device="cpu")
    buffer.observations[:] = 1.0
    buffer.next_observations[:] = 2.0
    buffer.full = True
    size = buffer.observations.nbytes + buffer.next_observations.nbytes
    tracemalloc.start()
    try:
        write_buffer(buffer, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 0.1 * size
        tracemalloc.reset_peak()
        again = read_buffer(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * size
    finally:
        tracemalloc.stop()
    assert again.next_observations[-1, 0, -1] == 2.0


class CopiedRows(TorchDispatchMode):
    """Notes how many rows each copy between devices has, without making it: one of them is a device without data."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is th.ops.aten.copy_.default and args[0].device != args[1].device:
            self.found.append(len(args[1]))
            return args[0]
        return func(*args, **(kwargs or {}))


def test_between_devices_only_what_is_filled_travels() -> None:
    buffer: Any = filled(DeviceReplayBuffer, 5)
    with CopiedRows() as copied:
        buffer.device = th.device("meta")
        assert copied.found == [12]  # the row after the last one goes along, of two environments
        state = pickle.dumps(buffer)
        assert copied.found == [12, 12]
    assert len(state) > buffer.rewards.numel() * 4  # all of them, as SB3 has it


def test_returns_of_several_steps_end_at_a_seam() -> None:
    buffer = NStepReplayBuffer(100, BOX, BOX, device="cpu", n_envs=2, n_steps=3, gamma=1.0)
    ones = np.ones((2, 3))
    for step in range(6):
        if step == 3:
            end_episodes(buffer)
        # The first environment's episode really ended there
        dones = np.array([step == 2, False])
        buffer.add(ones * step, ones * (step + 1), ones, np.ones(2), dones, [{}, {}])
    np.testing.assert_array_equal(buffer.timeouts[:6].T, [[0] * 6, [0, 0, 1, 0, 0, 0]])
    np.random.seed(0)
    for samples in (buffer._get_samples(np.array([1] * 20)),):
        assert (samples.rewards == 2).all()  # steps 1 and 2
        assert set(samples.dones.squeeze().tolist()) == {0.0, 1.0}


def test_a_buffer_without_sb3s_arrays_is_left_alone_at_a_seam() -> None:
    class Elsewhere(ReplayBuffer):
        """Keeps transitions in no array that SB3 knows."""

        def __init__(self) -> None:
            BaseBuffer.__init__(self, 10, BOX, BOX, device="cpu")
            self.pos = 3

    class ElsewhereInHindsight(Elsewhere, HerReplayBuffer):
        pass

    class ElsewhereInSteps(Elsewhere, NStepReplayBuffer):
        pass

    for buffer_class in (Elsewhere, ElsewhereInHindsight, ElsewhereInSteps):
        buffer = buffer_class()
        before = dict(vars(buffer))
        end_episodes(buffer)
        assert vars(buffer) == before


def test_nothing_ends_in_an_empty_buffer() -> None:
    for buffer_class in (ReplayBuffer, DeviceReplayBuffer):
        buffer = buffer_class(10, BOX, BOX, device="cpu")
        end_episodes(buffer)
        assert not np.asarray(buffer.timeouts).any()
