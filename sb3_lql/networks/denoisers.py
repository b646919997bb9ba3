"""Networks that predict the noise in an action, or what leads from noise to an action."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_lql.networks.layers import multilayer_perceptron, positional_codes, sinusoidal_levels, truncated_linear

#: Size of the code of a time that a network embeds, and of its embedding; a code that enters as it is has twice that.
TIME_DIM = 16


class ConditionedNetwork(nn.Module):
    """
    A network on ``[features, x, time]``. A subclass makes its layers and the inputs for the time.

    :param input_parts: numbers of features, of coordinates of ``x`` and of the time's inputs
    """

    #: Its layers and activations.
    network: nn.Sequential

    def __init__(self, *input_parts: int) -> None:
        super().__init__()
        self.input_parts = list(input_parts)

    def add_layers(
        self,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        layer: Callable[[int, int], nn.Linear] = truncated_linear,
    ) -> None:
        """
        Make :attr:`network`, after what a subclass makes of the time: initial weights are drawn in that order.

        :param net_arch: sizes of the hidden layers
        :param activation_fn: activation after each of them
        :param layer: makes a layer of its input and output size
        """
        action_dim = self.input_parts[1]
        self.network = multilayer_perceptron([sum(self.input_parts), *net_arch, action_dim], activation_fn, layer)

    @abstractmethod
    def time_share(self, weight: th.Tensor, t: Any) -> th.Tensor | float:
        """
        :param weight: of the first layer for the time's inputs, shape (units, inputs)
        :param t: times
        :return: what they add to the first layer, of shape (batch, units) or (units,)
        """

    def given(self, features: th.Tensor) -> Callable[[th.Tensor, Any], th.Tensor]:
        """
        Compute the features' share of the first layer once for a whole chain.

        :param features: shape (batch, features_dim)
        :return: the network as a function of ``x`` and ``t``
        """
        first, *others = self.network
        weight, bias = cast(nn.Linear, first).parameters()
        of_features, of_x, of_time = th.split(weight, self.input_parts, dim=1)
        share = F.linear(features, of_features, bias)

        def function(x: th.Tensor, t: Any) -> th.Tensor:
            hidden = share + F.linear(x, of_x) + self.time_share(of_time, t)
            for module in others:
                hidden = module(hidden)
            return hidden

        return function

    def forward(self, features: th.Tensor, x: th.Tensor, t: Any) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param x: points, shape (batch, action_dim)
        :param t: times, as of :meth:`time_share`
        :return: shape (batch, action_dim)
        """
        return self.given(features)(x, t)


class CodedDenoiser(ConditionedNetwork):
    """
    ``epsilon(s, x, t)``: a network on ``[features, x, embedding of t]``, with an embedding of fixed codes.

    :param features_dim: number of features of an observation
    :param action_dim: number of action coordinates
    :param codes: those of the times, shape (n_steps, code_dim)
    :param time_network: embeds them, as vectors of the same size
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each of them
    """

    #: Codes of all times, shape (n_steps, code_dim).
    codes: th.Tensor

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        codes: th.Tensor,
        time_network: nn.Module,
        net_arch: list[int],
        activation_fn: type[nn.Module],
    ) -> None:
        super().__init__(features_dim, action_dim, codes.shape[1])
        self.register_buffer("codes", codes, persistent=False)
        self.time_network = time_network
        self.add_layers(net_arch, activation_fn)

    def time_share(self, weight: th.Tensor, t: th.Tensor | int) -> th.Tensor:
        """
        :param weight: as of :class:`ConditionedNetwork`
        :param t: times, int tensor of shape (batch,), or one int for all
        :return: as of :class:`ConditionedNetwork`
        """
        return F.linear(self.time_network(self.codes[t]), weight)


class Denoiser(CodedDenoiser):
    """
    ``epsilon(s, x, t)`` with sinusoidal codes of time.

    :param features_dim: number of features of an observation
    :param action_dim: number of action coordinates
    :param n_steps: number of times, 0 ... n_steps - 1
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each of them
    :param time_network: embed codes of size 16 by Linear(16, 32), activation, Linear(32, 16); else codes of size 32
        enter as they are
    """

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        n_steps: int,
        net_arch: list[int],
        activation_fn: type[nn.Module] = nn.Mish,
        time_network: bool = True,
    ) -> None:
        dim = TIME_DIM if time_network else 2 * TIME_DIM
        embed = multilayer_perceptron([dim, 2 * dim, dim], activation_fn) if time_network else nn.Identity()
        super().__init__(features_dim, action_dim, sinusoidal_levels(n_steps, dim), embed, net_arch, activation_fn)


class PositionalDenoiser(CodedDenoiser):
    """
    ``epsilon(s, x, t)`` with positional codes of time, of size 32, that Linear(32, 256), activation, Linear(256, 32)
    embeds.

    :param features_dim: number of features of an observation
    :param action_dim: number of action coordinates
    :param n_steps: number of times, 0 ... n_steps - 1
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each of them, and between the two layers of the embedding
    :param width: size of the hidden one of these
    """

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        n_steps: int,
        net_arch: list[int],
        activation_fn: type[nn.Module] = nn.Mish,
        width: int = 256,
    ) -> None:
        dim = 2 * TIME_DIM
        embed = multilayer_perceptron([dim, width, dim], activation_fn)
        super().__init__(features_dim, action_dim, positional_codes(n_steps, dim), embed, net_arch, activation_fn)


class FourierDenoiser(ConditionedNetwork):
    """
    ``epsilon(s, x, t)`` with learned frequencies of time: a network on ``[features, x, e(t)]``, where ``e`` is another
    on ``[cos(2 pi w t), sin(2 pi w t)]``.

    :param features_dim: number of features of an observation
    :param action_dim: number of action coordinates
    :param n_steps: number of times; not used, any number of them can be embedded
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each of them, and between the two layers of ``e``
    :param n_frequencies: size of ``w``, which starts as N(0, 0.2^2)
    :param time_dim: size of the two layers of ``e``
    """

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        n_steps: int,
        net_arch: list[int],
        activation_fn: type[nn.Module] = nn.Mish,
        n_frequencies: int = 32,
        time_dim: int = 128,
    ) -> None:
        super().__init__(features_dim, action_dim, time_dim)
        self.frequencies = nn.Parameter(0.2 * th.randn(n_frequencies))
        self.time_network = multilayer_perceptron([2 * n_frequencies, time_dim, time_dim], activation_fn, nn.Linear)
        self.add_layers(net_arch, activation_fn, nn.Linear)

    def time_share(self, weight: th.Tensor, t: th.Tensor | int) -> th.Tensor:
        """
        :param weight: as of :class:`ConditionedNetwork`
        :param t: times, int tensor of shape (batch,), or one int for all
        :return: as of :class:`ConditionedNetwork`
        """
        times = t[:, None] if isinstance(t, th.Tensor) else t
        angles = 2.0 * math.pi * times * self.frequencies
        return F.linear(self.time_network(th.cat([angles.cos(), angles.sin()], dim=-1)), weight)


class Score(ConditionedNetwork):
    """
    ``Psi(s, x)``, a network on ``[features, x]`` that ignores the time. Arguments are those of :class:`Denoiser`.
    """

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        n_steps: int,
        net_arch: list[int],
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(features_dim, action_dim, 0)
        self.add_layers(net_arch, activation_fn)

    def time_share(self, weight: th.Tensor, t: th.Tensor | int) -> float:
        """
        :param weight: not used
        :param t: not used
        :return: 0
        """
        return 0.0


class MeanVelocity(ConditionedNetwork):
    """
    ``u(s, x, t, r)``, the mean velocity between two times: a network on ``[features, x, t, r]``.

    :param features_dim: number of features of an observation
    :param action_dim: number of action coordinates
    :param n_steps: number of steps of a chain; not used, any times can be evaluated
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each of them
    """

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        n_steps: int,
        net_arch: list[int],
        activation_fn: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__(features_dim, action_dim, 2)
        self.add_layers(net_arch, activation_fn)

    def time_share(self, weight: th.Tensor, t: tuple[th.Tensor | float, th.Tensor | float]) -> th.Tensor:
        """
        :param weight: as of :class:`ConditionedNetwork`
        :param t: ``t`` and ``r``, in [0, 1], of shape (batch, 1) or one number for all
        :return: as of :class:`ConditionedNetwork`
        """
        start, end = t
        return start * weight[:, 0] + end * weight[:, 1]
