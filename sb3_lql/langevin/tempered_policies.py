"""The policy of exp(w Q) / Z itself: particles that are tempered, and what they tell of the law."""

from collections.abc import Iterator
from typing import Any

import torch as th
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN

from sb3_lql.engine.policy import fixed_starts
from sb3_lql.langevin.exportable import ExportableTempered
from sb3_lql.langevin.policies import SamplerPolicy
from sb3_lql.langevin.runner import compiled_tempered_chain, tempered_chain
from sb3_lql.langevin.tempered_sampler import TemperedChain, TemperedDraws, TemperedSampler


class TemperedPolicy(SamplerPolicy):
    """
    Policy without an actor: an action is one of the particles of sequential Monte Carlo on the smallest critic, by
    their weights. Arguments that are not listed here are those of :class:`~sb3_lql.engine.policy.ChainPolicy`.

    Its law is exp(w * min_k Q_k(s, .)) / Z(s), of which each chain estimates Z too. The minimum of the critics is what
    TD targets, the choice among several actions and ``q_value`` look at.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param sampler: the particles' chain, and what is learned of it
    :raises ValueError: for a ``net_arch`` or a count that makes no network, or an extractor of other observations
    """

    #: As the constructor takes it.
    sampler: TemperedSampler

    @property
    def n_parallel(self) -> int:
        """Actions that a chain looks at side by side: its particles."""
        return self.sampler.n_particles

    def statistics(self) -> Iterator[th.Tensor]:
        """
        :return: as of :class:`~sb3_lql.engine.policy.ChainPolicy`, and what the sampler adapts
        """
        yield from (*super().statistics(), *self.sampler.buffers())

    def draw(self, features: th.Tensor) -> TemperedDraws:
        """
        :param features: shape (batch, features_dim)
        :return: the random draws of a chain for each row
        """
        return self.sampler.draw(len(features))

    @th.no_grad()
    def run_chain(self, features: th.Tensor, *draws: th.Tensor) -> TemperedChain:
        """
        One chain per row of ``features``, with the online critics. Chains in float64 are never compiled.

        :param features: the critic's features, shape (batch, features_dim)
        :param draws: as :meth:`draw` returns them
        :return: actions in [-1, 1] of shape (batch, action_dim), the particles, and the estimates that come with them
        """
        chain = compiled_tempered_chain if self._compiles_for(features) else tempered_chain
        return chain(self.sampler, self.critic, features, *draws)

    def run(self, features: th.Tensor, *draws: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param draws: as :meth:`draw` returns them
        :return: one particle of each row, in [-1, 1], shape (batch, action_dim)
        """
        return self.run_chain(features, *draws).actions

    def fixed_draws(self) -> th.Tensor:
        """
        :return: where particles of deterministic actions begin, a row for each of ``n_action_samples``, shape
            (n_action_samples, n_particles * action_dim)
        """
        return fixed_starts(self.n_action_samples * self.n_parallel, self.action_dim).view(self.n_action_samples, -1)

    @th.no_grad()
    def run_deterministic(self, features: th.Tensor, draws: th.Tensor) -> th.Tensor:
        """
        The best of particles that climb without noise.

        :param features: shape (batch, features_dim)
        :param draws: as of :meth:`fixed_draws`, a row for each of the features, in their precision
        :return: in [-1, 1], shape (batch, action_dim)
        """
        starts = draws.view(len(draws), -1, self.action_dim)
        return self.sampler.climb(self.critic.lowest_of_each(features, starts.shape[1]), starts)

    def draw_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """
        :return: shapes of what :meth:`draw` returns, in its order, by name; the size of the batch is "batch"
        :raises ValueError: if the sampler has not adapted yet, and so depends on what shares a batch
        """
        if self.sampler.n_adaptations == 0:
            raise ValueError(
                "The tempered sampler has not adapted its step sizes yet, so that its draws depend on what shares a "
                "batch: let the model learn first, or pass deterministic=True."
            )
        return self.sampler.draw_shapes()

    def exportable(self, dtype: th.dtype) -> ExportableTempered:
        """
        :param dtype: in which chains are to be computed
        :return: the chains, for export
        :raises ValueError: for a critic without a gradient in closed form
        """
        return ExportableTempered(self.sampler, self.critic, dtype)

    @th.no_grad()
    def estimate(self, features: th.Tensor, n_particles: int) -> TemperedChain:
        """
        :param features: shape (batch, features_dim)
        :param n_particles: particles of each row
        :return: a chain with so many
        """
        draws = self.sampler.draw(len(features), n_particles)
        return tempered_chain(self.sampler, self.critic, features, *draws)

    def constants(self) -> tuple[Any, ...]:
        """
        :return: the Python values on which a chain depends and which may change
        """
        return *super().constants(), self.n_parallel, self.sampler.target_entropy


class TemperedCnnPolicy(TemperedPolicy):
    """:class:`TemperedPolicy` for images."""

    #: What ``features_extractor_class=None`` stands for.
    default_features_extractor_class = NatureCNN


class TemperedMultiInputPolicy(TemperedPolicy):
    """:class:`TemperedPolicy` for dictionary observations."""

    #: What ``features_extractor_class=None`` stands for: a CNN for each image, and the rest as it is.
    default_features_extractor_class = CombinedExtractor
