"""Layers of critics and denoisers, their initial weights, and codes of levels and times."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch as th
from torch import nn

from sb3_lql.common.validation import check_count
from sb3_lql.networks.activations import QuickMish
from sb3_lql.networks.matmul import PackedWeight

#: Size of the sinusoidal code of a noise level, and of its embedding.
LEVEL_DIM = 16


def hidden_layers(net_arch: Any, network: Literal["qf", "pi"]) -> list[int]:
    """
    :param net_arch: as SB3's off-policy algorithms take it: a list of sizes for all networks, or ``dict(qf=[...],
        pi=[...])``; ``None`` for [256, 256, 256]
    :param network: "qf" for the critic, "pi" for the denoiser
    :return: sizes of its hidden layers
    :raises ValueError: if there are none, or what is there for any network is no list of sizes
    :raises TypeError: for sizes that are no integers
    """
    if net_arch is None:
        return [256, 256, 256]
    of_each = net_arch if isinstance(net_arch, dict) else {network: net_arch}
    fix = "pass a list of layer sizes, or dict(qf=[...], pi=[...])"
    for name, sizes in of_each.items():
        if name not in ("qf", "pi"):
            raise ValueError(f"net_arch={net_arch!r} has {name!r}, which is no network here: {fix}.")
        if not isinstance(sizes, (list, tuple)):
            raise ValueError(f"net_arch={net_arch!r} has {sizes!r}, which is no list: {fix}.")
    if network not in of_each:
        missing = "'qf', the critic" if network == "qf" else "'pi', the denoiser"
        raise ValueError(f"net_arch={net_arch!r} lacks {missing}: {fix}.")
    return [check_count("net_arch", size) for size in of_each[network]]


class EnsembleLinear(nn.Module):
    """
    ``n_members`` independent linear layers, evaluated as one batched matrix product in the precision of its input.

    Weights and biases start as of :func:`truncated_normal`.

    :param n_members: size of the ensemble
    :param in_features: input size
    :param out_features: output size
    """

    def __init__(self, n_members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(th.empty(n_members, in_features, out_features))
        self.bias = nn.Parameter(th.zeros(n_members, 1, out_features))
        truncated_normal(self)

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, in_features), or (batch, in_features) for the same input to all
        :return: shape (n_members, batch, out_features)
        """
        weight, bias = self.parameters_in(x.dtype)
        x = x.expand(weight.shape[0], -1, -1)
        return PackedWeight(weight).matmul(x, bias) if x.dtype == th.float64 else th.baddbmm(bias, x, weight)

    def extra_repr(self) -> str:
        """:return: the sizes, for ``print``"""
        return "n_members={}, in_features={}, out_features={}".format(*self.weight.shape)

    def parameters_in(self, dtype: th.dtype) -> tuple[th.Tensor, th.Tensor]:
        """
        :param dtype: a floating point type
        :return: weight and bias, in that type
        """
        return self.weight.to(dtype), self.bias.to(dtype)


class LevelEncoder(nn.Module):
    """
    Embeds all noise levels, separately for each critic: sinusoidal code, Linear(16, 32), Mish, Linear(32, 16).

    :param n_critics: size of the ensemble
    :param n_levels: number of noise levels
    """

    #: Sinusoidal codes, shape (n_levels, 16).
    codes: th.Tensor

    def __init__(self, n_critics: int, n_levels: int) -> None:
        super().__init__()
        self.register_buffer("codes", sinusoidal_levels(n_levels), persistent=False)
        self.net = nn.Sequential(
            EnsembleLinear(n_critics, LEVEL_DIM, 2 * LEVEL_DIM),
            nn.Mish(),
            EnsembleLinear(n_critics, 2 * LEVEL_DIM, LEVEL_DIM),
        )

    def forward(self, dtype: th.dtype = th.float32) -> th.Tensor:
        """
        :param dtype: computation dtype
        :return: embeddings of all levels, shape (n_critics, n_levels, 16)
        """
        embeddings: th.Tensor = self.net(self.codes.to(dtype))
        return embeddings


def truncated_linear(in_features: int, out_features: int) -> nn.Linear:
    """
    :param in_features: input size
    :param out_features: output size
    :return: a layer whose weights start as a normal truncated at two standard deviations of 1/sqrt(in_features), biases
        at zero
    """
    layer = nn.Linear(in_features, out_features)
    truncated_normal(layer)
    return layer


def multilayer_perceptron(
    sizes: list[int], activation_fn: type[nn.Module], layer: Callable[[int, int], nn.Linear] = truncated_linear
) -> nn.Sequential:
    """
    :param sizes: of the input, of the hidden layers and of the output
    :param activation_fn: activation after each hidden layer
    :param layer: makes a layer of its input and output size
    :return: the network
    """
    *hidden, last = pairwise(sizes)
    activation = QuickMish if activation_fn is nn.Mish else activation_fn
    modules = [module for pair in hidden for module in (layer(*pair), activation())]
    return nn.Sequential(*modules, layer(*last))


# Initial weights: each function takes any module, for `nn.Module.apply`, and changes linear layers only


def truncated_normal(module: nn.Module) -> None:
    """
    Draw the weights of a linear layer, of an ensemble or not, from a normal of standard deviation 1/sqrt(in_features)
    that is truncated at two of them, and set its biases to zero.

    :param module: any module; left alone unless it is such a layer
    """
    if isinstance(module, (nn.Linear, EnsembleLinear)):
        std = 1.0 / math.sqrt(max(_in_features(module), 1))
        nn.init.trunc_normal_(module.weight, std=std, a=-2.0 * std, b=2.0 * std)
        nn.init.zeros_(module.bias)


def xavier_uniform(module: nn.Module) -> None:
    """
    Draw the weights of a linear layer, of an ensemble or not, from U(±sqrt(6 / (in + out))) and set its biases to zero.

    :param module: any module; left alone unless it is such a layer
    """
    if isinstance(module, (nn.Linear, EnsembleLinear)):
        bound = math.sqrt(6.0 / sum(module.weight.shape[-2:]))
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)


def small_normal(module: nn.Module) -> None:
    """
    Draw the weights of a linear layer, of an ensemble or not, from N(0, 1 / (4 in)) and set its biases to zero.

    :param module: any module; left alone unless it is such a layer
    """
    if isinstance(module, (nn.Linear, EnsembleLinear)):
        nn.init.normal_(module.weight, std=0.5 / math.sqrt(_in_features(module)))
        nn.init.zeros_(module.bias)


def _in_features(layer: nn.Linear | EnsembleLinear) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.weight.shape[1]


def sinusoidal_levels(n_levels: int, dim: int = LEVEL_DIM) -> th.Tensor:
    """
    Codes ``[sin(l f_0), ..., cos(l f_0), ...] / sqrt(dim)`` of the levels l = 0 ... n_levels-1, with
    ``f_j = 10000**(-j / (dim / 2))`` for j = 0 ... dim/2-1.

    :param n_levels: number of noise levels
    :param dim: size of a code, even
    :return: float32 tensor of shape (n_levels, dim)
    """
    return (_sinusoidal(n_levels, dim, dim // 2) / math.sqrt(dim)).float()


def positional_codes(n_steps: int, dim: int) -> th.Tensor:
    """
    Codes ``[sin(t f_0), ..., cos(t f_0), ...]`` of the times t = 0 ... n_steps-1, with
    ``f_j = 10000**(-j / (dim / 2 - 1))`` for j = 0 ... dim/2-1.

    :param n_steps: number of times
    :param dim: size of a code, even
    :return: float32 tensor of shape (n_steps, dim)
    """
    return _sinusoidal(n_steps, dim, dim // 2 - 1).float()


def _sinusoidal(n: int, dim: int, divisor: int) -> th.Tensor:
    frequencies = 10000.0 ** (-th.arange(dim // 2, dtype=th.float64) / divisor)
    angles = th.arange(n, dtype=th.float64)[:, None] * frequencies
    return th.cat([angles.sin(), angles.cos()], dim=1)
