"""Checkpoints: folders with all that a training needs to resume in another process, written atomically."""

import hashlib
import json
import os
import pickle
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_lql.collecting.collection import CollectionMixin
from sb3_lql.common.buffer_files import read_buffer, write_buffer
from sb3_lql.common.files import atomic_folder, discard_folder, discard_unfinished
from sb3_lql.saving.normalization import in_normalization, normalization_state, set_statistics
from sb3_lql.saving.random_states import set_training_states, training_states

#: Name of a folder of checkpoints in a run's folder.
CHECKPOINTS = "checkpoints"
#: File names in a checkpoint. The model is SB3's zip file.
MODEL = "model.zip"
NORMALIZATION = "vecnormalize.pkl"
RANDOM_STATES = "random_states.pkl"
#: JSON with the checkpoint's metadata, and the sizes and checksums of its files.
MANIFEST = "checkpoint.json"
#: Chunk size for reading files to compute checksums.
CHUNK_BYTES = 2**20
#: Pattern of the names of checkpoints.
NAME = r"\d+_\d+_steps"


def save_checkpoint(
    model: OffPolicyAlgorithm, folder: Path, keep: int | None = None, extra: dict[str, Any] | None = None
) -> Path:
    """
    Write a checkpoint in a new subfolder, and return that. A kill or a full disk at any moment leaves earlier ones
    intact. The model has environments and is between updates and collection; postponed updates run first. ``keep`` is
    the number of checkpoints left afterwards (``None``: all); ``extra`` goes into the manifest, as JSON.
    """
    if isinstance(model, CollectionMixin):
        model.train_postponed()
    Path(os.path.realpath(folder)).mkdir(parents=True, exist_ok=True)  # also the target of a dangling link
    before = checkpoints(folder)
    number = _number(before[-1]) + 1 if before else 1
    checkpoint = folder / f"{number:06d}_{model.num_timesteps}_steps"
    with atomic_folder(checkpoint) as unfinished:
        model.save(unfinished / MODEL)
        assert model.replay_buffer is not None
        write_buffer(model.replay_buffer, unfinished)
        if (normalization := model.get_vec_normalize_env()) is not None:
            normalization.save(str(unfinished / NORMALIZATION))
        (unfinished / RANDOM_STATES).write_bytes(pickle.dumps(training_states(model)))
        manifest = {
            **_identity(model),
            "n_updates": model._n_updates,
            "extra": extra or {},
            "parts": {
                part.name: {"bytes": part.stat().st_size, "sha256": _checksum_of_file(part)}
                for part in sorted(unfinished.iterdir())
            },
        }
        manifest["sha256"] = _checksum(manifest)
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    discard_unfinished(folder, NAME)
    if keep is not None:
        for path in before[: len(before) + 1 - keep]:
            discard_folder(path)
    return checkpoint


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, newest last; none if there is no such folder."""
    found = [path.parent for path in folder.glob(f"*/{MANIFEST}") if re.fullmatch(NAME, path.parent.name)]
    return sorted(found, key=_number)


def find_checkpoint(path: Path) -> Path | None:
    """
    :param path: a checkpoint, a folder of checkpoints, or the parent of a folder of them named "checkpoints"
    :return: the checkpoint, or the newest one; ``None`` if there is none
    """
    if (path / MANIFEST).is_file():
        return path
    found = checkpoints(path) or checkpoints(path / CHECKPOINTS)
    return found[-1] if found else None


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """
    :param checkpoint: a checkpoint
    :return: algorithm, num_timesteps, n_updates, n_envs, extra, and arguments of the replay buffer
    :raises ValueError: if it is damaged; file contents are checked by :func:`check_whole`
    """
    try:
        return _read_manifest(checkpoint)
    except (OSError, ValueError) as error:
        raise _damaged(checkpoint, error) from error


def check_whole(checkpoint: Path) -> None:
    """
    Compare all files of a checkpoint with their checksums, before anything is unpickled.

    :param checkpoint: a checkpoint
    :raises ValueError: if it is damaged; the message names the file, and an intact older checkpoint if there is one
    """
    try:
        _check_whole(checkpoint)
    except (OSError, ValueError) as error:
        raise _damaged(checkpoint, error) from error


def _read_manifest(checkpoint: Path) -> dict[str, Any]:
    manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    names = {"algorithm", "num_timesteps", "n_updates", "n_envs", "extra"}
    if not isinstance(manifest, dict) or not names <= manifest.keys():
        raise ValueError(f"{MANIFEST} does not name {sorted(names)}")
    if "bytes" in manifest:  # of a version without checksums
        sizes = manifest["bytes"]
    elif manifest.pop("sha256", None) == _checksum(manifest):
        sizes = {name: part["bytes"] for name, part in manifest["parts"].items()}
    else:
        raise ValueError(f"{MANIFEST} does not match its checksum")
    for name, size in sizes.items():
        if (checkpoint / name).stat().st_size != size:
            raise ValueError(f"{name} does not have {size} bytes")
    return manifest


def _check_whole(checkpoint: Path) -> None:
    for name, part in _read_manifest(checkpoint).get("parts", {}).items():
        if _checksum_of_file(checkpoint / name) != part["sha256"]:
            raise ValueError(f"{name} does not match its checksum")


def _damaged(checkpoint: Path, error: Exception) -> ValueError:
    """An error that names an intact older checkpoint, if there is one."""
    folder = checkpoint.resolve().parent
    found = checkpoints(folder)
    older = found[: found.index(checkpoint.resolve())] if checkpoint.resolve() in found else found
    remedy = f" (there is no intact one in {folder})"
    for candidate in reversed(older):
        with suppress(OSError, ValueError):
            _check_whole(candidate)
            remedy = f": {candidate}"
            break
    return ValueError(f"{checkpoint} is damaged: {error}; take an older checkpoint{remedy}.")


def check_agreement(checkpoint: Path, **values: Any) -> None:
    """Raise ``ValueError`` if an entry of the manifest differs from ``values``, or if the checkpoint is damaged."""
    manifest = read_manifest(checkpoint)
    for name, value in values.items():
        if manifest[name] != value:
            raise ValueError(
                f"{checkpoint} was made with {name}={manifest[name]!r}, not {value!r}: load it with the same value."
            )


def with_saved_normalization(env: VecEnv, checkpoint: Path) -> VecEnv:
    """
    Wrap environments, with channels-first images, in a ``VecNormalize`` if the checkpoint has one that fits and they
    have none. Raises ``ValueError`` for a user's subclass, which only the user can construct.
    """
    if not (checkpoint / NORMALIZATION).is_file() or unwrap_vec_normalize(env) is not None:
        return env
    saved = _read_normalization(checkpoint)
    if type(saved) is not VecNormalize:
        raise ValueError(f"{checkpoint} was made with {type(saved).__name__}: pass environments wrapped in one.")
    return in_normalization(env, *normalization_state(saved))


def restore(model: OffPolicyAlgorithm, checkpoint: Path) -> None:
    """
    Restore what the model's zip file does not hold: replay buffer, normalisation statistics and random states. The
    environments start new episodes. Raises ``ValueError`` if the checkpoint is damaged or made with other arguments.
    """
    check_agreement(checkpoint, **_identity(model))
    model.replay_buffer = None  # memory may not hold two
    buffer = read_buffer(checkpoint)
    if isinstance(buffer, HerReplayBuffer):
        assert model.env is not None
        buffer.set_env(model.env)
    buffer.device = model.device
    model.replay_buffer = buffer
    normalization = model.get_vec_normalize_env()
    if (checkpoint / NORMALIZATION).is_file() != (normalization is not None):
        raise ValueError(
            f"{checkpoint} was made {'without' if normalization else 'with'} VecNormalize: pass environments "
            f"{'without' if normalization else 'with'} it."
        )
    if normalization is not None:
        assert model.env is not None
        set_statistics(model.env, *normalization_state(_read_normalization(checkpoint)))
    set_training_states(model, pickle.loads((checkpoint / RANDOM_STATES).read_bytes()))


def _identity(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """What a checkpoint and the model that resumes from it must agree on."""
    assert model.replay_buffer_class is not None
    has_gamma = issubclass(model.replay_buffer_class, NStepReplayBuffer)
    kwargs = model.replay_buffer_kwargs
    return {
        "algorithm": type(model).__name__,
        "num_timesteps": model.num_timesteps,
        "n_envs": model.n_envs,
        # Before the class, which depends on it, so that the error names the cause
        "n_steps": int(model.n_steps),
        "replay_buffer_class": model.replay_buffer_class.__name__,
        "buffer_size": int(model.buffer_size),
        "optimize_memory_usage": bool(model.optimize_memory_usage),
        "gamma": float(model.gamma) if has_gamma else None,
        # Other objects cannot be compared in JSON
        "replay_buffer_kwargs": {name: kwargs[name] for name in kwargs if isinstance(kwargs[name], int | float | str)},
    }


def _read_normalization(checkpoint: Path) -> VecNormalize:
    normalization: VecNormalize = pickle.loads((checkpoint / NORMALIZATION).read_bytes())
    return normalization


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def _checksum_of_file(path: Path) -> str:
    """In chunks, since the file may be larger than the memory."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum.update(chunk)
    return checksum.hexdigest()


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("_")[0])
