"""Chains on a critic, as they are and compiled."""

import torch as th

from sb3_lql.common.acceleration import compiled
from sb3_lql.langevin.sampler import LangevinChain, LangevinSampler
from sb3_lql.langevin.tempered_sampler import TemperedChain, TemperedDraws, TemperedSampler
from sb3_lql.networks.critics import EnsembleCritic


def langevin_chain(
    sampler: LangevinSampler,
    critic: EnsembleCritic,
    features: th.Tensor,
    initial_actions: th.Tensor,
    noise: th.Tensor | None,
    bfloat16: bool = False,
) -> LangevinChain:
    """
    A chain per row of ``features``, of shape (batch, features_dim), on the critic's action-gradient.

    ``bfloat16`` is a flag, not a class or a function that multiplies: a compiled chain would keep the first of those.
    """
    chain: LangevinChain = sampler(critic.action_gradient(features, bfloat16), initial_actions, noise)
    return chain


#: Compiled once for all models of an architecture, and all batches.
compiled_langevin_chain = compiled(
    langevin_chain, batch_dims=dict(features=0, initial_actions=0, noise=1), result_dims=(0, 1)
)


def tempered_chain(
    sampler: TemperedSampler,
    critic: EnsembleCritic,
    features: th.Tensor,
    starts: th.Tensor,
    noise: th.Tensor,
    acceptance: th.Tensor,
    resampling: th.Tensor,
    choice: th.Tensor,
) -> TemperedChain:
    """Particles for each row of ``features``, on the smallest critic; the draws are those of ``TemperedDraws``."""
    draws = TemperedDraws(starts, noise, acceptance, resampling, choice)
    chain: TemperedChain = sampler(critic.lowest_of_each(features, starts.shape[1]), draws)
    return chain


#: Compiled once for all models of an architecture, and all batches but those of one row, whose particles are many.
compiled_tempered_chain = compiled(
    tempered_chain, batch_dims=dict(features=0, starts=0, noise=1, acceptance=1, resampling=1, choice=0)
)
