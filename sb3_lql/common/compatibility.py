"""Refuses spaces, policies and arguments that do not work here, with the reason and the fix."""

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, VecTransposeImage
from torch import nn

_NO_ENTROPY = "there is no Gaussian actor whose entropy could be weighed; LQL and NCLQL have an inverse_temperature"
_NO_GSDE = "gSDE perturbs the weights of a Gaussian actor, and there is none: the chain's own noise explores"
_NO_ACTOR = "there is no deterministic actor to delay, and target actions come from the chain, which has its own noise"
_NO_GREED = "there is no epsilon-greedy exploration: the chain's own noise explores, and action_noise can add to it"
_NO_QUANTILES = "critics have no quantiles to drop; policy_kwargs=dict(n_critics=...) sets how many critics there are"
#: Arguments of SB3's other off-policy algorithms, and why they do not exist here.
FOREIGN_ARGUMENTS = {
    **dict.fromkeys(("ent_coef", "target_entropy"), _NO_ENTROPY),
    **dict.fromkeys(("sde_sample_freq", "use_sde_at_warmup"), _NO_GSDE),
    **dict.fromkeys(("policy_delay", "target_policy_noise", "target_noise_clip"), _NO_ACTOR),
    **dict.fromkeys(("exploration_fraction", "exploration_initial_eps", "exploration_final_eps"), _NO_GREED),
    "top_quantiles_to_drop_per_net": _NO_QUANTILES,
    "max_grad_norm": "gradients are not clipped",
}


def check_observation_space(observation_space: spaces.Space[Any]) -> None:
    """Raise a ``ValueError`` if SB3 cannot encode the observations, or a part of them."""
    if not isinstance(observation_space, spaces.Dict):
        _check_observation_part("observation_space", observation_space)
        return
    if not observation_space.spaces:
        raise ValueError("observation_space=Dict() is empty: there is nothing to learn from.")
    for key, part in observation_space.spaces.items():
        _check_observation_part(f"observation_space[{key!r}]", part)


def _check_observation_part(name: str, space: spaces.Space[Any]) -> None:
    flatten = "flatten the observations with gymnasium.wrappers.FlattenObservation"
    if isinstance(space, spaces.Tuple):
        raise ValueError(
            f"{name}={space} is a Tuple, which SB3 has no networks for: name its parts in a Dict and pass "
            f"'MultiInputPolicy', or {flatten}."
        )
    if isinstance(space, spaces.Dict):
        raise ValueError(f"{name}={space} is a Dict within a Dict: use one Dict for all parts, or {flatten}.")
    if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)):
        raise ValueError(
            f"{name}={space} is of type {type(space).__name__}, which SB3 has no networks for: encode it as a Box of "
            "numbers with gymnasium.wrappers.TransformObservation."
        )
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim != 1:
        raise ValueError(f"{name}={space} has {space.nvec.ndim} axes, and SB3 encodes one: {flatten}.")
    if isinstance(space, spaces.Box) and (space.shape == () or 0 in space.shape):
        raise ValueError(
            f"{name}={space} has shape {space.shape}: pass a Box with at least one axis and one coordinate, as "
            "gymnasium.wrappers.ReshapeObservation can make it, or leave it out."
        )


def check_extractor(
    extractor_class: type[BaseFeaturesExtractor], observation_space: spaces.Space[Any], kwargs: dict[str, Any]
) -> None:
    """Raise a ``ValueError`` if an extractor of SB3's does not fit the observations; others are not checked."""
    if isinstance(observation_space, spaces.Dict):
        if extractor_class in (FlattenExtractor, NatureCNN):
            raise ValueError(f"observation_space={observation_space} is a Dict: pass 'MultiInputPolicy'.")
    elif extractor_class is CombinedExtractor:
        raise ValueError(
            f"observation_space={observation_space} is no Dict, which 'MultiInputPolicy' needs: pass 'MlpPolicy', or "
            "'CnnPolicy' for images."
        )
    elif extractor_class is NatureCNN and not is_image_space(
        observation_space, normalized_image=kwargs.get("normalized_image", False)
    ):
        raise ValueError(
            f"observation_space={observation_space} is no image of uint8 from 0 to 255, which 'CnnPolicy' needs: pass "
            "'MlpPolicy', or policy_kwargs=dict(normalize_images=False) if it is a channels-first image with another "
            "scale. VecNormalize rescales images; VecNormalize(VecTransposeImage(env), norm_obs=False) does not."
        )


def check_activation(activation_fn: Any) -> None:
    """Raise a ``TypeError`` if it is no class of modules that needs no arguments."""
    if isinstance(activation_fn, nn.Module):
        raise TypeError(f"activation_fn={activation_fn!r} is a module: pass its class, {type(activation_fn)}.")
    fix = "pass a class such as torch.nn.Mish."
    try:
        made = activation_fn()
    except TypeError as error:
        raise TypeError(f"activation_fn={activation_fn!r} makes no module ({error}): {fix}") from error
    if not isinstance(made, nn.Module):
        raise TypeError(f"activation_fn={activation_fn!r} makes a {type(made).__name__}: {fix}")


def check_optimizer(optimizer_class: Any, kwargs: Any) -> None:
    """Raise a ``TypeError`` or ``ValueError`` for an optimiser that cannot take an update's steps."""
    if not callable(optimizer_class):
        raise TypeError(f"optimizer_class={optimizer_class!r} is no class: pass one such as torch.optim.AdamW.")
    if isinstance(optimizer_class, type) and issubclass(optimizer_class, th.optim.LBFGS):
        raise ValueError("optimizer_class=LBFGS evaluates a loss several times in a step: pass one such as Adam.")
    if not isinstance(kwargs, dict | None):
        raise TypeError(f"optimizer_kwargs={kwargs!r} is a {type(kwargs).__name__}: pass a dict.")
    if "lr" in (kwargs or {}):
        raise ValueError(f"optimizer_kwargs={kwargs!r} has 'lr', which learning_rate sets: pass learning_rate instead.")


def check_policy(policy: Any, aliases: dict[str, type[BasePolicy]], base: type[BasePolicy]) -> None:
    """
    Check a user's policy, a class or one of the ``aliases``: a ``ValueError`` for an unknown alias, a ``TypeError`` for
    a class that does not derive from ``base`` and for anything that is not a class.
    """
    names = ", ".join(map(repr, aliases))
    if isinstance(policy, str):
        if policy not in aliases:
            close = difflib.get_close_matches(policy, aliases, n=1)
            raise ValueError(f"policy={policy!r} is unknown: pass {repr(close[0]) if close else f'one of {names}'}.")
    elif not isinstance(policy, type):
        raise TypeError(f"policy={reprlib.repr(policy)} is neither a class nor a name: pass one of {names}.")
    elif not issubclass(policy, base):
        # SB3's policies are named after the kind of observation, for every algorithm
        kinds = {alias.removesuffix("Policy"): alias for alias in aliases}
        alias = next((kinds[kind] for kind in kinds if kind in policy.__name__), "MlpPolicy")
        raise TypeError(
            f"policy={policy.__module__}.{policy.__qualname__} does not derive from "
            f"{base.__module__}.{base.__qualname__}: pass {alias!r}."
        )


def check_policy_kwargs(policy_kwargs: dict[str, Any], use_sde: Any, taken: Iterable[str]) -> None:
    """Raise a ``ValueError`` if a user asks for gSDE, or passes one of the arguments ``taken`` by the algorithm."""
    for name, value in (("use_sde", use_sde), ("policy_kwargs['use_sde']", policy_kwargs.get("use_sde", False))):
        if value:
            raise ValueError(
                f"{name}={value!r} is not supported: {_NO_GSDE}. Leave it out; action_noise can add to that noise."
            )
    for name in policy_kwargs.keys() & set(taken):
        raise ValueError(f"policy_kwargs[{name!r}] is set by the algorithm: pass its own arguments instead.")


def check_arguments_known(algorithm: str, given: Iterable[str], known: Iterable[str], also: Iterable[str] = ()) -> None:
    """
    Raise a ``TypeError`` if an argument is given that is not ``known``. What the user may have meant is looked for
    among those and what the algorithm takes ``also``, elsewhere.
    """
    unknown = sorted(set(given) - set(known))
    for name in unknown:
        if reason := FOREIGN_ARGUMENTS.get(name):
            raise TypeError(
                f"{algorithm} has no argument {name!r}: {reason}. Leave it out; the page 'Coming from SAC' "
                "(docs/from_sac.md) lists the differences."
            )
    if unknown:
        close = difflib.get_close_matches(unknown[0], {*known, *also}, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "leave it out."
        raise TypeError(f"{algorithm} got an unexpected keyword argument {unknown[0]!r}: {hint}")


def check_wrappers(env: VecEnv) -> None:
    """Refuse images transposed outside of ``VecNormalize``, which passes the originals to the replay buffer."""
    transposes = False
    while isinstance(env, VecEnvWrapper):
        transposes = transposes or (isinstance(env, VecTransposeImage) and not env.skip)
        if transposes and isinstance(env, VecNormalize):
            raise ValueError(
                f"VecNormalize is around images with their channels last, observation_space={env.observation_space}, "
                "which could not be stored: wrap them before, VecNormalize(VecTransposeImage(env), ...)."
            )
        env = env.venv
