"""Running a function of tensors faster: compiled, or recorded as a CUDA graph. Both give way where they cannot work."""

import functools
import warnings
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch as th
from torch.utils import _pytree as pytree

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """
    A function that is compiled at its first call, and again for what it cannot generalise to.

    Where compilation fails, as it does without a C++ compiler, there is one warning and the function runs as it is.

    :param function: function of modules and tensors that draws no random numbers and changes nothing in place
    :return: the same, faster
    """
    compiled_function: Callable[P, R] | None = None
    failed = False

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal compiled_function, failed
        if not failed:
            try:
                compiled_function = compiled_function or th.compile(function)
                return compiled_function(*args, **kwargs)
            except Exception as error:
                result = function(*args, **kwargs)  # where the fault is in the function, this raises it
                failed = True
                reason = (str(error).strip().splitlines() or [""])[0]
                warnings.warn(
                    f"torch.compile failed, Langevin chains go on uncompiled and slower ({type(error).__name__}: "
                    f"{reason}). Install a C++ compiler such as g++, or pass compile=False.",
                    stacklevel=2,
                )
                return result
        return function(*args, **kwargs)

    return call


class Recording(NamedTuple):
    """A recorded computation: what it reads, what it writes, and how to run it again."""

    inputs: list[th.Tensor]
    outputs: Any
    replay: Callable[[], None]


def record_cuda_graph(function: Callable[[], Any], inputs: list[th.Tensor]) -> Recording:
    """
    Record a computation as a CUDA graph. Nothing is computed yet.

    :param function: computes from ``inputs``; what it reads and writes besides must stay where it is
    :param inputs: tensors to be overwritten before a replay
    :return: the recording
    """
    graph = th.cuda.CUDAGraph()
    with th.cuda.graph(graph):
        outputs = function()
    return Recording(inputs, outputs, graph.replay)


class GraphedFunction:
    """
    A function whose calls on a GPU are recorded as a CUDA graph and replayed: one launch instead of hundreds.

    A recording holds addresses and Python's numbers as they were. It is made anew when an input's shape, a tensor of
    ``state`` or a value of ``constants`` is another one. Whatever may change within a recording has to be a tensor.

    Copies and pickles of it record for themselves.

    :param function: function of trees of tensors (tuples, dictionaries, ``None``) that never waits for the device
    :param state: the tensors that it reads and writes besides its arguments
    :param constants: the Python values on which it depends
    """

    #: Where there are such recordings.
    DEVICE_TYPE = "cuda"

    #: Calls before the recording, in which kernels are compiled and the optimiser's state is made.
    WARM_UP_CALLS = 3

    def __init__(
        self,
        function: Callable[..., Any],
        state: Callable[[], Iterable[th.Tensor]],
        constants: Callable[[], Hashable] = lambda: None,
    ) -> None:
        self.function = function
        self.state = state
        self.constants = constants
        self._recordings: dict[Hashable, tuple[Hashable, Recording]] = {}
        self._n_calls: dict[Hashable, int] = {}
        self._failed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.state, self.constants)

    def __call__(self, *args: Any) -> Any:
        """
        :param args: arguments of the function
        :return: what the function returns, in tensors of its own
        """
        leaves, structure = pytree.tree_flatten(args)
        tensors = [leaf for leaf in leaves if isinstance(leaf, th.Tensor)]
        if self._failed or not tensors or tensors[0].device.type != self.DEVICE_TYPE:
            return self.function(*args)
        signature = (str(structure), *((tensor.shape, tensor.dtype) for tensor in tensors), self.constants())
        n_calls = self._n_calls[signature] = self._n_calls.get(signature, 0) + 1
        if n_calls <= self.WARM_UP_CALLS:
            return self._warm_up(args)

        addresses = tuple(tensor.data_ptr() for tensor in self.state())
        recorded_addresses, recording = self._recordings.get(signature, (None, None))
        if recording is None or recorded_addresses != addresses:
            try:
                recording = self._record(leaves, structure)
            except RuntimeError as error:
                self._failed = True
                warnings.warn(f"CUDA graphs are not used: {error}", stacklevel=2)
                return self.function(*args)
            self._recordings[signature] = addresses, recording
        for recorded, tensor in zip(recording.inputs, tensors, strict=True):
            recorded.copy_(tensor, non_blocking=True)
        recording.replay()
        return pytree.tree_map_only(th.Tensor, th.clone, recording.outputs)

    def _warm_up(self, args: tuple[Any, ...]) -> Any:
        """Run beside the current stream, as a recording will: autograd remembers the stream it ran in."""
        stream = th.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(th.cuda.current_stream())
        with th.cuda.stream(stream):
            result = self.function(*args)
        th.cuda.current_stream().wait_stream(stream)
        return result

    def _record(self, leaves: list[Any], structure: pytree.TreeSpec) -> Recording:
        own_leaves = [leaf.clone() if isinstance(leaf, th.Tensor) else leaf for leaf in leaves]
        own_args = pytree.tree_unflatten(own_leaves, structure)
        inputs = [leaf for leaf in own_leaves if isinstance(leaf, th.Tensor)]
        return record_cuda_graph(lambda: self.function(*own_args), inputs)
