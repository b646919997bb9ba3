"""The state of ``VecNormalize`` as plain data, and its restoration."""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecNormalize,
    VecTransposeImage,
    unwrap_vec_normalize,
)

#: Settings of ``VecNormalize``: names of arguments and attributes.
FLAGS = ("training", "norm_obs", "norm_reward")
NUMBERS = ("clip_obs", "clip_reward", "gamma", "epsilon")
#: What a running statistic consists of.
MOMENTS = ("mean", "var", "count")


def normalization_state(env: VecNormalize) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """
    Settings and float64 statistics by name: "ret.mean", "obs.var", or "obs.1.count" for the key with index 1 in
    ``norm_obs_keys``. The other functions take them as ``settings`` and ``statistics``.
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


def check_spaces_within(env: VecEnv) -> None:
    """Raise ``ValueError`` if a ``VecNormalize`` was made for other spaces than those of what it wraps."""
    # VecNormalize.load keeps the spaces that it was saved with, whatever it wraps
    while isinstance(env, VecEnvWrapper):
        outside, inside = env, env.venv
        if isinstance(outside, VecNormalize):
            said, found = _parts(outside.observation_space), _parts(inside.observation_space)
            # VecNormalize itself changes the spaces of normalised images
            same = {key: is_image_space(found[key]) or said[key] == found[key] for key in said.keys() & found.keys()}
            if said.keys() != found.keys() or not all(same.values()):
                raise ValueError(
                    f"Observation spaces do not match: {outside.observation_space} != {inside.observation_space}"
                )
            if outside.action_space != inside.action_space:
                raise ValueError(f"Action spaces do not match: {outside.action_space} != {inside.action_space}")
        env = inside


def in_normalization(env: VecEnv, settings: dict[str, Any], statistics: dict[str, np.ndarray]) -> VecEnv:
    """
    Wrap environments, with channels-first images, in a ``VecNormalize`` with saved settings. :func:`set_statistics`
    follows once their spaces are known to match the model's. Environments that already have one, or that the statistics
    do not fit, are left alone.
    """
    if unwrap_vec_normalize(env) is not None:
        return env
    shapes = {name.removesuffix(".mean"): value.shape for name, value in statistics.items() if name.endswith(".mean")}
    del shapes["ret"]
    # SB3 only transposes images of integers: images normalised before are still channels-last
    for each in [env, env.venv] if isinstance(env, VecTransposeImage) else [env]:
        if not shapes or shapes == _shapes_of_observations(each.observation_space, settings["norm_obs_keys"]):
            normalize = VecNormalize(each, **settings | dict(norm_obs=bool(shapes)))
            normalize.norm_obs = settings["norm_obs"]
            return normalize
    return env


def set_statistics(env: VecEnv, settings: dict[str, Any], statistics: dict[str, np.ndarray]) -> None:
    """
    Set the statistics of the environments' ``VecNormalize``, whose settings stay. Raises ``ValueError`` if there is
    none, or if it normalises other observations.
    """
    normalize = unwrap_vec_normalize(env)
    if normalize is None:
        raise ValueError("The model was trained in a VecNormalize: pass environments wrapped in one.")
    running, keys = _running_statistics(normalize), _normalized_keys(normalize)
    shapes = {f"{name}.{moment}": np.shape(getattr(of, moment)) for name, of in running.items() for moment in MOMENTS}
    given = {name: value.shape for name, value in statistics.items()}
    if shapes != given or keys != settings["norm_obs_keys"]:
        raise ValueError(
            f"The environments' VecNormalize has statistics of shapes {shapes} and norm_obs_keys={keys}, the saved one "
            f"has {given} and norm_obs_keys={settings['norm_obs_keys']}: wrap the environments as they were wrapped in "
            "training."
        )
    for name, value in statistics.items():
        of, _, moment = name.rpartition(".")
        setattr(running[of], moment, float(value) if moment == "count" else value.copy())


def without_environments(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    settings: dict[str, Any],
    statistics: dict[str, np.ndarray],
) -> VecNormalize:
    """
    A ``VecNormalize`` that normalises and unnormalises, but cannot be stepped, for the original environments' spaces
    with channels-first images. Raises ``ValueError`` if the statistics do not fit the observations.
    """
    env: gym.Env[Any, Any] = gym.Env()
    # A copy, since VecNormalize overwrites the spaces of images
    env.observation_space, env.action_space = copy.deepcopy(observation_space), action_space
    normalize = in_normalization(DummyVecEnv([lambda: env]), settings, statistics)
    set_statistics(normalize, settings, statistics)
    assert isinstance(normalize, VecNormalize)
    return normalize


def _parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def _shapes_of_observations(space: spaces.Space[Any], keys: list[str] | None) -> dict[str, tuple[int, ...] | None]:
    """Shapes by the names of their statistics."""
    if keys is None:
        return {"obs": space.shape} if isinstance(space, spaces.Box) else {}
    parts = _parts(space)
    return {
        f"obs.{index}": parts[key].shape for index, key in enumerate(keys) if isinstance(parts.get(key), spaces.Box)
    }


def _running_statistics(env: VecNormalize) -> dict[str, RunningMeanStd]:
    statistics = {"ret": env.ret_rms}
    # Missing without norm_obs. getattr would search the wrapped environments, which a pickle lacks
    observations: Any = vars(env).get("obs_rms")
    if isinstance(observations, dict):
        statistics |= {f"obs.{index}": running for index, running in enumerate(observations.values())}
    elif observations is not None:
        statistics["obs"] = observations
    return statistics


def _normalized_keys(env: VecNormalize) -> list[str] | None:
    observations: Any = vars(env).get("obs_rms")
    return list(observations) if isinstance(observations, dict) else None
