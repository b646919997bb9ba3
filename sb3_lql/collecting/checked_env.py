"""Environments whose observations and rewards are checked before anything learns from them."""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
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

UNHARMED = "The step was not stored: the model is unchanged, and can be saved or trained further."
BROKEN = f"Fix the environment, or scale or clip its observations. {UNHARMED}"
#: In standard deviations of what ``VecNormalize`` has seen: beyond this, a large value is a fault and not a scale.
LARGEST_DEVIATION = 1e6
#: Largest value to normalise: ``VecNormalize`` squares it in float32.
LARGEST_NORMALIZED = 1e18


class CheckedVecEnv(VecEnvWrapper):
    """
    Rejects values that would corrupt the replay buffer, the statistics of ``VecNormalize`` or the networks, and runs
    other work while the environments step.

    It calls nothing that SB3 does not call: a user's ``VecEnv`` may do no more than step and reset.

    :param venv: the environments
    :param meanwhile: called at each step, between sending the actions and waiting for the results
    """

    #: Larger rewards are refused.
    largest_reward = LARGEST_REWARD

    def __init__(self, venv: VecEnv, meanwhile: Callable[[], None]) -> None:
        # What VecEnvWrapper's constructor sets, except that it asks each environment for its render_mode
        self.venv = venv
        self.num_envs = venv.num_envs
        self.observation_space, self.action_space = venv.observation_space, venv.action_space
        self.class_attributes = dict(inspect.getmembers(type(self)))
        self.meanwhile = meanwhile
        self.normalization = unwrap_vec_normalize(venv)
        watch_workers(venv)

    # Callbacks are pickled with the local variables of `learn`, such as this wrapper. SB3's wrappers store members of
    # their class, which cannot be pickled

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "class_attributes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, class_attributes=dict(inspect.getmembers(type(self))))

    def reset(self) -> Any:
        """
        :return: the environments' first observations
        :raises ValueError: if one is not finite, is huge or does not have the space's shape
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
        remedy = f"The policy's actions are finite: check action_noise. {UNHARMED}"
        check_finite("action", actions, remedy, float(np.finfo(actions.dtype).max))
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations, rewards, dones, infos
        :raises ValueError: for values that the replay buffer, float32 or a TD loss cannot hold
        """
        self.meanwhile()
        with self.guarded_statistics():
            observations, rewards, dones, infos = self.venv.step_wait()
            self.check_observations(observations, infos)
            if self.normalization is None:
                rewards = self.checked_rewards(rewards)
        return observations, rewards, dones, infos

    @contextmanager
    def guarded_statistics(self) -> Iterator[None]:
        """
        Check values before ``VecNormalize`` would clip, and so hide, them; an error leaves its statistics unchanged.
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

    def check_observations(self, observations: Any, infos: Iterable[dict[str, Any]] = ()) -> None:
        """
        :param observations: a batch, as the networks will see it
        :param infos: of the same step, with the last observations of episodes that ended
        :raises ValueError: if one is not finite, is huge or does not have the space's shape
        """
        for part, _, values in _parts(observations, infos, self.observation_space, self.num_envs):
            check_finite(part, values, BROKEN, LARGEST_OBSERVATION)

    def checked_rewards(self, rewards: Any, std: float | None = None) -> np.ndarray:
        """
        :param rewards: one per environment, as an array, a list, a tuple or a tensor
        :param std: the standard deviation that they will be divided by, if any
        :return: the same, as an array
        :raises ValueError: if one is not finite or is huge, or there are too few or too many
        """
        remedy = (
            f"Return a finite number. Rewards beyond {self.largest_reward:.0e} make gradients overflow float32: scale "
            f"or clip them, for instance with gymnasium.wrappers.TransformReward. {UNHARMED}"
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
    """Stands between ``VecNormalize`` and its environments while it steps, where values are not yet clipped."""

    def __init__(self, venv: VecEnv, checked: CheckedVecEnv, normalization: VecNormalize) -> None:
        self._venv, self._checked, self._normalization = venv, checked, normalization

    def __getattr__(self, name: str) -> Any:
        return getattr(self._venv, name)

    def reset(self) -> Any:
        observations = self._venv.reset()
        self._check(observations)
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self._venv.step_wait()
        self._check(observations, infos)
        normalization = self._normalization
        std = _std(normalization.ret_rms, normalization) if normalization.norm_reward else None
        return observations, self._checked.checked_rewards(rewards, std), dones, infos

    def _check(self, observations: Any, infos: Iterable[dict[str, Any]] = ()) -> None:
        """Values may exceed the limit if normalising brings them below it."""
        normalization = self._normalization
        statistics: Any = getattr(normalization, "obs_rms", None) if normalization.norm_obs else None
        for part, key, values in _parts(observations, infos, normalization.observation_space, self._checked.num_envs):
            running = statistics.get(key) if isinstance(statistics, dict) else statistics
            if running is None:  # not normalised: CheckedVecEnv checks it
                continue
            numbers = as_numbers(part, values, BROKEN)
            with np.errstate(over="ignore", invalid="ignore"):
                deviation = np.abs(numbers - running.mean) / _std(running, normalization)
            outliers = np.where(deviation <= LARGEST_DEVIATION, 0.0, numbers)
            check_finite(part, outliers, BROKEN, LARGEST_OBSERVATION)
            check_finite(part, numbers, BROKEN, LARGEST_NORMALIZED)


def _std(running: RunningMeanStd, normalization: VecNormalize) -> Any:
    """The divisor of values; infinite before the first values, so that none of these deviates."""
    if normalization.training and running.count < 1.0:
        return np.full_like(running.var, np.inf)
    return running_std(running, normalization.epsilon)


def _parts(
    observations: Any, infos: Iterable[dict[str, Any]], space: spaces.Space[Any], n_envs: int
) -> Iterator[tuple[str, str | None, Any]]:
    """Names, keys and values of the parts of a step's observations, and of the last ones of episodes that ended."""
    yield from _parts_of("observation", observations, space, (n_envs,))
    for info in infos:
        if info.get("terminal_observation") is not None:
            yield from _parts_of("terminal_observation", info["terminal_observation"], space, ())


def _parts_of(
    name: str, observations: Any, space: spaces.Space[Any], batch: tuple[int, ...]
) -> Iterator[tuple[str, str | None, Any]]:
    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else [(None, space)]:
        if key is not None and key not in observations:
            raise ValueError(f"{name} lacks the key {key!r} of the observation space. {BROKEN}")
        where, values = (name, observations) if key is None else (f"{name}[{key!r}]", observations[key])
        shape = (*batch, *(part.shape or ()))
        if not _fits(np.shape(values), shape, alone=not batch or isinstance(part, spaces.Discrete)):
            raise ValueError(
                f"{where} has shape {np.shape(values)}, but the space has {shape}. Fix the environment. {UNHARMED}"
            )
        yield where, key, values


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...], alone: bool) -> bool:
    """Whether an array can be stored. For a single observation, NumPy adds and drops leading axes of size one."""
    if not alone:
        return shape == wanted
    if math.prod(shape) == math.prod(wanted) == 1 or (wanted and shape == (*wanted, 1)):
        return True
    while len(shape) > len(wanted) and shape[0] == 1:
        shape = shape[1:]
    return shape == wanted


def _statistics(normalization: VecNormalize) -> dict[str, Any]:
    """What a step changes. Steps create new arrays, so shallow copies are enough."""
    rms = {name: getattr(normalization, name, None) for name in ("obs_rms", "ret_rms")}
    copies = {
        name: {key: copy.copy(part) for key, part in value.items()} if isinstance(value, dict) else copy.copy(value)
        for name, value in rms.items()
        if value is not None
    }
    return copies | {"returns": normalization.returns}
