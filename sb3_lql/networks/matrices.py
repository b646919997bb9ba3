"""Batched matrix products: in float64 of rows that do not depend on their place, in float32, and in bfloat16."""

from collections.abc import Callable

import torch as th
from torch.nn import functional as F

#: Rows of a block.
BLOCK_ROWS = 8
#: Numbers, 64 bytes of float64, of which a weight's row holds a multiple. At other sizes, the libraries that multiply
#: matrices sum up some rows of a block in another order than the others.
PADDED_TO = 8


class Matrix:
    """
    The right factor of batched matrix products.

    :param weight: shape (n_members, in_features, out_features)
    :param bfloat16: round factors and products to bfloat16; whatever goes in and comes out keeps its precision
    """

    def __init__(self, weight: th.Tensor, bfloat16: bool = False) -> None:
        self.bfloat16 = bfloat16
        self.out_features = weight.shape[2]
        #: Zeros at the end of a row of the weight. A single number needs none: it has one order to be summed up in
        self.padding = -self.out_features % PADDED_TO if weight.dtype == th.float64 and self.out_features > 1 else 0
        if self.padding:
            weight = F.pad(weight, (0, self.padding))
        self.weight = weight.bfloat16() if bfloat16 else weight
        self.transposed = self.weight.mT

    def multiply(self, x: th.Tensor, bias: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, in_features)
        :param bias: broadcast to the result
        :return: ``x @ weight + bias``, shape (n_members, batch, out_features)
        """
        product = self._product(x, self.weight)
        return (product[..., : self.out_features] if self.padding else product).add_(bias)

    def multiply_transposed(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, out_features)
        :return: ``x @ weight.mT``, shape (n_members, batch, in_features)
        """
        return self._product(F.pad(x, (0, self.padding)) if self.padding else x, self.transposed)

    def _product(self, x: th.Tensor, weight: th.Tensor) -> th.Tensor:
        return th.bmm(x.bfloat16(), weight).to(x.dtype) if self.bfloat16 else th.bmm(x, weight)


def in_blocks(function: Callable[..., th.Tensor], *inputs: th.Tensor) -> th.Tensor:
    """
    Compute rows from rows, each as if it were alone, to the last bit.

    In which order a matrix product is summed up depends on the number of rows. In float64 there are always
    :data:`BLOCK_ROWS`, and :class:`Matrix` treats them alike. In other precisions they are really alone.

    :param function: of tensors of as many rows, to one of as many
    :param inputs: its arguments, with any number of rows
    :return: its results, one after the other
    """
    size = BLOCK_ROWS if inputs[0].dtype == th.float64 else 1
    n_rows = len(inputs[0])
    if not n_rows:
        return function(*inputs)
    filled = [th.cat([x, x[-1:].expand(-n_rows % size, *x.shape[1:])]) for x in inputs]
    blocks = zip(*(th.split(x, size) for x in filled), strict=True)
    # In memory of their own: sums depend on where a block begins
    return th.cat([function(*(part.clone() for part in block)) for block in blocks])[:n_rows]


def multiplies_bfloat16_fast(device: th.device) -> bool:
    """
    :param device: where
    :return: whether products in bfloat16 are worth their conversions there, which they are on a GPU made for them
    """
    return device.type == "cuda" and th.cuda.is_bf16_supported(including_emulation=False)
