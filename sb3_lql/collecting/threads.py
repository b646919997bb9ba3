"""The number of CPU threads for a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch as th
from torch import nn

#: Multiplications in the largest product of an update, below which synchronising threads costs more than it saves.
WORTH_SHARING = 2**22


@contextmanager
def threads_for(network: nn.Module, batch_size: int) -> Iterator[None]:
    """
    Use one PyTorch thread if the network is on a CPU and too small to gain from more: these would occupy a second core
    for nothing, and on a busy machine mostly wait for each other.

    :param network: the network to update
    :param batch_size: rows of a minibatch
    """
    before = th.get_num_threads()
    sizes = [parameter.numel() for parameter in network.parameters()]
    # A convolution multiplies each weight many times
    convolves = any(parameter.dim() > 3 for parameter in network.parameters())
    on_cpu = all(parameter.device.type == "cpu" for parameter in network.parameters())
    single = on_cpu and not convolves and batch_size * max(sizes, default=0) < WORTH_SHARING
    try:
        if single and before > 1:
            th.set_num_threads(1)
        yield
    finally:
        th.set_num_threads(before)
