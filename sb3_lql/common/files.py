"""Files and folders that are written in one stroke: whoever looks finds the old one or the new one, whole."""

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

#: In the names of files and folders that are not finished, before the computer's name and the process's number.
UNFINISHED = ".unfinished-"
#: Bytes of a file's name that file systems take.
LONGEST_NAME = 255


def with_suffix(path: str | Path, suffix: str) -> Path:
    """
    :param path: name of a file
    :param suffix: ".zip", say
    :return: the name, with that suffix if it has none
    """
    path = Path(path)
    return path if path.suffix else path.with_suffix(suffix)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """
    A file to write to, which takes its name once all of it is on the disk. An error within, a kill or a full disk leave
    what was there before.

    As with ``open``, a symbolic link stays and its target is written, and a file that was there keeps its permissions
    and, where the system lets us, its owner and group. Hard links part: the other names keep the old content.

    What cannot be replaced is written over once all of the content is known: a file in a read-only folder, a mounted
    file, a device. Refusing would be worse, since ``open`` could write it. An error within still changes nothing; a
    kill or a full disk at the very end may leave a part.

    :param path: the file's name; its folder is made if there is none
    :return: an open file
    :raises OSError: if it cannot be written, as from ``open``
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    exists = path.exists()
    if (exists and not os.access(path, os.W_OK)) or target.is_symlink():  # protected, or links in a circle
        path.open("ab").close()  # the system's own error
    if exists and not (path.is_file() and os.access(target.parent, os.W_OK | os.X_OK)):
        with tempfile.TemporaryFile() as content:
            yield content
            _write_over(path, content)
        return
    unfinished = _unfinished(target)
    unfinished.unlink(missing_ok=True)  # of a process that had the same number
    try:
        with unfinished.open("wb") as file:
            if exists:  # before there is anything to read in it
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
        # A file that is mounted by itself, or somebody else's in a folder such as /tmp
        if error.errno not in (errno.EBUSY, errno.EPERM) or not target.exists():
            raise
        with unfinished.open("rb") as content:
            _write_over(target, content)
        unfinished.unlink()


def _write_over(path: Path, content: IO[bytes]) -> None:
    content.seek(0)
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _copy_permissions(source: Path, target: Path) -> None:
    before = source.stat()
    if os.name != "nt":
        for user, group in ((-1, before.st_gid), (before.st_uid, -1)):
            with suppress(OSError):  # only root may give files away, others only to groups of their own
                os.chown(target, user, group)
    target.chmod(stat.S_IMODE(before.st_mode))  # last, as a change of owner takes some of them away


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """
    :func:`atomic_write` for a folder, of a name that is not taken.

    :param path: the folder's name
    :return: a folder to write to
    """
    unfinished = _unfinished(path)
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that had the same number
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
    Delete a folder, as far as the system lets us. A kill in the middle does not leave a part under the name of the
    whole.

    :param path: the folder, or a link to one, which goes alone; there may be none
    """
    with suppress(OSError):  # there is none, or another process is deleting it
        if path.is_symlink():
            path.unlink()  # not what it leads to
        else:
            shutil.rmtree(path.rename(_unfinished(path)), ignore_errors=True)


def discard_unfinished(folder: Path, name: str) -> None:
    """
    Delete what processes that were killed have left of :func:`atomic_folder` and :func:`discard_folder`, as far as the
    system lets us. What another computer or a living process is about stays.

    :param folder: where to look
    :param name: regular expression for the names that the folders were to have or had
    """
    unfinished = re.compile(rf"(?:{name}){re.escape(UNFINISHED + platform.node())}-(\d+)")
    for path in folder.iterdir():
        match = unfinished.fullmatch(path.name)
        # After a restart this process may have the number of the one that was killed
        if match and (int(match[1]) == os.getpid() or not psutil.pid_exists(int(match[1]))):
            shutil.rmtree(path, ignore_errors=True)


def _unfinished(path: Path) -> Path:
    # Two processes that believe a file is theirs do not write to the same one
    suffix = f"{UNFINISHED}{platform.node()}-{os.getpid()}"
    longest = LONGEST_NAME - len(os.fsencode(suffix))
    return path.with_name(os.fsencode(path.name)[:longest].decode(errors="ignore") + suffix)


def _flush(path: Path) -> None:
    """Wait until the disk has it."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
