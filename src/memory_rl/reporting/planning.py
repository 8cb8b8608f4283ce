"""A plan from a pilot, in words: how many runs tell a ratio apart, in a sentence and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.power import (
    FEWEST,
    Demand,
    Spread,
    interval_factor,
    rarest_seen,
    ratio_seen,
    runs_for_interval,
    runs_needed,
    spread_of,
    with_one_more_stuck,
)
from memory_rl.analysis.samples import Sample
from memory_rl.analysis.statistics import Estimate
from memory_rl.errors import RunDirectoryError, first_few
from memory_rl.files import Json
from memory_rl.reporting.comparison import finished_samples, names_of
from memory_rl.reporting.sheets import Sheet, plain
from memory_rl.reporting.values import in_brackets, number

if TYPE_CHECKING:
    import polars as pl

SIZES = (8, 16, 32, 64, 128)
"""Numbers of runs for which a plan says how wide the interval of a rate will be."""
_VAST = 1000
_FOR_WIDTH = "runs for\nthe width"


@dataclass(frozen=True)
class PlannedCondition:
    """What a condition of a pilot asks for.

    Attributes:
        name: unlike that of any other.
        sample: its runs in the pilot.
        spread: of the logarithm of its rate, for one run.
        runs_a_side: how many runs of it, and of one that it is compared with, meet the demand; its interval
            is that of the spread.
        ratio_seen: the smallest ratio that as many runs as the pilot has meet it for.
        factors: for each of `SIZES`, what the rate is divided by and multiplied with to give its interval.
        runs_if_stuck: runs a side, if the pilot had one more run and this were stuck; None where some are.
        runs_for_width: runs for the wanted interval, whose own interval is that of the spread; None without.
    """

    name: str
    sample: Sample
    spread: Spread
    runs_a_side: Estimate
    ratio_seen: float
    factors: Sequence[float]
    runs_if_stuck: int | None
    runs_for_width: Estimate | None = None

    @property
    def stuck(self) -> int:
        """How many runs of the pilot did not memorise."""
        return self.sample.runs - self.sample.memorised

    def as_row(self) -> Json:
        """Its columns of the frame."""
        low, high = self.runs_a_side.interval
        width = self.runs_for_width or Estimate(None)
        return {
            "name": self.name,
            "condition": self.sample.first.condition,
            "N": self.sample.first.N,
            "pilot_runs": self.sample.runs,
            "stuck": self.stuck,
            "spread": self.spread.value,
            "spread_low": self.spread.low,
            "spread_high": self.spread.high,
            "runs_a_side": self.runs_a_side.value,
            "runs_a_side_low": low,
            "runs_a_side_high": high,
            "runs_a_side_if_stuck": self.runs_if_stuck,
            "runs_for_width": width.value,
            "runs_for_width_low": width.low,
            "runs_for_width_high": width.high,
            "ratio_seen": self.ratio_seen,
            **{f"factor_{size}": value for size, value in zip(SIZES, self.factors, strict=True)},
            "paths": [str(cell.path) for cell in self.sample.cells],
        }


@dataclass(frozen=True)
class RunPlan:
    """How many runs a comparison needs, from the spread of a pilot's runs; `print` shows all of it.

    Attributes:
        demand: the ratio that is to be seen, with which power, at which alpha.
        conditions: of the pilot.
        notes: a sentence on each thing that is assumed, or was left out.
        width: the 95 % interval of a rate is to be from the rate / this to the rate x this; None: not asked.
    """

    demand: Demand
    conditions: Sequence[PlannedCondition]
    notes: Sequence[str]
    width: float | None = None

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per condition.

        name, condition, N, pilot_runs, stuck; spread and runs_a_side, each with its 95 % interval as _low and
        _high; runs_a_side_if_stuck, if the pilot had one more run and this were stuck; runs_for_width, for
        the wanted interval, also as _low and _high, null if none was asked for; ratio_seen with as
        many runs a side as the pilot has; factor_8 to factor_128, what a rate over so many runs is divided
        by and multiplied with to give its 95 % interval; paths of the run directories.
        """
        import polars as pl

        kinds: dict[str, Any] = {"name": pl.String, "condition": pl.String, "paths": pl.List(pl.String)}
        whole = ("N", "pilot_runs", "stuck", "runs_a_side", "runs_a_side_low", "runs_a_side_high")
        kinds |= dict.fromkeys((*whole, "runs_a_side_if_stuck"), pl.Int64)
        kinds |= dict.fromkeys(("runs_for_width", "runs_for_width_low", "runs_for_width_high"), pl.Int64)
        rows = [one.as_row() for one in self.conditions]
        return pl.DataFrame(rows, schema={name: kinds.get(name, pl.Float64) for name in rows[0]})

    @property
    def sentences(self) -> list[str]:
        """The answer: of the width first, if one is wanted, then of the ratio."""
        ratio, power = number(self.demand.ratio), _percent(self.demand.power)
        needed = {one.name: one.runs_a_side for one in self.conditions}
        about_ratio = _told(needed, "runs a side", f"a ratio of {ratio} is seen with a chance of {power}")
        if self.width is None:
            return [about_ratio]
        wide = {one.name: one.runs_for_width for one in self.conditions if one.runs_for_width}
        width = number(self.width)
        goal = f"the 95 % interval of a rate is from the rate / {width} to the rate x {width}"
        return [_told(wide, "runs", goal), about_ratio]

    @property
    def sentence(self) -> str:
        """The first of them."""
        return self.sentences[0]

    @property
    def rarest_seen(self) -> dict[int, float]:
        """For each of `SIZES` the frequency of a mishap that is seen at least once with 95 %."""
        return {size: rarest_seen(size) for size in SIZES}

    def as_dict(self) -> Json:
        """The same for JSON: sentence, notes, what is demanded, rarest_seen by runs, and rows."""
        return {
            "sentence": self.sentence,
            "sentences": self.sentences,
            "notes": [*self.notes],
            **vars(self.demand),
            "width": self.width,
            "rarest_seen": {str(size): share for size, share in self.rarest_seen.items()},
            "rows": self.frame.to_dicts(),
        }

    def sheet(self) -> Sheet:
        """For the terminal, one row per condition."""
        headings = [
            "condition",
            "pilot\nruns",
            "stuck",
            "spread",
            "runs\na side",
            "one\nstuck",
            "pilot\nsees",
        ]
        if self.width is not None:
            headings.insert(4, _FOR_WIDTH)
        return Sheet(
            [*headings, *map(str, SIZES)],
            [_row(one) for one in self.conditions],
            spare=["stuck", "spread", "pilot\nruns", "64", "16", "32"],
            words=["condition"],
            caption="\n".join(self._reading()),
        )

    def _reading(self) -> Iterator[str]:
        """What the columns of the table say."""
        if self.width is not None:
            width = number(self.width)
            yield f"runs for the width: the 95 % interval is from the rate / {width} to the rate x {width}."
        yield "runs a side: and as many of a condition of the same spread; in brackets 95 %."
        yield "one stuck: the same, had one more run of the pilot not memorised."
        yield "pilot sees: the least ratio for which the pilot's own number of runs would do."
        yield f"{SIZES[0]} to {SIZES[-1]} runs: the 95 % interval is from the rate / this to the rate x this."
        shares = ", ".join(number(100 * share, 2) for share in self.rarest_seen.values())
        sizes = ", ".join(map(str, SIZES))
        yield f"Seen at least once (95 %) by {sizes} runs: what befalls {shares} % of runs."

    def __repr__(self) -> str:
        sheet = self.sheet()
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([*self.sentences, plain(sheet), sheet.caption, *notes])

    def _repr_html_(self) -> str:
        from memory_rl.reporting.notebook import answer_html

        return answer_html(" ".join(self.sentences), [self.sheet()], self.notes)


def _told(needed: Mapping[str, Estimate], runs: str, goal: str) -> str:
    """How many runs reach a goal in every condition, and which of them need the most and the least."""
    most, least = (choose(needed, key=lambda name: needed[name].value or 0) for choose in (max, min))
    if len(needed) == 1:
        return f"With {in_brackets(needed[most])} {runs} of {most} {goal}."
    start = f"With {in_brackets(needed[most])} {runs} {goal} in every condition"
    if needed[least].value == needed[most].value:
        return f"{start}."
    return f"{start}: {most} needs that many, {least} {in_brackets(needed[least])}."


def plan_paths(paths: Iterable[str | Path | Cell], demand: Demand, width: float | None = None) -> RunPlan:
    """Plans from the conditions of run directories, of folders that hold some, or of cells.

    Args:
        paths: of them.
        demand: what is to be seen.
        width: of the wanted interval, see `RunPlan`; None for none.

    Raises:
        RunDirectoryError: if a path is missing, or no condition of them has a spread.
    """
    samples, left_out = finished_samples(paths)
    if not samples:
        why = left_out[0] if left_out else "type for example memory-rl plan runs/pilot."
        raise RunDirectoryError(f"there is no finished run to plan from: {why}")
    named = dict(zip(names_of(samples), samples, strict=True))
    lacking = {name: lack for name, sample in named.items() if (lack := _lack(sample))}
    planned = [_plan(name, sample, demand, width) for name, sample in named.items() if name not in lacking]
    if not planned:
        raise RunDirectoryError(
            f"nothing can be planned from {first_few([*lacking])}: {next(iter(lacking.values()))}."
        )
    unplanned = [f"{name} is left out: {lack}." for name, lack in lacking.items()]
    return RunPlan(demand, planned, [*_about_stuck(planned), *unplanned, *left_out], width)


def _lack(sample: Sample) -> str:
    """Why a sample has no spread; empty if it has one."""
    if sample.runs < FEWEST:
        return "a single run has no spread; give the pilot num_runs=8 or so"
    if not sample.memorised:
        return (
            f"none of its {sample.runs} runs memorised; give the pilot a larger max_episodes or a smaller N"
        )
    if not sample.times.episodes.any():
        return "its runs knew the secret before the first episode"
    return ""


def _plan(name: str, sample: Sample, demand: Demand, width: float | None) -> PlannedCondition:
    spread = spread_of(sample.times)
    needed = _at_ends(spread, lambda end: runs_needed(end, demand))
    for_width = None if width is None else _at_ends(spread, lambda end: runs_for_interval(end, width))
    if_stuck = None
    if sample.memorised == sample.runs:
        budget = max(cell.settings["max_episodes"] for cell in sample.cells)
        if_stuck = runs_needed(spread_of(with_one_more_stuck(sample.times, budget)).value, demand)
    seen = ratio_seen(sample.runs, spread.value, demand)
    factors = [interval_factor(size, spread.value) for size in SIZES]
    return PlannedCondition(name, sample, spread, needed, seen, factors, if_stuck, for_width)


def _at_ends(spread: Spread, runs_at: Callable[[float], int]) -> Estimate:
    """Runs for a spread, and for the ends of its interval."""
    ends = (spread.value, spread.low, spread.high)
    return Estimate(*(None if end is None else runs_at(end) for end in ends))


def _row(one: PlannedCondition) -> list[str]:
    return [
        one.name,
        str(one.sample.runs),
        str(one.stuck),
        number(one.spread.value),
        *([in_brackets(one.runs_for_width)] if one.runs_for_width else []),
        in_brackets(one.runs_a_side),
        number(one.runs_if_stuck),
        _ratio(one.ratio_seen),
        *map(_ratio, one.factors),
    ]


def _ratio(value: float) -> str:
    return f">{_VAST}" if value > _VAST else f"{value:.2f}" if value < 10 else number(value)


def _percent(share: float) -> str:
    return f"{number(100 * share, 2)} %"


def _about_stuck(planned: Sequence[PlannedCondition]) -> Iterator[str]:
    """What is assumed of runs that do not memorise."""
    stuck = [f"{one.stuck} of {one.sample.runs} runs of {one.name}" for one in planned if one.stuck]
    if stuck:
        yield (
            f"{first_few(stuck)} did not memorise: their episodes count in the rate and they do not, so "
            "the plan holds for this share of them and this max_episodes alone."
        )
    whole = [one.sample.runs for one in planned if not one.stuck]
    if whole:
        yield (
            f"{_percent(rarest_seen(min(whole)))} of all runs might get stuck where none of the pilot did, "
            f"and {min(whole)} runs would not have shown it (one time in 20): see the column one stuck."
        )
