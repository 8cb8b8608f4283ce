"""Numbers of a summary as the columns of a row, and in words: what terminal, page, Markdown and CSV share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memory_rl.analysis.digits import UNKNOWN, short
from memory_rl.analysis.statistics import Estimate, proportion
from memory_rl.reporting.wording import wording

MINDS = {
    "capacity": "naive capacity",
    "questioner": "ideal questioner",
    "observer": "ideal observer",
    "policy": "policy",
}
STEPS = {
    "alphabet": ("capacity", "questioner"),
    "exploration": ("questioner", "observer"),
    "absorption": ("observer", "policy"),
}


def spread(name: str) -> tuple[str, str, str]:
    """The columns of a value and the ends of its interval."""
    return name, f"{name}_low", f"{name}_high"


MEDIAN = ("median_episodes", "median_low", "median_high")
RATE = spread("bits_per_episode")
STUCK = spread("stuck")
OTHERS = spread("bits_per_episode_of_memorised")

Columns = Mapping[str, str | Sequence[str]]
"""From each heading to the column below it, or to those of a value and the ends of its interval."""


@dataclass(frozen=True)
class WordTable:
    """A table of the report.

    Attributes:
        rows: in words.
        headings: of its columns.
        title: above it.
        reading: how to read it.
        values: what each entry is sorted by; none if the table cannot be sorted.
        tips: what a heading means, shown where it is pointed at.
    """

    rows: Sequence[Sequence[str]]
    headings: Sequence[str]
    title: str
    reading: str
    values: Sequence[Sequence[Any]] = ()
    tips: Mapping[str, str] = field(default_factory=dict)


def word_table(name: str, rows: Iterable[Mapping[str, Any]], columns: Columns) -> WordTable:
    """A table with what is said about it in templates/wording.yaml."""
    found = list(rows)
    keys = [column if isinstance(column, str) else column[0] for column in columns.values()]
    values = [[row.get(key) for key in keys] for row in found]
    return WordTable(table_rows(found, columns), list(columns), **wording("tables", name), values=values)


def measured(summary: Mapping[str, Any], max_episodes: int | None = None) -> dict[str, Any]:
    """What came out of a cell, from its part of summary.json; intervals are columns of their own.

    Args:
        summary: of today, or of an older version, which has fewer intervals.
        max_episodes: the budget, where the summary does not tell it.
    """
    episodes, rate, ceilings = (
        summary[name] for name in ("episodes_to_memorise", "bits_per_episode", "ceilings")
    )
    row = {name: summary[name] for name in ("runs", "memorised", "censored")}
    row |= zip(MEDIAN, (episodes["median"], *episodes["ci95"]), strict=True)
    row["restricted_mean_episodes"] = episodes["restricted_mean"]
    row |= zip(RATE, (rate["estimate"], *rate["ci95"]), strict=True)
    row |= stuck_columns(summary, max_episodes)
    row |= {name: ceilings[name] for name in ("capacity", "shannon_capacity")}
    if "rates" in summary:
        row |= {f"{mind}_rate": summary["rates"][mind]["estimate"] for mind in ("questioner", "observer")}
        for step, factor in summary["losses"].items():
            low, high = loss_interval(summary, step)
            row[f"{step}_loss"] = factor
            row |= {} if step == "alphabet" else {f"{step}_loss_low": low, f"{step}_loss_high": high}
        row |= {f"law_{name}": check["status"] for name, check in summary["checks"].items()}
    return row


def stuck_columns(summary: Mapping[str, Any], max_episodes: int | None) -> dict[str, Any]:
    """The share of runs that are stuck, by which budget, and the rate of the others; None where not known."""
    runs, censored = summary["runs"], summary["censored"]
    counted = runs > 0 and summary["memorised"] + censored == runs  # of what was not measured neither is
    given = summary.get("stuck") or (proportion(censored, runs).as_dict() if counted else _NOTHING)
    others = summary.get("of_memorised", {}).get("bits_per_episode", _NOTHING)
    budget = summary.get("episodes") or given.get("budget") or max_episodes  # a recorded run has its own
    return {
        **dict(zip(STUCK, (given["estimate"], *given["ci95"]), strict=True)),
        "budget": budget,
        **dict(zip(OTHERS, (others["estimate"], *others["ci95"]), strict=True)),
    }


_NOTHING = Estimate(None).as_dict()


def loss_interval(summary: Mapping[str, Any], step: str) -> tuple[float | None, float | None]:
    """The ends of a loss's interval, paired run by run; that of the alphabet is computed and has none."""
    low, high = summary.get("losses_ci95", {}).get(step) or (None, None)
    return low, high


def counted(value: float, thing: str, digits: int = 3) -> str:
    """How many of a thing there are: 1 bit, 0.049 bits, 524,288 episodes."""
    words = short(float(value), digits)
    return f"{words} {thing}{'' if words == '1' else 's'}"


def number(value: Any, digits: int = 3) -> str:
    """A number, several numbers or a text as words; what is unknown as a dash."""
    if value is None:
        return UNKNOWN
    if isinstance(value, list | tuple):
        return ", ".join(number(item, digits) for item in value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return short(float(value), digits) if is_number else str(value)


def in_words(row: Mapping[str, Any], columns: str | Sequence[str]) -> str:
    """A number, or one with its interval, as in 0.05 [0.03, 0.08]; columns that the row lacks are unknown.

    What lies beyond the budget says so, and an interval that bounds nothing is left out.
    """
    if isinstance(columns, str):
        return number(row.get(columns))
    value, *interval = map(row.get, columns)
    beyond = columns == MEDIAN and any(row.get(name) is not None for name in ("runs", *MEDIAN))
    words = "beyond budget" if beyond and value is None else number(value)
    low, high = interval or (None, None)
    if high is None and not low:
        return words
    return f"{words} [{number(low)}, {'beyond' if beyond and high is None else number(high)}]"


def in_brackets(value: Estimate) -> str:
    """An estimate with its interval, as in 0.05 [0.04, 0.06]; alone, if it has none."""
    if value.low is None and value.high is None:
        return number(value.value)
    return f"{number(value.value)} [{number([value.low, value.high])}]"


def loss_words(
    step: str,
    factor: float | None,
    above: float | None,
    ends: tuple[float | None, float | None] = (None, None),
) -> str:
    """The factor lost at a step whose upper rate is `above`, in words, with the ends of its interval."""
    if not factor:  # 0 in a summary of an observer that never knew S
        return f"{step}: all lost" if above else f"{step}: unknown"
    if factor >= 1:
        return f"{step} \u00f7{in_brackets(Estimate(factor, *ends))}"
    gain = Estimate(1 / factor, *(1 / end if end else None for end in reversed(ends)))
    return f"{step} \u00d7{in_brackets(gain)} (a gain)"


def table_rows(rows: Iterable[Mapping[str, Any]], table: Columns) -> list[list[str]]:
    """Rows in words."""
    return [[in_words(row, columns) for columns in table.values()] for row in rows]


def duration(seconds: float) -> str:
    """A time as a person would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
