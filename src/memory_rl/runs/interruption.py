"""Signals that wait until a run can be left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

Handler = Callable[[int, FrameType | None], object]


class InterruptedBySignal(KeyboardInterrupt):  # named after what it is a kind of
    """SIGTERM, where nobody else would have turned it into an exception.

    Attributes:
        signal: its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal = number


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Turns SIGTERM into an `InterruptedBySignal`, unless someone has other plans for it. Outside the main
    thread, where no signals come, it does nothing.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise(number: int, frame: FrameType | None) -> None:
    raise InterruptedBySignal(number)


class SignalsWait:
    """While it is entered, the first SIGINT or SIGTERM is noted, and `deliver` hands it to whoever would have
    had it; a second one is not held back.

    Signals that are ignored, or that would end the process without a word, are left alone.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> SignalsWait:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stand_aside()

    def deliver(self) -> None:
        """Lets the signal that came have its effect, which is an exception as a rule."""
        number, self.pending = self.pending, None
        if number is not None:
            self._before[number](number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending = number
        self._stand_aside()

    def _stand_aside(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
