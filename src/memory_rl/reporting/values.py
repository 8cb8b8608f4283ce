"""Numbers of a summary as the columns of a row, and in words: what terminal, page, Markdown and CSV share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNKNOWN = "-"

MINDS = {
    "capacity": "channel capacity",
    "questioner": "ideal questioner",
    "observer": "ideal observer",
    "policy": "policy",
}
STEPS = {
    "alphabet": ("capacity", "questioner"),
    "exploration": ("questioner", "observer"),
    "absorption": ("observer", "policy"),
}
MEDIAN = ("median_episodes", "median_low", "median_high")
RATE = ("bits_per_episode", "bits_per_episode_low", "bits_per_episode_high")

Columns = Mapping[str, Sequence[str]]
"""From each heading to the column below it, or to those of a value and the ends of its interval."""


@dataclass(frozen=True)
class WordTable:
    """A table of the report.

    Attributes:
        rows: in words.
        headings: of its columns.
        title: above it.
        reading: how to read it.
    """

    rows: Sequence[Sequence[str]]
    headings: Sequence[str]
    title: str
    reading: str


def measured(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What came out of a cell, from its part of summary.json; intervals are columns of their own."""
    episodes, rate, ceilings = (
        summary[name] for name in ("episodes_to_memorise", "bits_per_episode", "ceilings")
    )
    row = {name: summary[name] for name in ("runs", "memorised", "censored")}
    row |= zip(MEDIAN, (episodes["median"], *episodes["ci95"]), strict=True)
    row["restricted_mean_episodes"] = episodes["restricted_mean"]
    row |= zip(RATE, (rate["estimate"], *rate["ci95"]), strict=True)
    row |= {name: ceilings[name] for name in ("capacity", "shannon_capacity")}
    if "rates" in summary:
        row |= {f"{mind}_rate": summary["rates"][mind]["estimate"] for mind in ("questioner", "observer")}
        row |= {f"{step}_loss": factor for step, factor in summary["losses"].items()}
        row |= {f"law_{name}": check["status"] for name, check in summary["checks"].items()}
    return row


def short(value: float, digits: int = 3) -> str:
    """A number with this many digits, whole numbers in full; never with a positive exponent."""
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if value.is_integer() else f"{float(text):,.0f}" if "e+" in text else text


def number(value: Any, digits: int = 3) -> str:
    """A number, several numbers or a text as words; what is unknown as a dash."""
    if value is None:
        return UNKNOWN
    if isinstance(value, list | tuple):
        return ", ".join(number(item, digits) for item in value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return short(float(value), digits) if is_number else str(value)


def with_interval(value: Any, *interval: Any) -> str:
    """A number with its 95 % interval, if it has one, as in 0.05 [0.03, 0.08]."""
    return f"{number(value)} [{number(interval)}]" if interval else number(value)


def table_rows(rows: Iterable[Mapping[str, Any]], table: Columns) -> list[list[str]]:
    """Rows in words; columns that they lack are unknown."""
    return [
        [with_interval(*(row.get(column) for column in columns)) for columns in table.values()]
        for row in rows
    ]
