"""What a policy's networks must look like, known before any memory is taken for them."""

import copy
import reprlib
from collections.abc import Collection
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_lql.saving.safe.arguments import own_counts
from sb3_lql.saving.safe.files import pop_tensor

#: Steps of a chain, one after the other: some seconds.
MAX_CHAIN_LENGTH = 2_000
#: Steps for one action, of all its chains.
MAX_ACTION_STEPS = 100_000
#: Most bytes that the draws and layers of the chains of one action may take, and those of a minibatch's update.
MAX_ACTING = 2**28
MAX_LEARNING = 2**31
#: How often a layer's outputs are there at the same time: before and after the activation, slopes, gradients.
_COPIES = 6
#: Numbers that an n-step return takes for each of its steps: where it is, what it ends with, its reward and discount.
_NUMBERS_PER_STEP = 10


def policy_on_meta(model: Any, n_tensors: int) -> Any:
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
            # A copy, since a network that is passed in would follow the policy to that device, and lose its weights
            arguments = copy.deepcopy(arguments)
            return policy_class(_not_sampled(model.observation_space), model.action_space, lambda _: 1.0, **arguments)
    except RuntimeError as error:
        raise ValueError(
            f"its networks cannot be built on PyTorch's device 'meta' ({error}): for networks of your own that cannot, "
            "use save and load"
        ) from error


def _not_sampled(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """The same space, of which networks for images draw zeros: a draw takes ten times the memory of the image."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, _not_sampled(part)) for key, part in space.spaces.items()])
    space = copy.copy(space)
    if isinstance(space, spaces.Box):
        shape, dtype = space.shape, space.dtype
        space.sample = lambda *_, **__: np.zeros(shape, dtype)  # type: ignore[method-assign]
    return space


def check_sizes(model: Any, policy: Any, chosen: Collection[str]) -> None:
    """
    Few bytes of a file can ask for much memory and time in acting and learning, by numbers that are multiplied.

    :param model: a model with arguments and spaces
    :param policy: its policy, on any device
    :param chosen: the arguments that the caller of ``load_safe`` has chosen
    :raises ValueError: if an action or an update would take too much
    """
    length, n_chains = policy.chain_length, model.n_action_samples * policy.n_parallel
    counts = [name for name in own_counts(model) if name != "n_action_samples"] or ["policy_kwargs"]
    if length > MAX_CHAIN_LENGTH and not set(counts) & set(chosen):
        raise ValueError(
            f"a chain takes {length} steps, and a file may ask for {MAX_CHAIN_LENGTH}: pass "
            f"{' or '.join(f'{name}=...' for name in counts)} to ask for more"
        )
    if "n_action_samples" not in chosen and length * n_chains > MAX_ACTION_STEPS:
        raise ValueError(
            f"an action takes {n_chains} chains of {length} steps, and may take {MAX_ACTION_STEPS} steps in a file: "
            "pass n_action_samples=... to ask for more"
        )
    critic = policy.critic
    row = length * policy.action_dim + _COPIES * (critic.n_critics * sum(critic.input_parts) + _n_outputs(policy))
    tables = _COPIES * critic.n_critics * sum(table.numel() for table in critic.buffers())  # each critic embeds its own
    n_steps = max(model.n_steps, model.replay_buffer_kwargs.get("n_steps", 1))
    minibatch_row = row + _COPIES * spaces.flatdim(model.observation_space) + _NUMBERS_PER_STEP * n_steps
    for name, what, n_rows, numbers, largest in (
        ("n_action_samples", "an action", n_chains, row, MAX_ACTING),
        ("batch_size", "an update", model.batch_size * policy.n_parallel, minibatch_row, MAX_LEARNING),
    ):
        size = 4 * (n_rows * numbers + tables)
        if name not in chosen and size > largest:
            raise ValueError(
                f"{name}={n_rows}, with these networks, observations, chains and returns, makes {what} of "
                f"{size / 1e9:.1f} GB, and a file may ask for {largest / 1e9:.1f}: pass {name}=... to ask for more"
            )


def _n_outputs(policy: Any) -> int:
    """Outputs of all layers for one row: as many as there are biases. Targets are never asked at the same time."""
    targets = tuple(f"{name}_target." for name in policy.targets)
    biases = (item for item in policy.named_parameters() if item[0].endswith("bias"))
    return sum(bias.numel() for name, bias in biases if not name.startswith(targets))


def pop_weights(expected: dict[str, th.Tensor], tensors: dict[str, th.Tensor]) -> dict[str, th.Tensor]:
    """
    :param expected: the policy's state dict, on any device
    :param tensors: what is left of the file's, from which they are removed
    :return: a state dict
    :raises ValueError: if they are not the same in names, shapes and types, or hold values that no network has
    """
    never_negative = ("running_var", "num_batches_tracked")
    weights = {
        name: pop_tensor(tensors, f"policy.{name}", like.dtype, like.shape, not name.endswith(never_negative))
        for name, like in expected.items()
    }
    if tensors:
        raise ValueError(f"the tensors {reprlib.repr(sorted(tensors))} are of nothing in its model")
    return weights
