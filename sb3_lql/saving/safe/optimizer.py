"""An optimiser's state as JSON and tensors, and back."""

import inspect
import math
import reprlib
from typing import Any

import torch as th
from torch import nn

from sb3_lql.saving.safe.files import fields
from sb3_lql.saving.safe.values import Decoder, encode

#: State without which a square root or a step count would go wrong if it were negative.
NEVER_NEGATIVE = frozenset(
    {"acc_delta", "eta", "exp_avg_sq", "exp_inf", "max_exp_avg_sq", "mu", "mu_product", "square_avg", "step", "sum"}
)
#: Shape of a parameter to try an optimiser on, which no scalar has.
_EXAMPLE_SHAPE = (2, 3)


def encode_optimizer(optimizer: th.optim.Optimizer, tensors: dict[str, th.Tensor]) -> list[dict[str, Any]]:
    """
    :param optimizer: any
    :param tensors: takes its state, as "optimizer.<index of the parameter>.<name>"
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
            tensors[f"optimizer.{index}.{name}"] = value
    groups = map(_numbers, state_dict["param_groups"])
    return [{name: encode(name, value, {}) for name, value in group.items()} for group in groups]


def decode_optimizer(
    optimizer: th.optim.Optimizer, groups: Any, tensors: dict[str, th.Tensor]
) -> tuple[dict[int, dict[str, th.Tensor]], list[dict[str, Any]]]:
    """
    Undo :func:`encode_optimizer`.

    :param optimizer: a new one for the same parameters, which may be on the device "meta"
    :param groups: what JSON says
    :param tensors: the file's, from which those of the optimiser are removed
    :return: the state by index of the parameter, and the options of each group
    :raises ValueError: if such an optimiser has another state, or other options
    """
    if not isinstance(groups, list) or len(groups) != len(optimizer.param_groups):
        raise ValueError(f"optimizer={reprlib.repr(groups)} must be a list of {len(optimizer.param_groups)} groups")
    state: dict[int, dict[str, th.Tensor]] = {}
    options = []
    index = 0
    for place, (group, value) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        options.append(_decode_options(f"optimizer.{place}", group, value))
        example = _example_state(optimizer, group | options[-1])
        for parameter in group["params"]:
            own = {name: key for name in example if (key := f"optimizer.{index}.{name}") in tensors}
            if own and own.keys() != example.keys():
                raise ValueError(f"of the tensors optimizer.{index}, {sorted(example.keys() - own.keys())} are missing")
            if own:
                state[index] = {name: _take(key, example[name], parameter, tensors) for name, key in own.items()}
            index += 1
    return state, options


def load_optimizer(
    optimizer: th.optim.Optimizer, state: dict[int, dict[str, th.Tensor]], options: list[dict[str, Any]]
) -> None:
    """
    :param optimizer: a new one
    :param state: as :func:`decode_optimizer` returns it
    :param options: as :func:`decode_optimizer` returns them
    """
    groups = optimizer.state_dict()["param_groups"]
    groups = [group | numbers for group, numbers in zip(groups, options, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def check_options(name: str, optimizer_class: type[th.optim.Optimizer], options: Any) -> None:
    """
    Optimisers take a text or a list for a flag, and say nothing.

    :param name: the argument's name
    :param optimizer_class: class of the optimiser
    :param options: arguments for it
    :raises ValueError: if one is of another type than its default
    """
    for option, value in fields(name, options, None).items():
        parameter = inspect.signature(optimizer_class).parameters.get(option)
        default = inspect.Parameter.empty if parameter is None else parameter.default
        if default is inspect.Parameter.empty:  # unknown, or without a default: left to the optimiser
            continue
        is_flag = default is None or isinstance(default, bool)
        fits = (isinstance(value, bool) or value is default) if is_flag else _is_like(value, default)
        if not fits:
            raise ValueError(f"{name}.{option}={reprlib.repr(value)} must be of the type of {default!r}")


def _numbers(group: dict[str, Any]) -> dict[str, Any]:
    """The options that are numbers or tuples of numbers; a learning rate on a GPU is a tensor."""
    plain = {name: value.item() if isinstance(value, th.Tensor) else value for name, value in group.items()}
    return {name: value for name, value in plain.items() if _is_number(value) or _is_numbers(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_numbers(value: Any) -> bool:
    return type(value) is tuple and all(_is_number(part) for part in value)


def _is_like(value: Any, default: Any) -> bool:
    if _is_numbers(default):
        return type(value) in (list, tuple) and _is_numbers(tuple(value)) and len(value) == len(default)
    return _is_number(value) if _is_number(default) else True


def _decode_options(where: str, group: dict[str, Any], value: Any) -> dict[str, Any]:
    usual = _numbers(group)
    decoded = Decoder({}).decode(where, fields(where, value, list(usual)))
    for name, option in decoded.items():
        if not _is_like(option, usual[name]):
            raise ValueError(f"{where}.{name}={reprlib.repr(option)} must be of the type of {usual[name]!r}")
    return dict(decoded)


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


def _take(name: str, example: th.Tensor, parameter: nn.Parameter, tensors: dict[str, th.Tensor]) -> th.Tensor:
    tensor = tensors.pop(name)
    like_parameter = tuple(example.shape) == _EXAMPLE_SHAPE
    shape, dtype = (parameter.shape, parameter.dtype) if like_parameter else (example.shape, example.dtype)
    if (tensor.shape, tensor.dtype) != (shape, dtype):
        raise ValueError(f"the tensor {name} is {tuple(tensor.shape)} of {tensor.dtype}, not {tuple(shape)} of {dtype}")
    if not tensor.isfinite().all():
        raise ValueError(f"the tensor {name} holds values that are not finite")
    real = th.view_as_real(tensor) if tensor.is_complex() else tensor
    if name.rpartition(".")[2] in NEVER_NEGATIVE and (real < 0).any():
        raise ValueError(f"the tensor {name} holds negative values")
    return tensor.clone()  # in memory of its own, not the file's
