"""What is shown of a sweep while it runs: how many cells are done, which are at work, and how far."""

from __future__ import annotations

import time
from collections.abc import Mapping

from memory_rl.reporting.progress import Progress
from memory_rl.reporting.values import duration


class Running:
    """The cells of a sweep, of which some are done and some at work.

    Args:
        progress: the line that shows them.
        names: of those that are to be run, by id.
        costs: what each may take, in seconds, by id.
        done: how many are complete already.
    """

    def __init__(
        self, progress: Progress, names: Mapping[str, str], costs: Mapping[str, float], done: int
    ) -> None:
        self._progress, self._names, self._costs = progress, names, costs
        self._all = sum(costs.values()) or 1.0
        self.done, self.total = done, done + len(costs)
        self._since = dict[str, float]()
        self._spent = self._share = 0.0
        self._words = ""
        self._show()

    def begin(self, cell: str) -> None:
        """Notes that a worker has taken a cell; may be called from any thread."""
        self._since.setdefault(cell, time.monotonic())

    def tell(self, cell: str, words: str, share: float | None) -> None:
        """Tells of the one cell of this process which phase it is in, and how much of it is done."""
        self._words, self._share = words, self._costs[cell] * (share or 0.0)
        self._show()

    def end(self, cell: str) -> None:
        """Notes that a cell came to its end."""
        self._since.pop(cell, None)
        self.done, self._spent = self.done + 1, self._spent + self._costs[cell]
        self._words, self._share = "", 0.0
        self._show()

    def _show(self) -> None:
        share = (self._spent + self._share) / self._all
        self._progress.move(share, f"{self.done} of {self.total}", self.at_work)

    def at_work(self) -> str:
        """In words: the cell of this process and its phase, or how many are at work and for how long."""
        since = dict(self._since)
        if not since:
            return ""
        longest = min(since, key=lambda cell: since[cell])
        if self._words:
            return f"{self._words} ({self._names[longest]})"
        which = "" if len(since) == 1 else ", the longest"
        spent = f"for {duration(time.monotonic() - since[longest])} ({self._names[longest]})"
        return f"{len(since)} at work{which} {spent}"
