"""Where an experiment can be followed while it runs: Weights & Biases, Trackio and TensorBoard, each only if
it was asked for.

Trackers are told means over runs and tell nothing back, so that an experiment measures the same with them and
without. One that fails is left behind with a warning. Their libraries are imported when they are opened.
"""

from __future__ import annotations

import importlib.util
import io
import math
import sys
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from memory_rl.config import Experiment, as_values
from memory_rl.errors import ConfigError, TrackerWarning
from memory_rl.runs.store import RunDirectory

MEASURES = ("bits_known", "content_bits", "format_bits", "observer_bits", "asked_bits")
"""How each run stands; a point holds their mean over all runs."""

SHARES = ("reward_mean", "invalid_fraction", "zero_advantage_fraction")
"""What some episodes were like; a point holds their mean over all episodes since the point before."""

IDENTITY = "trackers.json"
"""The name under which the trackers know a run directory, so that a resumed run goes on there."""

TENSORBOARD = "tensorboard"

_POINTS = 500
_COLUMNS = ("run", "episode", *MEASURES, *SHARES)
_START_SECONDS, _FINISH_SECONDS = (
    30.0,
    60.0,
)  # that Weights & Biases may take to answer, and to send what is left; it stays on disk, for `wandb sync`

Evaluation = Mapping[str, np.ndarray]
"""Columns of metrics.parquet (see `memory_rl.runs.store.METRICS_SCHEMA`): a row a run, or several in the
order in which they were measured."""


@dataclass(frozen=True)
class Point:
    """What trackers are shown of one moment: means, by name, after this many episodes of each run that still
    learns.
    """

    episode: int
    values: dict[str, float]


class MeanCurve:
    """The means over runs against episodes, from evaluations as they come; a few hundred points, so that
    following an experiment costs little.

    Runs need not have seen equally many episodes: a point is made once no run that still learns is behind it,
    and takes each run as it then stood. What comes out depends only on the rows that went in, not on how they
    were divided into evaluations.
    """

    def __init__(self, config: Experiment) -> None:
        self._due = deque(
            [0, *np.unique(np.rint(np.geomspace(1, config.budget, _POINTS)).astype(np.int64)).tolist()]
        )
        self._memorised_from, self._stops_from = (
            math.log2(config.N * threshold) for threshold in (config.memorised_at, config.stop_at)
        )
        self._waiting: list[Evaluation] = []
        self._last = np.zeros(config.num_runs)  # episode of each run that went in
        self._learning = np.full(config.num_runs, True)
        self._shown = np.zeros(config.num_runs)  # episode of each run in the last point
        self._standing = np.full((config.num_runs, len(MEASURES)), np.nan)
        self._memorised = np.full(config.num_runs, False)

    def add(self, rows: Evaluation) -> list[Point]:
        """Takes in evaluations, and gives the points that are complete with them."""
        self._waiting.append(rows)
        self._last[rows["run"]] = rows["episode"]
        self._learning[rows["run"]] = rows["bits_known"] < self._stops_from
        return self._points(self._last[self._learning].min(initial=np.inf))

    def finish(self) -> list[Point]:
        """The points that are left when no more will come."""
        return self._points(np.inf)

    def _points(self, upto: float) -> list[Point]:
        if not (self._waiting and self._due and self._due[0] <= upto):
            return []
        rows = {name: np.concatenate([part[name] for part in self._waiting]) for name in _COLUMNS}
        order = np.argsort(rows["episode"], kind="stable")
        rows = {name: values[order] for name, values in rows.items()}
        points, start = [], 0
        while self._due and self._due[0] <= upto:
            end = int(np.searchsorted(rows["episode"], self._due.popleft(), side="right"))
            if end > start:
                points.append(self._point({name: values[start:end] for name, values in rows.items()}))
            start = end
        self._waiting = [{name: values[start:] for name, values in rows.items()}]
        return points

    def _point(self, rows: Evaluation) -> Point:
        """The point after these rows, ascending by episode."""
        runs = rows["run"]
        self._standing[runs] = np.column_stack([rows[name] for name in MEASURES])
        self._memorised[runs[rows["bits_known"] >= self._memorised_from]] = True
        spent = self._spent(runs, rows["episode"])
        values = dict(zip(MEASURES, self._standing.mean(axis=0).tolist(), strict=True))
        values |= {name: _weighted_mean(rows[name], spent) for name in SHARES}
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        return Point(int(rows["episode"][-1]), {**known, "memorised": int(self._memorised.sum())})

    def _spent(self, runs: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """Episodes of the row's run since the row before it."""
        order = np.argsort(runs, kind="stable")
        ordered, since = runs[order], episodes[order]
        first = np.append(True, ordered[1:] != ordered[:-1])
        spent = np.empty(len(runs))
        spent[order] = since - np.where(first, self._shown[ordered], np.append(0, since[:-1]))
        self._shown[runs] = episodes
        return spent


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Of the values that are known; NaN if there are none."""
    weights = np.where(np.isnan(values), 0.0, weights)
    return float(np.nansum(values * weights) / weights.sum()) if weights.any() else math.nan


@dataclass(frozen=True)
class Subject:
    """What is tracked.

    Attributes:
        folder: the run directory.
        identity: its name for trackers, the same when it is resumed.
        resumed: whether it was tracked before.
        group: the condition.
        config: every key, and the condition.
        quiet: whether the tracker is to print nothing.
    """

    folder: Path
    identity: str
    resumed: bool
    group: str
    config: dict[str, Any]
    quiet: bool


class Tracker(Protocol):
    """One service or library. Whatever it raises is caught."""

    def log(self, point: Point) -> None:
        """Shows a point."""

    def close(self, episode: int, summary: Mapping[str, float]) -> None:
        """Ends with the numbers of the summary, which belong to this episode; with none if the experiment did
        not come to its end.
        """


class WandbTracker:
    """Weights & Biases; its files lie in wandb/ in the run directory, WANDB_MODE=offline sends nothing."""

    def __init__(self, project: str, subject: Subject) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            name=subject.folder.name,
            id=subject.identity,
            group=subject.group,
            config=subject.config,
            dir=str(
                subject.folder.resolve()
            ),  # its service keeps the working directory that it was started in
            resume="allow" if subject.resumed else None,
            reinit="create_new",  # a notebook may have a run of its own
            settings=wandb.Settings(
                silent=subject.quiet,
                console="off",
                save_code=False,
                symlink=False,
                login_timeout=_START_SECONDS,
                init_timeout=_START_SECONDS,
                finish_timeout=_FINISH_SECONDS,
            ),
        )
        self._run.define_metric("*", step_metric="episode")

    def log(self, point: Point) -> None:
        """See `Tracker`."""
        self._run.log({"episode": point.episode, **point.values})

    def close(self, episode: int, summary: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=0 if summary else 1)


class TrackioTracker:
    """Trackio, on this machine unless its own environment variables say otherwise."""

    def __init__(self, project: str, subject: Subject) -> None:
        import trackio

        self._run = Context().run(  # in a context of its own it does not end a run that a notebook may have
            trackio.init,
            project=project,
            name=f"{subject.folder.name}-{subject.identity}",
            group=subject.group,
            config=subject.config,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def log(self, point: Point) -> None:
        """See `Tracker`."""
        self._run.log(dict(point.values), step=point.episode)

    def close(self, episode: int, summary: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if summary:
            self._run.log(dict(summary), step=episode)
        self._run.finish()


class TensorboardTracker:
    """An event file for TensorBoard, written by this thread, so that a full disk is known at once and waited
    for by nobody.
    """

    def __init__(self, project: str, subject: Subject) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = subject.folder / TENSORBOARD
        folder.mkdir(exist_ok=True)
        self._writer = RecordWriter(
            (folder / f"events.out.tfevents.{time.time_ns()}.{subject.identity}").open("xb", buffering=0)
        )
        self._write(file_version="brain.Event:2")
        known = {key: value for key, value in subject.config.items() if value is not None}
        self._write(summary=hparams_pb(known, trial_id=subject.identity))

    def log(self, point: Point) -> None:
        """See `Tracker`."""
        self._write_scalars(point.episode, point.values)

    def close(self, episode: int, summary: Mapping[str, float]) -> None:
        """See `Tracker`."""
        if summary:
            self._write_scalars(episode, summary)
        self._writer.close()

    def _write_scalars(self, episode: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(
            step=episode,
            summary=Summary(
                value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            ),
        )

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
"""By the key that asks for it: the library, which is also the extra to install, and how the tracker is
opened, given the value of the key."""


class Trackers:
    """All trackers of one experiment, from `start` to the end of the with statement.

    Args:
        config: the experiment.

    Raises:
        ConfigError: if a library is missing.
    """

    def __init__(self, config: Experiment) -> None:
        self._config = config
        self._curve = MeanCurve(config)
        self._open: dict[str, Tracker] = {}
        self._episode = 0
        self._summary: dict[str, float] = {}
        for key in self._wanted:
            _check_installed(key, getattr(config, key))

    @property
    def _wanted(self) -> list[str]:
        return [key for key in _KINDS if getattr(self._config, key)]

    def start(self, directory: RunDirectory, so_far: pl.DataFrame | None) -> None:
        """Opens the trackers.

        Args:
            directory: of the run.
            so_far: what a resumed run had measured before (see `memory_rl.runs.store.METRICS_SCHEMA`), None
                of a new one; it is shown only to trackers that do not know the run.
        """
        if not self._wanted:
            return
        points = (
            [] if so_far is None else self._curve.add({name: so_far[name].to_numpy() for name in _COLUMNS})
        )
        with self._left_behind_if_it_fails(" and ".join(self._wanted)):
            subject = self._subject(directory)
            for key in self._wanted:
                library, kind = _KINDS[key]
                with self._left_behind_if_it_fails(library):
                    self._open[library] = kind(str(getattr(self._config, key)), subject)
            if not subject.resumed:
                self._show(points)

    def record(self, evaluation: Evaluation) -> None:
        """Shows the trackers what is new with this evaluation."""
        if self._open:
            self._show(self._curve.add(evaluation))

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Takes the summary of the experiment, by condition, to be shown at the end."""
        self._summary = {
            name: value
            for of_condition in summary.values()
            for name, value in _numbers("summary", of_condition)
        }

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, error: object, *more: object) -> None:
        if (
            self._open and error is None
        ):  # an experiment that stopped in between may go on, and makes these points then
            self._show(self._curve.finish())
        for name in list(self._open):
            with self._left_behind_if_it_fails(name):
                self._open[name].close(self._episode, self._summary)
        self._open.clear()

    def _show(self, points: list[Point]) -> None:
        for point in points:
            self._episode = point.episode
            for name in list(self._open):
                with self._left_behind_if_it_fails(name):
                    self._open[name].log(point)

    def _subject(self, directory: RunDirectory) -> Subject:
        config = self._config
        resumed = (directory.path / IDENTITY).exists()
        identity = directory.read_json(IDENTITY)["id"] if resumed else uuid.uuid4().hex[:8]
        if not resumed:
            directory.write_json(IDENTITY, {"id": identity})
        about = {**as_values(config), "condition": config.condition}
        return Subject(directory.path, identity, resumed, config.condition, about, config.quiet)

    @contextmanager
    def _left_behind_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            with redirect_stdout(io.StringIO() if self._config.quiet else sys.stdout):
                yield
        except Exception as error:  # whatever it is, the measuring goes on
            self._open.pop(name, None)
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            warnings.warn(
                f"{name} failed ({reason}), and the experiment goes on without it.",
                TrackerWarning,
                stacklevel=2,
            )


def _check_installed(key: str, value: Any) -> None:
    library = _KINDS[key][0]
    found = importlib.util.find_spec(library)
    if (
        found is None or found.origin is None
    ):  # a folder of that name, such as wandb/ of earlier runs, is no library
        raise ConfigError(
            f"{key}={value} needs {library}, which is not installed: type pip install 'memory-rl[{library}]', or leave {key} out."
        )


def _numbers(name: str, content: Any) -> Iterator[tuple[str, float]]:
    """All finite numbers in nested JSON, with their names joined by /; the ends of an interval are called low
    and high.
    """
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _numbers(f"{name}/{key}", value)
    elif isinstance(content, list) and len(content) == 2:
        yield from _numbers(f"{name}/low", content[0])
        yield from _numbers(f"{name}/high", content[1])
    elif isinstance(content, int | float) and math.isfinite(content):
        yield name, float(content)
