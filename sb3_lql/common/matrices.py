"""Batched matrix products in float32 and in bfloat16."""

from functools import lru_cache

import torch as th


class Matrix:
    """
    The right factor of batched matrix products.

    :param weight: shape (n_members, in_features, out_features)
    """

    def __init__(self, weight: th.Tensor) -> None:
        self.weight = weight

    def multiply(self, x: th.Tensor, bias: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, in_features)
        :param bias: broadcast to the result
        :return: ``x @ weight + bias``, shape (n_members, batch, out_features)
        """
        return th.bmm(x, self.weight).add_(bias)

    def multiply_transposed(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, out_features)
        :return: ``x @ weight.mT``, shape (n_members, batch, in_features)
        """
        return th.bmm(x, self.weight.mT)


class Bfloat16Matrix(Matrix):
    """
    A :class:`Matrix` whose products are of bfloat16 factors, summed in float32 and rounded to bfloat16.

    Everything else stays float32. Where the machine has no such instructions, factors and products are rounded all the
    same and multiplied in float32: the same numbers up to the order of summation, at no gain in speed.
    """

    def __init__(self, weight: th.Tensor) -> None:
        self.native = has_fast_bfloat16(weight.device)
        super().__init__(self._round(weight))

    def multiply(self, x: th.Tensor, bias: th.Tensor) -> th.Tensor:
        return th.bmm(self._round(x), self.weight).bfloat16().float().add_(bias)

    def multiply_transposed(self, x: th.Tensor) -> th.Tensor:
        return th.bmm(self._round(x), self.weight.mT).bfloat16().float()

    def _round(self, x: th.Tensor) -> th.Tensor:
        return x.bfloat16() if self.native else x.bfloat16().float()


@lru_cache
def has_fast_bfloat16(device: th.device) -> bool:
    """
    :param device: a device
    :return: whether it multiplies bfloat16 matrices by instructions of its own
    """
    if device.type == "cuda":
        return bool(th.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(th.cpu._is_avx512_bf16_supported() or th.cpu._is_amx_tile_supported())
    return False
