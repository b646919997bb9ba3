"""Checks of SB3's zip files before anything in them is unpickled."""

import json
import zipfile
import zlib
from inspect import isabstract
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import open_path

#: Attribute of a model, and so entry of a file, with the names of its algorithms, the most specific first.
ALGORITHMS = "_algorithms"
#: Arguments that identify the algorithm of files without that entry; none occurs in the algorithms further down.
_TELLTALES = {
    "n_noise_levels": "NCLQL",
    "langevin_step_size": "LQL",
    "top_quantiles_to_drop_per_net": "TQC",
    "target_policy_noise": "TD3 or DDPG",
    "policy_delay": "CrossQ",
    "target_entropy": "SAC",
    "exploration_fraction": "DQN or QRDQN",
    "clip_range": "PPO",
    "cg_max_steps": "TRPO",
    "n_delta": "ARS",
    "vf_coef": "A2C",
}
#: This package's algorithms, whose older files lack that entry.
_OWN = frozenset({"NCLQL", "LQL"})
_ZIP = b"PK"


def algorithm_names(model_class: type[OffPolicyAlgorithm]) -> list[str]:
    """
    The class's name and, if it is a user's, those of the algorithms that it derives from up to this package's, the most
    specific first. Ours may derive from one another without one being able to load the other's files.
    """
    names = []
    for base in model_class.__mro__:
        # SB3's base class and mixins have no policies
        if not issubclass(base, OffPolicyAlgorithm) or isabstract(base) or not base.policy_aliases:
            continue
        is_own = base.__module__.partition(".")[0] == "sb3_lql"
        if is_own and "__init__" not in vars(base):  # a family, from which users derive algorithms
            continue
        names.append(base.__name__)
        if is_own:
            break
    return names


def check_zip_file(path: str | Path | BufferedIOBase, algorithms: list[str]) -> set[str]:
    """
    Return the names of a saved model's attributes, or raise ``ValueError`` if a file is damaged, not a model, or a
    model of none of these :func:`algorithm_names`. A path gets ".zip" added if that file does not exist; an open file
    keeps its position.
    """
    if not isinstance(path, str | Path):
        place = path.tell()
        try:
            return _check("The file", cast(BinaryIO, path), algorithms)
        finally:
            path.seek(place)
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: pass a file, or use load_checkpoint for checkpoints.")
    with open_path(path, "r", suffix="zip") as file:
        return _check(str(path), cast(BinaryIO, file), algorithms)


def _check(name: str, file: BinaryIO, algorithms: list[str]) -> set[str]:
    wanted = algorithms[0]
    beginning = file.read(9)
    file.seek(-len(beginning), 1)
    if beginning[8:] == b"{":
        raise ValueError(f"{name} is a file of tensors without code (safetensors): use {wanted}.load_safe.")
    if not (beginning.startswith(_ZIP) or zipfile.is_zipfile(file)):  # zip files may have a prefix
        raise ValueError(f"{name} is not a zip file: pass a file written by save to {wanted}.load.")
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            data = json.loads(archive.read("data")) if "data" in archive.namelist() else None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} is a damaged or incomplete zip file ({error}): copy it again.") from error
    if damaged is not None:
        raise ValueError(f"{name} is a damaged zip file (at {damaged}): copy it again.")
    if not isinstance(data, dict):
        raise ValueError(f"{name} is a zip file without a model: pass a file written by a model's save.")
    found = _algorithms(data, algorithms)
    if found and not set(found) & set(algorithms):
        raise ValueError(
            f"{name} holds a model of {found[0]}, not of {wanted}: load it with its own class. Models cannot be "
            "converted between algorithms."
        )
    return set(data)


def _algorithms(data: dict[str, Any], wanted: list[str]) -> list[str]:
    """The names of a file's algorithms, the most specific first, as far as known."""
    if isinstance(named := data.get(ALGORITHMS), list):
        return named
    told = next((algorithm for argument, algorithm in _TELLTALES.items() if argument in data), None)
    # A user's own algorithm may have the same arguments
    return [] if told is None or (told in _OWN and not _OWN & set(wanted)) else [told]
