"""Products in float32 and of bfloat16 factors: as precise as they should be."""

import warnings
from typing import Any

import pytest
import torch as th

from sb3_lql import LQL, NCLQL
from sb3_lql.networks.matmul import BLOCK_ROWS, PackedWeight, batch_invariant, has_fast_bfloat16

#: Half the distance from 1 to the next number: bfloat16 has eight significant bits.
ROUNDING = 2**-9


def test_float32_products_are_batched_affine_maps() -> None:
    x, weight, bias = th.randn(2, 5, 3), th.randn(2, 3, 4), th.randn(2, 1, 4)
    for member in range(2):
        product = PackedWeight(weight).matmul(x, bias)[member]
        th.testing.assert_close(product, x[member] @ weight[member] + bias[member])
        back = PackedWeight(weight).matmul_transposed(product.expand(2, -1, -1))[member]
        th.testing.assert_close(back, product @ weight[member].T)


@pytest.mark.parametrize(("dtype", "size"), [(th.float64, BLOCK_ROWS), (th.float32, 1)])
def test_blocks_of_one_size_give_any_number_of_rows_in_their_order(dtype: th.dtype, size: int) -> None:
    def multiply(x: th.Tensor, y: th.Tensor) -> th.Tensor:
        assert len(x) == len(y) == size
        return x * y

    for n in range(1, 2 * BLOCK_ROWS + 2):
        x, y = th.randn(n, 3, dtype=dtype), th.randn(n, 1, dtype=dtype)
        assert th.equal(batch_invariant(multiply, x, y), x * y)
    assert batch_invariant(lambda x: x[:, :2], th.zeros(0, 3, dtype=dtype)).shape == (0, 2)


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("out_features", [1, 2, 7, 16, 33, 256])
@pytest.mark.parametrize("in_features", [1, 5, 17, 64])
def test_in_float64_a_row_of_a_block_does_not_depend_on_its_place(
    in_features: int, out_features: int, n_members: int
) -> None:
    matrix = PackedWeight(th.randn(n_members, in_features, out_features, dtype=th.float64))
    bias = th.randn(n_members, 1, out_features, dtype=th.float64)
    x = th.randn(n_members, BLOCK_ROWS, in_features, dtype=th.float64)
    y = matrix.matmul(x, bias)
    th.testing.assert_close(y, x @ matrix.weight[..., :out_features] + bias)
    back = matrix.matmul_transposed(y)
    th.testing.assert_close(back, y @ matrix.weight[..., :out_features].mT)
    for shift in range(1, BLOCK_ROWS):
        rolled = matrix.matmul(x.roll(shift, dims=1), bias)
        assert th.equal(rolled, y.roll(shift, dims=1))
        assert th.equal(matrix.matmul_transposed(rolled), back.roll(shift, dims=1))


def test_factors_and_products_are_rounded_to_bfloat16_and_sums_are_not() -> None:
    """A column of 257 ones: summed in bfloat16, where 256 + 1 is 256, it would stop growing."""
    weight = th.ones(1, 257, 1)
    x = th.ones(1, 1, 257)
    x[..., 0] += ROUNDING / 2  # lost when the factor is rounded
    product = PackedWeight(weight, bfloat16=True).matmul(x, th.full((1, 1, 1), 0.25))
    assert product.dtype == th.float32
    assert product.item() == 256.25  # 257 lies between 256 and 258; ties go to even


def test_products_in_bfloat16_are_those_of_float32_within_the_rounding() -> None:
    x, weight, bias = th.rand(2, 50, 64), th.rand(2, 64, 30), th.zeros(2, 1, 30)
    exact = th.bmm(x.double(), weight.double())
    # Positive terms: the relative error of their sum is at most that of a term, and the result's own
    error = (PackedWeight(weight, bfloat16=True).matmul(x, bias) / exact - 1).abs().max()
    assert error <= 3.1 * ROUNDING
    back = PackedWeight(weight, bfloat16=True).matmul_transposed(exact.float())
    error = (back / th.bmm(exact, weight.double().mT) - 1).abs().max()
    assert error <= 3.1 * ROUNDING


@pytest.mark.parametrize("algorithm_class", [LQL, NCLQL])
def test_a_bfloat16_chain_is_an_option_that_leaves_the_weights_alone(
    algorithm_class: Any, tiny: dict[str, Any], tmp_path: Any
) -> None:
    assert not algorithm_class("MlpPolicy", "Pendulum-v1", **tiny).policy.bfloat16_chain
    with pytest.warns(UserWarning, match="bfloat16_chain=True"):
        model = algorithm_class("MlpPolicy", "Pendulum-v1", bfloat16_chain=True, **tiny).learn(60)
    features = th.randn(20, 3)
    actions = 2 * th.rand(20, 1) - 1
    with th.no_grad():
        rounded = model.critic.action_gradient(features, model.policy.bfloat16_chain)(actions, 0)
        exact = model.critic.action_gradient(features)(actions, 0)
    assert not th.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.05 * exact.norm()
    assert all(parameter.dtype == th.float32 for parameter in model.policy.parameters())
    model.save(tmp_path / "model")
    assert algorithm_class.load(tmp_path / "model").policy.bfloat16_chain


def test_bfloat16_is_said_to_be_slower_once_where_it_is(tiny: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for bfloat16 in (False, True):
            LQL("MlpPolicy", "Pendulum-v1", bfloat16_chain=bfloat16, **tiny | dict(device="cpu")).learn(60)
    (warning,) = [warning for warning in caught if "bfloat16_chain" in str(warning.message)]
    assert "slower on device 'cpu': leave it out" in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize("supported", [False, True])
def test_bfloat16_is_fast_on_a_gpu_with_instructions_for_it(supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(th.cuda, "is_bf16_supported", lambda including_emulation: supported and not including_emulation)
    assert has_fast_bfloat16(th.device("cuda")) is supported
    assert not has_fast_bfloat16(th.device("cpu"))
