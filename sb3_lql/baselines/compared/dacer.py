"""DACER as the paper very likely ran it."""

from typing import Any, ClassVar

from stable_baselines3.common.type_aliases import GymEnv, Schedule
from typing_extensions import Unpack

from sb3_lql.baselines.dacer import DACER
from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.diffusion.process import DiffusionProcess, linear_schedule
from sb3_lql.diffusion.temperature import TemperatureArguments


class ComparedDACER(DACER):
    """
    :class:`~sb3_lql.baselines.DACER` as the paper very likely ran it: the linear noise schedule, ``x_T`` of half the
    size, more noise on actions for all tasks, and other learning rates.

    :param final_actor_learning_rate: what it falls to, linearly between the denoiser's 25,000th and 75,000th update
    :raises ValueError: for values out of range, an action space other than a bounded ``Box``, or ``use_sde``
    :raises TypeError: for values of the wrong type, and unknown arguments
    """

    #: The arguments that are not passed.
    defaults: ClassVar[dict[str, Any]] = DACER.defaults | dict(
        actor_learning_rate=3e-4, final_actor_learning_rate=3e-5, noise_scale=0.15
    )
    #: Standard deviation of ``x_T``.
    start_scale: ClassVar[float] = 0.5

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 3e-4,
        **kwargs: Unpack[TemperatureArguments],
    ) -> None:
        super().__init__(policy, env, learning_rate, **kwargs)

    def _make_process(self) -> DiffusionProcess:
        return DiffusionProcess(linear_schedule(self.n_denoising_steps, 0.3))
