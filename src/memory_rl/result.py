"""What an experiment returns: how it ended, and everything it measured."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.statistics import Estimate, three_digits
from memory_rl.analysis.summary import about_prior
from memory_rl.errors import RunDirectoryError
from memory_rl.runs.store import SUMMARY, TIMING, RunDirectory
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
    RUNNING = "The experiment is still running."
    KILLED = "The experiment was killed; what it had measured by its last checkpoint is kept."
    INTERRUPTED = "The experiment was interrupted; what it had measured is kept."
    FAILED = "The experiment failed; what it had measured is kept."


@dataclass(frozen=True)
class Result:
    """A run directory in memory.

    Attributes:
        path: the run directory.
        manifest: what was run, by which code, and its status.
        summary: by condition, as in summary.json; empty if the experiment did not end.
    """

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    summary: dict[str, Any] = field(repr=False)

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
        censored = sum(condition["censored"] for condition in self.summary.values())
        return Outcome.BUDGET_SPENT if censored else Outcome.MEMORISED

    @cached_property
    def cell(self) -> Cell:
        """The run directory as a cell of a study."""
        return Cell(self.path, self.manifest, self.summary.get(self.manifest["condition"], {}))

    @property
    def metrics(self) -> pl.DataFrame:
        """One row per run and evaluation; see `memory_rl.runs.store.METRICS_SCHEMA`."""
        return self.cell.metrics

    @property
    def episodes(self) -> pl.DataFrame:
        """One row per run, episode and step; see `memory_rl.runs.store.EPISODES_SCHEMA`."""
        return self.cell.episodes

    @cached_property
    def timing(self) -> pl.DataFrame:
        """Seconds since training started at each evaluation; see `memory_rl.runs.store.TIMING_SCHEMA`."""
        return RunDirectory(self.path).read_frame(TIMING)

    @cached_property
    def ledger(self) -> pl.DataFrame:
        """One row per run and episode, recomputed from `episodes` as by `memory_rl.ledger_from_episodes`."""
        return ledger_from_episodes(self.path)

    def plot(self) -> alt.LayerChart:
        """Bits known against episodes."""
        from memory_rl.reporting.pictures import plot_run

        return plot_run(self.cell)

    def __repr__(self) -> str:
        lines = [f"Result({str(self.path)!r})", f"  {self.outcome.value}"]
        for name, summary in self.summary.items():
            episodes, rate = summary["episodes_to_memorise"], summary["bits_per_episode"]
            facts = {
                f"{name}, N={self.config['N']}": f"{summary['memorised']} of {summary['runs']} "
                "runs memorised",
                "median episodes": "{} [{}, {}]".format(
                    *map(_whole, (episodes["median"], *episodes["ci95"]))
                ),
                "bits per episode": str(Estimate(rate["estimate"], *rate["ci95"])),
                "naive capacity": three_digits(summary["ceilings"]["capacity"]),
            }
            lines.append("  " + "; ".join(f"{what}: {value}" for what, value in facts.items()))
            rates = (
                f"{name} {three_digits(rate['estimate'])}" for name, rate in summary.get("rates", {}).items()
            )
            lines += [f"    bits per episode: {' -> '.join(rates)}"] if "rates" in summary else []
            lines += [f"    {prior}"] if (prior := about_prior(summary)) else []
        return "\n".join(lines)


def load(path: str | Path) -> Result:
    """Reads a run directory.

    Raises:
        RunDirectoryError: if it is not a run directory, or a file is damaged.
    """
    directory = RunDirectory(Path(path))
    if (directory.path / "sweep.json").is_file():
        raise RunDirectoryError(f"{path} is a sweep: give one of its cells, or {path}/cells to a report.")
    manifest = directory.read_manifest()
    conditions: Any = {}
    if manifest["status"] == "completed":
        conditions = directory.read_json(SUMMARY).get("conditions")
        if not isinstance(conditions, dict):
            raise RunDirectoryError(
                f"{directory.path / SUMMARY} holds no conditions: give the path of a run directory."
            )
    return Result(directory.path, manifest, conditions)


def _whole(episodes: float | None) -> str:
    return "-" if episodes is None else f"{episodes:.0f}"
