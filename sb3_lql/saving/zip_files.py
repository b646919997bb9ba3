"""Whether SB3's zip files can be loaded: told before anything in them is unpickled."""

import json
import zipfile
import zlib
from inspect import isabstract
from io import BufferedIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import open_path

#: The attribute of a model, and so the entry of a file, that names its algorithms, the most specific first.
ALGORITHMS = "_algorithms"
#: Arguments by which to tell whose a file is that does not say so, each of the algorithms named and of none below.
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
#: Those of this package, whose older files do not say so.
_OWN = frozenset({"NCLQL", "LQL"})
_ZIP = b"PK"


def algorithm_names(model_class: type[OffPolicyAlgorithm]) -> list[str]:
    """
    :param model_class: class of a model
    :return: names of it and of the algorithms that it derives from
    """
    bases = (base for base in model_class.__mro__ if issubclass(base, OffPolicyAlgorithm) and not isabstract(base))
    return [base.__name__ for base in bases if base.policy_aliases]  # which SB3's own base and mixins lack


def check_zip_file(path: str | Path | BufferedIOBase, algorithms: list[str]) -> None:
    """
    :param path: name of the file, to which ".zip" is added if there is none of that name; or an open file, which is
        left where it was
    :param algorithms: names of the class to load, and of the algorithms that it derives from
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is damaged or no model, or one of another algorithm
    """
    if not isinstance(path, str | Path):
        place = path.tell()
        try:
            _check("The file", cast(BinaryIO, path), algorithms)
        finally:
            path.seek(place)
        return
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: pass a file; load_checkpoint loads what save_checkpoint has written.")
    with open_path(path, "r", suffix="zip") as file:
        _check(str(path), cast(BinaryIO, file), algorithms)


def _check(name: str, file: BinaryIO, algorithms: list[str]) -> None:
    wanted = algorithms[0]
    beginning = file.read(9)
    file.seek(-len(beginning), 1)
    if beginning[8:] == b"{":
        raise ValueError(f"{name} is a file of tensors without code (safetensors): use {wanted}.load_safe.")
    if not (beginning.startswith(_ZIP) or zipfile.is_zipfile(file)):  # it may stand behind something else
        raise ValueError(f"{name} is no zip file, and so no model that save has written: pass one to {wanted}.load.")
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            data = json.loads(archive.read("data")) if "data" in archive.namelist() else None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} is a zip file that is damaged or not complete ({error}): copy it again.") from error
    if damaged is not None:
        raise ValueError(f"{name} is a zip file that is damaged at {damaged}: copy it again.")
    if not isinstance(data, dict):
        raise ValueError(f"{name} is a zip file that holds no model: pass one that a model's save has written.")
    found = _algorithms(data, algorithms)
    if found and not set(found) & set(algorithms):
        raise ValueError(
            f"{name} holds a model of {found[0]}, and not of {wanted}: load it with its own class. A model of one "
            "algorithm cannot become one of another."
        )


def _algorithms(data: dict[str, Any], wanted: list[str]) -> list[str]:
    """The names of a file's algorithms, the most specific first, as far as they can be told."""
    if isinstance(named := data.get(ALGORITHMS), list):
        return named
    told = next((algorithm for argument, algorithm in _TELLTALES.items() if argument in data), None)
    # A class of a user's own may have the same arguments
    return [] if told is None or (told in _OWN and not _OWN & set(wanted)) else [told]
