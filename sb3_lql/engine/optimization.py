"""Optimiser steps that a loss gone wrong cannot spoil, and targets that follow."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch as th
from torch import nn


class StepGuard:
    """
    Takes the optimiser steps of one call to ``train``, until a loss or its gradient is not finite, and none after.

    A fused optimiser skips steps on the device, by the mechanism that loss scaling uses: nothing waits for the device
    until :meth:`check`. For any other optimiser each step waits for its own loss.

    :param device: where the losses are
    """

    def __init__(self, device: th.device) -> None:
        #: 1 while every loss was finite, then 0; shape ().
        self.healthy = th.ones((), device=device)
        # In place, for all of these: a recorded update finds them where they are
        self._n_updates = th.zeros((), device=device)
        self._outcomes: dict[str, th.Tensor] = {}

    def reset(self) -> None:
        """Begin another call to ``train``."""
        self.healthy.fill_(1.0)
        self._n_updates.zero_()

    def begin_update(self) -> None:
        """Count an update, if all before it were healthy."""
        self._n_updates.add_(self.healthy)

    def state(self) -> list[th.Tensor]:
        """
        :return: the tensors that an update reads and writes here
        """
        return [self.healthy, self._n_updates, *self._outcomes.values()]

    def step(self, optimizer: th.optim.Optimizer, loss: th.Tensor, name: str, max_norm: float | None = None) -> None:
        """
        Descend the gradient of ``loss``, if it and all before it are finite.

        :param optimizer: optimiser of the parameters
        :param loss: scalar
        :param name: what the loss is called in a report
        :param max_norm: shorten a gradient, over all of the optimiser's parameters, that is longer
        """
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = th.nn.utils.get_total_norm([p.grad for p in trained])
        if max_norm is not None:
            th.nn.utils.clip_grads_with_norm_(trained, max_norm, norm)
        outcome = th.stack([loss.detach(), norm])
        # What is reported is the last outcome, or the first that was not finite
        if name not in self._outcomes:
            self._outcomes[name] = th.zeros_like(outcome)
        reported = self._outcomes[name]
        reported.copy_(th.where(self.healthy > 0, outcome, reported))
        self.healthy.mul_(outcome.isfinite().all())
        self.take_step(optimizer)

    def take_step(self, optimizer: th.optim.Optimizer) -> None:
        """
        Let an optimiser take a step on the gradients that there are, if all losses were finite.

        :param optimizer: any optimiser; after :meth:`step`, it takes the same step again
        """
        fused = is_fused(optimizer)
        optimizer.grad_scale, optimizer.found_inf = None, 1.0 - self.healthy if fused else None  # type: ignore[attr-defined]
        if fused or self.healthy:
            optimizer.step()

    def check(self, first_update: int, also: Sequence[th.Tensor] = ()) -> list[list[float]]:
        """
        Look at the losses, which is the only transfer from the device.

        :param first_update: number of the first update since :meth:`reset`
        :param also: what else is to be fetched from the device, in the same transfer
        :return: the values of ``also``
        :raises ValueError: naming the first loss that was not finite
        """
        state = self.state()
        values = _fetch([*state, *also])
        (healthy,), (n_updates,), *outcomes = values[: len(state)]
        for name, (loss, norm) in zip(self._outcomes, outcomes, strict=True):
            if not healthy and not (math.isfinite(loss) and math.isfinite(norm)):
                raise ValueError(
                    f"Training stopped: at update {first_update + int(n_updates) - 1} {name} was {loss} with a "
                    f"gradient of norm {norm}. That step was not taken: the model holds the last good parameters. "
                    "Look for non-finite or huge observations and rewards, normalise them (VecNormalize), or lower "
                    "the learning rate."
                )
        return values[len(state) :]


def is_fused(optimizer: th.optim.Optimizer) -> bool:
    """
    :param optimizer: any optimiser
    :return: whether it makes a step in one kernel, which can be told on the device to do nothing
    """
    return all(group.get("fused") for group in optimizer.param_groups)


def with_fused_step(
    optimizer_class: type[th.optim.Optimizer], kwargs: dict[str, Any], parameters: list[nn.Parameter]
) -> dict[str, Any]:
    """
    Choose Adam's fused implementation, which can skip a step on its own, unless the user chose one.

    :param optimizer_class: class of the optimiser
    :param kwargs: its arguments
    :param parameters: what it will change
    :return: its arguments with that choice
    """
    chosen = kwargs.keys() & {"fused", "foreach", "differentiable"}
    if optimizer_class not in (th.optim.Adam, th.optim.AdamW) or chosen:
        return kwargs
    # There is none for complex parameters
    return kwargs | dict(fused=True) if all(map(th.is_floating_point, parameters)) else kwargs


def set_learning_rate(optimizer: th.optim.Optimizer, learning_rate: float, wanted: bool) -> bool:
    """
    Set the learning rate.

    :param optimizer: any optimiser
    :param learning_rate: for its next steps
    :param wanted: whether those steps are to be recorded, if they can be
    :return: whether they can, by an optimiser that is told on the device what to do; its learning rate is a tensor then
    """
    recordable = wanted and is_fused(optimizer)
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = recordable
        if not recordable:
            group["lr"] = learning_rate
            continue
        device = group["params"][0].device  # with its index, unlike the model's
        if isinstance(group["lr"], th.Tensor) and group["lr"].device == device:
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = th.tensor(learning_rate, device=device)
    return recordable


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """
    Keep gradients that pass through a network out of its parameters, for all that is computed meanwhile.

    :param network: any network
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@th.no_grad()
def polyak_update(network: nn.Module, target: nn.Module, tau: th.Tensor) -> None:
    """
    ``target <- (1 - tau) * target + tau * network``, but for running means and variances, which are copied.

    Networks share what is passed in to both, such as a pretrained encoder in ``features_extractor_kwargs``: it is its
    own target, and stays as it is.

    :param network: the online network
    :param target: its target
    :param tau: shape ()
    """
    parameters: list[th.Tensor] = []
    followers: list[th.Tensor] = []
    for parameter, follower in zip(network.parameters(), target.parameters(), strict=True):
        if parameter.data_ptr() != follower.data_ptr():
            parameters.append(parameter)
            followers.append(follower)
    th._foreach_mul_(followers, 1.0 - tau)
    th._foreach_add_(followers, list(th._foreach_mul(parameters, tau)))
    for (name, statistic), own in zip(network.named_buffers(), target.buffers(), strict=True):
        if "running_" in name:
            own.copy_(statistic)


def _fetch(tensors: Sequence[th.Tensor]) -> list[list[float]]:
    """The values of each tensor, in one transfer."""
    values = iter(th.cat([tensor.reshape(-1) for tensor in tensors]).tolist())
    return [list(islice(values, tensor.numel())) for tensor in tensors]
