"""Batched matrix products in float32 and in bfloat16."""

import torch as th


class Matrix:
    """
    The right factor of batched matrix products.

    :param weight: shape (n_members, in_features, out_features)
    :param bfloat16: round factors and products to bfloat16; whatever goes in and comes out keeps its precision
    """

    def __init__(self, weight: th.Tensor, bfloat16: bool = False) -> None:
        self.weight = weight.bfloat16() if bfloat16 else weight

    def multiply(self, x: th.Tensor, bias: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, in_features)
        :param bias: broadcast to the result
        :return: ``x @ weight + bias``, shape (n_members, batch, out_features)
        """
        return self._product(x, self.weight).add_(bias)

    def multiply_transposed(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, out_features)
        :return: ``x @ weight.mT``, shape (n_members, batch, in_features)
        """
        return self._product(x, self.weight.mT)

    @staticmethod
    def _product(x: th.Tensor, weight: th.Tensor) -> th.Tensor:
        return th.bmm(x.to(weight.dtype), weight).to(x.dtype)


def multiplies_bfloat16_fast(device: th.device) -> bool:
    """
    :param device: where
    :return: whether products in bfloat16 are worth their conversions there, which they are on a GPU made for them
    """
    return device.type == "cuda" and th.cuda.is_bf16_supported(including_emulation=False)
