"""Signals that become exceptions, and signals that wait until a run can be left."""

from __future__ import annotations

import _thread
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], object]

_SAME_SECONDS = 1.0


class _Repeats:
    """Called at a signal, it says whether one came within the last second that was none.

    Where a whole group of processes is to end, whoever ends them tells a worker, and so does its sweep.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._last + _SAME_SECONDS:
            return True
        self._last = now
        return False

    def forget(self) -> None:
        """The last one had no effect."""
        self._last = -math.inf


class InterruptedBySignal(KeyboardInterrupt):  # named after what it is a kind of
    """A signal stopped the work; the run at work notes on disk that it was interrupted.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal = number


@contextmanager
def signals_raise(*numbers: int) -> Iterator[list[int]]:
    """Turns signals into `InterruptedBySignal`; outside the main thread, where none arrive, it does nothing.

    One that comes so soon after another that it tells the same is left out.

    Yields:
        Those received so far, since a library may turn the error into one of its own, as Ray does.
    """
    received: list[int] = []
    repeats = _Repeats()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not repeats():
            received.append(number)
            raise InterruptedBySignal(number)

    if not _in_main_thread():
        yield received
        return
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        with _sent_again_if_dropped(repeats):
            yield received
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that is not Python's, which cannot be put back
                signal.signal(number, handler)


@contextmanager
def _sent_again_if_dropped(repeats: _Repeats) -> Iterator[None]:
    """Sends a signal again whose exception Python drops.

    As it does with all that is raised in a destructor or in the callback of a weak reference: the work would
    go on as if no signal had come.
    """
    before = sys.unraisablehook

    def see(dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            repeats.forget()
            number = getattr(dropped.exc_value, "signal", signal.SIGINT)
            _thread.start_new_thread(_send, (number,))  # takes no lock, which may be held here
        else:
            before(dropped)

    sys.unraisablehook = see
    try:
        yield
    finally:
        if sys.unraisablehook is see:
            sys.unraisablehook = before


def _send(number: int) -> None:
    """Sends this process a signal once the main thread is likely to be elsewhere."""
    time.sleep(0.01)
    os.kill(os.getpid(), number)


def sigterm_raises() -> AbstractContextManager[list[int]]:
    """Turns SIGTERM into an `InterruptedBySignal`, unless it already has another handler."""
    unhandled = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return signals_raise(*([signal.SIGTERM] if unhandled else []))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class SignalsWait:
    """Holds back the first SIGINT or SIGTERM of its with block until `deliver`.

    A second one is not held back, but left out if it comes so soon that it tells the same. Signals that are
    ignored, or that would end the process without a word, are left alone.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._repeats = _Repeats()
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> SignalsWait:
        if _in_main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._stand_aside()

    def deliver(self) -> None:
        """Lets the signal that came have its effect, usually an exception."""
        number, self.pending = self.pending, None
        if number is not None:
            self._before[number](number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._repeats():
            return
        if self.pending is None:
            self.pending = number
        else:
            self._stand_aside()
            self._before[number](number, frame)

    def _stand_aside(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
