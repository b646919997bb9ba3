"""Modes that watch operations: how many, no waiting for a device, and on a CPU what a CUDA graph does on a GPU."""

from collections.abc import Callable
from typing import Any

import torch as th
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_lql.common.acceleration import Recording


class NoSynchronisation(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails when a tensor's value, or a shape that depends on values, is asked for."""

    FORBIDDEN = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.__name__.split(".")[0] not in self.FORBIDDEN, f"{func} would wait for the device"
        return func(*args, **(kwargs or {}))


class CountedOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations on tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += 1
        return func(*args, **(kwargs or {}))


class RecordedOperations(NoSynchronisation):  # type: ignore[no-untyped-call]
    """Records every operation with its tensors and its numbers, to run it again."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.made: set[int] = set()
        self.before: dict[int, tuple[th.Tensor, th.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for tensor in pytree.tree_leaves((args, kwargs)):
                if isinstance(tensor, th.Tensor) and id(tensor) not in self.made:
                    self.before.setdefault(id(tensor), (tensor, tensor.detach().clone()))
        result = super().__torch_dispatch__(func, types, args, kwargs)
        self.operations.append((func, args, kwargs, result))
        self.made |= {id(leaf) for leaf in pytree.tree_leaves(result) if isinstance(leaf, th.Tensor)} - {
            id(leaf) for leaf in pytree.tree_leaves((args, kwargs))
        }
        return result

    def undo(self) -> None:
        """A CUDA graph is recorded without being run."""
        with th.no_grad():
            for tensor, before in self.before.values():
                tensor.copy_(before)

    def run_again(self) -> dict[int, th.Tensor]:
        """:return: the new tensor for each of those that were made during the recording"""
        new: dict[int, th.Tensor] = {}

        def renewed(tree: Any) -> Any:
            return pytree.tree_map_only(th.Tensor, lambda tensor: new.get(id(tensor), tensor), tree)

        with th.no_grad():
            for func, args, kwargs, result in self.operations:
                again = func(*renewed(args), **renewed(kwargs))
                for old, made in zip(pytree.tree_leaves(result), pytree.tree_leaves(again), strict=True):
                    if isinstance(old, th.Tensor) and id(old) in self.made:
                        new[id(old)] = made
        return new


def record_on_cpu(function: Callable[[], Any], inputs: list[th.Tensor]) -> Recording:
    """Stands in for ``record_cuda_graph``."""
    random_state = th.get_rng_state()
    with RecordedOperations() as recorded:
        outputs = function()
    recorded.undo()
    th.set_rng_state(random_state)

    def replay() -> None:
        new = recorded.run_again()
        for output in pytree.tree_leaves(outputs):
            if isinstance(output, th.Tensor):
                output.copy_(new[id(output)])

    return Recording(inputs, outputs, replay)
