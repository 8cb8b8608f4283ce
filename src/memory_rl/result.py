"""What an experiment returns: how it ended, and everything it measured."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.analysis.collect import Cell, read_cell
from memory_rl.analysis.summary import about_prior
from memory_rl.errors import RunDirectoryError
from memory_rl.files import as_path
from memory_rl.reporting.headline import headline, unit_of
from memory_rl.reporting.values import MINDS, number
from memory_rl.runs.columns import TIMING_SCHEMA
from memory_rl.runs.store import TIMING, RunDirectory
from memory_rl.training.recompute import ledger_from_episodes

if TYPE_CHECKING:
    import altair as alt
    import polars as pl


class Outcome(enum.Enum):
    """How an experiment ended; the value is a sentence."""

    MEMORISED = "Every run memorised its secret."
    BUDGET_SPENT = (
        "Some runs spent their budget before they had memorised their secret; they are censored there."
    )
    UNMEASURED = "What the policy knows was not measured; its episodes and what they told are kept."
    RUNNING = "The experiment is still running."
    KILLED = "The experiment was killed; what it had measured by its last checkpoint is kept."
    INTERRUPTED = "The experiment was interrupted; what it had measured is kept."
    FAILED = "The experiment failed; what it had measured is kept."


@dataclass(frozen=True)
class Result:
    """A run directory in memory.

    Attributes:
        cell: the same as a cell of a study.
    """

    cell: Cell

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.cell.path

    @property
    def manifest(self) -> dict[str, Any]:
        """What was run, by which code, and its status."""
        return self.cell.manifest

    @property
    def summary(self) -> dict[str, Any]:
        """By condition, as in summary.json; empty if the experiment did not end."""
        return {self.cell.condition: self.cell.summary} if self.cell.summary else {}

    @property
    def config(self) -> dict[str, Any]:
        """Every key of the configuration."""
        return dict(self.manifest["config"])

    @property
    def outcome(self) -> Outcome:
        """How the experiment ended."""
        status = RunDirectory(self.path).status(self.manifest)
        if status != "completed":
            return Outcome[status.upper()]
        if not self.cell.measured:
            return Outcome.UNMEASURED
        censored = sum(condition["censored"] for condition in self.summary.values())
        return Outcome.BUDGET_SPENT if censored else Outcome.MEMORISED

    @property
    def metrics(self) -> pl.DataFrame:
        """One row per run and evaluation; see `memory_rl.runs.columns.METRICS_SCHEMA`."""
        return self.cell.metrics

    @property
    def episodes(self) -> pl.DataFrame:
        """One row per run, episode and step; see `memory_rl.runs.columns.EPISODES_SCHEMA`."""
        return self.cell.episodes

    @cached_property
    def timing(self) -> pl.DataFrame:
        """Seconds since training started at each evaluation; see `memory_rl.runs.columns.TIMING_SCHEMA`."""
        return RunDirectory(self.path).read_frame(TIMING, TIMING_SCHEMA)

    @cached_property
    def ledger(self) -> pl.DataFrame:
        """One row per run and episode, recomputed from `episodes` as by `memory_rl.ledger_from_episodes`."""
        return ledger_from_episodes(self.path)

    def plot(self) -> alt.LayerChart:
        """Bits known against episodes; shown as SVG wherever a notebook is, without a network."""
        from memory_rl.reporting.pictures import plot_run

        return plot_run(self.cell)

    def plot_ledger(self) -> alt.ConcatChart:
        """What the questions told, what an ideal observer knows of it, and what the policy does.

        Raises:
            RunDirectoryError: if no ledger was kept, or the experiment has not ended.
        """
        from memory_rl.reporting.pictures import plot_ledger

        if "rates" not in self.cell.summary:
            why = "kept no ledger" if self.cell.summary else "has not ended"
            raise RunDirectoryError(f"{self.path} {why}: there is no ledger to plot.")
        return plot_ledger(self.cell)

    def _repr_html_(self) -> str:
        from memory_rl.reporting.notebook import result_html

        return result_html(self.cell)

    def __repr__(self) -> str:
        what = f"{self.cell.condition}, N = {self.cell.N}"
        lines = [f"Result({str(self.path)!r})", f"  {what}: {headline(self.cell)}"]
        for summary in self.summary.values():
            rates = (
                f"{MINDS[mind]} {number(rate['estimate'])}" for mind, rate in summary.get("rates", {}).items()
            )
            unit = unit_of(self.cell)
            lines += [f"  Bits per {unit}: {' -> '.join(rates)}."] if "rates" in summary else []
            lines += [f"  {prior}"] if (prior := about_prior(summary)) else []
        return "\n".join(lines)


def load(path: str | Path) -> Result:
    """Reads a run directory.

    Raises:
        RunDirectoryError: if it is not a run directory, or a file is damaged.
    """
    folder = as_path(path)
    if (folder / "sweep.json").is_file():
        raise RunDirectoryError(f"{path} is a sweep: give one of its cells, or {path}/cells to a report.")
    return Result(read_cell(folder))
