"""Models in files that hold tensors and JSON, and no code."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import torch as th
from msgspec import Meta
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_lql.common.compatibility import check_arguments_known, check_observation_space
from sb3_lql.common.files import with_suffix
from sb3_lql.common.validation import check_action_space, check_number
from sb3_lql.saving.normalization import check_spaces_within, in_normalization, set_statistics, without_environments
from sb3_lql.saving.safe.arguments import changeable, decode_arguments, encode_arguments
from sb3_lql.saving.safe.files import convert, read_file, require_keys, write_file
from sb3_lql.saving.safe.networks import check_sizes, policy_on_meta, pop_weights
from sb3_lql.saving.safe.normalization_settings import decode_normalization, encode_normalization
from sb3_lql.saving.safe.optimizer import (
    OptimizerState,
    check_options,
    decode_optimizer,
    encode_optimizer,
    load_optimizer,
)
from sb3_lql.saving.safe.spaces import SpaceForm, decode_space, encode_space
from sb3_lql.saving.safe.values import MAX_INTEGER, Decoder, Number

SelfAlgorithm = TypeVar("SelfAlgorithm", bound=OffPolicyAlgorithm)

#: Version of what the JSON says.
FORMAT = 1
#: Most environments that a file may say a model had.
MAX_ENVS = 100_000
#: Characters of an error that are worth reading, where a file is quoted in it.
_LONGEST_ERROR = 500

_Counter = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]


class Counters(msgspec.Struct, forbid_unknown_fields=True):
    """The attributes from which learning resumes."""

    num_timesteps: _Counter
    _total_timesteps: _Counter
    _num_timesteps_at_start: _Counter
    _episode_num: _Counter
    _n_updates: _Counter


class Document(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What the JSON says."""

    format: int
    algorithm: str
    policy_class: Any
    observation_space: SpaceForm
    action_space: SpaceForm
    n_envs: Annotated[int, Meta(ge=1, le=MAX_ENVS)]
    arguments: dict[str, Any]
    counters: Counters
    progress_remaining: Number
    optimizer: list[dict[str, Any]]
    normalization: dict[str, Any] | None
    #: Optimisers besides the critic's, where the policy has some.
    optimizers: dict[str, list[dict[str, Any]]] = msgspec.field(default_factory=dict)


class _Contents(NamedTuple):
    """A file, checked: a model without networks and replay buffer, what they hold, and what VecNormalize does."""

    model: Any
    weights: dict[str, th.Tensor]
    optimizers: dict[str, OptimizerState]
    normalization: tuple[dict[str, Any], dict[str, np.ndarray]] | None


def save_safe(model: Any, path: str | Path) -> None:
    """
    Save a model as tensors and JSON: all that acting and further learning take, but not the replay buffer. What is code
    (a schedule or a network of one's own) is left out, and asked for when the file is loaded.

    :param model: the model
    :param path: name of the file, to which ".safetensors" is added where it has no suffix
    :raises ValueError: if the model could not be loaded from such a file; then there is none
    """
    path = with_suffix(path, ".safetensors")
    custom: dict[str, Any] = {}
    tensors: dict[str, th.Tensor] = {f"policy.{name}": value for name, value in model.policy.state_dict().items()}
    optimizers = {
        name: encode_optimizer(_path(name), optimizer, tensors) for name, optimizer in model.policy.optimizers.items()
    }
    document = Document(
        format=FORMAT,
        algorithm=type(model).__name__,
        policy_class=_policy_alias(model, custom),
        observation_space=encode_space("observation_space", model.observation_space, tensors),
        action_space=encode_space("action_space", model.action_space, tensors),
        n_envs=model.n_envs,
        arguments=encode_arguments(model, custom),
        counters=Counters(*(int(getattr(model, name)) for name in Counters.__struct_fields__)),
        progress_remaining=float(model._current_progress_remaining),
        optimizer=optimizers.pop("critic"),
        normalization=encode_normalization(model.get_vec_normalize_env(), tensors),
        optimizers=optimizers,
    )
    said = msgspec.to_builtins(document)
    # Neither views of one storage nor anything of a GPU
    tensors = {name: value.detach().cpu().clone(memory_format=th.contiguous_format) for name, value in tensors.items()}
    with _naming(f"{path} was not written, since nobody could load it"):
        _decode(type(model), said, dict(tensors), Decoder(custom | dict(verbose=0)), "cpu")
    write_file(path, said, tensors)


def load_safe(
    cls: type[SelfAlgorithm],
    path: str | Path,
    env: GymEnv | str | None = None,
    device: th.device | str = "auto",
    custom_objects: dict[str, Any] | None = None,
    **kwargs: Any,
) -> SelfAlgorithm:
    """
    Load a model from a file of :func:`save_safe`. The file may be anybody's: nothing in it is run, it opens no other
    file, and what it asks for is checked before memory is taken.

    :param cls: the model's class
    :param path: name of the file
    :param env: environments to learn in, or their id; put into a ``VecNormalize`` with the file's statistics if it has
        some, or given them if they are in one. ``None`` to act only: on observations that
        ``get_vec_normalize_env()`` has normalised, then, which keeps the statistics until there are environments
    :param device: where to compute
    :param custom_objects: the code that the file lacks, by name: ``policy_class``, an argument such as
        ``learning_rate``, or a part of one such as ``"policy_kwargs.features_extractor_class"``
    :param kwargs: arguments of the constructor to change, as in ``load``
    :return: the model
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if the file is damaged, dishonest, of another class or of other environments, or if it lacks
        code that ``custom_objects`` does not supply
    :raises TypeError: for ``kwargs`` that are no arguments
    """
    check_arguments_known(cls.__name__, kwargs, changeable(cls), also=inspect.signature(load_safe).parameters)
    path = with_suffix(path, ".safetensors")
    with _naming(f"{path} cannot be loaded as a model of {cls.__name__}"):
        decoder = Decoder((custom_objects or {}) | kwargs)
        contents = _decode(cls, *read_file(path), decoder, device)
        if unused := sorted(set(custom_objects or {}) - decoder.used):
            raise ValueError(f"custom_objects has {unused}, which the file has no place for: leave them out")
        model: SelfAlgorithm = contents.model
        _set_env(model, env, contents)
        model._setup_model()
        model.policy.load_state_dict(contents.weights)
        for name, state in contents.optimizers.items():
            load_optimizer(contents.model.policy.optimizers[name], state)
        return model


def algorithm_of(path: str | Path) -> str:
    """
    :param path: name of a file of :func:`save_safe`
    :return: name of the class whose model it says it holds
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is damaged or dishonest
    """
    path = with_suffix(path, ".safetensors")
    with _naming(f"{path} cannot be loaded"):
        return str(convert("model", read_file(path)[0], Document).algorithm)


def _decode(
    model_class: type[Any], said: Any, tensors: dict[str, th.Tensor], decoder: Decoder, device: th.device | str
) -> _Contents:
    """
    Check all that a file says. The networks are built without memory first, and compared with its tensors.

    :param said: what the JSON says
    :param tensors: those of the file, which are removed
    """
    if type(said.get("format")) is not int or said["format"] != FORMAT:
        raise ValueError(f"its format is not {FORMAT}: load it with the version of sb3_lql that wrote it")
    document: Document = convert("model", said, Document)
    if document.algorithm != model_class.__name__:
        raise ValueError(f"it holds a model of {document.algorithm!r}, not of {model_class.__name__}: use its class")
    policy = decoder.decode("policy_class", document.policy_class)
    if isinstance(policy, str) and policy not in model_class.policy_aliases:
        raise ValueError(f"policy_class={policy!r} is none of {', '.join(model_class.policy_aliases)}")
    arguments = decode_arguments(model_class, document.arguments, decoder)
    if "tensorboard_log" in decoder.replacements:  # never the file's
        arguments["tensorboard_log"] = decoder.decode("tensorboard_log", None)
    model = model_class(policy, env=None, device=device, _init_setup_model=False, **arguments)
    model.observation_space = decode_space("observation_space", document.observation_space, tensors)
    model.action_space = decode_space("action_space", document.action_space, tensors)
    check_action_space(model.action_space)
    check_observation_space(model.observation_space)
    model.n_envs = document.n_envs
    vars(model).update(msgspec.structs.asdict(document.counters))
    model._current_progress_remaining = check_number("progress_remaining", document.progress_remaining, high=1.0)
    model._check_arguments()

    shapes = policy_on_meta(model, len(tensors))
    optimizer_kwargs = model.policy_kwargs.get("optimizer_kwargs") or {}
    check_options("policy_kwargs.optimizer_kwargs", type(shapes.optimizer), optimizer_kwargs)
    require_keys("optimizers", document.optimizers, shapes.optimizers.keys() - {"critic"})
    groups = {"critic": document.optimizer} | document.optimizers
    optimizers = {
        name: decode_optimizer(_path(name), optimizer, groups[name], tensors)
        for name, optimizer in shapes.optimizers.items()
    }
    normalization = decode_normalization(document.normalization, tensors, model.observation_space)
    weights = pop_weights(shapes.state_dict(), tensors)
    check_sizes(model, shapes, decoder.replacements)
    return _Contents(model, weights, optimizers, normalization)


def _path(optimizer: str) -> str:
    """Where a file has an optimiser."""
    return "optimizer" if optimizer == "critic" else f"optimizers.{optimizer}"


def _set_env(model: Any, env: GymEnv | str | None, contents: _Contents) -> None:
    """Let the model learn in ``env``, if there is one; else keep what was learned of its observations and rewards."""
    if env is None:
        if contents.normalization is not None:  # where SB3 has it, whose save leaves it out and whose set_env resets it
            model._vec_normalize_env = without_environments(
                model.observation_space, model.action_space, *contents.normalization
            )
        return
    several: VecEnv = model._wrap_env(env, model.verbose)
    check_spaces_within(several)
    if contents.normalization is not None:
        several = in_normalization(several, *contents.normalization)
    model.n_envs = several.num_envs
    model.set_env(several)
    if contents.normalization is not None:  # of a user's VecNormalize, nothing changes before it is known to fit
        set_statistics(several, *contents.normalization)


def _policy_alias(model: Any, custom: dict[str, Any]) -> Any:
    for alias, policy_class in model._aliases().items():
        if policy_class is model.policy_class:
            return alias
    custom["policy_class"] = model.policy_class
    return {"$custom": "policy_class"}


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Whatever goes wrong with a file ends in one kind of error, which names it."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: "
        text = str(error).rstrip(".")
        text = text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}..."
        raise ValueError(f"{what}: {kind}{text}.") from error
