"""What is being done: one line that moves, in a terminal or a notebook; in a file, one every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import Self

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from memory_rl.reporting.sheets import console_for, in_notebook
from memory_rl.reporting.values import counted, duration

_WARMUP = "warming up the base model (done once, then cached)"
_PRETRAINING = "pretraining the base model (done once, then cached)"
_BAR, _FRAMES_A_SECOND, _FRAMES_A_SECOND_IN_CELL = 12, 8, 4
SECONDS_A_LINE = 5.0
"""Between two lines where standard error is no terminal."""

_SECONDS_TO_GUESS, _SHARE_TO_GUESS = 2.0, 0.03
"""Before so much time has passed, and so much was done, nobody can say how long the rest takes."""


Listener = Callable[[str, float | None], None]
"""Is told the phase and what is known of it, in words, and how much of the learning is done."""

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def overheard(listener: Listener) -> Iterator[None]:
    """Within, whatever shows its progress, were it quietly, tells this function, too."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class Progress:
    """Shows the phase that the work is in, how much of it is done, and about how much time is left.

    What is shown of a phase never goes back. Leaving the with block removes the line.

    Args:
        quiet: shows nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console, self._quiet = console_for(stderr=True), quiet
        self._live: Live | None = None
        self._lines: threading.Thread | None = None
        self._over = threading.Event()
        self._listener = _LISTENER.get()
        self.phase("starting")

    def phase(self, name: str) -> None:
        """Begins another phase, of which it is not known yet how much is done."""
        self._phase, self._about = name, ""
        self._more: Callable[[], str] = str
        self._share: float | None = None
        self._began = time.monotonic()
        self._first: tuple[float, float] | None = None  # when a share was first told, and which
        self._tell_listener()

    def move(self, share: float | None, about: str, more: Callable[[], str] = str) -> None:
        """Tells how much of the phase is done.

        Args:
            share: from 0 to 1, or None where nobody knows.
            about: the same in words.
            more: what else is to be shown, asked whenever it is.
        """
        self._about, self._more = about, more
        if share is not None:
            self._share = max(share, self._share or 0.0)
            self._first = self._first or (time.monotonic(), self._share)
        self._tell_listener()

    def _tell_listener(self) -> None:
        if self._listener is not None:
            self._listener(", ".join(filter(None, [self._phase, self._about])), self._share)

    def warm_up(self, steps: int, bits: float, of: int | None = None) -> None:
        """Tells of the steps of a format warm-up, and of the bits from its target.

        With `of`, of those of a pretraining, so many in all, and of its loss in bits a character.
        """
        phase = _WARMUP if of is None else _PRETRAINING
        if self._phase != phase:
            self.phase(phase)
        if of is None:
            self.move(None, f"{counted(steps, 'step')}, {bits:.3f} bits from its target")
        else:
            self.move(steps / of, f"{bits:.2f} bits a character")

    def __enter__(self) -> Self:
        if self._quiet:
            return self
        if self._console.is_terminal:
            both = sys.stdout.isatty()  # else what is meant for standard output would come out here
            self._live = Live(
                self,
                console=self._console,
                transient=True,
                refresh_per_second=_FRAMES_A_SECOND,
                redirect_stdout=both,
                redirect_stderr=both,
            )
            self._live.start()
        else:
            self._over.clear()
            tell = self._line_in_cell() if in_notebook() else self._print_lines
            self._lines = threading.Thread(target=tell, daemon=True)
            self._lines.start()
        return self

    def __exit__(self, *error: object) -> None:
        live, self._live, lines, self._lines = self._live, None, self._lines, None
        if live is not None:
            live.stop()
        if lines is not None:
            self._over.set()
            lines.join()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Removes the line while something else is printed; below the line of a notebook there is room."""
        if in_notebook():
            yield
            return
        shown = self._live is not None or self._lines is not None
        self.__exit__()
        try:
            yield
        finally:
            if shown:
                self.__enter__()

    def _print_lines(self) -> None:
        while not self._over.wait(SECONDS_A_LINE):
            words = f"{self._phase}: {', '.join(self._words())}"
            self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    def _line_in_cell(self) -> Callable[[], None]:
        """Begins a line in the output of a notebook's cell; what moves it, and empties it at the end."""
        from IPython.display import HTML, DisplayHandle

        line = DisplayHandle()
        line.display(HTML(self._as_html()))

        def move() -> None:
            while not self._over.wait(1 / _FRAMES_A_SECOND_IN_CELL):
                line.update(HTML(self._as_html()))
            line.update(HTML(""))

        return move

    def _as_html(self) -> str:
        bar = "" if self._share is None else f'<progress max="1" value="{self._share:.3f}"></progress> '
        words = ", ".join(filter(None, [self._about, self._time(), self._more()]))
        return f"<b>{escape(self._phase)}</b> {bar}{escape(words)}"

    def _words(self) -> list[str]:
        """What is known of the phase."""
        done = "" if self._share is None else f"{100 * self._share:.0f} % done"
        return [*filter(None, [self._about, done, self._time(), self._more()])]

    def _time(self) -> str:
        now = time.monotonic()
        if self._first is not None and self._share is not None:
            began, share = self._first
            gained, passed = self._share - share, now - began
            if gained >= _SHARE_TO_GUESS and passed >= _SECONDS_TO_GUESS:
                return f"about {duration(passed * (1 - self._share) / gained)} left"
        return f"{duration(now - self._began)} so far"

    def __rich__(self) -> Table:
        """One line, whatever the width: the end of its words is left out where there is no room."""
        words = ", ".join(filter(None, [self._about, self._time(), self._more()]))
        row: list[Text | ProgressBar] = [Text(self._phase, style="bold")]
        if self._share is not None:
            row.append(ProgressBar(total=1.0, completed=self._share, width=_BAR))
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True, min_width=len(self._phase))
        for _ in row:
            table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_row(*row, Text(words))
        return table
