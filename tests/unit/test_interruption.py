"""Signals that become exceptions."""

import os
import signal
import sys
import time
import weakref

import pytest

from memory_rl.runs.interruption import InterruptedBySignal, signals_raise


def send(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)  # where its handler runs


def press_control_c(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)


def destroyed(act) -> None:
    """Does it in a destructor."""
    type("Destroyed", (), {"__del__": act})()


def no_longer_watched(act) -> None:
    """Does it in the callback of a weak reference."""
    watched = {1}
    reference = weakref.ref(watched, act)
    del watched
    assert reference() is None


def work(drop, act) -> None:
    with signals_raise(signal.SIGTERM):
        drop(act)
        time.sleep(60)


@pytest.mark.parametrize("drop", [destroyed, no_longer_watched])
@pytest.mark.parametrize(
    ("act", "error"), [(send, InterruptedBySignal), (press_control_c, KeyboardInterrupt)]
)
def test_a_signal_whose_exception_python_drops_comes_again(drop, act, error, capsys):
    before = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with pytest.raises(error) as raised:
        work(drop, act)
    assert raised.type is error
    assert (signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before
    assert capsys.readouterr().err == ""


def test_other_errors_that_python_drops_are_told_as_ever(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_value))

    class Faulty:
        def __del__(self) -> None:
            raise ValueError("of a destructor")

    with signals_raise(signal.SIGTERM):
        Faulty()
    assert [str(error) for error in told] == ["of a destructor"]
    Faulty()
    assert len(told) == 2
