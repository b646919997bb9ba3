"""Batched matrix products in float64, float32 and bfloat16; those in float64 can be made batch-invariant."""

from collections.abc import Callable

import torch as th
from torch.nn import functional as F

#: Rows of a block.
BLOCK_ROWS = 8
#: In float64, rows of a weight are padded to a multiple of this (64 bytes). At other sizes, BLAS libraries sum some
#: rows of a block in a different order from the others.
PADDED_TO = 8


class PackedWeight:
    """
    A weight prepared for many batched matrix products: padded or rounded once.

    :param weight: shape (n_members, in_features, out_features)
    :param bfloat16: round factors and products to bfloat16; inputs and results keep their dtype
    """

    def __init__(self, weight: th.Tensor, bfloat16: bool = False) -> None:
        self.bfloat16 = bfloat16
        self.out_features = weight.shape[2]
        #: Zeros at the end of each row. A single column needs none: there is only one order to sum it in
        self.padding = -self.out_features % PADDED_TO if weight.dtype == th.float64 and self.out_features > 1 else 0
        if self.padding:
            weight = F.pad(weight, (0, self.padding))
        self.weight = weight.bfloat16() if bfloat16 else weight
        self.transposed = self.weight.mT

    def matmul(self, x: th.Tensor, bias: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, in_features)
        :param bias: broadcast to the result
        :return: ``x @ weight + bias``, shape (n_members, batch, out_features)
        """
        product = self._product(x, self.weight)
        return (product[..., : self.out_features] if self.padding else product).add_(bias)

    def matmul_transposed(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, out_features)
        :return: ``x @ weight.mT``, shape (n_members, batch, in_features)
        """
        return self._product(F.pad(x, (0, self.padding)) if self.padding else x, self.transposed)

    def _product(self, x: th.Tensor, weight: th.Tensor) -> th.Tensor:
        return th.bmm(x.bfloat16(), weight).to(x.dtype) if self.bfloat16 else th.bmm(x, weight)


def batch_invariant(function: Callable[..., th.Tensor], *inputs: th.Tensor) -> th.Tensor:
    """
    Compute each row so that its result does not depend on the other rows of the batch, to the last bit.

    The order in which a matrix product is summed depends on the number of rows. In float64 there are always
    :data:`BLOCK_ROWS`, which :class:`PackedWeight` treats alike. In other dtypes each row is computed alone.

    :param function: maps tensors with equal numbers of rows to one tensor with as many
    :param inputs: its arguments, with any number of rows
    :return: its results, concatenated
    """
    size = BLOCK_ROWS if inputs[0].dtype == th.float64 else 1
    n_rows = len(inputs[0])
    if not n_rows:
        return function(*inputs)
    filled = [th.cat([x, x[-1:].expand(-n_rows % size, *x.shape[1:])]) for x in inputs]
    blocks = zip(*(th.split(x, size) for x in filled), strict=True)
    # Cloned, since sums depend on the memory alignment of a block
    return th.cat([function(*(part.clone() for part in block)) for block in blocks])[:n_rows]


def has_fast_bfloat16(device: th.device) -> bool:
    """
    :param device: where to compute
    :return: whether products in bfloat16 repay their conversions there, as they do on GPUs with native support
    """
    return device.type == "cuda" and th.cuda.is_bf16_supported(including_emulation=False)
