"""Ctrl-C and SIGTERM: the same thing, and never in the middle of what has to be whole."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds for which a second SIGTERM counts as the first: ``timeout`` sends one to the process and one to its group.
REPEATED = 1.0


class InterruptHandler:
    """
    What SIGTERM does within :func:`sigterm_interrupts`: whatever Ctrl-C does at that moment, also where the shell has
    made a process in the background ignore that.
    """

    def __init__(self) -> None:
        #: Set when SIGTERM has arrived.
        self.terminated = threading.Event()
        #: Whether what it is for goes on. After that it only keeps a repeated signal from ending the process.
        self.active = True
        self._time = -float("inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """
        :param number: the signal's
        :param frame: where it arrived
        :raises KeyboardInterrupt: unless Ctrl-C does something else here
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
    """In a process that was forked: an environment's, say, which may hang outside of Python."""
    if isinstance(signal.getsignal(signal.SIGTERM), InterruptHandler):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_by_sigterm)


@contextmanager
def sigterm_interrupts() -> Iterator[threading.Event]:
    """
    Within, SIGTERM raises ``KeyboardInterrupt``, as Ctrl-C does: ``timeout``, Slurm and preemption stop a training in
    the same orderly way. A handler of the user's own stays in charge, and so does the system's outside the main thread.

    :return: an event, set when SIGTERM has arrived
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
