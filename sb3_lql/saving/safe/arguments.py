"""A model's constructor arguments as JSON, and back: checked more strictly than what users write."""

import inspect
import reprlib
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from msgspec import Meta
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_lql.collecting.replay import ReplayMixin
from sb3_lql.common.validation import LARGEST_SEED, check_number
from sb3_lql.saving.safe.files import convert, require_keys
from sb3_lql.saving.safe.values import MAX_INTEGER, Count, Decoder, Number, encode

#: What the caller of ``load_safe`` chooses, not the file: where to compute, and where to write.
NOT_STORED = frozenset({"policy", "env", "device", "tensorboard_log", "_init_setup_model"})
#: Most that a file may ask for in an argument that is an integer, and exceptions. The caller of ``load_safe`` may ask
#: for more.
MAX_COUNT = 10**6
LIMITS = {
    "buffer_size": 10**9,
    "decay_steps": MAX_INTEGER,
    "decay_updates": MAX_INTEGER,
    "learning_starts": MAX_INTEGER,
    "seed": LARGEST_SEED,
    "stats_window_size": 10**7,
    "gradient_steps": 10_000,
    "n_steps": 10_000,
}
#: HER keeps a Python object for each transition, and makes them all at once.
MAX_HINDSIGHT_BUFFER = 10**7

_Steps = Annotated[int, Meta(ge=1, le=LIMITS["n_steps"])]
_Class = Callable[..., Any] | None
_Layers = list[Count]


class _BufferArguments(TypedDict, total=False):
    """What the replay buffers that a file may name take, besides what the model tells them."""

    handle_timeout_termination: bool
    n_steps: _Steps
    gamma: Annotated[float, Meta(ge=0.0, le=1.0)]
    copy_info_dict: bool
    n_sampled_goal: Annotated[int, Meta(ge=0, le=LIMITS["n_steps"])]
    goal_selection_strategy: Annotated[str, Meta(pattern="^(?i:future|final|episode)$")]


class _PolicyArguments(TypedDict, total=False):
    """Types that are checked here because the policy would accept a wrong one silently."""

    normalize_images: bool
    activation_fn: _Class
    features_extractor_class: _Class
    optimizer_class: _Class
    features_extractor_kwargs: dict[str, Any] | None
    optimizer_kwargs: dict[str, Any] | None
    net_arch: _Layers | dict[str, _Layers] | None


#: Types that are checked before anything is made with such a value, or more strictly than by the constructor.
_TYPES: dict[str, Any] = {
    "seed": Annotated[int, Meta(ge=0)] | None,
    "verbose": Annotated[int, Meta(ge=0, le=2)],
    "stats_window_size": Count,
    "learning_starts": Number,
    "optimize_memory_usage": bool,
    "use_sde": bool,
    "action_noise": ActionNoise | None,
    "replay_buffer_class": type | None,
    "replay_buffer_kwargs": _BufferArguments,
    "policy_kwargs": _PolicyArguments,
}


def argument_names(model_class: type[OffPolicyAlgorithm]) -> list[str]:
    """
    :param model_class: class of the model
    :return: names of the constructor's arguments that a file holds; its bases' too, where it passes them on
    """
    names: list[str] = []
    for base in model_class.__mro__:
        if "__init__" in vars(base):
            parameters = inspect.signature(base).parameters.values()
            named = (p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
            names += [name for name in named if name not in {*NOT_STORED, *names}]
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names


def changeable(model_class: type[OffPolicyAlgorithm]) -> list[str]:
    """
    :param model_class: class of the model
    :return: names of the constructor's arguments that may be changed when a file is loaded
    """
    return [*argument_names(model_class), "tensorboard_log"]


def own_counts(model: OffPolicyAlgorithm) -> list[str]:
    """
    :param model: a model with its arguments as attributes
    :return: names of its arguments that are integers above 1 and that SB3 does not know: what makes chains long
    """
    of_sb3 = inspect.signature(OffPolicyAlgorithm).parameters
    own = (name for name in argument_names(type(model)) if name not in of_sb3)
    return [name for name in own if type(value := getattr(model, name)) is int and value > 1]


def encode_arguments(model: ReplayMixin, custom: dict[str, Any]) -> dict[str, Any]:
    """
    :param model: a model
    :param custom: takes what has no place in JSON, by its path
    :return: its arguments for JSON
    :raises ValueError: if it has forgotten one
    """
    # From the dictionary: while a model learns, properties add to what the user set
    values = vars(model) | dict(stats_window_size=vars(model)["_stats_window_size"])
    # The default is chosen anew, so that n_steps may be changed on loading
    if values["replay_buffer_class"] is model._default_replay_buffer_class(model.n_steps):
        values["replay_buffer_class"] = None
    names = argument_names(type(model))
    if forgotten := [name for name in names if name not in values]:
        raise ValueError(f"{type(model).__name__} keeps no attribute {forgotten[0]} of its argument: add one.")
    return {name: encode(name, values[name], custom) for name in names}


def decode_arguments(
    model_class: type[OffPolicyAlgorithm], encoded: dict[str, Any], decoder: Decoder
) -> dict[str, Any]:
    """
    Undo :func:`encode_arguments`.

    :param model_class: class of the model
    :param encoded: what JSON says
    :param decoder: with what the caller of ``load_safe`` chose instead
    :return: the arguments
    :raises ValueError: for arguments that are missing, unknown or absurd
    :raises TypeError: for arguments of the wrong type
    """
    names = argument_names(model_class)
    replaced = decoder.replacements.keys() & set(names)
    require_keys("arguments", dict.fromkeys(replaced) | encoded, names)
    arguments = {name: decoder.decode(name, encoded.get(name)) for name in names}
    of_file = {name: value for name, value in arguments.items() if name not in replaced}
    for name, value in of_file.items():
        convert(name, value, _TYPES.get(name, Any))
        _check_limit(name, value, LIMITS.get(name, MAX_COUNT))
    if not {"replay_buffer_class", "replay_buffer_kwargs"} & replaced:
        unknown = sorted(arguments["replay_buffer_kwargs"].keys() - _BufferArguments.__annotations__.keys())
        if unknown:
            raise ValueError(f"replay_buffer_kwargs has {reprlib.repr(unknown)}, which no replay buffer takes")
    if "buffer_size" in of_file and issubclass(arguments["replay_buffer_class"] or ReplayBuffer, HerReplayBuffer):
        _check_limit("buffer_size", arguments["buffer_size"], MAX_HINDSIGHT_BUFFER)
    if callable(rate := of_file.get("learning_rate")):
        for progress in (1.0, 0.0):
            check_number("learning_rate", rate(progress), low=0.0)
    return arguments


def _check_limit(name: str, value: Any, limit: int) -> None:
    if type(value) is int and value > limit:
        raise ValueError(
            f"{name}={value} is above {limit}, the most a file may ask for: pass {name}=... to ask for more"
        )
