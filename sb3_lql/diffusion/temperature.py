"""Exploration by noise on actions, whose size follows a temperature that a fixed rule lowers."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import torch as th

from sb3_lql.common.validation import check_flag, check_positive
from sb3_lql.diffusion.family import DiffusionAlgorithm, DiffusionArguments
from sb3_lql.engine.algorithm import Batch, Loss

#: The entropy, for each action coordinate, at which the noise comes to rest.
TARGET_ENTROPY = -0.9


class TemperatureArguments(DiffusionArguments, total=False):
    """
    What algorithms with such a temperature take besides.

    :param noise_scale: standard deviation of the noise on actions over ``alpha``
    :param clip_noisy_actions: clip actions with noise to the box; without it environments see actions beyond
    :param initial_temperature: ``alpha`` at first
    :param temperature_interval: lower ``alpha`` every so many updates, the first one included
    :param temperature_learning_rate: of ``log alpha``, by Adam
    """

    noise_scale: float
    clip_noisy_actions: bool
    initial_temperature: float
    temperature_interval: int
    temperature_learning_rate: float


class TemperatureAlgorithm(DiffusionAlgorithm):
    """
    A diffusion algorithm that acts with noise of standard deviation ``noise_scale * alpha``.

    ``log alpha`` descends ``H - H_target`` with ``H = d / 2 * log(2 pi e (noise_scale * alpha) ** 2)``, the entropy of
    that noise, and ``H_target = -0.9 d``. No data enters: the temperature falls as the updates go by.

    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed, of :class:`TemperatureArguments`.
    defaults: ClassVar[dict[str, Any]] = DiffusionAlgorithm.defaults | dict(
        noise_scale=0.1,
        clip_noisy_actions=False,
        initial_temperature=5.0,
        temperature_interval=250,
        temperature_learning_rate=7e-3,
    )
    #: Arguments of the policy that a user may replace by ``policy_kwargs``.
    policy_defaults: ClassVar[dict[str, Any]] = dict(fixed_noise=True)
    #: Names of arguments that are intervals, in updates.
    delays: ClassVar[tuple[str, ...]] = ("policy_delay", "temperature_interval")

    # Arguments of the constructor, see TemperatureArguments
    noise_scale: float
    initial_temperature: float
    temperature_interval: int
    temperature_learning_rate: float

    @property
    def temperature(self) -> th.Tensor:
        """``alpha``, shape (), without gradient."""
        return self.policy.log_temperature.detach().exp()

    def _exploration_scale(self) -> th.Tensor:
        return self.noise_scale * self.temperature

    def _after_td_step(self, batch: Batch, q_values: th.Tensor, next_actions: th.Tensor) -> Iterator[Loss]:
        yield from super()._after_td_step(batch, q_values, next_actions)
        yield from self._temperature_step()

    def _temperature_step(self) -> Iterator[Loss]:
        """The temperature's step, if it is due."""
        self._log("temperature", self.temperature)
        if self._is_due(self.temperature_interval):
            log_std = math.log(self.noise_scale) + self.policy.log_temperature.detach()
            yield self._temperature_loss(self.policy.action_dim * (0.5 * math.log(2.0 * math.pi * math.e) + log_std))

    def _temperature_loss(self, entropy: th.Tensor) -> Loss:
        """``H - H_target``, as a gradient in ``log alpha``."""
        excess = entropy - TARGET_ENTROPY * self.policy.action_dim
        return Loss("temperature_loss", "temperature", self.policy.log_temperature * excess)

    def _update_constants(self) -> tuple[Any, ...]:
        return *super()._update_constants(), self.noise_scale, self.clip_noisy_actions

    def _learning_rates(self) -> dict[str, float]:
        return super()._learning_rates() | {"temperature": self.temperature_learning_rate}

    def _policy_arguments(self) -> dict[str, Any]:
        return super()._policy_arguments() | dict(initial_temperature=self.initial_temperature, acts_with_target=True)

    def _check_arguments(self) -> None:
        for name in ("noise_scale", "initial_temperature", "temperature_learning_rate"):
            check_positive(name, getattr(self, name))
        check_flag("clip_noisy_actions", self.clip_noisy_actions)
        super()._check_arguments()
