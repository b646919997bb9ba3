"""How many of the processor's cores a training can use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch as th
from torch import nn

#: Multiplications in the largest product of an update, below which threads wait for each other longer than they work.
WORTH_SHARING = 2**22


@contextmanager
def threads_for(network: nn.Module, batch_size: int) -> Iterator[None]:
    """
    Within, PyTorch computes with one thread if the network is on a CPU and too small to gain from more. There, threads
    take the time of a second core for nothing, and on a busy machine they wait for each other most of the time.

    :param network: whose updates are to come
    :param batch_size: rows of a minibatch
    """
    before = th.get_num_threads()
    sizes = [parameter.numel() for parameter in network.parameters()]
    # A convolution multiplies each weight many times
    convolves = any(parameter.dim() > 3 for parameter in network.parameters())
    on_cpu = all(parameter.device.type == "cpu" for parameter in network.parameters())
    alone = on_cpu and not convolves and batch_size * max(sizes, default=0) < WORTH_SHARING
    try:
        if alone and before > 1:
            th.set_num_threads(1)
        yield
    finally:
        th.set_num_threads(before)
