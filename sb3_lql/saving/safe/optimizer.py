"""An optimiser's state as JSON and tensors, and back."""

import inspect
import math
import reprlib
from typing import Any

import torch as th
from torch import nn

from sb3_lql.saving.safe.files import convert, pop_tensor, require_keys
from sb3_lql.saving.safe.values import Decoder, Number, encode

#: State without which a square root or a step count would go wrong if it were negative.
NEVER_NEGATIVE = frozenset(
    {"acc_delta", "eta", "exp_avg_sq", "exp_inf", "max_exp_avg_sq", "mu", "mu_product", "square_avg", "step", "sum"}
)
#: State by index of the parameter, and options of each group.
OptimizerState = tuple[dict[int, dict[str, th.Tensor]], list[dict[str, Any]]]
#: Shape of a parameter to try an optimiser on, which no scalar has.
_EXAMPLE_SHAPE = (2, 3)


def encode_optimizer(path: str, optimizer: th.optim.Optimizer, tensors: dict[str, th.Tensor]) -> list[dict[str, Any]]:
    """
    :param path: its name in the file
    :param optimizer: any
    :param tensors: takes its state, as "<path>.<index of the parameter>.<name>"
    :return: the numbers among the options of its groups, for JSON; the others follow from its arguments
    :raises ValueError: if its state is not tensors
    """
    state_dict = optimizer.state_dict()
    for index, state in state_dict["state"].items():
        for name, value in state.items():
            if not isinstance(value, th.Tensor):
                raise ValueError(
                    f"optimizer_class={type(optimizer).__name__} keeps {name}={reprlib.repr(value)}, and a safe file "
                    "can hold tensors only: use save."
                )
            tensors[f"{path}.{index}.{name}"] = value
    groups = map(_numbers, state_dict["param_groups"])
    return [{name: encode(name, value, {}) for name, value in group.items()} for group in groups]


def decode_optimizer(
    path: str, optimizer: th.optim.Optimizer, groups: Any, tensors: dict[str, th.Tensor]
) -> OptimizerState:
    """
    Undo :func:`encode_optimizer`.

    :param path: its name in the file
    :param optimizer: a new one for the same parameters, which may be on the device "meta"
    :param groups: what JSON says
    :param tensors: the file's, from which those of the optimiser are removed
    :return: the state by index of the parameter, and the options of each group
    :raises ValueError: if such an optimiser has another state, or other options
    """
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"{path}={reprlib.repr(groups)} must be a list of {len(optimizer.param_groups)} groups")
    state: dict[int, dict[str, th.Tensor]] = {}
    options = []
    index = 0
    for place, (group, value) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        options.append(_decode_options(f"{path}.{place}", group, value))
        example = _example_state(optimizer, group | options[-1])
        for parameter in group["params"]:
            if any(f"{path}.{index}.{name}" in tensors for name in example):
                state[index] = {
                    name: _pop_state(f"{path}.{index}.{name}", like, parameter, tensors)
                    for name, like in example.items()
                }
            index += 1
    return state, options


def load_optimizer(optimizer: th.optim.Optimizer, state: OptimizerState) -> None:
    """
    :param optimizer: a new one
    :param state: as :func:`decode_optimizer` returns it
    """
    of_parameters, options = state
    groups = optimizer.state_dict()["param_groups"]
    groups = [group | numbers for group, numbers in zip(groups, options, strict=True)]
    optimizer.load_state_dict({"state": of_parameters, "param_groups": groups})


def check_options(name: str, optimizer_class: type[th.optim.Optimizer], options: Any) -> None:
    """
    Optimisers take a text or a list for a flag, and say nothing.

    :param name: the argument's name
    :param optimizer_class: class of the optimiser
    :param options: arguments for it
    :raises ValueError: if one is of another type than its default
    """
    parameters = inspect.signature(optimizer_class).parameters
    for option, value in require_keys(name, options).items():
        # One that is unknown, or without a default, is left to the optimiser
        default = parameters[option].default if option in parameters else inspect.Parameter.empty
        convert(f"{name}.{option}", value, _type_of(default))


def _type_of(default: Any) -> Any:
    """The type of an option; ``None`` stands for a flag that the optimiser sets itself."""
    if default is None or isinstance(default, bool):
        return bool | None if default is None else bool
    if _is_number(default):
        return Number
    return tuple[(Number,) * len(default)] if _is_numbers(default) else Any  # type: ignore[misc]


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    """The options that are numbers or tuples of numbers; a learning rate on a GPU is a tensor."""
    plain = {name: value.item() if isinstance(value, th.Tensor) else value for name, value in group.items()}
    return {name: value for name, value in plain.items() if _is_number(value) or _is_numbers(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_numbers(value: Any) -> bool:
    return type(value) is tuple and all(_is_number(part) for part in value)


def _decode_options(path: str, group: dict[str, Any], value: Any) -> dict[str, Any]:
    usual = _numbers(group)
    decoded = Decoder({}).decode(path, require_keys(path, value, usual))
    return {name: convert(f"{path}.{name}", option, _type_of(usual[name])) for name, option in decoded.items()}


def _example_state(optimizer: th.optim.Optimizer, options: dict[str, Any]) -> dict[str, th.Tensor]:
    """The state after a step of a small parameter. The optimiser checks the options, too, when it is made."""
    known = inspect.signature(type(optimizer)).parameters
    arguments = {name: value for name, value in options.items() if name in known and name != "params"}
    if "capturable" in arguments:
        arguments["capturable"] = False  # takes a GPU
    parameter = nn.Parameter(th.zeros(_EXAMPLE_SHAPE))
    example = type(optimizer)([parameter], **arguments)
    parameter.grad = th.zeros_like(parameter)
    example.step()
    return dict(example.state[parameter])


def _pop_state(name: str, example: th.Tensor, parameter: nn.Parameter, tensors: dict[str, th.Tensor]) -> th.Tensor:
    like = parameter if tuple(example.shape) == _EXAMPLE_SHAPE else example
    negative = name.rpartition(".")[2] not in NEVER_NEGATIVE
    return pop_tensor(tensors, name, like.dtype, like.shape, negative).clone()  # in memory of its own, not the file's
