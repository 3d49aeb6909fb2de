"""SIGINT and SIGTERM as KeyboardInterrupt, so that running work can clean up."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType

_AGAIN_S = 0.02
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _lose_no_interrupt() -> None:
    """Raise a KeyboardInterrupt again that hit a destructor or a weak reference's callback, where Python drops it."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        handler = signal.getsignal(signal.SIGINT)
        # By another thread, and later: what is raised in here is dropped as well.
        again = threading.Timer(_AGAIN_S, _thread.interrupt_main)
        again.daemon = True

        def interrupt(number: int, frame: FrameType | None) -> None:
            again.cancel()
            signal.signal(signal.SIGINT, handler)
            _raise(number, frame)

        signal.signal(signal.SIGINT, interrupt)
        again.start()

    sys.unraisablehook = hook


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM (sent by a cluster or a container runtime) like Ctrl-C. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, hook = signal.signal(signal.SIGTERM, _raise), sys.unraisablehook
    _lose_no_interrupt()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = hook


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Defer SIGINT and SIGTERM to the end of the block: native code that calls back into Python does not survive an
    exception there. Does nothing outside the main thread, the only one that signal handlers interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        signal.signal(each, lambda number, _frame: held.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in held:
            signal.raise_signal(number)


def heed_one_interrupt() -> None:
    """In a worker process: raise KeyboardInterrupt on the first SIGINT or SIGTERM and ignore later ones.

    A terminal interrupts the whole process group and the parent interrupts its workers again; the second interrupt
    must not cut the clean-up short. Also restores a SIGINT that a background shell set to be ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            # Not SIG_IGN: Python reports a signal that was pending when it became ignored.
            signal.signal(each, lambda _number, _frame: None)
        _raise(number, frame)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, interrupt)
    _lose_no_interrupt()


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait in this thread, and in processes that it starts until they `let_interrupts_in`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_uninterrupted(process: BaseProcess) -> None:
    """Start a process of multiprocessing, for which SIGINT and SIGTERM wait until it calls `let_interrupts_in`."""
    if sys.platform != "win32":
        # Its first start would let them in again.
        resource_tracker.ensure_running()
    with interrupts_blocked():
        process.start()


def let_interrupts_in() -> None:
    """Take the signals that have waited since this process was started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
