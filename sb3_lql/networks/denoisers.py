"""Networks that predict the noise in an action."""

import math
from itertools import pairwise

import torch as th
from torch import nn

from sb3_lql.networks.critics import sinusoidal_levels

#: Size of the embedding of a time.
TIME_DIM = 16


def truncated_linear(in_features: int, out_features: int) -> nn.Linear:
    """
    :param in_features: input size
    :param out_features: output size
    :return: a layer whose weights start as a normal truncated at two standard deviations of 1/sqrt(in_features), biases
        at zero
    """
    layer = nn.Linear(in_features, out_features)
    std = 1.0 / math.sqrt(max(in_features, 1))
    nn.init.trunc_normal_(layer.weight, std=std, a=-2.0 * std, b=2.0 * std)
    nn.init.zeros_(layer.bias)
    return layer


class Denoiser(nn.Module):
    """
    ``epsilon(s, x, t)``: a network on ``[features, x, embedding of t]``.

    :param features_dim: number of features of an observation
    :param action_dim: number of action coordinates
    :param n_steps: number of times, 0 ... n_steps - 1
    :param net_arch: sizes of the hidden layers
    :param activation_fn: activation after each of them
    :param time_network: embed times by Linear(16, 32), activation, Linear(32, 16); else by their code of size 32 alone
    """

    #: Sinusoidal codes of all times, shape (n_steps, 16) or (n_steps, 32).
    codes: th.Tensor

    def __init__(
        self,
        features_dim: int,
        action_dim: int,
        n_steps: int,
        net_arch: list[int],
        activation_fn: type[nn.Module] = nn.Mish,
        time_network: bool = True,
    ) -> None:
        super().__init__()
        code_dim = TIME_DIM if time_network else 2 * TIME_DIM
        self.register_buffer("codes", sinusoidal_levels(n_steps, code_dim), persistent=False)
        self.time_network = (
            nn.Sequential(
                truncated_linear(TIME_DIM, 2 * TIME_DIM), activation_fn(), truncated_linear(2 * TIME_DIM, TIME_DIM)
            )
            if time_network
            else nn.Identity()
        )
        sizes = [features_dim + action_dim + code_dim, *net_arch]
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise(sizes):
            layers += [truncated_linear(size_in, size_out), activation_fn()]
        self.network = nn.Sequential(*layers, truncated_linear(sizes[-1], action_dim))

    def forward(self, features: th.Tensor, x: th.Tensor, t: th.Tensor | int) -> th.Tensor:
        """
        :param features: shape (batch, features_dim)
        :param x: noisy actions, shape (batch, action_dim)
        :param t: times, int tensor of shape (batch,), or one int for all
        :return: the noise in them, shape (batch, action_dim)
        """
        embedding = self.time_network(self.codes[t])
        if embedding.dim() == 1:
            embedding = embedding.expand(x.shape[0], -1)
        noise: th.Tensor = self.network(th.cat([features, x, embedding], dim=1))
        return noise
