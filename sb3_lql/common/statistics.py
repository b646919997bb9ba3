"""Running means of tensors that stay on their device until somebody looks."""

import torch as th


class RunningMeans:
    """Means of named scalars over the calls of :meth:`add` since the last :meth:`collect`."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sum: th.Tensor | None = None
        self._count = 0

    def add(self, values: dict[str, th.Tensor]) -> None:
        """
        :param values: scalars by name, the same names at each call
        """
        row = th.stack([value.detach() for value in values.values()])
        self._names = tuple(values)
        self._sum = row if self._sum is None else self._sum + row
        self._count += 1

    def collect(self) -> dict[str, float]:
        """
        Forget everything and return it: the only transfer from the device.

        :return: means by name, empty if nothing was added
        """
        total, self._sum = self._sum, None
        count, self._count = self._count, 0
        return {} if total is None else dict(zip(self._names, (total / count).tolist(), strict=True))
