"""
Running a function of tensors faster: compiled, or recorded as a CUDA graph. Both fall back to the plain function where
they are unsupported.
"""

import functools
import gc
import inspect
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import torch as th
from torch.utils import _pytree as pytree

P = ParamSpec("P")
R = TypeVar("R")

#: Versions of a function that are compiled in a process, each for an architecture or so. PyTorch's own limit is eight.
MAX_COMPILATIONS = 64


def compiled(
    function: Callable[P, R], batch_dims: dict[str, int], result_dims: tuple[int, ...] | None = None
) -> Callable[P, R]:
    """
    A function that is compiled at its first call, and again for what its versions cannot generalise to.

    Where compilation fails, as it does without a compiler, there is one warning and the function runs as it is.

    :param function: function of modules and tensors that draws no random numbers and changes nothing in place
    :param batch_dims: for arguments by name the dimension in which their size varies between calls
    :param result_dims: likewise for each tensor of the result. With it, one row is computed as two: PyTorch compiles
        again for a single row, and its products take as long as those of two
    :return: the same, faster
    """
    signature = inspect.signature(function)
    compiled_function: Callable[P, R] | None = None
    failed = False

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal compiled_function, failed
        if failed:
            return function(*args, **kwargs)
        try:
            if compiled_function is None:
                compiled_function = th.compile(function)
            bound = signature.bind(*args, **kwargs)
            batch = {name: dim for name, dim in batch_dims.items() if isinstance(bound.arguments.get(name), th.Tensor)}
            is_row = all(bound.arguments[name].shape[dim] == 1 for name, dim in batch.items())
            dims_of_row = result_dims if is_row else None
            for name, dim in batch.items():
                if dims_of_row is not None:
                    bound.arguments[name] = th.cat([bound.arguments[name]] * 2, dim)
                th._dynamo.maybe_mark_dynamic(bound.arguments[name], dim)
            with th._dynamo.config.patch(recompile_limit=MAX_COMPILATIONS):
                result = compiled_function(*bound.args, **bound.kwargs)
            return result if dims_of_row is None else _first_row(result, dims_of_row)
        except th.OutOfMemoryError:
            raise
        except Exception as error:
            result = function(*args, **kwargs)  # where the fault is in the function, this raises it
            failed = True
            reason = (str(error).strip().splitlines() or [""])[0]
            _warn_uncompiled(f"{type(error).__name__}: {reason}")
            return result

    return call


def _first_row(result: R, dims: tuple[int, ...]) -> R:
    """The first row of each tensor, along the dimension given for it."""
    leaves, structure = pytree.tree_flatten(result)
    rows = [leaf.narrow(dim, 0, 1) for leaf, dim in zip(leaves, dims, strict=True)]
    return cast(R, pytree.tree_unflatten(rows, structure))


@functools.cache
def _warn_uncompiled(reason: str) -> None:
    """Once for each reason: without a compiler, every function fails alike."""
    warnings.warn(
        f"torch.compile failed: chains and critics run uncompiled, and slower ({reason}). Install what it needs, a C++ "
        "compiler such as g++ and on a GPU Triton, or pass compile=False.",
        stacklevel=3,
    )


class Recording(NamedTuple):
    """A recorded computation: what it reads, what it writes, and how to run it again."""

    #: What it reads, to be overwritten before a replay.
    inputs: list[th.Tensor]
    #: What it has written, after a replay.
    outputs: Any
    #: Runs it again.
    replay: Callable[[], None]


def record_cuda_graph(function: Callable[[], Any], inputs: list[th.Tensor]) -> Recording:
    """
    Record a computation as a CUDA graph. Nothing is computed yet.

    :param function: computes from ``inputs``; what it reads and writes besides must stay where it is
    :param inputs: tensors on the current device, to be overwritten before a replay
    :return: the recording
    :raises RuntimeError: if the function waits for the device
    """
    graph = th.cuda.CUDAGraph()
    # A stream of its own: PyTorch's default one is of the device that recorded first
    stream = th.cuda.Stream()  # type: ignore[no-untyped-call]
    try:
        with collector_paused(), th.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            outputs = function()
    except RuntimeError as error:
        # PyTorch's generators and streams are in an unknown state now
        raise RuntimeError(f"Recording a CUDA graph failed ({error}). Start again with compile=False.") from error
    return Recording(inputs, outputs, graph.replay)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collect no garbage meanwhile: an agent that nobody holds may have recordings, and freeing one breaks another."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass
class _Signature:
    """The calls with arguments of the same shapes."""

    n_calls: int = 0
    addresses: tuple[int, ...] | None = None
    recording: Recording | None = None


class GraphedFunction:
    """
    A function whose calls on a GPU are recorded as a CUDA graph and replayed: one launch instead of hundreds.

    A recording holds addresses of tensors and values of Python's numbers. It is made again when an input's shape, the
    address of a tensor of ``state`` or a value of ``constants`` has changed. Whatever else may change has to be a
    tensor: an optimiser's learning rate is one, its other settings are not.

    A function that waits for the device is not recorded, and one warning says so. Copies and pickles of a graphed
    function record for themselves.

    :param function: function of trees of tensors (tuples, dictionaries, ``None``), all on one device
    :param state: the tensors that it reads and writes besides its arguments
    :param constants: the Python values on which it depends
    """

    #: Where there are such recordings.
    DEVICE_TYPE = "cuda"

    #: Calls before the recording, in which kernels are compiled and the optimiser's state is made.
    WARM_UP_CALLS = 3

    #: Most shapes of arguments with a recording of their own; the least recently used is dropped.
    MAX_SIGNATURES = 8

    def __init__(
        self, function: Callable[..., Any], state: Callable[[], Iterable[th.Tensor]], constants: Callable[[], Hashable]
    ) -> None:
        self.function = function
        self.state = state
        self.constants = constants
        self._signatures: OrderedDict[Hashable, _Signature] = OrderedDict()
        self._refused = False
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.function, self.state, self.constants)

    def __call__(self, *args: Any) -> Any:
        """
        :param args: arguments of the function
        :return: what the function returns, in tensors of its own
        """
        leaves, structure = pytree.tree_flatten(args)
        tensors = [leaf for leaf in leaves if isinstance(leaf, th.Tensor)]
        if self._refused or not tensors or tensors[0].device.type != self.DEVICE_TYPE:
            return self.function(*args)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        # The tensors of a recording are written and read by one thread at a time
        with self._lock, th.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]
            signature = self._recall((str(structure), shapes, self.constants()))
            signature.n_calls += 1
            if signature.n_calls <= self.WARM_UP_CALLS:
                return self._warm_up(args, last=signature.n_calls == self.WARM_UP_CALLS)
            addresses = tuple(tensor.data_ptr() for tensor in self.state())
            if signature.recording is None or signature.addresses != addresses:
                signature.recording = None  # frees its memory for the next one
                signature.recording, signature.addresses = self._record(leaves, structure), addresses
            for recorded, tensor in zip(signature.recording.inputs, tensors, strict=True):
                recorded.copy_(tensor, non_blocking=True)
            signature.recording.replay()
            return pytree.tree_map_only(th.Tensor, th.clone, signature.recording.outputs)

    def _recall(self, key: Hashable) -> _Signature:
        """The entry of such calls; the least recently used is dropped where there are too many."""
        signature = self._signatures.setdefault(key, _Signature())
        self._signatures.move_to_end(key)
        if len(self._signatures) > self.MAX_SIGNATURES:
            self._signatures.popitem(last=False)
        return signature

    def _warm_up(self, args: tuple[Any, ...], last: bool) -> Any:
        """Run beside the current stream, as a recording will: autograd remembers the stream it ran in."""
        stream = th.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(th.cuda.current_stream())
        with th.cuda.stream(stream):
            result = self._watch(args) if last else self.function(*args)
        th.cuda.current_stream().wait_stream(stream)
        return result

    def _watch(self, args: tuple[Any, ...]) -> Any:
        """Run, and refuse to record if the function waits for the device, which cannot be recorded."""
        mode = th.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            th.cuda.set_sync_debug_mode("warn")
            try:
                result = self.function(*args)
            finally:
                th.cuda.set_sync_debug_mode(mode)
        for warning in caught:
            if "synchronizing CUDA operation" in str(warning.message):
                self._refused = True
            else:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if self._refused:
            warnings.warn(
                "CUDA graphs are not used: something waits for the device in each update or action, such as a features "
                "extractor that looks at its input.",
                stacklevel=2,
            )
        return result

    def _record(self, leaves: list[Any], structure: pytree.TreeSpec) -> Recording:
        own_leaves = [leaf.clone() if isinstance(leaf, th.Tensor) else leaf for leaf in leaves]
        own_args = pytree.tree_unflatten(own_leaves, structure)
        inputs = [leaf for leaf in own_leaves if isinstance(leaf, th.Tensor)]
        return record_cuda_graph(lambda: self.function(*own_args), inputs)
