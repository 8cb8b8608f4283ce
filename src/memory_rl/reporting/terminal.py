"""What the terminal shows: a progress bar while runs learn, and the table at the end. All on standard output through rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

_FILE_WIDTH = 140


class State(Protocol):
    """How far an experiment is."""

    @property
    def episode(self) -> int:
        """Episodes that the active runs have seen."""

    @property
    def budget(self) -> int:
        """The most episodes of one run."""

    @property
    def mean_bits_known(self) -> float:
        """Over all runs."""

    @property
    def active(self) -> int:
        """Runs still learning."""


@contextmanager
def progress_bar(title: str, information: float) -> Iterator[Callable[[State], None]]:
    """A bar over episodes with the mean bits known; yields the function that moves it.

    Args:
        title: the condition.
        information: log2 N.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes | mean bits known {task.fields[bits]:.2f} of {task.fields[information]:.2f} | {task.fields[active]} runs learning"),
        TimeElapsedColumn(),
    )
    console = Console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None, bits=0.0, information=information, active=0)

        def move(state: State) -> None:
            progress.update(task, completed=state.episode, total=state.budget, bits=state.mean_bits_known, active=state.active)

        yield move


def results_table(conditions: Mapping[str, Mapping[str, Any]], path: str) -> Table:
    """The table that ends a run: a row a condition.

    Args:
        conditions: from summary.json.
        path: the run directory.
    """
    table = Table(caption=f"run directory: {path}", caption_justify="left")
    for heading in ("condition", "runs", "memorised", "median episodes [95 % CI]", "bits per episode [95 % CI]", "naive capacity"):
        table.add_column(heading, justify="left" if heading == "condition" else "right")
    for name, summary in conditions.items():
        episodes, rate = summary["episodes_to_memorise"], summary["bits_per_episode"]
        table.add_row(
            name,
            str(summary["runs"]),
            str(summary["memorised"]),
            f"{_count(episodes['median'])} [{_count(episodes['ci95'][0])}, {_count(episodes['ci95'][1])}]",
            f"{_rate(rate['estimate'])} [{_rate(rate['ci95'][0])}, {_rate(rate['ci95'][1])}]",
            f"{summary['ceilings']['capacity']:.3g} bits",
        )
    return table


def show(table: Table) -> None:
    """Prints a table; where output is not a terminal, wide enough for a row to stay one line."""
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
