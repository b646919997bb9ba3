"""Environments as the collection sees them."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_lql.common.validation import LARGEST_REWARD, check_finite, check_observation
from sb3_lql.common.workers import await_results

UNHARMED = "The step was not stored: the model is as it was before it, and can be saved or learn on."
BROKEN = f"Mend the environment, or scale or clip what it observes. {UNHARMED}"


class CheckedVecEnv(VecEnvWrapper):
    """
    Environments that work while something else is done, and from which nothing comes that would spoil the replay
    buffer, the statistics of ``VecNormalize`` or the networks.

    :param venv: the environments
    :param meanwhile: called at each step, between sending the actions and waiting for the results
    """

    #: Larger rewards are refused.
    largest_reward = LARGEST_REWARD

    def __init__(self, venv: VecEnv, meanwhile: Callable[[], None]) -> None:
        super().__init__(venv)
        self.meanwhile = meanwhile
        self.normalization = unwrap_vec_normalize(venv)

    def reset(self) -> Any:
        """:return: the environments' first observations, unchecked"""
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: shape ``(n_envs, *action_shape)``
        :raises ValueError: if they are not finite
        :raises RuntimeError: if an environment's process has died
        """
        remedy = f"The policy's actions are finite: look at action_noise. {UNHARMED}"
        check_finite("action", actions, remedy, float(np.finfo(actions.dtype).max))
        with self._death_explained():
            self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations, rewards, dones, infos
        :raises ValueError: if the environments return what float32 or a TD loss cannot hold
        :raises RuntimeError: if an environment's process has died
        """
        self.meanwhile()
        with self.statistics_kept(), self._death_explained():
            await_results(self.venv)
            observations, rewards, dones, infos = self.venv.step_wait()
            self.check_observations(observations)
            for info in infos:
                if "terminal_observation" in info:
                    check_observation(info["terminal_observation"], BROKEN)
            self._check_rewards(rewards)
        return observations, rewards, dones, infos

    def check_observations(self, observations: Any) -> None:
        """
        :param observations: what the environments have just returned
        :raises ValueError: if one of them is not finite, or huge
        """
        if self.normalization is not None:  # which clips, and hides what was infinite
            observations = self.normalization.get_original_obs()
        check_observation(observations, BROKEN)

    def _check_rewards(self, rewards: np.ndarray) -> None:
        if self.normalization is not None:
            rewards = self.normalization.get_original_reward()
        remedy = (
            f"Gradients overflow float32 with rewards beyond {self.largest_reward:.0e}: scale or clip them, for "
            f"instance with gymnasium.wrappers.TransformReward. {UNHARMED}"
        )
        check_finite("reward", rewards, remedy, self.largest_reward)

    @contextmanager
    def statistics_kept(self) -> Iterator[None]:
        """An error within leaves the statistics of ``VecNormalize`` as they were."""
        if self.normalization is None:
            yield
            return
        before = _statistics(self.normalization)
        try:
            yield
        except BaseException:
            vars(self.normalization).update(before)
            raise

    @contextmanager
    def _death_explained(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            if not isinstance(self.unwrapped, SubprocVecEnv):
                raise
            raise RuntimeError(
                "An environment's process has died; if it raised an error, that is printed above. The model has kept "
                "all that it learned: save it, or go on with new environments: set_env(...), then learn(..., "
                "reset_num_timesteps=False)."
            ) from error


def _statistics(normalization: VecNormalize) -> dict[str, Any]:
    """What a step of the environments changes. It makes new arrays, so that references are enough."""
    rms = {name: getattr(normalization, name, None) for name in ("obs_rms", "ret_rms")}
    copies = {
        name: {key: copy.copy(part) for key, part in value.items()} if isinstance(value, dict) else copy.copy(value)
        for name, value in rms.items()
        if value is not None
    }
    return copies | {"returns": normalization.returns}
