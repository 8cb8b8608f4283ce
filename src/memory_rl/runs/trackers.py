"""Where an experiment can be followed while it runs: Weights & Biases, Trackio and TensorBoard.

Trackers are shown means over runs and report nothing back, so that an experiment measures the same with them
and without. One that fails is left behind with a warning. Their libraries are imported when they are opened.
"""

from __future__ import annotations

import io
import math
import sys
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from typing_extensions import override

from memory_rl.errors import TrackerWarning, require
from memory_rl.files import Json
from memory_rl.runs.store import RunDirectory

MEASURES = ("bits_known", "content_bits", "format_bits", "observer_bits", "asked_bits")
"""How each run stands; a point holds their mean over all runs."""

SHARES = ("reward_mean", "invalid_fraction", "zero_advantage_fraction")
"""What some episodes were like; a point holds their mean over all episodes since the point before."""

IDENTITY = "trackers.json"
"""The name under which the trackers know a run directory, so that a resumed run continues there."""

TENSORBOARD = "tensorboard"

_POINTS = 500
_COLUMNS = ("run", "episode", *MEASURES, *SHARES)
_START_SECONDS, _FINISH_SECONDS = 30.0, 60.0
"""What Weights & Biases may take to answer, and to send what is left; it stays on disk, for `wandb sync`."""

Rows = Mapping[str, np.ndarray] | pl.DataFrame
"""Columns of `memory_rl.runs.columns.METRICS_SCHEMA`: one row per run, or several as they were measured."""


@dataclass(frozen=True)
class TrackedPoint:
    """Means, by name, after this many episodes of each run that still learns."""

    episode: int
    values: dict[str, float]


class MeanCurve:
    """The means over runs against episodes: a few hundred points, so that following costs little.

    Runs need not have seen equally many episodes: a point is made once no run that still learns is behind it,
    and takes each run as it then stood. What comes out depends only on the rows that went in, not on how they
    were divided.

    Args:
        num_runs: of the experiment.
        budget: episodes of each run at most.
        memorised_at: bits known at which a run has memorised.
        stop_at: bits known at which it stops.
    """

    def __init__(self, num_runs: int, budget: int, memorised_at: float, stop_at: float) -> None:
        spaced = np.rint(np.geomspace(1, budget, _POINTS)).astype(np.int64)
        self._due = deque([0, *np.unique(spaced).tolist()])
        self._memorised_at, self._stop_at = memorised_at, stop_at
        self._waiting: list[pl.DataFrame] = []
        self._shown: list[pl.DataFrame] = []  # the row of each run that was last shown
        self._reached = np.zeros(num_runs)  # episode of each run that went in; it ends at infinity

    def add(self, rows: Rows) -> list[TrackedPoint]:
        """Takes in rows, and gives the points that are complete with them."""
        frame = pl.DataFrame({name: rows[name] for name in _COLUMNS}, nan_to_null=True)
        bits, episode = pl.col("bits_known"), pl.col("episode")
        self._waiting.append(frame.with_columns(memorised=bits >= self._memorised_at))
        reached = frame.select(pl.when(bits < self._stop_at).then(episode).otherwise(math.inf)).to_series()
        self._reached[frame["run"].to_numpy()] = reached
        return self._points(self._reached.min())

    def finish(self) -> list[TrackedPoint]:
        """The points that are left when no more rows will come."""
        return self._points(np.inf)

    def _points(self, upto: float) -> list[TrackedPoint]:
        points: list[TrackedPoint] = []
        if not (self._waiting and self._due and self._due[0] <= upto):
            return points
        rows = pl.concat(self._waiting, how="vertical_relaxed").sort("episode", maintain_order=True)
        while self._due and self._due[0] <= upto:
            due = rows["episode"] <= self._due.popleft()
            if due.any():
                points.append(self._point(rows.filter(due)))
            rows = rows.filter(~due)
        self._waiting = [rows]
        return points

    def _point(self, rows: pl.DataFrame) -> TrackedPoint:
        """The point after these rows, ascending by episode."""
        seen = pl.concat([*self._shown, rows], how="vertical_relaxed")
        spent, share = pl.col("episode").diff().over("run"), pl.col(SHARES)
        shares = seen.select((share * spent).sum() / spent.filter(share.is_not_null()).sum())
        last = seen.group_by("run").agg(pl.exclude("memorised").last(), pl.col("memorised").max())
        means = last.select(pl.col(MEASURES).mean(), pl.col("memorised").sum())
        self._shown = [last]
        values = {**means.row(0, named=True), **shares.row(0, named=True)}
        known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        return TrackedPoint(rows["episode"][-1], known)


@dataclass(frozen=True)
class Subject:
    """What is tracked.

    Attributes:
        folder: the run directory.
        identity: its name for trackers, the same when it is resumed.
        resumed: whether it was tracked before.
        config: every key, and the condition.
    """

    folder: Path
    identity: str
    resumed: bool
    config: Json


class Tracker(Protocol):
    """One service or library. Whatever it raises is caught."""

    def log(self, episode: int, values: Mapping[str, float]) -> None:
        """Shows the values after so many episodes."""

    def close(self, episode: int, summary: Mapping[str, float]) -> None:
        """Ends with the numbers of the summary, at this episode; with none if the experiment did not end."""


class WandbTracker(Tracker):
    """Weights & Biases; its files lie in wandb/ in the run directory, WANDB_MODE=offline sends nothing."""

    def __init__(self, project: str, subject: Subject) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            name=subject.folder.name,
            id=subject.identity,
            group=subject.config["condition"],
            config=subject.config,
            dir=str(subject.folder.resolve()),  # its service stays in the directory that it was started in
            resume="allow" if subject.resumed else None,
            reinit="create_new",  # a notebook may have a run of its own
            settings=wandb.Settings(
                silent=subject.config["quiet"],
                console="off",
                save_code=False,
                symlink=False,
                login_timeout=_START_SECONDS,
                init_timeout=_START_SECONDS,
                finish_timeout=_FINISH_SECONDS,
            ),
        )
        self._run.define_metric("*", step_metric="episode")

    @override
    def log(self, episode: int, values: Mapping[str, float]) -> None:
        self._run.log({"episode": episode, **values})

    @override
    def close(self, episode: int, summary: Mapping[str, float]) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary else 1)


class TrackioTracker(Tracker):
    """Trackio, on this machine unless its own environment variables say otherwise."""

    def __init__(self, project: str, subject: Subject) -> None:
        import trackio

        self._run = Context().run(  # in a context of its own it does not end a run that a notebook may have
            trackio.init,
            project=project,
            name=f"{subject.folder.name}-{subject.identity}",
            group=subject.config["condition"],
            config=subject.config,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    @override
    def log(self, episode: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=episode)

    @override
    def close(self, episode: int, summary: Mapping[str, float]) -> None:
        if summary:
            self.log(episode, summary)
        self._run.finish()


class TensorboardTracker(Tracker):
    """An event file for TensorBoard, written by this thread, so that a full disk is known at once."""

    def __init__(self, project: str, subject: Subject) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = subject.folder / TENSORBOARD
        folder.mkdir(exist_ok=True)
        file = folder / f"events.out.tfevents.{time.time_ns()}.{subject.identity}"
        self._writer = RecordWriter(file.open("xb", buffering=0))
        self._write(file_version="brain.Event:2")
        known = {key: value for key, value in subject.config.items() if value is not None}
        self._write(summary=hparams_pb(known, trial_id=subject.identity))

    @override
    def log(self, episode: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=episode, summary=Summary(value=scalars))

    @override
    def close(self, episode: int, summary: Mapping[str, float]) -> None:
        if summary:
            self.log(episode, summary)
        self._writer.close()

    def _write(self, **event: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        try:
            self._writer.write(Event(wall_time=time.time(), **event).SerializeToString())
        except OSError:
            self._writer.close()
            raise


_KINDS: dict[str, tuple[str, Callable[[str, Subject], Tracker]]] = {
    "wandb_project": ("wandb", WandbTracker),
    "trackio_project": ("trackio", TrackioTracker),
    "tensorboard": ("tensorboard", TensorboardTracker),
}
"""The trackers by the key that asks for each.

The first is the library, which is also the extra to install; the second opens the tracker, given the value of
the key.
"""


class Trackers:
    """All trackers of one experiment: opened by `start`, closed by `close`.

    Args:
        config: every key of the experiment, and its condition.
        curve: takes the rows of this experiment.

    Raises:
        ConfigError: if a library is missing.
    """

    def __init__(self, config: Json, curve: MeanCurve) -> None:
        self._config, self._curve = dict(config), curve
        self._wanted = {key: config[key] for key in _KINDS if config.get(key)}
        self._open: dict[str, Tracker] = {}
        self._episode = 0
        for key, value in self._wanted.items():
            library, _ = _KINDS[key]
            require(library, library, f"{key}={value}")

    def start(self, directory: RunDirectory, so_far: pl.DataFrame | None) -> None:
        """Opens the trackers.

        Args:
            directory: of the run.
            so_far: what a resumed run had measured before (see `memory_rl.runs.columns.METRICS_SCHEMA`), None
                of a new one; it is shown only to trackers that do not know the run.
        """
        if not self._wanted:
            return
        points = [] if so_far is None else self._curve.add(so_far)
        with self._left_behind_if_it_fails(" and ".join(self._wanted)):
            subject = self._subject(directory)
            for key, value in self._wanted.items():
                library, kind = _KINDS[key]
                with self._left_behind_if_it_fails(library), self._quietly():
                    self._open[library] = kind(str(value), subject)
            if not subject.resumed:
                self._show(points)

    def take(self, table: str, rows: Rows) -> None:
        """Shows the trackers what is new with these rows, if they are of metrics.parquet."""
        if self._open and table == "metrics":
            self._show(self._curve.add(rows))

    def close(self, summary: Json | None = None) -> None:
        """Closes the trackers.

        Args:
            summary: of the experiment, by condition. None if it stopped before its end: it may be resumed,
                and shows the points that are left then.
        """
        if self._open and summary is not None:
            self._show(self._curve.finish())
        numbers = dict(
            pair for of_condition in (summary or {}).values() for pair in _numbers("summary", of_condition)
        )
        for name in list(self._open):
            with self._left_behind_if_it_fails(name), self._quietly():
                self._open[name].close(self._episode, numbers)
        self._open.clear()

    def _show(self, points: list[TrackedPoint]) -> None:
        for point in points:
            self._episode = point.episode
            for name in list(self._open):
                with self._left_behind_if_it_fails(name), self._quietly():
                    self._open[name].log(point.episode, point.values)

    def _subject(self, directory: RunDirectory) -> Subject:
        resumed = (directory.path / IDENTITY).exists()
        identity = directory.read_json(IDENTITY)["id"] if resumed else uuid.uuid4().hex[:8]
        if not resumed:
            directory.write_json(IDENTITY, {"id": identity})
        return Subject(directory.path, identity, resumed, self._config)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """With quiet=True, without what libraries print before they know of it."""
        quiet = self._config["quiet"]
        with (
            redirect_stdout(io.StringIO() if quiet else sys.stdout),
            redirect_stderr(io.StringIO() if quiet else sys.stderr),
        ):
            yield

    @contextmanager
    def _left_behind_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the measuring continues
            self._open.pop(name, None)
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            warnings.warn(
                f"{name} failed ({reason}), and the experiment continues without it.",
                TrackerWarning,
                stacklevel=2,
            )


def _numbers(name: str, content: Any) -> Iterator[tuple[str, float]]:
    """All finite numbers in nested JSON, names joined by /; the ends of an interval are low and high."""
    if isinstance(content, list) and len(content) == 2:
        content = {"low": content[0], "high": content[1]}
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _numbers(f"{name}/{key}", value)
    elif isinstance(content, int | float) and math.isfinite(content):
        yield name, float(content)
