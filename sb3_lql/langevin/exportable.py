"""Chains on a copy of a critic, by operations that exporters know."""

import copy

import torch as th
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from sb3_lql.engine.policy import ExportableChain
from sb3_lql.langevin.sampler import LangevinSampler, ScoreFunction
from sb3_lql.langevin.tempered_sampler import TemperedDraws, TemperedSampler
from sb3_lql.networks.critics import EnsembleCritic


class ExportableLangevin(ExportableChain):
    """
    The chains of a :class:`~sb3_lql.langevin.policies.LangevinPolicy`, on the CPU.

    :param sampler: the chain and its schedule, which is copied
    :param critic: the critic, which is copied
    :param dtype: in which chains are computed; features are extracted in float32
    :raises ValueError: for a critic of another kind
    """

    critic: EnsembleCritic

    def __init__(self, sampler: LangevinSampler, critic: EnsembleCritic, dtype: th.dtype) -> None:
        known = EnsembleCritic
        if (type(critic).q_values, type(critic).action_gradient) != (known.q_values, known.action_gradient):
            raise ValueError(f"{type(critic).__name__} computes Q-values its own way, which export does not know.")
        super().__init__(critic, dtype)
        if self.critic.level_encoder is not None:
            with th.no_grad():
                embeddings = self.critic.level_encoder(dtype)
            self.critic.level_encoder = _Constant(embeddings)  # type: ignore[assignment]
        self.sampler = copy.deepcopy(sampler).cpu().to(dtype)
        self.gradient = None if critic.has_closed_form_gradient else _trace_gradient(self.critic, dtype)
        self.traceable = self.gradient is None

    def forward(self, features: th.Tensor, initial_actions: th.Tensor, noise: th.Tensor | None = None) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param initial_actions: ``a_0``, shape (batch, action_dim)
        :param noise: ``z``, shape (chain_length, batch, action_dim); ``None`` for chains without noise
        :return: where the chains end, shape (batch, action_dim)
        """
        actions: th.Tensor = self.sampler(self._score(features), initial_actions, noise).actions
        return actions

    def _score(self, features: th.Tensor) -> ScoreFunction:
        gradient = self.gradient
        if gradient is None:
            return self.critic.action_gradient(features)
        levels = features.new_zeros(features.shape[0], dtype=th.int64)
        return lambda actions, level: gradient(features, actions, levels + level)


class ExportableTempered(ExportableChain):
    """
    The chains of a :class:`~sb3_lql.langevin.tempered_policies.TemperedPolicy`, on the CPU.

    :param sampler: the chain and its state, which is copied
    :param critic: the critic, which is copied
    :param dtype: in which chains are computed; features are extracted in float32
    :raises ValueError: for a critic whose gradient is autograd's, which exporters do not know
    """

    critic: EnsembleCritic

    def __init__(self, sampler: TemperedSampler, critic: EnsembleCritic, dtype: th.dtype) -> None:
        if not critic.has_closed_form_gradient:
            raise ValueError(
                f"{type(critic).__name__} leaves its gradient to autograd: use linear layers with Mish, ReLU, SiLU or "
                "Tanh."
            )
        super().__init__(critic, dtype)
        self.sampler = copy.deepcopy(sampler).cpu().to(dtype)

    def forward(self, features: th.Tensor, starts: th.Tensor, *others: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param starts: where particles begin, shape (batch, n_particles, action_dim); or, of deterministic actions,
            (batch, n_particles * action_dim)
        :param others: the other draws of a chain; none for deterministic actions
        :return: shape (batch, action_dim)
        """
        n_particles = self.sampler.n_particles
        value_and_gradient = self.critic.lowest_of_each(features, n_particles)
        if not others:
            return self.sampler.climb(value_and_gradient, starts.view(-1, n_particles, self.critic.input_parts[1]))
        actions: th.Tensor = self.sampler(value_and_gradient, TemperedDraws(starts, *others)).actions
        return actions


class _Constant(nn.Module):
    """Stands for a module whose result does not change."""

    value: th.Tensor

    def __init__(self, value: th.Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, dtype: th.dtype) -> th.Tensor:
        return self.value.to(dtype)


def _trace_gradient(critic: EnsembleCritic, dtype: th.dtype) -> th.fx.GraphModule:
    """
    The gradient of the critics in the action as the operations that autograd makes of it: exporters do not know
    ``th.func.grad``.
    """

    def gradient(features: th.Tensor, actions: th.Tensor, levels: th.Tensor) -> th.Tensor:
        given = None if critic.level_encoder is None else levels
        result: th.Tensor = th.func.grad(lambda a: critic.q_values(features, a, given).sum())(actions)
        return result

    # Sizes that are equal here would be taken for one
    batch = 1 + sum(critic.input_parts)
    features, actions = (th.zeros(batch, size, dtype=dtype) for size in critic.input_parts[:2])
    make = make_fx(gradient, tracing_mode="symbolic", _allow_non_fake_inputs=True)
    module: th.fx.GraphModule = make(features, actions, th.zeros(batch, dtype=th.int64))
    return module
