"""An ensemble of Q-networks as a function of the action: values and gradients in closed form."""

from typing import TYPE_CHECKING, cast

import torch as th

from sb3_lql.networks.activations import ValueAndDerivative, value_and_derivative
from sb3_lql.networks.layers import EnsembleLinear
from sb3_lql.networks.matmul import PackedWeight

if TYPE_CHECKING:
    from sb3_lql.networks.critics import EnsembleCritic


class ActionPasses:
    """
    Passes forward and backward through all critics, for many actions with the same features, in the dtype of these.

    What does not depend on the action is computed here, once for a whole chain.

    :param critic: critics with at least one hidden layer, of known layers and activations
    :param features: shape (batch, features_dim)
    :param bfloat16: multiply the hidden layers in bfloat16
    """

    def __init__(self, critic: "EnsembleCritic", features: th.Tensor, bfloat16: bool = False) -> None:
        first, *hidden = cast(list[EnsembleLinear], list(critic.layers))
        dtype = features.dtype
        self.n_critics = critic.n_critics
        self.derivatives = [cast(ValueAndDerivative, value_and_derivative(each)) for each in critic.activations]
        first_weight, first_bias = first.parameters_in(dtype)
        state_weight, action_weight, level_weight = th.split(first_weight, critic.input_parts, dim=1)
        self.from_state = PackedWeight(state_weight).matmul(features.expand(self.n_critics, -1, -1), first_bias)
        encoder = critic.level_encoder
        self.from_level = None if encoder is None else th.bmm(encoder(dtype), level_weight)
        # Products with actions never use bfloat16: they are small, and so are the steps at the last levels
        self.action_weight = PackedWeight(action_weight)
        *weights, last_weight = (layer.parameters_in(dtype) for layer in hidden)
        self.weights = [PackedWeight(weight, bfloat16) for weight, _ in weights]
        self.biases = [bias for _, bias in weights]
        self.last_weight, self.last_bias = last_weight

    def forward(self, actions: th.Tensor, noise_level: int) -> tuple[th.Tensor, list[th.Tensor]]:
        """
        :param actions: shape (batch, action_dim)
        :param noise_level: of noise-conditioned critics; -1 for the last
        :return: the last hidden layer, shape (n_critics, batch, units), and the slopes of all activations
        """
        constant = (
            self.from_state if self.from_level is None else self.from_state + self.from_level[:, noise_level, None]
        )
        x = self.action_weight.matmul(actions.expand(self.n_critics, -1, -1), constant)
        value, slope = self.derivatives[0](x)
        slopes = [slope]
        for weight, bias, derivative in zip(self.weights, self.biases, self.derivatives[1:], strict=True):
            value, slope = derivative(weight.matmul(value, bias))
            slopes.append(slope)
        return value, slopes

    def q_values(self, hidden: th.Tensor) -> th.Tensor:
        """
        :param hidden: the last hidden layer, from :meth:`forward`
        :return: Q, shape (n_critics, batch, 1)
        """
        return th.baddbmm(self.last_bias, hidden, self.last_weight)

    def backward(self, slopes: list[th.Tensor], shares: th.Tensor | None = None) -> th.Tensor:
        """
        :param slopes: from :meth:`forward`
        :param shares: what each critic counts, shape (n_critics, batch, 1); 1 by default
        :return: the gradient of their weighted sum in the action, shape (batch, action_dim)
        """
        *inner, last = slopes
        x = self.last_weight.mT * last
        if shares is not None:
            x = x * shares
        for slope, weight in zip(reversed(inner), reversed(self.weights), strict=True):
            x = weight.matmul_transposed(x) * slope
        return self.action_weight.matmul_transposed(x).sum(dim=0)
