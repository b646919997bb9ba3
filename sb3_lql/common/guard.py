"""Optimiser steps that a loss gone wrong cannot spoil."""

import math

import torch as th


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
        self._outcomes: list[tuple[str, int, th.Tensor]] = []

    def step(self, optimizer: th.optim.Optimizer, loss: th.Tensor, name: str, update: int) -> None:
        """
        Descend the gradient of ``loss``, if it and all before it are finite.

        :param optimizer: optimiser of the parameters
        :param loss: scalar
        :param name: what the loss is called in a report
        :param update: number of the update, for the report
        """
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        outcome = th.stack([loss.detach(), th.nn.utils.get_total_norm(gradients)])
        self._outcomes.append((name, update, outcome))
        self.healthy = self.healthy * outcome.isfinite().all()
        fused = all(group.get("fused") for group in optimizer.param_groups)
        optimizer.grad_scale, optimizer.found_inf = None, 1.0 - self.healthy if fused else None  # type: ignore[attr-defined]
        if fused or self.healthy:
            optimizer.step()

    def check(self) -> None:
        """
        Look at the losses, which is the only transfer from the device.

        :raises ValueError: naming the first that was not finite
        """
        if not self._outcomes:
            return
        values = th.stack([outcome for *_, outcome in self._outcomes]).tolist()
        for (name, update, _), (loss, norm) in zip(self._outcomes, values, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise ValueError(
                    f"Training stopped: at update {update} {name} was {loss} with a gradient of norm {norm}. That "
                    "step was not taken: the model holds the last good parameters. Look for non-finite or huge "
                    "observations and rewards, normalise them (VecNormalize), or lower the learning rate."
                )
