"""Activations by other routes are PyTorch's."""

import pytest
import torch as th
from torch.nn import functional as F

from sb3_lql.networks.activations import QuickMish


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
