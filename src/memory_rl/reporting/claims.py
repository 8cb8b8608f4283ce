"""How far the numbers of a table reach: which runs are stuck, what so few runs cannot show, and over what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.digits import UNKNOWN, short
from memory_rl.analysis.samples import Sample
from memory_rl.analysis.statistics import Estimate, proportion
from memory_rl.reporting.values import OTHERS, STUCK, in_brackets, stuck_columns

STUCK_HEAD, OTHERS_HEAD = "stuck", "bits per episode\nof the others"
"""Headings of columns that are there where some run is stuck."""


@dataclass(frozen=True)
class Stuck:
    """The runs of a condition that did not memorise, and how fast the others were.

    Attributes:
        runs: how many there are.
        count: how many of them are stuck.
        share: of all, with a 95 % interval.
        budget: the episodes within which they did not memorise; None where that is not known.
        others: bits an episode of those that memorised; without a value where that is not known.
    """

    runs: int
    count: int
    share: Estimate
    budget: int | None
    others: Estimate

    @property
    def some(self) -> bool:
        """Whether there are runs of both kinds, or none that memorised."""
        return self.count > 0

    @property
    def at(self) -> str:
        """The budget, as in "at 4,000"; nothing where it is not known."""
        return "" if self.budget is None else f"at {self.budget:,}"

    def in_a_column(self, known: str | None = None) -> str:
        """For a table: 19 % [4, 46] at 4,000; a dash where no run is stuck.

        Args:
            known: the budget that stands below the table, as of `one_budget`, and not in its rows.
        """
        at = "" if self.at == known else self.at
        return f"{percent(self.share)} {at}".rstrip() if self.some else UNKNOWN

    @property
    def others_in_a_cell(self) -> str:
        """For a table: the rate of the others, where some are stuck."""
        return in_brackets(self.others) if self.some else UNKNOWN

    @property
    def aside(self) -> str:
        """Beside a rate of all: 3 of 16 runs, 19 % [4, 46], stuck at 4,000 episodes; the others 0.04."""
        start = f"{self.count} of {self.runs} runs, {percent(self.share)}, stuck"
        start += f" {self.at} episodes" if self.at else ""
        return start if self.others.value is None else f"{start}; the others {in_brackets(self.others)}"


def stuck_of_row(row: Mapping[str, Any]) -> Stuck | None:
    """From the columns of `memory_rl.reporting.values.measured`; None of what has no results."""
    runs, memorised = row.get("runs"), row.get("memorised")
    if runs is None or memorised is None or row.get(STUCK[0]) is None:
        return None
    share, others = (Estimate(*map(row.get, columns)) for columns in (STUCK, OTHERS))
    return Stuck(runs, runs - memorised, share, row.get("budget"), others)


def stuck_of(cell: Cell) -> Stuck | None:
    """Of a run directory; that of an older one does not tell how fast the others were."""
    columns = stuck_columns(cell.summary, cell.settings.get("max_episodes"))
    return stuck_of_row({**cell.summary, **columns})


def stuck_in(sample: Sample) -> Stuck:
    """Of the runs of a sample."""
    count = sample.runs - sample.memorised
    return Stuck(sample.runs, count, sample.stuck, sample.budget, sample.rate_of_memorised)


def about_stuck(found: Iterable[Stuck | None]) -> str:
    """Below a table: what its rates are of where runs are stuck, and what those without could not show."""
    known = [one for one in found if one is not None]
    some = [one for one in known if one.some]
    by = sorted({one.budget for one in some if one.budget is not None})
    upto = f", up to the budget of {' or '.join(f'{one:,}' for one in by)} episodes" if by else ""
    many = f", up to their budgets of {by[0]:,} to {by[-1]:,} episodes" if len(by) > 2 else upto
    of_all = f"Bits per episode: over all runs{many}, the stuck ones too." if some else ""
    return " ".join(filter(None, [of_all, unseen(one.runs for one in known if not one.some)]))


def one_budget(found: Iterable[Stuck | None]) -> str | None:
    """At which budget the runs of a table are stuck, if it is one for all."""
    budgets = {one.at for one in found if one and one.some}
    return budgets.pop() if len(budgets) == 1 else None


def percent(share: Estimate) -> str:
    """A share with its interval, as in 19 % [4, 46]."""
    ends = "" if share.low is None else f" [{_hundredths(share.low)}, {_hundredths(share.high)}]"
    return f"{_hundredths(share.value)} %{ends}"


def _hundredths(share: float | None) -> str:
    return UNKNOWN if share is None else short(100 * share, 2)


def unseen(of_runs: Iterable[int], *, alone: bool = False) -> str:
    """What tables say of conditions without a stuck run, by how many runs each has; nothing of single ones.

    Args:
        of_runs: the numbers of runs.
        alone: whether it is of one condition that is known to have no stuck run.
    """
    counts = sorted({runs for runs in of_runs if runs > 1})
    if not counts:
        return ""
    first, *more = counts if len(counts) < _MANY else [counts[0], counts[-1]]
    if alone:
        return f"No run of {first:,} is stuck: fewer than {_missed(first)} are (95 %)."
    others = "".join(f"; of {runs:,}, fewer than {_missed(runs)}" for runs in more)
    return f"Where no run of {first:,} is stuck, fewer than {_missed(first)} are (95 %){others}."


_MANY = 4


def _missed(runs: int) -> str:
    return f"{_hundredths(proportion(0, runs).high)} %"


def over_what(samples: Sequence[Sample]) -> str:
    """What their intervals are over; the tabular learner has no base model."""
    shared = any(sample.shares_secrets for sample in samples)
    said = over([len(sample.bases) for sample in samples if has_base(sample.first)])
    return f"{said} with the same secrets" if shared else said


def over(bases: Sequence[int]) -> str:
    """The same, by how many base models each condition with any has."""
    counts = set(bases)
    if not counts:
        return "over runs"
    if max(counts) == 1:
        return f"over runs of one base model{' each' if len(bases) > 1 else ''}"
    several = " or ".join(str(count) for count in sorted(counts - {1}))
    return f"over {several} base models{', or runs where there is one' if 1 in counts else ''}"


def has_base(cell: Cell) -> bool:
    """Whether its runs learn from a base model."""
    return str(cell.config.get("backend")) != "tabular"
