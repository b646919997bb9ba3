"""How a trained agent gets from random numbers to actions, step by step."""

from typing import cast

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.sac.policies import Actor

from sb3_lql.diffusion.policies import DiffusionPolicy
from sb3_lql.engine.policy import best_of_samples
from sb3_lql.envs.multimodal_bandit import BOUND
from sb3_lql.langevin.policies import LangevinPolicy
from sb3_lql.langevin.sampler import LangevinSampler, ScoreFunction


def normal_starts(n_actions: int, seed: int) -> np.ndarray:
    """Initial actions a_0 ~ N(0, I) (appendix C.2), shape (n_actions, 2)."""
    return np.random.default_rng(seed).standard_normal((n_actions, 2))


@th.no_grad()
def trajectories(model: BaseAlgorithm, starts: np.ndarray, seed: int, score: ScoreFunction | None = None) -> np.ndarray:
    """
    Draw one action from each start, of shape (n_actions, 2), and keep every step on the way: float32, shape (n_steps +
    1, n_actions, 2). ``score`` is what a Langevin chain climbs, by default the gradient of its critics.

    A Langevin chain starts from ``a_0``, clipped to the action space as all its later steps are. A denoising chain
    starts from ``x_T`` made of ``a_0``, which may lie outside. SAC has a single step, from the standard normal variate
    ``a_0`` to its squashed Gaussian action.
    """
    policy = model.policy
    policy.set_training_mode(False)
    obs = th.zeros(len(starts), 1, device=model.device)
    if isinstance(policy, DiffusionPolicy):
        normal = th.as_tensor(starts, dtype=th.float32, device=model.device)
        visited: np.ndarray = BOUND * _denoise_recorded(policy, policy.features(obs), normal, seed).cpu().numpy()
        return visited
    if not isinstance(policy, LangevinPolicy):
        latent = th.as_tensor(starts, dtype=th.float32, device=model.device)
        mean, log_std, _ = cast(Actor, policy.actor).get_action_dist_params(obs)
        actions = th.tanh(mean + log_std.exp() * latent)
        return np.stack([starts.astype(np.float32), policy.unscale_action(actions.cpu().numpy())])

    if score is None:
        score = policy.critic.action_gradient(policy.critic.features(obs))
    initial = th.as_tensor(policy.scale_action(starts), device=model.device)
    return policy.unscale_action(_run_recorded(policy.sampler, score, initial, seed).cpu().numpy())


@th.no_grad()
def best_of(policy: DiffusionPolicy, candidates: np.ndarray) -> np.ndarray:
    """
    :param policy: whose critics choose
    :param candidates: actions, shape (n_actions, n_candidates, 2)
    :return: the best of each action's candidates by the minimum critic, shape (n_actions, 2)
    """
    n = candidates.shape[1]
    actions = th.as_tensor(candidates.reshape(-1, 2) / BOUND, device=policy.device)
    features = policy.features(th.zeros(len(actions), 1, device=policy.device))
    best = best_of_samples(actions, n, lambda: policy.critic.lowest_q_values(features, actions))
    chosen: np.ndarray = BOUND * best.cpu().numpy()
    return chosen


def _denoise_recorded(policy: DiffusionPolicy, features: th.Tensor, normal: th.Tensor, seed: int) -> th.Tensor:
    """Actions before the first and after each step of a chain, shape (chain_length + 1, n_actions, 2)."""
    visited: list[th.Tensor] = []
    denoiser = policy.acting_denoiser.given(features)

    def recording_denoiser(x: th.Tensor, t: int) -> th.Tensor:
        visited.append(x)
        return denoiser(x, t)

    shape = (policy.process.n_noises, *normal.shape)
    noise = th.randn(shape, generator=th.Generator().manual_seed(seed)).to(normal.device)
    actions: th.Tensor = policy.process(recording_denoiser, policy.start_scale * normal, noise)
    return th.stack([*visited, actions])


def _run_recorded(sampler: LangevinSampler, score: ScoreFunction, initial_actions: th.Tensor, seed: int) -> th.Tensor:
    """Actions in [-1, 1] before the first and after each step of a chain, shape (chain_length + 1, n_actions, 2)."""
    # A sampler asks for the score where it is
    visited: list[th.Tensor] = []

    def recording_score(actions: th.Tensor, level: int) -> th.Tensor:
        visited.append(actions)
        return score(actions, level)

    # Drawn on the CPU, the noise is the same whatever the device
    noise = th.randn((sampler.chain_length, *initial_actions.shape), generator=th.Generator().manual_seed(seed))
    chain = sampler(recording_score, initial_actions, noise.to(initial_actions.device))
    return th.stack([*visited, chain.actions])
