"""What a policy's networks must look like, known before any memory is taken for them."""

import copy
import reprlib
from typing import Any

import torch as th

from sb3_lql.common.langevin import LangevinSampler
from sb3_lql.common.policies import LangevinPolicy
from sb3_lql.common.safe.arguments import MAX_LANGEVIN_STEPS

_PREFIX = "policy."


def policy_on_meta(model: Any, n_tensors: int) -> LangevinPolicy:
    """
    :param model: a model with arguments and spaces, without networks
    :param n_tensors: number of tensors in the file, which no network exceeds in layers
    :return: its policy on the device "meta", where tensors have shapes and no memory
    :raises ValueError: if there is no such policy
    """
    net_arch = model.policy_kwargs.get("net_arch") or []
    n_layers = len(net_arch.get("qf") or []) if isinstance(net_arch, dict) else len(net_arch)
    if n_layers > n_tensors:
        raise ValueError(f"policy_kwargs.net_arch has {n_layers} layers, and the file {n_tensors} tensors")
    sampler: LangevinSampler = model._make_sampler()
    if sampler.chain_length * model.n_action_samples > MAX_LANGEVIN_STEPS:
        raise ValueError(
            f"an action takes {model.n_action_samples} chains of {sampler.chain_length} steps, and may take "
            f"{MAX_LANGEVIN_STEPS} steps"
        )
    # A policy puts its critics on its own device, which without parameters is the CPU
    meta = th.device("meta")
    policy_class = type("PolicyOnMeta", (model.policy_class,), dict(device=property(lambda _: meta)))
    arguments = dict(sampler=sampler, n_action_samples=model.n_action_samples, bfloat16_chain=model.bfloat16_chain)
    try:
        with meta:
            policy: LangevinPolicy = policy_class(
                model.observation_space,
                model.action_space,
                lambda _: 1.0,
                # A copy, since a network that is passed in would follow the policy to that device, and lose its weights
                **copy.deepcopy(model.policy_kwargs) | arguments,
            )
    except RuntimeError as error:
        raise ValueError(
            f"its networks cannot be built on PyTorch's device 'meta' ({error}): for networks of your own that cannot, "
            "use save and load"
        ) from error
    return policy


def check_weights(expected: dict[str, th.Tensor], tensors: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
    """
    :param expected: the policy's state dict, on any device
    :param tensors: what is left of the file's
    :return: a state dict
    :raises ValueError: if they are not the same in names, shapes and types, or hold values that no network has
    """
    names = {_PREFIX + name for name in expected}
    if names != tensors.keys():
        missing, unknown = sorted(names - tensors.keys()), sorted(tensors.keys() - names)
        raise ValueError(f"of the tensors, {reprlib.repr(missing)} are missing and {reprlib.repr(unknown)} too much")
    for name, like in expected.items():
        value = tensors[_PREFIX + name]
        if (value.shape, value.dtype) != (like.shape, like.dtype):
            raise ValueError(
                f"the tensor {_PREFIX}{name} is {tuple(value.shape)} of {value.dtype}, not {tuple(like.shape)} of "
                f"{like.dtype}"
            )
        if not value.isfinite().all():
            raise ValueError(f"the tensor {_PREFIX}{name} holds values that are not finite")
        if name.endswith(("running_var", "num_batches_tracked")) and (value < 0).any():
            raise ValueError(f"the tensor {_PREFIX}{name} holds negative values")
    return {name: tensors[_PREFIX + name] for name in expected}
