"""Activations by other routes are PyTorch's."""

import pytest
import torch as th
from torch import nn
from torch.nn import functional as F

from sb3_lql.networks.activations import QuickMish, sloped


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
def test_quick_mish_is_mish_with_and_without_gradients(dtype: th.dtype) -> None:
    x = th.cat([th.linspace(-30, 30, 2_001, dtype=dtype), th.tensor([-1e30, -100.0, 100.0, 1e30], dtype=dtype)])
    before = x.clone()
    with th.no_grad():
        th.testing.assert_close(QuickMish()(x), F.mish(x), rtol=4 * th.finfo(dtype).eps, atol=4 * th.finfo(dtype).eps)
    assert th.equal(x, before)
    x.requires_grad_()
    (gradient,) = th.autograd.grad(QuickMish()(x).sum(), x)
    (expected,) = th.autograd.grad(F.mish(x).sum(), x)
    assert th.equal(gradient, expected)


@pytest.mark.parametrize("activation", [nn.Mish(), nn.ReLU(), nn.SiLU(), nn.Tanh()])
def test_sloped_activations_have_pytorchs_values_and_gradients(activation: nn.Module) -> None:
    x = th.linspace(-30, 30, 2_001, dtype=th.float64, requires_grad=True)
    weights = th.randn_like(x)
    value, expected = sloped(activation, x), activation(x)
    th.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    (gradient,), (expected,) = (th.autograd.grad((weights * y).sum(), x) for y in (value, expected))
    th.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-8)  # Mish is cut off at 20
