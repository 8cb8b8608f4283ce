"""What a report shows first: the answer in words, and all conditions ranked against their ceilings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from memory_rl.analysis.comparison import Compared
from memory_rl.analysis.digits import rounded, short
from memory_rl.analysis.samples import gather
from memory_rl.errors import first_few
from memory_rl.reporting.claims import over_what, stuck_of, unseen
from memory_rl.reporting.comparison import RateComparison, compare_cells
from memory_rl.reporting.headline import ceiling, headline, share_of_ceiling
from memory_rl.reporting.implementation import soundness
from memory_rl.reporting.study import Entry, Label, Study
from memory_rl.reporting.values import in_words

_LINEAR = 20
"""Rates whose greatest is at most this many times the least are drawn on a linear axis."""

_ROOM = 1.25

_MOST_OTHERS = 2
"""The answer at as many other N is told in words."""

_MOST_NAMED = 4
"""As many decades have room for their names where two charts are side by side."""


@dataclass(frozen=True)
class Axis:
    """One axis for the rates of all charts, in percent of its length.

    Attributes:
        low, high: its ends, in bits per episode.
    """

    low: float
    high: float

    @property
    def is_log(self) -> bool:
        """Whether it is logarithmic: a linear one starts at 0."""
        return self.low > 0

    def place(self, bits: float | None) -> float | None:
        """Where a rate lies, from 0 to 100; None for what has no place on it."""
        if bits is None or (self.is_log and bits <= 0):
            return None
        part = math.log(bits / self.low) / math.log(self.high / self.low) if self.is_log else bits / self.high
        return round(100 * min(max(part, 0.0), 1.0), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and words: decades, or round steps; of more than four decades every other one has words."""
        if self.is_log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            values = [
                digit * 10.0**power for power in powers for digit in ((1,) if len(powers) > 1 else (1, 2, 5))
            ]
        else:
            step = 10 ** math.floor(math.log10(self.high / 2))
            step *= 2 if self.high / step > 6 else 1
            values = [step * place for place in range(int(self.high / step) + 1)]
        values = [value for value in values if value <= self.high]
        named = values[::-2] if self.is_log and len(values) > _MOST_NAMED else values
        return [(self.place(one) or 0.0, short(float(one)) if one in named else "") for one in values]


@dataclass(frozen=True)
class Row:
    """A condition in a ranked chart, with the places of its marks on the axis.

    Attributes:
        label: its name and look.
        words: bits per episode with their interval.
        share: of the ceiling, in words.
        rate, low, high, ceiling: places; None for what is not there.
        stuck: the runs that are, and how fast the others were; empty where none is.
    """

    label: Label
    words: str
    share: str
    rate: float | None
    low: float | None
    high: float | None
    ceiling: float | None
    stuck: str = ""


@dataclass(frozen=True)
class Chart:
    """The conditions of one N, the fastest first.

    Attributes:
        N: the size of the secret space.
        rows: of its conditions.
        sentence: which of them can be told apart; empty for one.
        notes: in what they are not alike.
        against: of each run directory, how it compares with the fastest.
    """

    N: int
    rows: Sequence[Row]
    sentence: str
    notes: Sequence[str]
    against: Mapping[str, Compared]

    @property
    def coloured(self) -> bool:
        """Whether each row has a colour of its own; labels of different groups may share one."""
        return len({row.label.color for row in self.rows}) == len(self.rows)


@dataclass(frozen=True)
class Answer:
    """The first screen.

    Attributes:
        sentences: what came out.
        charts: one for each N.
        axis: of all of them.
        over: what the intervals are over.
        unseen: what conditions without a stuck run could not have shown.
    """

    sentences: Sequence[str]
    charts: Sequence[Chart]
    axis: Axis
    over: str = "over runs"
    unseen: str = ""

    @property
    def some_stuck(self) -> bool:
        """Whether the charts rank conditions some of whose runs are stuck."""
        return any(row.stuck for chart in self.charts for row in chart.rows)

    @cached_property
    def notes(self) -> list[str]:
        """In what conditions are not alike, each once, and at which N if not at all."""
        met: dict[str, list[int]] = {}
        for chart in self.charts:
            for note in chart.notes:
                met.setdefault(note, []).append(chart.N)
        every = len(self.charts)
        return [
            note if len(sizes) == every else f"At N = {_listed(sizes)}: {note}" for note, sizes in met.items()
        ]


def make_answer(study: Study) -> Answer:
    """The answer of a study: in words, at the N with the most conditions first, then at others."""
    axis = _axis(study.entries)
    charts = [_chart(study, N, axis) for N in study.sizes]
    beside, reach = soundness(study), reach_of(study.entries)
    if len(study.entries) == 1:
        return Answer([headline(study.entries[0].cell), *beside], charts, axis, *reach)
    main = max(charts, key=lambda chart: (len(chart.rows), chart.N))
    of_main = [_span(study, main.N), *filter(None, [main.sentence])]
    return Answer([*of_main, *_others(study, main.N), *beside], charts, axis, *reach)


def reach_of(entries: Sequence[Entry]) -> tuple[str, str]:
    """What intervals are over, and what conditions without a stuck run could not have shown."""
    found = [stuck_of(entry.cell) for entry in entries]
    counts = [one.runs for one in found if one and not one.some]
    return over_what([entry.sample for entry in entries]), unseen(counts)


def _chart(study: Study, N: int, axis: Axis) -> Chart:
    entries = study.at(N)
    labels = {label.name: label for label in study.labels}
    compared = _compared(entries)
    return Chart(
        N,
        [_row(entry, labels[entry.label], axis) for entry in sorted(entries, key=_rate, reverse=True)],
        compared.outcome if compared else "",
        compared.warnings if compared else [],
        {str(cell.path): one for one in (compared.ranked if compared else ()) for cell in one.sample.cells},
    )


def _compared(entries: Sequence[Entry]) -> RateComparison | None:
    """None unless there are two conditions: runs that differ in their seed alone are one."""
    cells = [cell for entry in entries for cell in entry.sample.cells]
    return compare_cells(cells) if len(gather(cells)) > 1 else None


def _rate(entry: Entry) -> float:
    return entry.summary["bits_per_episode"]["estimate"] or 0.0


def _row(entry: Entry, label: Label, axis: Axis) -> Row:
    rate = entry.summary["bits_per_episode"]
    value, (low, high) = rate["estimate"], rate["ci95"]
    share = share_of_ceiling(entry.summary)
    most = ceiling(entry.summary)
    return Row(
        label,
        in_words({"rate": value, "low": low, "high": high}, ("rate", "low", "high")),
        f"{share} of {_bits(most)}" if share else f"ceiling {_bits(most)}",
        axis.place(value),
        None if high is None else axis.place(low) or 0.0,
        axis.place(high),
        axis.place(most),
        _aside(entry),
    )


def _axis(entries: Sequence[Entry]) -> Axis:
    found = [_rate(entry) for entry in entries] + [ceiling(entry.summary) for entry in entries]
    ends = [end for entry in entries for end in entry.summary["bits_per_episode"]["ci95"] if end]
    positive = [bits for bits in (*found, *ends) if bits > 0] or [1.0]
    high = max(positive)
    if high <= _LINEAR * min(positive):
        return Axis(0.0, _ROOM**0.3 * high)
    return Axis(min(positive) / _ROOM, high * _ROOM)


def _span(study: Study, N: int) -> str:
    """From how much to how much, with the ceilings."""
    least, *_, most = sorted([*study.at(N), *study.at(N)], key=_rate)
    if least.label == most.label:
        return f"At N = {N}: {headline(least.cell)}"
    span = f"between {_told(least)} and {_told(most)}"
    return f"At N = {N}, an episode put {span} into the model{_of_all(study.at(N))}."


def _others(study: Study, main: int) -> list[str]:
    """The same of the other N, in short; of many, of the least and the greatest."""
    others = [N for N in study.sizes if main != N]
    shown = others if len(others) <= _MOST_OTHERS else [others[0], others[-1]]
    rest = [N for N in others if N not in shown]
    return [
        *(_span_in_short(sorted(study.at(N), key=_rate), N) for N in shown),
        *([f"The charts below show N = {_listed(rest)}, too."] if rest else []),
    ]


def _span_in_short(ranked: Sequence[Entry], N: int) -> str:
    least, most = (
        f"{_bits(_rate(entry))} ({'; '.join(filter(None, [entry.label, _aside(entry)]))})"
        for entry in (ranked[0], ranked[-1])
    )
    if len(ranked) == 1:
        return f"At N = {N} it was {most}{_of_all(ranked)}."
    return f"At N = {N} it was between {least} and {most}{_of_all(ranked)}."


def _listed(sizes: Sequence[int]) -> str:
    """As in 4, 16 and 64."""
    return first_few([*map(str, sizes)])


def _told(entry: Entry) -> str:
    """As in 0.0235 bits (binary, 2.3 % of its 1-bit ceiling)."""
    share, rate = share_of_ceiling(entry.summary), entry.summary["bits_per_episode"]["estimate"]
    of = f", {share} of its {short(ceiling(entry.summary))}-bit ceiling" if share else ""
    stuck = _aside(entry)
    return f"{_bits(rate)} ({entry.label}{of}{f'; {stuck}' if stuck else ''})"


def _aside(entry: Entry) -> str:
    """Of a condition with runs that are stuck: how many, by which budget, and how fast the others were."""
    stuck = stuck_of(entry.cell)
    return stuck.aside if stuck and stuck.some else ""


def _of_all(entries: Sequence[Entry]) -> str:
    return ", over all runs up to their budgets" if any(map(_aside, entries)) else ""


def _bits(value: float | None) -> str:
    return "1 bit" if value == 1 else f"{rounded(value)} bits"


def against(answer: Answer) -> dict[str, dict[str, float | None]]:
    """Of each run directory, the columns of its ratio to the fastest of its N, and of the test."""
    rows = {}
    for chart in answer.charts:
        for path, one in chart.against.items():
            ratio = one.ratio
            rows[path] = {
                "ratio": ratio.value if ratio else 1.0,
                "ratio_low": ratio.low if ratio else None,
                "ratio_high": ratio.high if ratio else None,
                "p": one.holm_p,
            }
    return rows
