"""Products of bfloat16 factors: as precise as they should be, whether or not the machine has instructions for them."""

from typing import Any

import pytest
import torch as th

from sb3_lql import LQL, NCLQL
from sb3_lql.common.matrices import Bfloat16Matrix, Matrix, RoundedMatrix, matrix_class, round_to_bfloat16

#: Half the distance from 1 to the next number: bfloat16 has eight significant bits.
ROUNDING = 2**-9


BOTH = pytest.mark.parametrize("matrix", [Bfloat16Matrix, RoundedMatrix])


def test_numbers_are_rounded_as_by_conversion_and_back() -> None:
    x = th.cat([th.randn(1000) * 10.0**exponent for exponent in range(-30, 30, 10)])
    ties = th.tensor([1 + ROUNDING, 1 + 3 * ROUNDING, -1 - ROUNDING, 0.0, -0.0])
    for values in (x, ties, x.view(2, -1).mT):
        assert th.equal(round_to_bfloat16(values), values.bfloat16().float())


def test_float32_products_are_batched_affine_maps() -> None:
    x, weight, bias = th.randn(2, 5, 3), th.randn(2, 3, 4), th.randn(2, 1, 4)
    for member in range(2):
        product = Matrix(weight).multiply(x, bias)[member]
        th.testing.assert_close(product, x[member] @ weight[member] + bias[member])
        back = Matrix(weight).multiply_transposed(product.expand(2, -1, -1))[member]
        th.testing.assert_close(back, product @ weight[member].T)


@BOTH
def test_factors_and_products_are_rounded_and_sums_are_not(matrix: type[Matrix]) -> None:
    """A column of 257 ones: summed in bfloat16, where 256 + 1 is 256, it would stop growing."""
    weight = th.ones(1, 257, 1)
    x = th.ones(1, 1, 257)
    x[..., 0] += ROUNDING / 2  # lost when the factor is rounded
    product = matrix(weight).multiply(x, th.full((1, 1, 1), 0.25))
    assert product.dtype == th.float32
    assert product.item() == 256.25  # 257 lies between 256 and 258; ties go to even


@BOTH
def test_products_are_those_of_float32_within_the_rounding(matrix: type[Matrix]) -> None:
    x, weight, bias = th.rand(2, 50, 64), th.rand(2, 64, 30), th.zeros(2, 1, 30)
    exact = th.bmm(x.double(), weight.double())
    # Positive terms: the relative error of their sum is at most that of a term, and the result's own
    error = (matrix(weight).multiply(x, bias) / exact - 1).abs().max()
    assert error <= 3.1 * ROUNDING
    back = matrix(weight).multiply_transposed(exact.float())
    error = (back / th.bmm(exact, weight.double().mT) - 1).abs().max()
    assert error <= 3.1 * ROUNDING


def test_both_ways_agree() -> None:
    x, weight, bias = th.randn(2, 40, 64), th.randn(2, 64, 30), th.randn(2, 1, 30)
    both = [matrix(weight) for matrix in (Bfloat16Matrix, RoundedMatrix)]
    results = [matrix.multiply_transposed(matrix.multiply(x, bias)) for matrix in both]
    # Another order of summation may round a product the other way
    th.testing.assert_close(*results, rtol=4 * ROUNDING, atol=0.2)


@pytest.mark.parametrize("algorithm_class", [LQL, NCLQL])
def test_a_bfloat16_chain_is_an_option_that_leaves_the_weights_alone(
    algorithm_class: Any, tiny: dict[str, Any], tmp_path: Any
) -> None:
    assert not algorithm_class("MlpPolicy", "Pendulum-v1", **tiny).policy.chains.bfloat16
    model = algorithm_class("MlpPolicy", "Pendulum-v1", bfloat16_chain=True, **tiny).learn(60)
    features = th.randn(20, 3)
    actions = 2 * th.rand(20, 1) - 1
    with th.no_grad():
        assert model.policy.chains.matrix is matrix_class(True, th.device("cpu")) is not Matrix
        rounded = model.critic.action_gradient(features, model.policy.chains.matrix)(actions, 0)
        exact = model.critic.action_gradient(features)(actions, 0)
    assert not th.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.05 * exact.norm()
    assert all(parameter.dtype == th.float32 for parameter in model.policy.parameters())
    model.save(tmp_path / "model")
    assert algorithm_class.load(tmp_path / "model").policy.chains.bfloat16
