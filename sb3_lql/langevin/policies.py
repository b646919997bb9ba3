"""The actor-free policy: a critic, its target and a sampler on it."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from sb3_lql.engine.policy import ChainPolicy
from sb3_lql.langevin.exportable import ExportableLangevin
from sb3_lql.langevin.runner import compiled_langevin_chain, langevin_chain
from sb3_lql.langevin.sampler import LangevinChain, LangevinSampler
from sb3_lql.langevin.tempered_sampler import TemperedSampler


class SamplerPolicy(ChainPolicy):
    """
    Policy without an actor: a sampler on the critic draws actions. A subclass defines how it runs. Arguments
    that are not listed here are those of :class:`~sb3_lql.engine.policy.ChainPolicy`.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param sampler: the chain, its schedule and what it learns
    """

    #: As the constructor takes it.
    sampler: LangevinSampler | TemperedSampler

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        sampler: LangevinSampler | TemperedSampler,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, **kwargs)
        self.sampler = sampler
        self._build(lr_schedule)

    @property
    def chain_length(self) -> int:
        """Steps of a chain, one after the other."""
        return self.sampler.chain_length

    @property
    def exact_dtype(self) -> th.dtype:
        """
        float64 wherever the critic can: along a chain of normalised scores the last bit of float32 can grow, and the
        best of several particles may be one or another by it.
        """
        return self.critic.exact_dtype

    def _compiles_for(self, features: th.Tensor) -> bool:
        """Whether chains with these features are compiled."""
        return self.compiles and self.critic.can_compile(features)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(sampler=self.sampler)


class LangevinPolicy(SamplerPolicy):
    """
    Policy without an actor: an action is the end of a Langevin chain on the critic.

    The critic is noise-conditioned when the sampler is: one class serves LQL and NC-LQL. Arguments that are not listed
    here are those of :class:`~sb3_lql.engine.policy.ChainPolicy`.

    :param observation_space: observation space
    :param action_space: action space
    :param lr_schedule: learning rate schedule
    :param sampler: the Langevin chain and its schedule
    :param bfloat16_chain: multiply the chain's hidden layers in bfloat16
    :raises ValueError: for a ``net_arch`` or a count that makes no network, or an extractor of other observations
    """

    #: As the constructor takes it.
    sampler: LangevinSampler

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        sampler: LangevinSampler,
        bfloat16_chain: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, sampler, **kwargs)
        self.bfloat16_chain = bfloat16_chain

    def _critic_arguments(self) -> dict[str, Any]:
        n_noise_levels = self.sampler.n_levels if self.sampler.noise_conditioned else None
        return super()._critic_arguments() | dict(n_noise_levels=n_noise_levels)

    def draw(
        self, features: th.Tensor, initial_actions: th.Tensor | None = None, noise: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor]:
        """
        The random draws of a chain, but for those that are given.

        :param features: shape (batch, features_dim)
        :param initial_actions: ``a_0``, shape (batch, action_dim); uniform on [-1, 1] if ``None``
        :param noise: ``z``, shape (chain_length, batch, action_dim); standard normal if ``None``
        :return: both
        :raises ValueError: if a given draw has another shape
        """
        shape = (len(features), self.action_dim)
        _check_shape("initial_actions", initial_actions, shape)
        _check_shape("noise", noise, (self.chain_length, *shape))
        if initial_actions is None:
            initial_actions = th.empty(shape, device=features.device).uniform_(-1.0, 1.0)
        if noise is None:
            noise = th.randn((self.chain_length, *shape), device=features.device)
        return initial_actions, noise

    @th.no_grad()
    def run_chain(self, features: th.Tensor, initial_actions: th.Tensor, noise: th.Tensor | None) -> LangevinChain:
        """
        One Langevin chain per row of ``features``, with the online critics.

        Chains without noise or in float64 are never compiled, and chains without noise never use bfloat16: their
        results must not depend on whether the model was just trained, nor on the machine.

        :param features: the critic's features, shape (batch, features_dim)
        :param initial_actions: ``a_0``, shape (batch, action_dim)
        :param noise: ``z``, shape (chain_length, batch, action_dim); ``None`` for a chain without noise
        :return: actions in [-1, 1] of shape (batch, action_dim), and the norms of the scores
        """
        if noise is None:
            return langevin_chain(self.sampler, self.critic, features, initial_actions, None)
        chain = compiled_langevin_chain if self._compiles_for(features) else langevin_chain
        return chain(self.sampler, self.critic, features, initial_actions, noise, self.bfloat16_chain)

    def run(self, features: th.Tensor, *draws: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param draws: as :meth:`draw` returns them
        :return: where the chains end, in [-1, 1], shape (batch, action_dim)
        """
        initial_actions, noise = draws
        return self.run_chain(features, initial_actions, noise).actions

    def run_deterministic(self, features: th.Tensor, draws: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param draws: where chains without noise begin, shape (batch, action_dim), in the precision of the features
        :return: where they end, in [-1, 1], shape (batch, action_dim)
        """
        return self.run_chain(features, draws, None).actions

    def draw_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """
        :return: shapes of what :meth:`draw` returns, in its order, by name; the size of the batch is "batch"
        :raises ValueError: if the chains of draws round differently on each machine
        """
        if self.bfloat16_chain:
            raise ValueError(
                "bfloat16_chain=True cannot be exported with noise as an input, as its rounding differs between "
                "machines: pass bfloat16_chain=False to load, or deterministic=True, whose chain does not use bfloat16."
            )
        return {
            "initial_actions": ("batch", self.action_dim),
            "noise": (self.chain_length, "batch", self.action_dim),
        }

    def exportable(self, dtype: th.dtype) -> ExportableLangevin:
        """
        :param dtype: in which chains are to be computed
        :return: the chains, for export
        :raises ValueError: for a critic that computes Q-values its own way
        """
        return ExportableLangevin(self.sampler, self.critic, dtype)

    @th.no_grad()
    def sample_actions(
        self,
        obs: PyTorchObs,
        *,
        initial_actions: th.Tensor | None = None,
        noise: th.Tensor | None = None,
    ) -> th.Tensor:
        """
        Draw one action per observation. With both draws given, a chain can be replayed exactly.

        :param obs: observations
        :param initial_actions: ``a_0``, shape (batch, action_dim); uniform on [-1, 1] if ``None``
        :param noise: ``z``, shape (chain_length, batch, action_dim) in the order of the chain; standard normal if
            ``None``
        :return: actions in [-1, 1], shape (batch, action_dim)
        :raises ValueError: if a given draw has another shape
        """
        features = self.features(obs)
        return self.run(features, *self.draw(features, initial_actions, noise))

    def constants(self) -> tuple[Any, ...]:
        """
        :return: the Python values on which a chain depends and which may change
        """
        return *super().constants(), self.bfloat16_chain

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | dict(bfloat16_chain=self.bfloat16_chain)


MlpPolicy = LangevinPolicy


class CnnPolicy(LangevinPolicy):
    """:class:`LangevinPolicy` for images."""

    #: What ``features_extractor_class=None`` stands for.
    default_features_extractor_class = NatureCNN


class MultiInputPolicy(LangevinPolicy):
    """:class:`LangevinPolicy` for dictionary observations."""

    #: What ``features_extractor_class=None`` stands for: a CNN for each image, and the rest as it is.
    default_features_extractor_class = CombinedExtractor


def _check_shape(name: str, tensor: th.Tensor | None, shape: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: pass one of shape {shape}.")
