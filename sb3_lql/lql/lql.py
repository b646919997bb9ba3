"""Langevin Q-Learning."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_lql.common.validation import check_positive
from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.langevin.sampler import LangevinSampler, geometric_schedule
from sb3_lql.langevin.tempered_family import TemperedAlgorithm, TemperedArguments
from sb3_lql.langevin.tempered_policies import TemperedPolicy


class LQL(TemperedAlgorithm):
    """
    Langevin Q-Learning (LQL): actions are drawn by Langevin dynamics on the critic's action-gradient, which aims at the
    Boltzmann distribution exp(w * Q(s, .)).

    Paper: https://arxiv.org/abs/2602.07873 (definition 1, equation 6, algorithm 5)

    Langevin dynamics follows the gradient of the sum of the critics. With ``sampler="tempered"``, which is not the
    paper's, actions are draws from exp(w * min_k Q_k(s, .)) / Z(s), where the same ``w`` therefore weighs Q less.

    :param langevin_step_size: ``eps``; or a pair (first, last), for step sizes that fall geometrically
    :param n_langevin_steps: ``T``, steps of the chain
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The shared arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = TemperedAlgorithm.defaults | dict(n_langevin_steps=20)

    def __init__(
        self,
        policy: str | type[LangevinPolicy | TemperedPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-4,
        *,
        langevin_step_size: float | tuple[float, float] = 1e-4,
        **kwargs: Unpack[TemperedArguments],
    ) -> None:
        self.langevin_step_size = langevin_step_size
        super().__init__(policy, env, learning_rate, **kwargs)

    def _check_arguments(self) -> None:
        step_size = self.langevin_step_size
        steps = step_size if isinstance(step_size, (tuple, list)) else (step_size, step_size)
        if len(steps) != 2:
            raise ValueError(f"langevin_step_size={step_size!r} must be a number or (first, last).")
        for value in steps:
            check_positive("langevin_step_size", value)
        super()._check_arguments()

    def _make_sampler(self) -> LangevinSampler:
        # A schedule is one step at each of T step sizes; without one, T steps at the only step size
        if isinstance(self.langevin_step_size, (tuple, list)):  # a list after load: SB3 saves tuples as JSON
            step_sizes, n_steps = geometric_schedule(*self.langevin_step_size, self.n_langevin_steps), 1
        else:
            step_sizes, n_steps = th.tensor([self.langevin_step_size]), self.n_langevin_steps
        return LangevinSampler(
            step_sizes,
            n_steps,
            inverse_temperature=self._first_inverse_temperature(self.inverse_temperature),
            normalize_score=self.normalize_score,
        )
