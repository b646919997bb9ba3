"""Ctrl-C and SIGTERM: the same thing, and never in the middle of what has to be whole."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """
    Within, SIGTERM raises ``KeyboardInterrupt``, as Ctrl-C does: ``timeout``, Slurm and preemption stop a training in
    the same orderly way. A handler of the user's own stays in charge, and so does the system's outside the main thread.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a process that was forked within: it is to end, as it would have without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM wait: they take effect at the end. For what is short and must not be torn apart."""
    if not _in_main_thread():  # where Python delivers no signals
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    handlers = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(handler := signal.getsignal(number)):
            handlers[number] = handler
            signal.signal(number, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for signal_number, frame in received:
            handlers[signal.Signals(signal_number)](signal_number, frame)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
