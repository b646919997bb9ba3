"""A model's constructor arguments as JSON, and back: checked more strictly than what users write."""

import inspect
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.her.goal_selection_strategy import KEY_TO_GOAL_STRATEGY

from sb3_lql.common.buffers import default_replay_buffer_class
from sb3_lql.common.validation import check_count, check_flag, check_number
from sb3_lql.saving.safe.allowlist import CLASSES
from sb3_lql.saving.safe.files import fields
from sb3_lql.saving.safe.values import Decoder, check_integer, encode

#: What whoever loads a file chooses, not the file: where to compute, and where to write.
NOT_STORED = frozenset({"self", "policy", "env", "device", "tensorboard_log", "_init_setup_model"})
#: Most that a file may ask for, of what costs memory or time that nothing else in it pays for. Whoever loads it may
#: ask for more.
LIMITS = {
    "buffer_size": 10**9,
    "batch_size": 10**6,
    "gradient_steps": 10_000,
    "n_steps": 10_000,
    "n_langevin_steps": 10_000,
    "n_noise_levels": 10_000,
    "n_action_samples": 10_000,
    "stats_window_size": 10**7,
}
#: What the replay buffers that a file may name take, besides what the model tells them.
BUFFER_ARGUMENTS = frozenset(
    {"handle_timeout_termination", "n_steps", "gamma", "copy_info_dict", "n_sampled_goal", "goal_selection_strategy"}
)
#: HER keeps a Python object for each transition, and makes them all at once.
MAX_HINDSIGHT_BUFFER = 10**7
#: Langevin steps of a chain, one after the other: some seconds.
MAX_CHAIN_LENGTH = 2_000
#: Langevin steps for one action, of all its chains.
MAX_LANGEVIN_STEPS = 100_000
#: Random generators take seeds of 32 bits.
MAX_SEED = 2**32 - 1


def argument_names(model_class: type[OffPolicyAlgorithm]) -> list[str]:
    """
    :param model_class: class of the model
    :return: names of the constructor's arguments that a file holds; its bases' too, where it hands them on
    """
    names: list[str] = []
    for base in model_class.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
            kinds = {parameter.kind for parameter in parameters}
            named = (p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
            names += [name for name in named if name not in {*NOT_STORED, *names}]
            if inspect.Parameter.VAR_KEYWORD not in kinds:
                break
    return names


def encode_arguments(model: OffPolicyAlgorithm, custom: dict[str, Any]) -> dict[str, Any]:
    """
    :param model: a model
    :param custom: takes what has no place in JSON, by its path
    :return: its arguments for JSON
    :raises ValueError: if it has forgotten one
    """
    # From the dictionary: while a model learns, properties add to what the user set
    values = vars(model) | dict(stats_window_size=vars(model)["_stats_window_size"])
    # The default is chosen anew, so that whoever loads the model may change n_steps
    if values["replay_buffer_class"] is default_replay_buffer_class(model.observation_space, model.n_steps):
        values["replay_buffer_class"] = None
    names = argument_names(type(model))
    if forgotten := [name for name in names if name not in values]:
        raise ValueError(f"{type(model).__name__} keeps no attribute {forgotten[0]} of its argument: add one.")
    return {name: encode(name, values[name], custom) for name in names}


def decode_arguments(model_class: type[OffPolicyAlgorithm], encoded: Any, decoder: Decoder) -> dict[str, Any]:
    """
    Undo :func:`encode_arguments`.

    :param model_class: class of the model
    :param encoded: what JSON says
    :param decoder: with what whoever loads the file chose instead
    :return: the arguments
    :raises ValueError: for arguments that are missing, unknown or absurd
    :raises TypeError: for arguments of the wrong type
    """
    names = argument_names(model_class)
    replaced = decoder.replacements.keys() & set(names)
    fields("arguments", dict.fromkeys(replaced) | fields("arguments", encoded, None), names)
    arguments = {name: decoder.decode(name, encoded.get(name)) for name in names}
    for name in arguments.keys() - replaced:
        value = arguments[name]
        if name in _CHECKS:
            _CHECKS[name](name, value)
        if name in LIMITS:
            _check_limit(name, value)
    buffer_kwargs = arguments["replay_buffer_kwargs"]
    own_buffer = {"replay_buffer_class", "replay_buffer_kwargs"} & replaced
    if not own_buffer and (unknown := sorted(buffer_kwargs.keys() - BUFFER_ARGUMENTS)):
        raise ValueError(f"replay_buffer_kwargs has {reprlib.repr(unknown)}, which no replay buffer takes")
    if "buffer_size" not in replaced and issubclass(arguments["replay_buffer_class"] or ReplayBuffer, HerReplayBuffer):
        _check_limit("buffer_size", arguments["buffer_size"], MAX_HINDSIGHT_BUFFER)
    return arguments


def _check_limit(name: str, value: Any, limit: int | None = None) -> None:
    try:
        check_integer(name, value, -1 if name == "gradient_steps" else 1, LIMITS[name] if limit is None else limit)
    except ValueError as error:
        raise ValueError(f"{error}; pass {name}=... to ask for more") from None


def check_noise(noise: ActionNoise | None, shape: tuple[int, ...]) -> None:
    """
    :param noise: from a file
    :param shape: of an action
    :raises ValueError: if the noise has another
    """
    for attribute in ("_mu", "_sigma", "initial_noise"):
        value = getattr(noise, attribute, None)
        if value is not None and np.shape(value) not in ((), shape):
            raise ValueError(f"action_noise has shape {np.shape(value)}, and actions have {shape}")


def _check_seed(name: str, value: Any) -> None:
    if value is not None:
        check_integer(name, value, 0, MAX_SEED)


def _check_verbose(name: str, value: Any) -> None:
    check_integer(name, value, 0, 2)


def _check_action_noise(name: str, value: Any) -> None:
    if not (value is None or isinstance(value, ActionNoise)):
        raise TypeError(f"{name}={reprlib.repr(value)} is no noise")


def _check_learning_rate(name: str, value: Any) -> None:
    for progress in (1.0, 0.0):
        check_number(name, value(progress) if callable(value) else value, low=0.0)


def _check_buffer_class(name: str, value: Any) -> None:
    if not (value is None or isinstance(value, type)):
        raise TypeError(f"{name}={reprlib.repr(value)} is no class, and may be {', '.join(CLASSES[name])}")


def _check_buffer_kwargs(name: str, value: Any) -> None:
    for key, part in fields(name, value, None).items():
        where = f"{name}.{key}"
        if key in ("handle_timeout_termination", "copy_info_dict"):
            check_flag(where, part)
        elif key in ("n_steps", "n_sampled_goal"):
            check_integer(where, part, 0 if key == "n_sampled_goal" else 1, LIMITS["n_steps"])
        elif key == "gamma":
            check_number(where, part, low=0.0, high=1.0)
        elif key == "goal_selection_strategy" and str(part).lower() not in KEY_TO_GOAL_STRATEGY:
            raise ValueError(f"{where}={reprlib.repr(part)} must be one of {', '.join(KEY_TO_GOAL_STRATEGY)}")


def _check_policy_kwargs(name: str, value: Any) -> None:
    kwargs = fields(name, value, None)
    if "normalize_images" in kwargs:
        check_flag(f"{name}.normalize_images", kwargs["normalize_images"])
    for key in ("activation_fn", "features_extractor_class", "optimizer_class"):
        if not (kwargs.get(key) is None or callable(kwargs[key])):
            raise TypeError(f"{name}.{key}={reprlib.repr(kwargs[key])} is no class")
    for key in ("features_extractor_kwargs", "optimizer_kwargs"):
        if kwargs.get(key) is not None:
            fields(f"{name}.{key}", kwargs[key], None)
    net_arch = kwargs.get("net_arch") or []
    for sizes in net_arch.values() if isinstance(net_arch, dict) else [net_arch]:
        for size in sizes if isinstance(sizes, (list, tuple)) else [None]:
            check_count(f"{name}.net_arch", size)


_CHECKS: dict[str, Callable[[str, Any], object]] = {
    "seed": _check_seed,
    "verbose": _check_verbose,
    "learning_starts": check_number,  # its property makes an integer of a flag
    "optimize_memory_usage": check_flag,
    "use_sde": check_flag,
    "action_noise": _check_action_noise,
    "learning_rate": _check_learning_rate,
    "replay_buffer_class": _check_buffer_class,
    "replay_buffer_kwargs": _check_buffer_kwargs,
    "policy_kwargs": _check_policy_kwargs,
}
