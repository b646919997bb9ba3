"""All that a training needs to go on in another process, in a folder: everything or nothing."""

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

#: Names within a checkpoint. The model's is SB3's file.
MODEL = "model.zip"
NORMALIZATION = "vecnormalize.pkl"
RANDOM_STATES = "random_states.pkl"
#: What the checkpoint is of, and what it consists of, as JSON.
MANIFEST = "checkpoint.json"
#: Of which files are read for their checksums.
CHUNK_BYTES = 2**20
#: Of the checkpoints' own names.
NAME = r"\d+_\d+_steps"


def save_checkpoint(
    model: OffPolicyAlgorithm, folder: Path, keep: int | None = None, extra: dict[str, Any] | None = None
) -> Path:
    """
    Write model, optimiser, replay buffer, normalisation statistics, counters and random states. A kill or a full disk
    at any moment leaves the checkpoints that were there.

    :param model: a model with environments, between updates and collection; updates that it has put off are made first
    :param folder: folder for checkpoints, in which this one gets a folder of its own
    :param keep: delete all but so many checkpoints, once this one is whole; ``None`` for no limit
    :param extra: kept in the manifest, as JSON
    :return: the checkpoint
    """
    if isinstance(model, CollectionMixin):
        model.train_postponed()
    Path(os.path.realpath(folder)).mkdir(parents=True, exist_ok=True)  # where a link may lead to nothing yet
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
            **_in_common(model),
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
    """
    :param folder: folder for checkpoints; there may be none
    :return: those that are whole, the newest one last
    """
    found = [path.parent for path in folder.glob(f"*/{MANIFEST}") if re.fullmatch(NAME, path.parent.name)]
    return sorted(found, key=_number)


def find_checkpoint(path: Path) -> Path | None:
    """
    :param path: a checkpoint, a folder of them, or a folder that has such a folder by the name of "checkpoints"
    :return: the checkpoint, or the newest; ``None`` if there is none
    """
    if (path / MANIFEST).is_file():
        return path
    found = checkpoints(path) or checkpoints(path / "checkpoints")
    return found[-1] if found else None


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """
    :param checkpoint: a checkpoint
    :return: what it is of: algorithm, num_timesteps, n_updates, n_envs, extra, and arguments that the replay buffer has
    :raises ValueError: if it is damaged, as far as that shows without reading all of it: see :func:`check_whole`
    """
    try:
        return _read_manifest(checkpoint)
    except (OSError, ValueError) as error:
        raise _damaged(checkpoint, error) from error


def check_whole(checkpoint: Path) -> None:
    """
    Compare all that a checkpoint holds with its checksums. Unpickle nothing before.

    :param checkpoint: a checkpoint
    :raises ValueError: naming the part that is damaged, and an older checkpoint that is whole, if there is one
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
    if "bytes" in manifest:  # of a version that recorded nothing else
        sizes = manifest["bytes"]
    elif manifest.pop("sha256", None) == _checksum(manifest):
        sizes = {name: part["bytes"] for name, part in manifest["parts"].items()}
    else:
        raise ValueError(f"{MANIFEST} does not have its checksum")
    for name, size in sizes.items():
        if (checkpoint / name).stat().st_size != size:
            raise ValueError(f"{name} does not have {size} bytes")
    return manifest


def _check_whole(checkpoint: Path) -> None:
    for name, part in _read_manifest(checkpoint).get("parts", {}).items():
        if _checksum_of_file(checkpoint / name) != part["sha256"]:
            raise ValueError(f"{name} does not have its checksum")


def _damaged(checkpoint: Path, error: Exception) -> ValueError:
    """:return: an error that names what to take instead"""
    folder = checkpoint.resolve().parent
    found = checkpoints(folder)
    older = found[: found.index(checkpoint.resolve())] if checkpoint.resolve() in found else found
    remedy = f" (there is no whole one in {folder})"
    for candidate in reversed(older):
        with suppress(OSError, ValueError):
            _check_whole(candidate)
            remedy = f": {candidate}"
            break
    return ValueError(f"{checkpoint} is damaged: {error}; take an older checkpoint{remedy}.")


def check_agreement(checkpoint: Path, **values: Any) -> None:
    """
    :param checkpoint: a checkpoint
    :param values: by names that its manifest has, what they must be
    :raises ValueError: if they are not, or if the checkpoint is not whole
    """
    manifest = read_manifest(checkpoint)
    for name, value in values.items():
        if manifest[name] != value:
            raise ValueError(
                f"{checkpoint} was made with {name}={manifest[name]!r}, not {value!r}: load it with the same."
            )


def with_saved_normalization(env: VecEnv, checkpoint: Path) -> VecEnv:
    """
    :param env: environments, with the channels of images first
    :param checkpoint: a whole checkpoint
    :return: the same, in a ``VecNormalize`` if the checkpoint's were in one and these fit into it and are in none
    :raises ValueError: if that was a class of the user's own, which only the user can make
    """
    if not (checkpoint / NORMALIZATION).is_file() or unwrap_vec_normalize(env) is not None:
        return env
    saved = _read_normalization(checkpoint)
    if type(saved) is not VecNormalize:
        raise ValueError(f"{checkpoint} was made in {type(saved).__name__}: pass environments in one.")
    return in_normalization(env, *normalization_state(saved))


def restore(model: OffPolicyAlgorithm, checkpoint: Path) -> None:
    """
    Bring back what the model's own file does not hold: replay buffer, normalisation statistics, random states. The
    environments begin new episodes.

    :param model: the model as it was loaded from the checkpoint, with as many environments as it had
    :param checkpoint: a checkpoint
    :raises ValueError: if the checkpoint is not whole, or if it is of something else or of a replay buffer that was
        made with other arguments than the model's
    """
    check_agreement(checkpoint, **_in_common(model))
    model.replay_buffer = None  # where memory is short there is no room for two
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
            f"{'without it' if normalization else 'in it'}."
        )
    if normalization is not None:
        assert model.env is not None
        set_statistics(model.env, *normalization_state(_read_normalization(checkpoint)))
    set_training_states(model, pickle.loads((checkpoint / RANDOM_STATES).read_bytes()))


def _in_common(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """What a checkpoint and the model that takes it over must have in common, and arguments that its buffer keeps."""
    assert model.replay_buffer_class is not None
    has_gamma = issubclass(model.replay_buffer_class, NStepReplayBuffer)
    kwargs = model.replay_buffer_kwargs
    return {
        "algorithm": type(model).__name__,
        "num_timesteps": model.num_timesteps,
        "n_envs": model.n_envs,
        # Before the class, which follows from it
        "n_steps": int(model.n_steps),
        "replay_buffer_class": model.replay_buffer_class.__name__,
        "buffer_size": int(model.buffer_size),
        "optimize_memory_usage": bool(model.optimize_memory_usage),
        "gamma": float(model.gamma) if has_gamma else None,
        # Objects cannot be compared once they are in a file
        "replay_buffer_kwargs": {name: kwargs[name] for name in kwargs if isinstance(kwargs[name], int | float | str)},
    }


def _read_normalization(checkpoint: Path) -> VecNormalize:
    normalization: VecNormalize = pickle.loads((checkpoint / NORMALIZATION).read_bytes())
    return normalization


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def _checksum_of_file(path: Path) -> str:
    """Of a file that may be larger than the memory."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum.update(chunk)
    return checksum.hexdigest()


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("_")[0])
