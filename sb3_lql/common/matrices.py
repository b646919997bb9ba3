"""Batched matrix products in float32 and in bfloat16."""

import torch as th


class Matrix:
    """
    The right factor of batched matrix products, in its own precision.

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
        return self._product(x, self.weight).add_(bias)

    def multiply_transposed(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: shape (n_members, batch, out_features)
        :return: ``x @ weight.mT``, shape (n_members, batch, in_features)
        """
        return self._product(x, self.weight.mT)

    def _product(self, x: th.Tensor, weight: th.Tensor) -> th.Tensor:
        return th.bmm(x, weight)


class Bfloat16Matrix(Matrix):
    """A :class:`Matrix` whose products have factors and results of bfloat16; everything else stays float32."""

    def __init__(self, weight: th.Tensor) -> None:
        super().__init__(weight.bfloat16())

    def _product(self, x: th.Tensor, weight: th.Tensor) -> th.Tensor:
        return th.bmm(x.bfloat16(), weight).float()


class RoundedMatrix(Matrix):
    """
    What :class:`Bfloat16Matrix` computes, for machines that are slow at it: factors and results rounded to bfloat16 and
    multiplied in float32. The same numbers up to the order of summation, at no gain in speed.
    """

    def __init__(self, weight: th.Tensor) -> None:
        super().__init__(round_to_bfloat16(weight))

    def _product(self, x: th.Tensor, weight: th.Tensor) -> th.Tensor:
        return round_to_bfloat16(th.bmm(round_to_bfloat16(x), weight))


def round_to_bfloat16(x: th.Tensor) -> th.Tensor:
    """
    The nearest numbers of eight significant bits; ties go to the even one.

    Done on the bits, as compilers take ``x.bfloat16().float()`` for ``x``.

    :param x: finite, float32
    :return: float32 of the same shape
    """
    bits = x.contiguous().view(th.int32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & ~0xFFFF).view(th.float32)


def matrix_class(bfloat16: bool, device: th.device) -> type[Matrix]:
    """
    :param bfloat16: whether to multiply in bfloat16
    :param device: where
    :return: the class that does so
    """
    if not bfloat16:
        return Matrix
    if device.type == "cuda":
        fast = th.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and (th.cpu._is_avx512_bf16_supported() or th.cpu._is_amx_tile_supported())
    return Bfloat16Matrix if fast else RoundedMatrix
