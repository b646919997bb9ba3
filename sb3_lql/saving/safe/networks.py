"""What a policy's networks must look like, known before any memory is taken for them."""

import copy
import reprlib
from collections.abc import Collection
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.networks.critics import LEVEL_DIM
from sb3_lql.saving.safe.arguments import MAX_CHAIN_LENGTH, MAX_LANGEVIN_STEPS

#: Most bytes that the draws and layers of the chains of one action may take, and those of a minibatch's update.
MAX_ACTING = 2**28
MAX_LEARNING = 2**31
#: How often a layer's outputs are there at the same time: before and after the activation, slopes, gradients.
_COPIES = 6
#: Numbers that an n-step return takes for each of its steps: where it is, what it ends with, its reward and discount.
_NUMBERS_PER_STEP = 10
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
    arguments = model.policy_arguments()
    # A policy puts its critics on its own device, which without parameters is the CPU
    meta = th.device("meta")
    policy_class = type("PolicyOnMeta", (model.policy_class,), dict(device=property(lambda _: meta)))
    try:
        with meta:
            policy: LangevinPolicy = policy_class(
                _not_sampled(model.observation_space),
                model.action_space,
                lambda _: 1.0,
                # A copy, since a network that is passed in would follow the policy to that device, and lose its weights
                **copy.deepcopy(arguments),
            )
    except RuntimeError as error:
        raise ValueError(
            f"its networks cannot be built on PyTorch's device 'meta' ({error}): for networks of your own that cannot, "
            "use save and load"
        ) from error
    return policy


def _not_sampled(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The same space, of which networks for images draw zeros: a draw takes ten times the memory of the image."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, _not_sampled(part)) for key, part in space.spaces.items()])
    space = copy.copy(space)
    if isinstance(space, spaces.Box):
        shape, dtype = space.shape, space.dtype
        space.sample = lambda *_, **__: np.zeros(shape, dtype)  # type: ignore[method-assign]
    return space


def check_sizes(model: Any, policy: LangevinPolicy, chosen: Collection[str]) -> None:
    """
    Few bytes of a file can ask for much memory and time in acting and learning, by numbers that are multiplied.

    :param model: a model with arguments and spaces
    :param policy: its policy, on any device
    :param chosen: the arguments that whoever loads the file has chosen
    :raises ValueError: if an action or an update would take too much
    """
    length, n_chains = policy.sampler.chain_length, model.n_action_samples
    if "n_langevin_steps" not in chosen and length > MAX_CHAIN_LENGTH:
        raise ValueError(
            f"a chain takes {length} steps, and a file may ask for {MAX_CHAIN_LENGTH}: pass n_langevin_steps=... to "
            "ask for more"
        )
    if "n_action_samples" not in chosen and length * n_chains > MAX_LANGEVIN_STEPS:
        raise ValueError(
            f"an action takes {n_chains} chains of {length} steps, and may take {MAX_LANGEVIN_STEPS} steps in a file: "
            "pass n_action_samples=... to ask for more"
        )
    n_inputs, n_critics = sum(policy.critic.input_parts), policy.n_critics
    row = length * policy.action_dim + _COPIES * n_critics * (n_inputs + sum(policy.net_arch))
    levels = _COPIES * n_critics * policy.sampler.n_levels * LEVEL_DIM
    n_steps = max(model.n_steps, model.replay_buffer_kwargs.get("n_steps", 1))
    minibatch_row = row + _COPIES * spaces.flatdim(model.observation_space) + _NUMBERS_PER_STEP * n_steps
    for name, what, n_rows, numbers, largest in (
        ("n_action_samples", "an action", n_chains, row, MAX_ACTING),
        ("batch_size", "an update", model.batch_size, minibatch_row, MAX_LEARNING),
    ):
        size = 4 * (n_rows * numbers + levels)
        if name not in chosen and size > largest:
            raise ValueError(
                f"{name}={n_rows}, with these networks, observations, chains and returns, makes {what} of "
                f"{size / 1e9:.1f} GB, and a file may ask for {largest / 1e9:.1f}: pass {name}=... to ask for more"
            )


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
