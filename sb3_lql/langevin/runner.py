"""A Langevin chain on a critic, as it is and compiled."""

import torch as th

from sb3_lql.engine.acceleration import compiled
from sb3_lql.langevin.sampler import LangevinChain, LangevinSampler
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


#: Compiled once for all models of an architecture, and all batches but those of one row.
compiled_langevin_chain = compiled(langevin_chain, batch_dims=dict(features=0, initial_actions=0, noise=1))
