"""Ctrl-C and SIGTERM: handled alike, and deferred where an operation must not be interrupted."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds in which a second SIGTERM is ignored: ``timeout`` signals both the process and its group.
REPEATED = 1.0


class InterruptHandler:
    """
    Handles SIGTERM inside :func:`sigterm_interrupts` as Ctrl-C is handled at that moment, even in a background process
    where the shell disabled Ctrl-C.
    """

    def __init__(self) -> None:
        #: Set when SIGTERM arrives.
        self.terminated = threading.Event()
        #: Whether the block is running. Afterwards the handler only absorbs a repeated signal.
        self.active = True
        self._time = -float("inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """
        :param number: signal number
        :param frame: current stack frame
        :raises KeyboardInterrupt: unless the process handles Ctrl-C differently
        """
        now = time.monotonic()
        if now - self._time < REPEATED:
            return
        if not self.active:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._time = now
        self.terminated.set()
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(on_ctrl_c) or on_ctrl_c is signal.default_int_handler:
            raise KeyboardInterrupt("SIGTERM")
        on_ctrl_c(signal.SIGINT, frame)


def _end_by_sigterm() -> None:
    """In a forked process, such as an environment's worker, which may hang outside of Python."""
    if isinstance(signal.getsignal(signal.SIGTERM), InterruptHandler):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_by_sigterm)


@contextmanager
def sigterm_interrupts() -> Iterator[threading.Event]:
    """
    Make SIGTERM raise ``KeyboardInterrupt``, as Ctrl-C does, so that ``timeout``, Slurm and preemption stop a training
    cleanly. A user's own handler stays in place, and outside the main thread nothing changes.

    :return: an event, set when SIGTERM arrives
    """
    handler = InterruptHandler()
    current = signal.getsignal(signal.SIGTERM)
    is_free = current is signal.SIG_DFL or (isinstance(current, InterruptHandler) and not current.active)
    if not _in_main_thread() or not is_free:
        yield handler.terminated
        return
    signal.signal(signal.SIGTERM, handler)
    try:
        yield handler.terminated
    finally:
        handler.active = False
        if not handler.terminated.is_set():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM to the end of the block, for short operations that must not be interrupted."""
    if not _in_main_thread():  # Python handles signals in the main thread only
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
