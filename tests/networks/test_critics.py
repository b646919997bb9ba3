"""The ensemble of critics: size, start, values and action-gradients."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_lql.networks.activations import value_and_derivative
from sb3_lql.networks.critics import EnsembleCritic
from sb3_lql.networks.layers import EnsembleLinear, sinusoidal_levels

CLOSED_FORM: list[type[nn.Module]] = [nn.Mish, nn.ReLU, nn.SiLU, nn.Tanh]
BY_AUTOGRAD: list[type[nn.Module]] = [nn.GELU, nn.ELU, nn.Softplus]


def make_critic(obs_dim: int = 5, action_dim: int = 3, **kwargs: Any) -> EnsembleCritic:
    observation_space = spaces.Box(-np.inf, np.inf, (obs_dim,))
    arguments = dict(net_arch=[256, 256, 256]) | kwargs
    return EnsembleCritic(
        observation_space,
        spaces.Box(-1, 1, (action_dim,)),
        features_extractor=FlattenExtractor(observation_space),
        features_dim=obs_dim,
        **arguments,
    )


@pytest.mark.parametrize(("n_noise_levels", "published"), [(10, 475_746), (None, 465_410)])
def test_parameter_count_on_humanoid(n_noise_levels: int | None, published: int) -> None:
    critic = make_critic(obs_dim=376, action_dim=17, n_noise_levels=n_noise_levels)
    assert sum(parameter.numel() for parameter in critic.parameters()) == published


def test_weights_start_truncated_normal_and_biases_zero() -> None:
    th.manual_seed(0)
    layer = EnsembleLinear(2, 400, 500)
    std = 1 / math.sqrt(400)
    assert layer.bias.eq(0).all()
    assert layer.weight.abs().max() <= 2 * std
    # Variance of a standard normal truncated at +-2: 1 - 4 phi(2) / (2 Phi(2) - 1)
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    variance = std**2 * (1 - 4 * density / math.erf(math.sqrt(2)))
    # Its relative standard error is below sqrt(2 / n), the normal's
    assert layer.weight.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / layer.weight.numel()))
    assert abs(layer.weight.mean().item()) < 5 * math.sqrt(variance / layer.weight.numel())


def test_level_codes_are_scaled_sines_and_cosines() -> None:
    codes = sinusoidal_levels(10)
    for level in range(10):
        angles = [level * 10000 ** (-j / 8) for j in range(8)]
        expected = [math.sin(angle) / 4 for angle in angles] + [math.cos(angle) / 4 for angle in angles]
        np.testing.assert_allclose(codes[level], expected, atol=1e-7)


def plain_q(critic: EnsembleCritic, member: int, x: th.Tensor, level: int | None) -> th.Tensor:
    """Q of one member, layer by layer."""

    def linear(layer: Any, inputs: th.Tensor) -> th.Tensor:
        result: th.Tensor = inputs @ layer.weight[member] + layer.bias[member]
        return result

    if level is not None:
        assert critic.level_encoder is not None
        first, _, second = critic.level_encoder.net
        code = linear(second, nn.functional.mish(linear(first, sinusoidal_levels(10)[level])))
        x = th.cat([x, code.expand(len(x), -1)], dim=1)
    for layer in critic.layers[:-1]:
        x = nn.functional.mish(linear(layer, x))
    return linear(critic.layers[-1], x)


@pytest.mark.parametrize("n_noise_levels", [None, 10])
def test_values_are_those_of_separate_networks(n_noise_levels: int | None) -> None:
    critic = make_critic(net_arch=[16, 8], n_critics=3, n_noise_levels=n_noise_levels)
    obs, actions = th.randn(6, 5), th.rand(6, 3)
    noise_level = None if n_noise_levels is None else th.tensor([0, 1, 2, 9, 5, 4])
    q_values = critic(obs, actions, noise_level)
    assert q_values.shape == (3, 6, 1)
    for member in range(3):
        for row in range(6):
            level = None if noise_level is None else int(noise_level[row])
            expected = plain_q(critic, member, th.cat([obs, actions], dim=1)[row, None], level)
            th.testing.assert_close(q_values[member, row, None], expected, atol=1e-5, rtol=1e-4)


def test_noise_level_defaults_to_the_last() -> None:
    critic = make_critic(net_arch=[16], n_noise_levels=10)
    obs, actions = th.randn(6, 5), th.rand(6, 3)
    last = critic(obs, actions, th.full((6,), 9))
    th.testing.assert_close(critic(obs, actions), last)
    assert not th.allclose(critic(obs, actions, 0), last)


def test_noise_level_is_refused_without_noise_conditioning() -> None:
    with pytest.raises(ValueError, match="noise_level"):
        make_critic(net_arch=[8])(th.randn(2, 5), th.rand(2, 3), th.zeros(2, dtype=th.int64))


@pytest.mark.parametrize("activation_fn", CLOSED_FORM + BY_AUTOGRAD)
@pytest.mark.parametrize("net_arch", [[], [8], [16, 16, 16]])
@pytest.mark.parametrize(("n_critics", "n_noise_levels"), [(1, None), (2, 10), (3, 2)])
def test_action_gradient_is_that_of_autograd(
    activation_fn: type[nn.Module], net_arch: list[int], n_critics: int, n_noise_levels: int | None
) -> None:
    critic = make_critic(
        net_arch=net_arch, activation_fn=activation_fn, n_critics=n_critics, n_noise_levels=n_noise_levels
    )
    obs = th.randn(9, 5)
    with th.no_grad():
        gradient = critic.action_gradient(critic.features(obs))
    for level in range(n_noise_levels or 1):
        actions = (4 * th.rand(9, 3) - 2).requires_grad_()
        q_values = critic(obs, actions, None if n_noise_levels is None else level)
        (expected,) = th.autograd.grad(q_values.sum(), actions)
        with th.no_grad():
            th.testing.assert_close(gradient(actions.detach(), level), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("activation_fn", [*CLOSED_FORM[:2], BY_AUTOGRAD[0]])
@pytest.mark.parametrize("net_arch", [[], [8], [16, 16, 16]])
@pytest.mark.parametrize(("n_critics", "n_noise_levels"), [(1, None), (2, 10), (3, None)])
def test_the_smallest_critic_and_its_gradient_are_those_of_autograd(
    activation_fn: type[nn.Module], net_arch: list[int], n_critics: int, n_noise_levels: int | None
) -> None:
    critic = make_critic(
        net_arch=net_arch, activation_fn=activation_fn, n_critics=n_critics, n_noise_levels=n_noise_levels
    )
    obs, actions = th.randn(50, 5), (4 * th.rand(50, 3) - 2).requires_grad_()
    q_values = critic(obs, actions).amin(dim=0)
    (expected,) = th.autograd.grad(q_values.sum(), actions)
    with th.no_grad():
        values, gradients = critic.lowest_value_and_gradient(critic.features(obs))(actions.detach())
    th.testing.assert_close(values, q_values.detach()[:, 0], atol=1e-5, rtol=1e-4)
    th.testing.assert_close(gradients, expected, atol=1e-5, rtol=1e-4)
    assert gradients.grad_fn is None


def test_action_gradient_builds_no_graph() -> None:
    critic = make_critic(net_arch=[8])
    with th.no_grad():
        gradient = critic.action_gradient(th.randn(4, 5))(th.rand(4, 3), 0)
    assert gradient.grad_fn is None


@pytest.mark.parametrize("activation_fn", CLOSED_FORM)
def test_closed_form_derivatives_are_those_of_autograd_even_far_out(activation_fn: type[nn.Module]) -> None:
    x = th.cat([th.linspace(-10, 10, 2001), th.tensor([-1e4, -90.0, -40.0, 0.0, 19.9, 20.1, 40.0, 90.0, 1e4])])
    leaf = x.clone().requires_grad_()
    value = activation_fn()(leaf)
    (slope,) = th.autograd.grad(value.sum(), leaf)
    closed_form = value_and_derivative(activation_fn())
    assert closed_form is not None
    th.testing.assert_close(closed_form(x.clone()), (value.detach(), slope), atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("activation_fn", BY_AUTOGRAD)
def test_other_activations_have_no_closed_form(activation_fn: type[nn.Module]) -> None:
    assert value_and_derivative(activation_fn()) is None
