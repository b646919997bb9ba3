"""Products of bfloat16 factors: as precise as they should be, whether or not the machine has instructions for them."""

from typing import Any

import pytest
import torch as th

from sb3_lql import LQL, NCLQL
from sb3_lql.common import matrices
from sb3_lql.common.matrices import Bfloat16Matrix, Matrix

#: Half the distance from 1 to the next number: bfloat16 has eight significant bits.
ROUNDING = 2**-9


@pytest.fixture(params=[True, False], ids=["native", "by_rounding"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(matrices, "has_fast_bfloat16", lambda device: request.param)
    return bool(request.param)


def test_float32_products_are_batched_affine_maps() -> None:
    x, weight, bias = th.randn(2, 5, 3), th.randn(2, 3, 4), th.randn(2, 1, 4)
    for member in range(2):
        product = Matrix(weight).multiply(x, bias)[member]
        th.testing.assert_close(product, x[member] @ weight[member] + bias[member])
        back = Matrix(weight).multiply_transposed(product.expand(2, -1, -1))[member]
        th.testing.assert_close(back, product @ weight[member].T)


def test_factors_and_products_are_rounded_and_sums_are_not(native: bool) -> None:
    """A column of 257 ones: summed in bfloat16, where 256 + 1 is 256, it would stop growing."""
    weight = th.ones(1, 257, 1)
    x = th.ones(1, 1, 257)
    x[..., 0] += ROUNDING / 2  # lost when the factor is rounded
    product = Bfloat16Matrix(weight).multiply(x, th.full((1, 1, 1), 0.25))
    assert product.dtype == th.float32
    assert product.item() == 256.25  # 257 lies between 256 and 258; ties go to even


def test_products_are_those_of_float32_within_the_rounding(native: bool) -> None:
    x, weight, bias = th.rand(2, 50, 64), th.rand(2, 64, 30), th.zeros(2, 1, 30)
    exact = th.bmm(x.double(), weight.double())
    # Positive terms: the relative error of their sum is at most that of a term, and the result's own
    error = (Bfloat16Matrix(weight).multiply(x, bias) / exact - 1).abs().max()
    assert error <= 3.1 * ROUNDING
    back = Bfloat16Matrix(weight).multiply_transposed(exact.float())
    error = (back / th.bmm(exact, weight.double().mT) - 1).abs().max()
    assert error <= 3.1 * ROUNDING


def test_both_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = th.randn(2, 40, 64), th.randn(2, 64, 30), th.randn(2, 1, 30)
    results = []
    for has in (True, False):
        monkeypatch.setattr(matrices, "has_fast_bfloat16", lambda device, has=has: has)
        matrix = Bfloat16Matrix(weight)
        results.append(matrix.multiply_transposed(matrix.multiply(x, bias)))
    # Another order of summation may round a product the other way
    th.testing.assert_close(*results, rtol=4 * ROUNDING, atol=0.2)


@pytest.mark.parametrize("algorithm_class", [LQL, NCLQL])
def test_a_bfloat16_chain_is_an_option_that_leaves_the_weights_alone(
    algorithm_class: Any, tiny: dict[str, Any], tmp_path: Any
) -> None:
    assert not algorithm_class("MlpPolicy", "Pendulum-v1", **tiny).policy.bfloat16_chain
    model = algorithm_class("MlpPolicy", "Pendulum-v1", bfloat16_chain=True, **tiny).learn(60)
    features = th.randn(20, 3)
    actions = 2 * th.rand(20, 1) - 1
    with th.no_grad():
        rounded = model.critic.action_gradient(features, bfloat16=True)(actions, 0)
        exact = model.critic.action_gradient(features)(actions, 0)
    assert not th.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.05 * exact.norm()
    assert all(parameter.dtype == th.float32 for parameter in model.policy.parameters())
    model.save(tmp_path / "model")
    assert algorithm_class.load(tmp_path / "model").policy.bfloat16_chain
