"""The ensemble of Q-networks and its gradient with respect to the action."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_lql.common.acceleration import compiled
from sb3_lql.networks.activations import sloped, value_and_derivative
from sb3_lql.networks.layers import LEVEL_DIM, EnsembleLinear, LevelEncoder
from sb3_lql.networks.passes import ActionPasses

#: Maps actions of shape (batch, action_dim) and a noise level to the gradient of Q, of the same shape.
ActionGradient = Callable[[th.Tensor, int], th.Tensor]


class EnsembleCritic(BaseModel):
    """
    Q(s, a) or, when noise-conditioned, Q(s, a, sigma_l): ``n_critics`` networks on one features extractor, with the
    input ``[features, action, level embedding]``.

    :param observation_space: observation space
    :param action_space: action space
    :param net_arch: sizes of the hidden layers; empty for a linear Q
    :param features_extractor: maps observations to features
    :param features_dim: number of features
    :param activation_fn: activation after each hidden layer; the critics share its parameters, if any
    :param normalize_images: divide images by 255
    :param n_critics: number of Q-networks
    :param n_noise_levels: number of noise levels ``L``; ``None`` for a critic without noise conditioning
    """

    #: Outputs of each network.
    n_outputs: ClassVar[int] = 1
    #: Whether :meth:`forward` is compiled, where it can be. Its results have no second gradient then.
    compiles: bool = False

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.Mish,
        normalize_images: bool = True,
        n_critics: int = 2,
        n_noise_levels: int | None = None,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.n_critics = n_critics
        self.n_noise_levels = n_noise_levels
        self.level_encoder = None if n_noise_levels is None else LevelEncoder(n_critics, n_noise_levels)
        level_dim = 0 if n_noise_levels is None else LEVEL_DIM
        #: Sizes of the three parts of the input.
        self.input_parts = [features_dim, get_action_dim(action_space), level_dim]
        sizes = [sum(self.input_parts), *net_arch, self.n_outputs]
        self.layers = nn.ModuleList(
            EnsembleLinear(n_critics, size_in, size_out) for size_in, size_out in pairwise(sizes)
        )
        self.activations = nn.ModuleList(activation_fn() for _ in net_arch)

    def features(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations
        :return: features, shape (batch, features_dim)
        """
        return self.extract_features(_counted_from_zero(obs, self.observation_space), self.features_extractor)

    def forward(self, obs: PyTorchObs, actions: th.Tensor, noise_level: th.Tensor | int | None = None) -> th.Tensor:
        """
        :param obs: observations
        :param actions: actions in [-1, 1], shape (batch, action_dim)
        :param noise_level: 0 (sigma_max) ... L-1 (sigma_min, the default), int tensor of shape (batch,) or one int
        :return: Q-values, shape (n_critics, batch, 1)
        :raises ValueError: if a noise level is given to a critic without noise conditioning
        """
        features = self.features(obs)
        if self.compiles and self.can_compile(features):
            return compiled_q_values(self, features, actions, noise_level)
        return self.q_values(features, actions, noise_level)

    def q_values(
        self, features: th.Tensor, actions: th.Tensor, noise_level: th.Tensor | int | None = None
    ) -> th.Tensor:
        """
        :meth:`forward` from features.

        :param features: shape (batch, features_dim)
        :param actions: actions in [-1, 1], shape (batch, action_dim)
        :param noise_level: as in :meth:`forward`
        :return: Q-values, shape (n_critics, batch, 1)
        """
        return self._apply_layers(features, actions, noise_level, lambda activation, x: activation(x))

    def lowest_q_values(self, features: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        The smallest critic, at the last noise level.

        :param features: shape (batch, features_dim)
        :param actions: actions in [-1, 1], shape (batch, action_dim)
        :return: Q-values, shape (batch, 1)
        """
        return self.q_values(features, actions).amin(dim=0)

    def sloped_q_values(
        self, features: th.Tensor, actions: th.Tensor, noise_level: th.Tensor | int | None = None
    ) -> th.Tensor:
        """
        :meth:`q_values`, which has no second gradient, where :attr:`has_closed_form_gradient`.

        :param features: shape (batch, features_dim)
        :param actions: actions in [-1, 1], shape (batch, action_dim)
        :param noise_level: as in :meth:`forward`
        :return: Q-values, shape (n_critics, batch, 1)
        """
        return self._apply_layers(features, actions, noise_level, sloped)

    def _apply_layers(
        self,
        features: th.Tensor,
        actions: th.Tensor,
        noise_level: th.Tensor | int | None,
        activate: Callable[[nn.Module, th.Tensor], th.Tensor],
    ) -> th.Tensor:
        inputs = th.cat([features, actions], dim=1).expand(self.n_critics, -1, -1)
        embedding = self._embed(noise_level, actions)
        x = inputs if embedding is None else th.cat([inputs, embedding], dim=2)
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = activate(activation, layer(x))
        q_values: th.Tensor = self.layers[-1](x)
        return q_values

    @property
    def has_closed_form_gradient(self) -> bool:
        """Whether :meth:`action_gradient` needs no autograd, since it knows all layers and activations."""
        return (
            type(self).q_values is EnsembleCritic.q_values
            and all(type(layer) is EnsembleLinear for layer in self.layers)
            and all(value_and_derivative(activation) is not None for activation in self.activations)
        )

    def can_compile(self, features: th.Tensor) -> bool:
        """
        :param features: any
        :return: whether what is computed from them can be compiled: in closed form, in float32, on a CPU or CUDA GPU
        """
        known = features.device.type in ("cpu", "cuda") and features.dtype == th.float32
        return known and self.has_closed_form_gradient

    @property
    def exact_dtype(self) -> th.dtype:
        """The highest precision of the networks: float64, or float32 for a few devices and modules."""
        casts = type(self).q_values is EnsembleCritic.q_values and all(type(x) is EnsembleLinear for x in self.layers)
        float32_only = any(True for _ in self.activations.parameters()) or self.device.type == "mps"
        return th.float64 if casts and not float32_only else th.float32

    def action_gradient(self, features: th.Tensor, bfloat16: bool = False) -> ActionGradient:
        """
        The gradient of the sum of all critics with respect to the action, for many actions with the same features, in
        the dtype of these.

        What does not depend on the action is computed here, once for a whole chain. The gradient itself needs no
        autograd where :attr:`has_closed_form_gradient`; elsewhere it is :func:`torch.func.grad`.

        :param features: shape (batch, features_dim)
        :param bfloat16: multiply the hidden layers in bfloat16, in the closed form
        :return: maps (actions, noise level) to gradients; both of shape (batch, action_dim)
        """
        if not self.has_closed_form_gradient:
            return self._autograd_action_gradient(features)

        if len(self.layers) == 1:
            weight, _ = cast(EnsembleLinear, self.layers[0]).parameters_in(features.dtype)
            slope = th.split(weight, self.input_parts, dim=1)[1].mT.sum(dim=0)
            return lambda actions, noise_level: slope.expand_as(actions)
        passes = ActionPasses(self, features, bfloat16)
        return lambda actions, noise_level: passes.backward(passes.forward(actions, noise_level)[1])

    def lowest_value_and_gradient(self, features: th.Tensor) -> Callable[[th.Tensor], tuple[th.Tensor, th.Tensor]]:
        """
        The smallest critic, at the last noise level, and its gradient, for many actions with the same features.

        :param features: shape (batch, features_dim)
        :return: maps actions of shape (batch, action_dim) to values, shape (batch,), and gradients
        """
        if not self.has_closed_form_gradient:
            return self._autograd_lowest(features)
        if len(self.layers) == 1:
            weight, _ = cast(EnsembleLinear, self.layers[0]).parameters_in(features.dtype)
            slopes = th.split(weight, self.input_parts, dim=1)[1].squeeze(2)

            def linear(actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
                lowest, which = self.q_values(features, actions).squeeze(2).min(dim=0)
                return lowest, slopes[which]

            return linear
        passes, members = ActionPasses(self, features), th.arange(self.n_critics, device=features.device)

        def value_and_gradient(actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
            hidden, slopes = passes.forward(actions, -1)
            lowest, which = passes.q_values(hidden).min(dim=0)
            shares = (which == members[:, None, None]).to(lowest.dtype)
            return lowest.squeeze(1), passes.backward(slopes, shares)

        return value_and_gradient

    def lowest_of_each(self, features: th.Tensor, n_actions: int) -> Callable[[th.Tensor], tuple[th.Tensor, th.Tensor]]:
        """
        :meth:`lowest_value_and_gradient` of several actions for each row.

        :param features: shape (batch, features_dim)
        :param n_actions: actions for each row
        :return: maps actions of shape (batch, n_actions, action_dim) to values, shape (batch, n_actions), and gradients
        """
        value_and_gradient = self.lowest_value_and_gradient(features.repeat_interleave(n_actions, dim=0))

        def of_each(actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
            q_values, gradients = value_and_gradient(actions.flatten(0, 1))
            return q_values.view(actions.shape[:2]), gradients.view_as(actions)

        return of_each

    def _autograd_lowest(self, features: th.Tensor) -> Callable[[th.Tensor], tuple[th.Tensor, th.Tensor]]:
        def lowest(actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
            values = self.lowest_q_values(features, actions).squeeze(1)
            return values.sum(), values

        def value_and_gradient(actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
            gradients, values = th.func.grad(lowest, has_aux=True)(actions)
            return values, gradients

        return value_and_gradient

    def _autograd_action_gradient(self, features: th.Tensor) -> ActionGradient:
        def gradient(actions: th.Tensor, noise_level: int) -> th.Tensor:
            level = None if self.level_encoder is None else noise_level
            # func.grad also works under no_grad, as in predict
            result: th.Tensor = th.func.grad(lambda a: self.q_values(features, a, level).sum())(actions)
            return result

        return gradient

    def _embed(self, noise_level: th.Tensor | int | None, actions: th.Tensor) -> th.Tensor | None:
        """Level embeddings, shape (n_critics, batch, 16), or ``None`` without noise conditioning."""
        if self.level_encoder is None:
            if noise_level is not None:
                raise ValueError(
                    f"noise_level={noise_level} was given to a critic without noise conditioning: leave it out, or "
                    "use NCLQL."
                )
            return None
        embeddings: th.Tensor = self.level_encoder(actions.dtype)
        if isinstance(noise_level, th.Tensor):
            return embeddings[:, noise_level]
        level = embeddings.shape[1] - 1 if noise_level is None else noise_level
        # Not len(actions), which is a constant to exporters
        return embeddings[:, level, None].expand(-1, actions.shape[0], -1)


#: Compiled once for all critics of an architecture with and without gradients, with levels and without.
compiled_q_values = compiled(EnsembleCritic.sloped_q_values, batch_dims=dict(features=0, actions=0, noise_level=0))


def _counted_from_zero(obs: PyTorchObs, space: spaces.Space[Any]) -> PyTorchObs:
    """Subtract ``start`` from ``Discrete`` and ``MultiDiscrete`` observations: SB3's one-hot code ignores it."""
    if isinstance(obs, dict):
        assert isinstance(space, spaces.Dict)
        return {key: cast(th.Tensor, _counted_from_zero(part, space[key])) for key, part in obs.items()}
    if isinstance(space, spaces.Discrete) and space.start != 0:
        return obs.long() - int(space.start)
    if isinstance(space, spaces.MultiDiscrete) and np.any(space.start):
        # Column by column: CUDA graphs cannot capture the copy of a tensor of starts to the device
        return th.stack([obs[:, index].long() - int(start) for index, start in enumerate(space.start)], dim=1)
    return obs
