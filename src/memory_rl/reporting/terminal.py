"""What the terminal shows: a progress bar while runs learn, and the table at the end. All on standard output
through rich.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_FILE_WIDTH = 140


class ProgressBar:
    """A sink that shows how far an experiment is: a bar over episodes with the mean bits known.

    Args:
        title: the condition.
        N: the size of the secret space.
        budget: the most episodes of one run.
        quiet: shows nothing.
    """

    def __init__(self, title: str, N: int, budget: int, quiet: bool) -> None:
        self._bar: Any = None
        console = Console()
        if quiet or not console.is_terminal:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes | mean bits known {task.fields[bits]:.2f} of {task.fields[of]:.2f}"),
            TextColumn("| {task.fields[active]} runs learning"),
            TimeElapsedColumn(),
        )
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task(title, total=budget, bits=0.0, of=math.log2(N), active=0)

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def take(self, table: str, rows: object) -> None:
        """Nothing to show."""

    def evaluated(self, episode: int, mean_bits_known: float, active: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=episode, bits=mean_bits_known, active=active)


def results_table(conditions: Mapping[str, Mapping[str, Any]], path: str) -> Table:
    """The table that ends a run: a row a condition.

    Args:
        conditions: from summary.json.
        path: the run directory.
    """
    table = Table(caption=f"run directory: {path}", caption_justify="left")
    for heading in (
        "condition",
        "runs",
        "memorised",
        "median episodes [95 % CI]",
        "bits per episode [95 % CI]",
        "naive capacity",
    ):
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


def ceilings_table(condition: str, N: int, memorised_at: float, ceilings: Mapping[str, Any]) -> Table:
    """What a condition can teach at most, before anything is trained.

    Args:
        condition: its name.
        N: the size of the secret space.
        memorised_at: the probability at which S counts as memorised.
        ceilings: as in summary.json.
    """
    first, asker, optimal = (
        ceilings["first_episode"],
        ceilings["ideal_questioner"],
        ceilings["optimal_to_know"],
    )
    rows = [
        ("naive capacity, log2 of the levels", ceilings["capacity"], "bits an episode"),
        ("Shannon capacity, the most an answer can tell", ceilings["shannon_capacity"], "bits an episode"),
        ("first episode, best answer", first["best"], "bits"),
        ("first episode, mean answer", first["mean"], "bits"),
    ]
    if asker is not None:
        method = f"ideal questioner ({asker['method']})"
        rows += [
            (f"{method}: P(S) >= {memorised_at:g}", asker["to_reach"], "episodes"),
            (f"{method}: knows S", asker["to_know"], "episodes"),
            (f"{method}: answers S", asker["to_hit"], "episodes"),
        ]
    if optimal is not None:
        rows.append(("optimal questioner: knows S", optimal, "episodes"))
    table = Table(title=f"{condition}, N = {N}: ceilings", title_justify="left")
    table.add_column("what")
    table.add_column("at most" if asker is None else "value", justify="right")
    table.add_column("unit")
    for what, value, unit in rows:
        if value is not None:
            table.add_row(what, f"{value:.4g}", unit)
    return table


def waterfall_table(conditions: Mapping[str, Mapping[str, Any]]) -> Table:
    """Where the bits go: the rate of each mind in bits an episode, and the factor lost at each step.
    Conditions without a ledger are left out.
    """
    table = Table(
        title="bits per episode, from what the channel could carry to what was learned; in brackets the factor lost on the way",
        title_justify="left",
    )
    for heading in ("condition", "capacity", "ideal questioner", "ideal observer", "policy", "laws"):
        table.add_column(heading, justify="left" if heading == "condition" else "right")
    for name, summary in conditions.items():
        if "rates" in summary:
            cells = [_rate(summary["rates"]["capacity"]["estimate"])]
            for mind, loss in (
                ("questioner", "alphabet"),
                ("observer", "exploration"),
                ("policy", "absorption"),
            ):
                factor = summary["losses"][loss]
                cells.append(
                    _rate(summary["rates"][mind]["estimate"])
                    + ("" if factor is None else f" ({loss} {factor:.3g}x)")
                )
            table.add_row(
                name, *cells, ", ".join(sorted({check["status"] for check in summary["checks"].values()}))
            )
    return table


def show(table: Table) -> None:
    """Prints a table that has rows; where output is not a terminal, wide enough for a row to stay one
    line.
    """
    if not table.row_count:
        return
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
