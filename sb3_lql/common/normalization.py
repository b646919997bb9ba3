"""What ``VecNormalize`` has learned, as plain data, and put to work again."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, unwrap_vec_normalize

#: Settings of ``VecNormalize``, which are its arguments and its attributes.
FLAGS = ("training", "norm_obs", "norm_reward")
NUMBERS = ("clip_obs", "clip_reward", "gamma", "epsilon")
#: What a running statistic consists of.
MOMENTS = ("mean", "var", "count")


def normalization_state(env: VecNormalize) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """
    :param env: environments with normalised observations or rewards
    :return: settings by name, and statistics by name, float64: "ret.mean", "obs.var", or for the key at place 1 of
        ``norm_obs_keys`` "obs.1.count"
    """
    settings: dict[str, Any] = {name: bool(getattr(env, name)) for name in FLAGS}
    settings |= {name: float(getattr(env, name)) for name in NUMBERS}
    settings["norm_obs_keys"] = _normalized_keys(env)
    statistics = {
        f"{name}.{moment}": np.array(getattr(running, moment), np.float64)
        for name, running in _running_statistics(env).items()
        for moment in MOMENTS
    }
    return settings, statistics


def with_normalization(env: VecEnv, settings: dict[str, Any], statistics: dict[str, np.ndarray]) -> VecEnv:
    """
    Give environments the statistics that were learned elsewhere. Those that are in a ``VecNormalize`` already keep its
    settings, for they are their user's; others are put into one with the settings given.

    :param env: environments, with the channels of images first
    :param settings: as :func:`normalization_state` returns them
    :param statistics: as :func:`normalization_state` returns them
    :return: environments in a ``VecNormalize``
    :raises ValueError: if it normalises other observations than those that the statistics are of
    """
    normalize = unwrap_vec_normalize(env)
    if normalize is None:
        has_observations = any(name.startswith("obs") for name in statistics)
        env = normalize = VecNormalize(env, **settings | dict(norm_obs=has_observations))
        normalize.norm_obs = settings["norm_obs"]
    running = _running_statistics(normalize)
    shapes = {f"{name}.{moment}": np.shape(getattr(of, moment)) for name, of in running.items() for moment in MOMENTS}
    given = {name: value.shape for name, value in statistics.items()}
    if shapes != given or _normalized_keys(normalize) != settings["norm_obs_keys"]:
        raise ValueError(
            f"The environments' VecNormalize has statistics of shapes {shapes} and "
            f"norm_obs_keys={_normalized_keys(normalize)}, those to put in are of {given} and "
            f"norm_obs_keys={settings['norm_obs_keys']}: wrap the environments as they were wrapped in training."
        )
    for name, value in statistics.items():
        of, _, moment = name.rpartition(".")
        setattr(running[of], moment, float(value) if moment == "count" else value.copy())
    return env


def without_environments(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    settings: dict[str, Any],
    statistics: dict[str, np.ndarray],
) -> VecNormalize:
    """
    :param observation_space: of the environments that there were, with the channels of images first
    :param action_space: theirs
    :param settings: as :func:`normalization_state` returns them
    :param statistics: as :func:`normalization_state` returns them
    :return: a ``VecNormalize`` that normalises and unnormalises, and cannot be stepped
    :raises ValueError: if there is none of such observations
    """
    env: gym.Env[Any, Any] = gym.Env()
    # VecNormalize writes the spaces of images over
    env.observation_space, env.action_space = copy.deepcopy(observation_space), action_space
    normalize = unwrap_vec_normalize(with_normalization(DummyVecEnv([lambda: env]), settings, statistics))
    assert normalize is not None
    return normalize


def _running_statistics(env: VecNormalize) -> dict[str, RunningMeanStd]:
    statistics = {"ret": env.ret_rms}
    observations: Any = getattr(env, "obs_rms", None)  # there are none without norm_obs
    if isinstance(observations, dict):
        statistics |= {f"obs.{index}": running for index, running in enumerate(observations.values())}
    elif observations is not None:
        statistics["obs"] = observations
    return statistics


def _normalized_keys(env: VecNormalize) -> list[str] | None:
    observations: Any = getattr(env, "obs_rms", None)
    return list(observations) if isinstance(observations, dict) else None
