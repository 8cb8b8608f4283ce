"""Run directories that differ in seed and base alone, as one: its tables are theirs, one below the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.samples import Sample
from memory_rl.analysis.summary import summarise
from memory_rl.analysis.survival import MemorisationTimes
from memory_rl.files import Json

_SHARED = ("warmup", "prior_skew", "trained_parameters", "device", "model")


@dataclass(frozen=True)
class Pooled(Cell):
    """The runs of a sample as those of one cell, whose path and settings are the first's.

    Runs are numbered on from cell to cell. Over several bases intervals of rates, losses, shares and curves
    are over bases; those of medians, restricted means and bits of the ledger are over runs.

    Attributes:
        sample: of two cells or more.
    """

    sample: Sample = field(repr=False)

    @cached_property
    def metrics(self) -> pl.DataFrame:
        """As of a cell; columns that some lack are null there."""
        return _below_each_other(cell.metrics for cell in self.sample.cells)

    @cached_property
    def episodes(self) -> pl.DataFrame:
        """As of a cell."""
        return _below_each_other(cell.episodes for cell in self.sample.cells)

    @cached_property
    def units(self) -> np.ndarray | None:
        """The base of each run: (R,); None with one base."""
        return self.sample.units if len(self.sample.bases) > 1 else None

    @cached_property
    def times(self) -> MemorisationTimes:
        """Of all runs, whose units are the bases if there are several."""
        return replace(self.sample.times, units=self.units)


def pooled(sample: Sample) -> Cell:
    """The sample as a cell: itself, if it has but one, else with a summary of all its runs."""
    first = sample.first
    if len(sample.cells) == 1:
        return first
    summaries = [each.summary for each in sample.cells]
    cell = Pooled(first.path, first.manifest, first.summary, sample)
    known = [np.array(one["episodes_to_know"]) for one in summaries if "episodes_to_know" in one]
    observers = np.concatenate(known) if known else None
    summed = summarise(cell, dict(first.summary["ceilings"]), observers)
    return replace(cell, summary={**_of_first(summaries), **summed})


def can_be_pooled(sample: Sample) -> bool:
    """Whether each cell tells what a summary of all needs: those of older versions do not with a ledger."""
    return all("episodes_to_know" in one.summary or "rates" not in one.summary for one in sample.cells)


def _of_first(summaries: Sequence[Json]) -> Json:
    """What `summarise` does not tell, which is the same in all, and the greatest budget of recorded runs."""
    told = {name: summaries[0][name] for name in _SHARED if name in summaries[0]}
    recorded = [one["episodes"] for one in summaries if one.get("episodes")]
    return {**told, **({"episodes": max(recorded)} if recorded else {})}


def _below_each_other(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    shifted, before = list[pl.DataFrame](), 0
    for frame in frames:
        shifted.append(frame.with_columns(run=pl.col("run") + before))
        before += int(frame["run"].max()) + 1  # type: ignore[arg-type]  # numbers of runs
    return pl.concat(shifted, how="diagonal_relaxed")
