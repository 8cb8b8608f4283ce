"""A comparison of conditions in words: what came out in a sentence, what is not alike, and a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.analysis.collect import Cell, Damage, Survey, survey
from memory_rl.analysis.comparison import Compared, Reference, frame_of, rank_rates
from memory_rl.analysis.digits import UNKNOWN
from memory_rl.analysis.samples import Sample, gather
from memory_rl.analysis.statistics import Estimate
from memory_rl.errors import RunDirectoryError, first_few
from memory_rl.files import Json
from memory_rl.reporting.claims import OTHERS_HEAD, STUCK_HEAD, about_stuck, one_budget, over_what, stuck_in
from memory_rl.reporting.sheets import Sheet, plain
from memory_rl.reporting.study import names_by_keys
from memory_rl.reporting.values import in_brackets, number

if TYPE_CHECKING:
    import polars as pl

_SAME = {
    "num_secrets": (1, "the runs have not the same number of bits to learn"),
    "memorised_at": (None, "to have memorised means another probability of the secret in each"),
    "memorised_share": (None, "to have memorised means another share of the secrets in each"),
}
"""Keys in which conditions should not differ: the value of runs that lack it, and what a difference means.

Runs of one secret have no share, so that it is compared among the others alone.
"""


@dataclass(frozen=True)
class RateComparison:
    """Conditions compared by their bits per episode, the fastest first; `print` shows all of it.

    Attributes:
        ranked: the conditions.
        reference: the one of them that the others are compared with.
        warnings: a sentence on each thing in which they are not alike, and on what was left out.
    """

    ranked: Sequence[Compared]
    reference: Compared
    warnings: Sequence[str]

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per condition, the fastest first.

        rank, name, condition, N, runs, memorised; bits_per_episode and ratio (to the reference), each with
        its 95 % interval as _low and _high; stuck, the share of runs that did not memorise within the
        budget, which is null where all did, and bits_per_episode_of_memorised, the rate of the others, both
        with their intervals; log_rank_p against the reference, holm_p the same adjusted for all tests, apart
        whether the two are told apart at 5 %; paths of the run directories.
        """
        return frame_of(self.ranked)

    @property
    def sentence(self) -> str:
        """What came out, and of the conditions whose rates are told how many runs are stuck."""
        few = len(self.ranked) == 2
        named = [one for one in self.ranked if few or one is self.ranked[0] or one is self.reference]
        return self.outcome + _asides(named)

    @property
    def outcome(self) -> str:
        """The same without what is stuck, for where that stands beside it."""
        others = [one for one in self.ranked if one is not self.reference]
        if len(others) == 1:
            return _of_two(self.reference, *others)
        return _of_many(self.ranked, self.reference, others)

    def as_dict(self) -> Json:
        """The same for JSON: sentence, warnings, name of the reference, and rows."""
        return {
            "sentence": self.sentence,
            "warnings": [*self.warnings],
            "reference": self.reference.name,
            "rows": self.frame.to_dicts(),
        }

    def sheet(self) -> Sheet:
        """For the terminal, one row per condition."""
        to = "the best" if self.reference is self.ranked[0] else self.reference.name
        read = f"Ratio and p, of the log-rank test adjusted for all tests: against {to}."
        found = [stuck_in(one.sample) for one in self.ranked]
        columns = {
            "rank": [str(place) for place in range(1, len(self.ranked) + 1)],
            "condition": [one.name for one in self.ranked],
            "memorised": [f"{one.sample.memorised} of {one.sample.runs}" for one in self.ranked],
            "bits per episode": [in_brackets(one.sample.rate) for one in self.ranked],
            "ratio": ["" if one.ratio is None else in_brackets(one.ratio) for one in self.ranked],
            "p": ["" if one.ratio is None else _p(one.holm_p) for one in self.ranked],
        }
        if any(one.some for one in found):
            columns |= {STUCK_HEAD: [one.in_a_column(one_budget(found)) for one in found]}
            columns |= {OTHERS_HEAD: [one.others_in_a_cell for one in found]}
        over = f"In brackets: 95 %, {over_what([one.sample for one in self.ranked])}."
        return Sheet(
            [*columns],
            [[*row] for row in zip(*columns.values(), strict=True)],
            spare=["rank", "memorised", "p"] if STUCK_HEAD in columns else ["rank", "memorised"],
            words=["condition"],
            caption="\n".join(filter(None, [f"{read} {over}", about_stuck(found)])),
        )

    def __repr__(self) -> str:
        notes = (f"note: {warning}" for warning in self.warnings)
        sheet = self.sheet()
        return "\n".join([self.sentence, plain(sheet), sheet.caption, *notes])

    def _repr_html_(self) -> str:
        from memory_rl.reporting.notebook import answer_html

        return answer_html(self.sentence, [self.sheet()], self.warnings)


def compare_paths(paths: Iterable[str | Path | Cell], to: Reference = "best") -> RateComparison:
    """Compares the conditions of run directories, of folders that hold some, or of cells.

    Within a folder, runs that differ in their seed alone are one condition; what is given apart stays apart.
    What is not finished or damaged is left out.

    Raises:
        RunDirectoryError: if a path is missing, or they hold fewer than two conditions with finished runs.
    """
    samples, left_out = finished_samples(paths)
    return _compare(samples, to, left_out)


def finished_samples(paths: Iterable[str | Path | Cell]) -> tuple[list[Sample], list[str]]:
    """The finished runs at or below some paths, by condition, and sentences on what is left out."""
    samples, left_out, met = list[Sample](), list[str](), set[Path]()
    for path in paths:
        found = Survey([path], []) if isinstance(path, Cell) else survey([path], tables=True)
        new = [cell for cell in found.cells if cell.path.resolve() not in met]
        met |= {cell.path.resolve() for cell in new}
        gathered = gather(cell for cell in new if cell.completed)
        samples += gathered
        left_out += [*_repeated(new, gathered), *_left_out(new, found.damages)]
    return samples, left_out


def compare_cells(cells: Sequence[Cell], to: Reference = "best") -> RateComparison:
    """Compares the conditions of cells, those that differ in their seed alone as one.

    Raises:
        RunDirectoryError: if they are of fewer than two conditions with finished runs.
    """
    samples = gather(cell for cell in cells if cell.completed)
    return _compare(samples, to, [*_repeated(cells, samples), *_left_out(cells, [])])


def _compare(samples: Sequence[Sample], to: Reference, left_out: Sequence[str]) -> RateComparison:
    if len(samples) < 2:
        there = f"{samples[0].first.path} is all there is" if samples else "there is nothing"
        raise RunDirectoryError(
            f"{there} to compare: give two finished runs or more{f'; {left_out[0]}' if left_out else '.'}"
        )
    ranked, reference = rank_rates(dict(zip(names_of(samples), samples, strict=True)), to)
    return RateComparison(ranked, reference, [*_unlike(ranked), *_contradictions(ranked), *left_out])


def names_of(samples: Sequence[Sample]) -> list[str]:
    """What sets each apart, as in a list: its condition, the keys in which it departs from others, and N."""
    names = names_by_keys([sample.first for sample in samples])
    if len({sample.first.N for sample in samples}) > 1:
        names = [f"{name} N={sample.first.N}" for name, sample in zip(names, samples, strict=True)]
    twice = Counter(names)
    paths = (str(sample.first.path) for sample in samples)
    return [f"{name} ({path})" if twice[name] > 1 else name for name, path in zip(names, paths, strict=True)]


def _p(p: float | None) -> str:
    return UNKNOWN if p is None else "<0.001" if p < 0.001 else f"{p:.2g}"


def _test(one: Compared) -> str:
    """The test behind a statement about two conditions, in brackets."""
    p = _p(one.log_rank_p)
    return "" if p == UNKNOWN else f" (log-rank p {p[0]} {p[1:]})" if p[0] == "<" else f" (log-rank p = {p})"


def _of_two(reference: Compared, other: Compared) -> str:
    first, second = (reference, other) if _is_slower(other) else (other, reference)
    rates = f"{in_brackets(first.sample.rate)} against {in_brackets(second.sample.rate)} bits an episode"
    rates += _of_all([reference, other])
    if other.apart is None:
        return f"{first.name} and {second.name}: {rates}, without an interval that could tell them apart."
    if not other.apart:
        return f"{first.name} and {second.name} cannot be told apart: {rates}{_test(other)}."
    return f"{first.name} learns {_times(other)} as fast as {second.name}: {rates}{_test(other)}."


def _stuck(ranked: Sequence[Compared]) -> list[Compared]:
    return [one for one in ranked if one.sample.memorised < one.sample.runs]


def _of_all(ranked: Sequence[Compared]) -> str:
    """What rates are over where some runs are stuck."""
    return " over all runs up to the budget" if _stuck(ranked) else ""


def _asides(ranked: Sequence[Compared]) -> str:
    """A sentence on each condition with runs that are stuck."""
    return "".join(f" {one.name}: {stuck_in(one.sample).aside}." for one in _stuck(ranked))


def _times(other: Compared) -> str:
    """How many times the faster of two is faster; at least so many, where the slower never memorised."""
    ratio = other.ratio or Estimate(None)
    ends = [ratio.value, ratio.low, ratio.high]
    if _is_slower(other):
        ends = [1 / end if end else None for end in (ratio.value, ratio.high, ratio.low)]
    value, low, high = ends
    if value is None:
        return f"at least {number(low)} times"
    return f"{in_brackets(Estimate(value, low, high))} times"


def _is_slower(one: Compared) -> bool:
    return one.ratio is not None and one.ratio.value is not None and one.ratio.value < 1


def _of_many(ranked: Sequence[Compared], reference: Compared, others: Sequence[Compared]) -> str:
    best = ranked[0]
    rate = f"{in_brackets(best.sample.rate)} bits an episode{_of_all(ranked)}"
    start = f"Of {len(ranked)} conditions {best.name} is the fastest with {rate}"
    groups: dict[str, list[str]] = {"faster": [], "slower": [], "not told apart": []}
    for one in others:
        groups[("slower" if _is_slower(one) else "faster") if one.apart else "not told apart"].append(
            one.name
        )
    alike = groups["not told apart"]
    if reference is not best:
        parts = (f"{first_few(names)} {_is(names)} {what}" for what, names in groups.items() if names)
        return (
            f"{start}; against {reference.name} ({in_brackets(reference.sample.rate)}), {'; '.join(parts)}."
        )
    if len(alike) == len(others):
        return f"{start}, but cannot be told apart from any other."
    return f"{start}, and is told apart from all others{f' but {first_few(alike)}' if alike else ''}."


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _unlike(ranked: Sequence[Compared]) -> Iterator[str]:
    """Sentences on what makes the conditions hard to compare."""
    settings = [one.sample.first.settings for one in ranked]
    sizes = sorted({one.sample.first.N for one in ranked})
    if len(sizes) > 1:
        yield (
            f"N differs ({_listed(sizes)}): bits per episode can be compared, but not episodes, so that "
            "there is no log-rank test across N."
        )
    for key, (lacking, meaning) in _SAME.items():
        values = dict.fromkeys(one.get(key, lacking) for one in settings)
        values.pop(None, None)
        if len(values) > 1:
            yield f"{key} differs ({_listed(values)}): {meaning}."
    yield from _about_secrets(ranked)
    budgets = sorted({int(one["max_episodes"]) for one in settings})
    censored = [one.name for one in ranked if one.sample.memorised < one.sample.runs]
    if len(budgets) > 1 and censored:
        yield (
            f"max_episodes differs ({_listed(budgets)}), and not all runs of {first_few(censored)} memorised "
            "within it: with another budget their rates would be other ones."
        )
    single = [one.name for one in ranked if one.sample.runs == 1]
    if single:
        yield f"{first_few(single)} {'has' if len(single) == 1 else 'have'} a single run, and so no interval."


def _about_secrets(ranked: Sequence[Compared]) -> Iterator[str]:
    fixed = {one.name: one.sample.first.settings.get("fixed_secret") for one in ranked}
    given = [name for name, secret in fixed.items() if secret is not None]
    if not given:
        return
    if len(given) < len(fixed):
        yield (
            f"fixed_secret differs: all runs of {first_few(given)} learn one given secret, while those of "
            "the others each learn a random one, so that what came out may be about that secret."
        )
    else:
        secrets = _listed(dict.fromkeys(fixed.values()))
        yield f"fixed_secret={secrets} in all runs: what came out may be about that secret."


def _contradictions(ranked: Sequence[Compared]) -> Iterator[str]:
    """Where the test of the whole curves and the ratio of the rates do not say the same."""
    names = [
        one.name for one in ranked if None not in (one.apart, one.beyond_one) and one.apart != one.beyond_one
    ]
    if names:
        yield (
            f"{first_few(names)}: the log-rank test and the interval of the ratio do not say the same, since "
            "the test weighs every run alike, the rate those that take long."
        )


def _repeated(cells: Iterable[Cell], samples: Sequence[Sample]) -> Iterator[str]:
    """A sentence on the cells that count no more, since a larger one of the same seed does."""
    used = {id(cell) for sample in samples for cell in sample.cells}
    paths = [str(cell.path) for cell in cells if cell.completed and id(cell) not in used]
    if paths:
        yield f"{first_few(paths)} {_is(paths)} not counted again: the same runs are in another folder, too."


def _left_out(cells: Iterable[Cell], damages: Iterable[Damage]) -> Iterator[str]:
    for cell in cells:
        if not cell.completed:
            yield f"{cell.path} is left out, since it is not finished ({cell.ended})."
    for damage in damages:
        yield f"{damage.path} is left out, since it is {damage.how}: {damage.why}"


def _listed(values: Iterable[Any]) -> str:
    """Whole ones as they are typed: a comma within 4,000 would look like one between two values."""
    return ", ".join(str(value) if isinstance(value, int) else number(value) for value in values)
