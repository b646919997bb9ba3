"""How chains on a critic are run: as they are, compiled, or replayed on a GPU."""

from collections.abc import Iterator
from typing import Any

import torch as th
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_lql.engine.acceleration import GraphedFunction, compiled
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


class ChainRunner:
    """
    Runs a sampler on a critic.

    :param sampler: the Langevin chain and its schedule
    :param critic: the critic on whose action-gradient it runs
    :param bfloat16: multiply the chain's hidden layers in bfloat16
    """

    def __init__(self, sampler: LangevinSampler, critic: EnsembleCritic, bfloat16: bool = False) -> None:
        self.sampler = sampler
        self.critic = critic
        self.bfloat16 = bfloat16
        #: Compile chains, where the critic's gradient has a closed form.
        self.compile = False
        #: Let :meth:`actions` use CUDA graphs.
        self.use_cuda_graphs = False
        self._graphed_actions = GraphedFunction(self._actions, self._state, self.constants)

    def draw(
        self, features: th.Tensor, initial_actions: th.Tensor | None = None, noise: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor]:
        """
        The random draws of a chain, but for those that are given.

        :param features: the critic's features, shape (batch, features_dim)
        :param initial_actions: ``a_0``, shape (batch, action_dim); uniform on [-1, 1] if ``None``
        :param noise: ``z``, shape (chain_length, batch, action_dim); standard normal if ``None``
        :return: both
        """
        shape = (len(features), get_action_dim(self.critic.action_space))
        if initial_actions is None:
            initial_actions = th.empty(shape, device=features.device).uniform_(-1.0, 1.0)
        if noise is None:
            noise = th.randn((self.sampler.chain_length, *shape), device=features.device)
        return initial_actions, noise

    @th.no_grad()
    def run(self, features: th.Tensor, initial_actions: th.Tensor, noise: th.Tensor | None) -> LangevinChain:
        """
        One chain per row of ``features``.

        A chain without noise or in float64 is never compiled, nor is one without noise in bfloat16: what it does must
        not depend on whether the model was just trained, nor on the machine.

        :param features: the critic's features, shape (batch, features_dim)
        :param initial_actions: ``a_0``, shape (batch, action_dim)
        :param noise: ``z``, shape (chain_length, batch, action_dim); ``None`` for a chain without noise
        :return: the final actions and the norms of the scores
        """
        if noise is None:
            return langevin_chain(self.sampler, self.critic, features, initial_actions, None)
        compiles = self.compile and features.dtype == th.float32 and self.critic.has_closed_form_gradient
        run = compiled_langevin_chain if compiles else langevin_chain
        return run(self.sampler, self.critic, features, initial_actions, noise, self.bfloat16)

    def actions(self, features: th.Tensor, initial_actions: th.Tensor, noise: th.Tensor | None) -> th.Tensor:
        """
        Where the chains of :meth:`run` end, as a CUDA graph where it may and can be.

        :return: final actions, shape (batch, action_dim)
        """
        run = self._graphed_actions if self.use_cuda_graphs else self._actions
        actions: th.Tensor = run(features, initial_actions, noise)
        return actions

    def _actions(self, features: th.Tensor, initial_actions: th.Tensor, noise: th.Tensor | None) -> th.Tensor:
        return self.run(features, initial_actions, noise).actions

    def _state(self) -> Iterator[th.Tensor]:
        """The tensors that a chain reads besides its arguments."""
        yield from (*self.critic.parameters(), *self.critic.buffers(), *self.sampler.buffers())

    def constants(self) -> tuple[Any, ...]:
        """
        :return: the Python values on which a chain depends and which may change
        """
        return self.compile, self.bfloat16
