"""What the terminal shows, on standard output through rich: a progress bar, and tables before and after."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from memory_rl.analysis.summary import about_prior
from memory_rl.reporting.values import MEDIAN, MINDS, RATE, STEPS, measured, number, short, table_rows

_FILE_WIDTH = 140
_RESULTS = {
    "condition": "condition",
    "runs": "runs",
    "memorised": "memorised",
    "median episodes [95 % CI]": MEDIAN,
    "bits per episode [95 % CI]": RATE,
    "naive capacity in bits": "capacity",
}


class ProgressBar(Progress):
    """Shows how far an experiment is: a bar over episodes with the mean bits known.

    Args:
        title: the condition.
        N: the size of the secret space.
        budget: the most episodes of one run.
        quiet: shows nothing; nor is anything shown where output is not a terminal.
    """

    def __init__(self, title: str, N: int, budget: int, quiet: bool) -> None:
        console = _for_progress(quiet)
        bits = f"mean bits known {{task.fields[bits]:.2f}} of {math.log2(N):.2f}"
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"episodes | {bits} | {{task.fields[active]}} runs learning"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=console.quiet,
        )
        self._episodes = self.add_task(escape(title), total=budget, bits=0.0, active=0)

    def move(self, episode: int, mean_bits_known: float, active: int) -> None:
        """Moves the bar; see `memory_rl.training.meter.Watcher`."""
        self.update(self._episodes, completed=episode, bits=mean_bits_known, active=active)


class WarmupProgress(Progress):
    """Shows how far a format warm-up is, once there is one.

    Args:
        quiet: shows nothing; nor is anything shown where output is not a terminal.
    """

    def __init__(self, quiet: bool) -> None:
        console = _for_progress(quiet)
        super().__init__(
            TextColumn(
                "format warm-up: {task.completed} steps, {task.fields[bits]:.3f} bits from its target"
            ),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=console.quiet,
        )
        self._steps = self.add_task("", total=None, bits=math.inf, visible=False)

    def move(self, steps: int, bits: float) -> None:
        """Shows the steps so far, and the bits from the target."""
        self.update(self._steps, completed=steps, bits=bits, visible=True)


def _for_progress(quiet: bool) -> Console:
    console = Console()
    console.quiet = quiet or not console.is_terminal
    return console


def results_table(conditions: Mapping[str, Mapping[str, Any]], path: str) -> Table:
    """The table that ends a run: one row per condition.

    Args:
        conditions: from summary.json.
        path: the run directory.
    """
    rows = [{"condition": name, **measured(summary)} for name, summary in conditions.items()]
    priors = [about_prior(summary) for summary in conditions.values()]
    caption = "\n".join([*filter(None, priors), f"run directory: {path}"])
    return make_table(_RESULTS, table_rows(rows, _RESULTS), caption=caption, caption_justify="left")


def ceilings_table(condition: str, N: int, memorised_at: float, ceilings: Mapping[str, Any]) -> Table:
    """What a condition can teach at most, before anything is trained.

    Args:
        condition: its name.
        N: the size of the secret space.
        memorised_at: the probability at which S counts as memorised.
        ceilings: as in summary.json.
    """
    first, asker = ceilings["first_episode"], ceilings["ideal_questioner"]
    rows = [
        ("naive capacity, log2 of the levels", ceilings["capacity"], "bits per episode"),
        ("Shannon capacity, the most an answer can tell", ceilings["shannon_capacity"], "bits per episode"),
        ("first episode, best answer", first["best"], "bits"),
        ("first episode, mean answer", first["mean"], "bits"),
    ]
    if asker is not None:
        aims = {"to_reach": f"P(S) >= {memorised_at:g}", "to_know": "knows S", "to_hit": "answers S"}
        rows += [
            (f"ideal questioner ({asker['method']}): {aim}", asker[name], "episodes")
            for name, aim in aims.items()
        ]
    rows.append(("optimal questioner: knows S", ceilings["optimal_to_know"], "episodes"))
    headings = ("what", "at most" if asker is None else "value", "unit")
    words = [(what, f"{value:.4g}", unit) for what, value, unit in rows if value is not None]
    title = f"{condition}, N = {N}: ceilings"
    return make_table(headings, words, left=("what", "unit"), title=title, title_justify="left")


def waterfall_table(conditions: Mapping[str, Mapping[str, Any]]) -> Table:
    """Where the bits go: the rate of each mind in bits per episode, and the factor lost at each step.

    Conditions without a ledger are left out.
    """
    title = "bits per episode, from what the channel could carry to what was learned (in brackets: the loss)"
    headings = ("condition", *(name.removeprefix("channel ") for name in MINDS.values()), "laws")
    rows = [_waterfall_row(name, summary) for name, summary in conditions.items() if "rates" in summary]
    return make_table(headings, rows, title=title, title_justify="left")


def _waterfall_row(name: str, summary: Mapping[str, Any]) -> list[str]:
    rates, lost = summary["rates"], summary["losses"]
    words = {mind: number(rates[mind]["estimate"]) for mind in MINDS}
    for step, (_, below) in STEPS.items():
        words[below] += "" if lost[step] is None else f" ({step} {short(lost[step])}x)"
    laws = sorted({check["status"] for check in summary["checks"].values()})
    return [name, *words.values(), ", ".join(laws)]


def make_table(
    headings: Iterable[str],
    rows: Iterable[Sequence[str]],
    left: Sequence[str] = ("condition",),
    **about: Any,
) -> Table:
    """A table for the terminal.

    Args:
        headings: of its columns.
        rows: in words.
        left: the headings of words; other columns hold numbers, and are set to the right.
        about: title and caption, passed on to rich.
    """
    for name in about.keys() & {"title", "caption"}:
        about[name] = escape(about[name])
    table = Table(**about)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def show(table: Table) -> None:
    """Prints a table that has rows; where output is not a terminal, a row stays one line."""
    if not table.row_count:
        return
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)
