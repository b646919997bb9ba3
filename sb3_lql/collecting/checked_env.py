"""Environments as the collection sees them."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_lql.collecting.workers import watch_workers
from sb3_lql.common.scaling import running_std
from sb3_lql.common.validation import LARGEST_OBSERVATION, LARGEST_REWARD, as_numbers, check_finite

UNHARMED = "The step was not stored: the model is as it was before it, and can be saved or learn on."
BROKEN = f"Mend the environment, or scale or clip what it observes. {UNHARMED}"
#: In standard deviations of what ``VecNormalize`` has seen: a larger value beyond the limits is a fault, not a scale.
LARGEST_DEVIATION = 1e6
#: Largest value to be normalised: ``VecNormalize`` squares it, in float32.
LARGEST_NORMALIZED = 1e18


class CheckedVecEnv(VecEnvWrapper):
    """
    Environments that work while something else is done, and from which nothing comes that would spoil the replay
    buffer, the statistics of ``VecNormalize`` or the networks.

    They are asked nothing that SB3 does not ask: they may be a ``VecEnv`` of the user's own that only steps and resets.

    :param venv: the environments
    :param meanwhile: called at each step, between sending the actions and waiting for the results
    """

    #: Larger rewards are refused.
    largest_reward = LARGEST_REWARD

    def __init__(self, venv: VecEnv, meanwhile: Callable[[], None]) -> None:
        # What VecEnvWrapper's constructor sets, without asking each environment for its render_mode
        self.venv = venv
        self.num_envs = venv.num_envs
        self.observation_space, self.action_space = venv.observation_space, venv.action_space
        self.class_attributes = dict(inspect.getmembers(type(self)))
        self.meanwhile = meanwhile
        self.normalization = unwrap_vec_normalize(venv)
        watch_workers(venv)

    # SB3's wrappers hold the members of their class, which cannot be pickled. Callbacks are, with variables of `learn`

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "class_attributes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, class_attributes=dict(inspect.getmembers(type(self))))

    def reset(self) -> Any:
        """
        :return: the environments' first observations
        :raises ValueError: if one is not finite, is huge or has another shape than the space
        """
        with self.guarded_statistics():
            observations = self.venv.reset()
            self.check_observations(observations)
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """
        :param actions: shape ``(n_envs, *action_shape)``
        :raises ValueError: if they are not finite
        """
        remedy = f"The policy's actions are finite: look at action_noise. {UNHARMED}"
        check_finite("action", actions, remedy, float(np.finfo(actions.dtype).max))
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations, rewards, dones, infos
        :raises ValueError: if the environments return what the replay buffer, float32 or a TD loss cannot hold
        """
        self.meanwhile()
        with self.guarded_statistics():
            observations, rewards, dones, infos = self.venv.step_wait()
            self.check_observations(observations)
            for info in infos:
                if info.get("terminal_observation") is not None:
                    self._check("terminal_observation", info["terminal_observation"], ())
            if self.normalization is None:
                rewards = self._checked_rewards(rewards)
        return observations, rewards, dones, infos

    @contextmanager
    def guarded_statistics(self) -> Iterator[None]:
        """
        Within, ``VecNormalize`` sees nothing that it would clip and so hide; and an error leaves its statistics as they
        were.
        """
        normalization = self.normalization
        if normalization is None:
            yield
            return
        before, below = _statistics(normalization), normalization.venv
        normalization.venv = _Unnormalized(below, self, normalization)  # type: ignore[assignment]
        try:
            yield
        except BaseException:
            vars(normalization).update(before)
            raise
        finally:
            normalization.venv = below

    def check_observations(self, observations: Any) -> None:
        """
        :param observations: a batch, as the networks will see it
        :raises ValueError: if one of them is not finite, is huge or has another shape than the space
        """
        self._check("observation", observations, (self.num_envs,))

    def _check(self, name: str, observations: Any, batch: tuple[int, ...]) -> None:
        for part, _, values in _parts(name, observations, self.observation_space, batch):
            check_finite(part, values, BROKEN, LARGEST_OBSERVATION)

    def _checked_rewards(self, rewards: Any, std: float | None = None) -> np.ndarray:
        """
        :param rewards: one for each environment, as an array, a list, a tuple or a tensor
        :param std: what they will be divided by, if they will be
        :return: the same as an array
        """
        remedy = (
            f"Pay a finite number. Gradients overflow float32 with rewards beyond {self.largest_reward:.0e}: scale or "
            f"clip them, for instance with gymnasium.wrappers.TransformReward. {UNHARMED}"
        )
        numbers = as_numbers("reward", rewards, remedy)
        if numbers.size != self.num_envs:
            raise ValueError(
                f"reward has shape {numbers.shape}: return one for each of {self.num_envs} environments. {UNHARMED}"
            )
        numbers = numbers.reshape(self.num_envs)
        by_scale = 0.0 if std is None else min(LARGEST_DEVIATION * std, LARGEST_NORMALIZED)
        check_finite("reward", numbers, remedy, max(self.largest_reward, by_scale))
        return numbers


class _Unnormalized:
    """
    Stands below ``VecNormalize`` while it steps: the only place where a value shows what it was before it is clipped.

    :param venv: the environments below
    :param checked: what checks them
    :param normalization: what is above
    """

    def __init__(self, venv: VecEnv, checked: CheckedVecEnv, normalization: VecNormalize) -> None:
        self._venv, self._checked, self._normalization = venv, checked, normalization

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venv, name)

    def reset(self) -> Any:
        observations = self._venv.reset()
        self._check("observation", observations, (self._checked.num_envs,))
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self._venv.step_wait()
        self._check("observation", observations, (self._checked.num_envs,))
        for info in infos:
            if info.get("terminal_observation") is not None:
                self._check("terminal_observation", info["terminal_observation"], ())
        normalization = self._normalization
        std = _std(normalization.ret_rms, normalization) if normalization.norm_reward else None
        return observations, self._checked._checked_rewards(rewards, std), dones, infos

    def _check(self, name: str, observations: Any, batch: tuple[int, ...]) -> None:
        """A value may be beyond the limit if normalising will bring it down."""
        normalization = self._normalization
        statistics: Any = getattr(normalization, "obs_rms", None) if normalization.norm_obs else None
        for part, key, values in _parts(name, observations, normalization.observation_space, batch):
            running = statistics.get(key) if isinstance(statistics, dict) else statistics
            if running is None:  # it is checked as it comes out above
                continue
            numbers = as_numbers(part, values, BROKEN)
            with np.errstate(over="ignore", invalid="ignore"):
                deviation = np.abs(numbers - running.mean) / _std(running, normalization)
            outliers = np.where(deviation <= LARGEST_DEVIATION, 0.0, numbers)
            check_finite(part, outliers, BROKEN, LARGEST_OBSERVATION)
            check_finite(part, numbers, BROKEN, LARGEST_NORMALIZED)


def _std(running: RunningMeanStd, normalization: VecNormalize) -> Any:
    """What values are divided by. Before the first of them, from which it is learned, none deviates."""
    if normalization.training and running.count < 1.0:
        return np.full_like(running.var, np.inf)
    return running_std(running, normalization.epsilon)


def _parts(
    name: str, observations: Any, space: spaces.Space[Any], batch: tuple[int, ...]
) -> Iterator[tuple[str, str | None, Any]]:
    """
    An observation's parts, each of the shape that the space wants.

    :param name: what it is called in an error
    :param observations: one, or a batch
    :param space: of one
    :param batch: shape of the batch
    :return: names, keys and values; one part without a key if the space is no ``Dict``
    :raises ValueError: for a key that is missing, or another shape
    """
    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else [(None, space)]:
        if key is not None and key not in observations:
            raise ValueError(f"{name} has no key {key!r}, which the observation space has. {BROKEN}")
        where, values = (name, observations) if key is None else (f"{name}[{key!r}]", observations[key])
        shape = (*batch, *(part.shape or ()))
        if not _fits(np.shape(values), shape, alone=not batch or isinstance(part, spaces.Discrete)):
            raise ValueError(
                f"{where} has shape {np.shape(values)}, and the space wants {shape}. Mend the environment. {UNHARMED}"
            )
        yield where, key, values


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...], alone: bool) -> bool:
    """Whether an array can be stored, which for one observation NumPy says: it adds and drops axes of one in front."""
    if not alone:
        return shape == wanted
    if math.prod(shape) == math.prod(wanted) == 1 or (wanted and shape == (*wanted, 1)):
        return True
    while len(shape) > len(wanted) and shape[0] == 1:
        shape = shape[1:]
    return shape == wanted


def _statistics(normalization: VecNormalize) -> dict[str, Any]:
    """What a step of the environments changes. It makes new arrays, so that references are enough."""
    rms = {name: getattr(normalization, name, None) for name in ("obs_rms", "ret_rms")}
    copies = {
        name: {key: copy.copy(part) for key, part in value.items()} if isinstance(value, dict) else copy.copy(value)
        for name, value in rms.items()
        if value is not None
    }
    return copies | {"returns": normalization.returns}
