"""All that a training needs to go on in another process, in a folder: everything or nothing."""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql.common.buffer_files import read_buffer, write_buffer
from sb3_lql.common.collection import CollectingAlgorithm
from sb3_lql.common.files import UNFINISHED, discard_folder, whole_folder
from sb3_lql.common.random_states import set_training_states, training_states

#: Names within a checkpoint. The model's is SB3's file.
MODEL = "model.zip"
NORMALIZATION = "vecnormalize.pkl"
RANDOM_STATES = "random_states.pkl"
#: What the checkpoint is of, as JSON.
MANIFEST = "checkpoint.json"


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
    if isinstance(model, CollectingAlgorithm):
        model.train_postponed()
    folder.mkdir(parents=True, exist_ok=True)
    before = checkpoints(folder)
    number = _number(before[-1]) + 1 if before else 1
    checkpoint = folder / f"{number:06d}_{model.num_timesteps}_steps"
    with whole_folder(checkpoint) as unfinished:
        model.save(unfinished / MODEL)
        assert model.replay_buffer is not None
        write_buffer(model.replay_buffer, unfinished)
        if (normalization := model.get_vec_normalize_env()) is not None:
            normalization.save(str(unfinished / NORMALIZATION))
        (unfinished / RANDOM_STATES).write_bytes(pickle.dumps(training_states(model)))
        manifest = {
            "algorithm": type(model).__name__,
            "num_timesteps": model.num_timesteps,
            "n_updates": model._n_updates,
            "n_envs": model.n_envs,
            "extra": extra or {},
        }
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    for path in folder.glob(f"*{UNFINISHED}*"):
        shutil.rmtree(path)
    if keep is not None:
        for path in before[: len(before) + 1 - keep]:
            discard_folder(path)
    return checkpoint


def checkpoints(folder: Path) -> list[Path]:
    """
    :param folder: folder for checkpoints; there may be none
    :return: those that are whole, the newest one last
    """
    names = re.compile(r"\d+_\d+_steps")
    found = [path.parent for path in folder.glob(f"*/{MANIFEST}") if names.fullmatch(path.parent.name)]
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
    :return: what it is of: algorithm, num_timesteps, n_updates, n_envs, extra
    :raises ValueError: if it is damaged
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        names = {"algorithm", "num_timesteps", "n_updates", "n_envs", "extra"}
        if not isinstance(manifest, dict) or not names <= manifest.keys():
            raise ValueError(f"{MANIFEST} does not name {sorted(names)}")
    except (OSError, ValueError) as error:
        raise ValueError(f"{checkpoint} is damaged: {error}; take an older checkpoint.") from error
    return manifest


def restore(model: OffPolicyAlgorithm, checkpoint: Path) -> None:
    """
    Bring back what the model's own file does not hold: replay buffer, normalisation statistics, random states. The
    environments begin new episodes.

    :param model: the model as it was loaded from the checkpoint, with as many environments as it had
    :param checkpoint: a checkpoint
    :raises ValueError: if the checkpoint is damaged, or is of something else
    """
    manifest = read_manifest(checkpoint)
    expected = {"algorithm": type(model).__name__, "num_timesteps": model.num_timesteps, "n_envs": model.n_envs}
    for name, value in expected.items():
        if manifest[name] != value:
            raise ValueError(f"{checkpoint} is of {name}={manifest[name]!r}, not {value!r}: load it with the same.")
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
        saved = vars(pickle.loads((checkpoint / NORMALIZATION).read_bytes()))
        vars(normalization).update({name: value for name, value in saved.items() if name != "venv"})
    set_training_states(model, pickle.loads((checkpoint / RANDOM_STATES).read_bytes()))


def _number(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("_")[0])
