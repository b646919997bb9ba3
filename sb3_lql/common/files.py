"""Atomic writes: readers see the old file or folder or the new one, never a part."""

import errno
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

import psutil

#: Marks the names of unfinished files and folders, before the host name and the process id.
UNFINISHED = ".unfinished-"
#: Longest file name that file systems accept, in bytes.
LONGEST_NAME = 255


def with_suffix(path: str | Path, suffix: str) -> Path:
    """The path, with a suffix such as ".zip" if it has none."""
    path = Path(path)
    return path if path.suffix else path.with_suffix(suffix)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """
    Open a file that takes its name only when all of its content is on the disk. An error inside the block, a kill or a
    full disk leaves the previous file intact. Its folder is created if needed; errors are those of ``open``.

    As with ``open``, a symbolic link stays and its target is written, and an existing file keeps its permissions and,
    where the system allows it, its owner and group. Other hard links to it keep the old content.

    A file that cannot be replaced (in a read-only folder, a mount, a device) is overwritten once all content is known:
    refusing would be worse, since ``open`` could write it. An error inside the block still changes nothing; a kill or a
    full disk at the very end may leave a partial file.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    exists = path.exists()
    if (exists and not os.access(path, os.W_OK)) or target.is_symlink():  # protected, or a circular link
        path.open("ab").close()  # raises the system's own error
    if exists and not (path.is_file() and os.access(target.parent, os.W_OK | os.X_OK)):
        with tempfile.TemporaryFile() as content:
            yield content
            _overwrite(path, content)
        return
    unfinished = _unfinished(target)
    unfinished.unlink(missing_ok=True)  # left by a process with the same id
    try:
        with unfinished.open("wb") as file:
            if exists:  # before it has any content to protect
                _copy_permissions(target, unfinished)
            yield file
            file.flush()
            os.fsync(file.fileno())
        _replace(target, unfinished)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _flush(target.parent)


def _replace(target: Path, unfinished: Path) -> None:
    try:
        unfinished.replace(target)
    except OSError as error:
        # A mounted file, or another user's file in a folder such as /tmp
        if error.errno not in (errno.EBUSY, errno.EPERM) or not target.exists():
            raise
        with unfinished.open("rb") as content:
            _overwrite(target, content)
        unfinished.unlink()


def _overwrite(path: Path, content: IO[bytes]) -> None:
    content.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _copy_permissions(source: Path, target: Path) -> None:
    before = source.stat()
    if os.name != "nt":
        for user, group in ((-1, before.st_gid), (before.st_uid, -1)):
            with suppress(OSError):  # only root may change owners; others may only use their own groups
                os.chown(target, user, group)
    target.chmod(stat.S_IMODE(before.st_mode))  # last, as a change of owner clears some of them


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """:func:`atomic_write` for a folder that must not exist yet; yields a temporary one to write to."""
    unfinished = _unfinished(path)
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a process with the same id
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for part in (*unfinished.rglob("*"), unfinished):
            _flush(part)
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _flush(path.parent)


def discard_folder(path: Path) -> None:
    """
    Delete a folder, if it exists and as far as the system allows it; of a link to one, only the link. A kill halfway
    leaves no partial folder under that name.
    """
    with suppress(OSError):  # it does not exist, or another process is deleting it
        if path.is_symlink():
            path.unlink()  # not its target
        else:
            shutil.rmtree(path.rename(_unfinished(path)), ignore_errors=True)


def discard_unfinished(folder: Path, name: str) -> None:
    """
    Delete what killed processes have left of :func:`atomic_folder` and :func:`discard_folder`, as far as the system
    allows it, where the regex ``name`` matches the final name. Folders of other hosts and of running processes stay.
    """
    unfinished = re.compile(rf"(?:{name}){re.escape(UNFINISHED + platform.node())}-(\d+)")
    for path in folder.iterdir():
        match = unfinished.fullmatch(path.name)
        # After a restart this process may have the id of the killed one
        if match and (int(match[1]) == os.getpid() or not psutil.pid_exists(int(match[1]))):
            shutil.rmtree(path, ignore_errors=True)


def _unfinished(path: Path) -> Path:
    # A name per process: two processes that write the same file do not mix their content
    suffix = f"{UNFINISHED}{platform.node()}-{os.getpid()}"
    longest = LONGEST_NAME - len(os.fsencode(suffix))
    return path.with_name(os.fsencode(path.name)[:longest].decode(errors="ignore") + suffix)


def _flush(path: Path) -> None:
    """Wait until it is on the disk."""
    if os.name == "nt":  # cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
