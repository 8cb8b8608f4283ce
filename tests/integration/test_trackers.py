"""Trackers show what was measured, change nothing in it, and cannot stop it. All without a network: wandb
offline, trackio and TensorBoard on disk."""

import importlib.util
import json
import os
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import complaint

import memory_rl
from memory_rl.errors import TrackerWarning
from memory_rl.experiment import make_experiment
from memory_rl.runs import trackers
from memory_rl.runs.trackers import MEASURES, SHARES, MeanCurve, TrackedPoint, Trackers
from memory_rl.training.meter import Meter

SMALL = {"N": 16, "backend": "tabular", "num_runs": 3, "learning_rate": 0.3}
ALL = {"wandb_project": "tests", "trackio_project": "tests", "tensorboard": True}
MEASURED = ("metrics.parquet", "episodes.parquet")


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory):
    """Before any library is imported: trackio reads its folder then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_API_KEY", "never-to-be-written-anywhere-0123456789a")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield


def needs(*libraries: str) -> pytest.MarkDecorator:
    missing = [library for library in libraries if importlib.util.find_spec(library) is None]
    return pytest.mark.skipif(
        bool(missing),
        reason=f"{', '.join(missing)} not installed: pip install 'memory-rl[{','.join(missing)}]'",
    )


def wandb_records(run: Path):
    """The records of an offline run's file, a log in LevelDB's format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        content, place, whole = file.read_bytes(), 7, b""
        while place < len(content):
            if 32768 - place % 32768 < 7:  # no header fits into the rest of a block
                place += 32768 - place % 32768
                continue
            _, length, kind = struct.unpack_from("<IHB", content, place)
            whole += content[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # the whole record, or its last part
                record = Record()
                record.ParseFromString(whole)
                yield record
                whole = b""


def wandb_history(run: Path) -> list[TrackedPoint]:
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in wandb_records(run)
        if record.HasField("history")
    ]
    return [
        TrackedPoint(
            row["episode"],
            {name: value for name, value in row.items() if name != "episode" and name[0] != "_"},
        )
        for row in rows
    ]


def trackio_history(run: Path) -> list[TrackedPoint]:
    from trackio.sqlite_storage import SQLiteStorage

    identity = json.loads((run / "trackers.json").read_text())["id"]
    rows = SQLiteStorage.get_logs("tests", f"{run.name}-{identity}")
    return [
        TrackedPoint(
            row["step"], {name: value for name, value in row.items() if name not in ("step", "timestamp")}
        )
        for row in rows
    ]


def tensorboard_history(run: Path) -> list[TrackedPoint]:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    read = EventAccumulator(str(run / "tensorboard"), size_guidance={SCALARS: 0}).Reload()
    points: dict[int, dict[str, float]] = {}
    for name in read.Tags()["scalars"]:
        for event in read.Scalars(name):
            points.setdefault(event.step, {})[name] = event.value
    return [TrackedPoint(episode, values) for episode, values in sorted(points.items())]


HISTORIES = {"wandb": wandb_history, "trackio": trackio_history, "tensorboard": tensorboard_history}


def points_of(points: list[TrackedPoint]) -> list[TrackedPoint]:
    """Without the numbers of the summary."""
    bare = [
        TrackedPoint(
            point.episode,
            {name: value for name, value in point.values.items() if not name.startswith("summary/")},
        )
        for point in points
    ]
    return [point for point in bare if point.values]


def expected_points(metrics: pl.DataFrame, episodes: list[int], information: float) -> list[TrackedPoint]:
    """By brute force: each run as its last evaluation up to the episode left it; shares over all episodes
    since the point before."""
    points, before = [], -1
    spent = (
        metrics.sort("run", "episode")
        .with_columns(spent=pl.col("episode").diff().over("run").fill_null(0))
        .sort("episode")
    )
    for episode in episodes:
        seen = spent.filter(pl.col("episode") <= episode)
        last = seen.group_by("run").last()
        values = {name: last[name].mean() for name in MEASURES}
        new = seen.filter(pl.col("episode") > before)
        values |= {name: np.average(new[name], weights=new["spent"]) for name in SHARES if new["spent"].sum()}
        values["memorised"] = seen.filter(pl.col("bits_known") >= information - 1)["run"].n_unique()
        points.append(TrackedPoint(episode, values))
        before = episode
    return points


def assert_same(points: list[TrackedPoint], others: list[TrackedPoint], rtol: float = 1e-9) -> None:
    assert [point.episode for point in points] == [point.episode for point in others]
    for point, other in zip(points, others, strict=True):
        assert point.values.keys() == other.values.keys()
        for name, value in point.values.items():
            assert value == pytest.approx(other.values[name], rel=rtol, abs=1e-9), (point.episode, name)


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    return memory_rl.train(**SMALL, **ALL, log_path=str(tmp_path_factory.mktemp("runs") / "followed"))


@needs("wandb", "trackio", "tensorboard")
@pytest.mark.parametrize("library", HISTORIES)
def test_the_tracker_holds_what_was_measured(followed, library):
    points = HISTORIES[library](followed.path)
    curve = points_of(points)
    assert len(curve) > 20
    assert curve[0].episode == 0
    assert curve[-1].episode == followed.metrics["episode"].max()
    single = 1e-6 if library == "tensorboard" else 1e-9  # event files hold single precision
    assert_same(
        curve, expected_points(followed.metrics, [point.episode for point in curve], 4.0), rtol=single
    )
    assert curve[-1].values["memorised"] == 3


@needs("wandb", "trackio", "tensorboard")
@pytest.mark.parametrize("library", HISTORIES)
def test_the_summary_comes_at_the_end(followed, library):
    summary = followed.summary["binary"]
    if library == "wandb":
        updates = [
            item
            for record in wandb_records(followed.path)
            if record.HasField("summary")
            for item in record.summary.update
        ]
        numbers = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}
        assert [
            record.exit.exit_code for record in wandb_records(followed.path) if record.HasField("exit")
        ] == [0]
    else:
        numbers = HISTORIES[library](followed.path)[-1].values
    assert numbers["summary/memorised"] == 3
    assert numbers["summary/bits_per_episode/estimate"] == pytest.approx(
        summary["bits_per_episode"]["estimate"], rel=1e-6
    )
    assert numbers["summary/bits_per_episode/ci95/low"] == pytest.approx(
        summary["bits_per_episode"]["ci95"][0], rel=1e-6
    )


@needs("wandb", "trackio", "tensorboard")
def test_the_configuration_comes_first(followed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from trackio import Api

    expected = {**followed.config, "condition": "binary"}
    (run,) = [record.run for record in wandb_records(followed.path) if record.HasField("run")]
    of_wandb = {item.key: json.loads(item.value_json) for item in run.config.update if item.key != "_wandb"}
    assert of_wandb == expected
    (of_trackio,) = [run.config for run in Api().runs("tests") if run.name.startswith("followed-")]
    assert {key: value for key, value in of_trackio.items() if not key.startswith("_")} == expected
    read = EventAccumulator(str(followed.path / "tensorboard")).Reload()
    start = HParamsPluginData.FromString(
        read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info
    assert start.hparams["N"].number_value == 16
    assert start.hparams["condition"].string_value == "binary"
    assert set(start.hparams) == {key for key, value in expected.items() if value is not None}


@needs("wandb", "trackio", "tensorboard")
@pytest.mark.parametrize(
    "settings",
    [{}, {"skip_ahead": True, "N": 64}, {"reward_type": "log_distance", "ledger": False}],
    ids=["steps", "skips", "no_ledger"],
)
def test_what_is_measured_is_the_same_to_the_byte(settings):
    plain = memory_rl.train(**{**SMALL, **settings})
    followed = memory_rl.train(**{**SMALL, **settings}, **ALL)
    for name in MEASURED:
        assert (plain.path / name).read_bytes() == (followed.path / name).read_bytes()
    assert not {"trackers.json", "wandb", "tensorboard"} & {file.name for file in plain.path.iterdir()}


@needs("wandb", "trackio", "tensorboard")
def test_nothing_is_printed_and_no_key_is_written(capfd):
    import trackio

    path = memory_rl.train(**SMALL, **ALL).path
    assert capfd.readouterr().out == ""
    for file in [*path.rglob("*"), *trackio.utils.TRACKIO_DIR.rglob("*")]:
        if file.is_file():
            assert b"never-to-be-written" not in file.read_bytes(), file


def curve_of(**settings) -> MeanCurve:
    experiment = make_experiment(settings)
    stop, N = experiment.stop, experiment.world.N
    thresholds = (float(np.log2(N * threshold)) for threshold in (stop.memorised_at, stop.stop_at))
    return MeanCurve(stop.num_runs, experiment.budget, *thresholds)


def test_a_long_experiment_gives_a_few_hundred_points():
    """Of 15,360 evaluations, close together at first; the last is always shown."""
    curve, budget = curve_of(N=1024, backend="tabular", num_runs=1), 60 * 1024
    points = [
        point for row in rows_of_one_run(range(0, budget + 1, 4)) for point in curve.add(row)
    ] + curve.finish()
    episodes = [point.episode for point in points]
    assert episodes[:4] == [0, 4, 8, 12]
    assert 300 < len(episodes) <= 501
    assert episodes[-1] == budget
    assert max(later / sooner for sooner, later in pairwise(episodes[20:])) < 1.06


def rows_of_one_run(episodes):
    for episode in episodes:
        yield {
            "run": np.array([0]),
            "episode": np.array([episode]),
            **{name: np.zeros(1) for name in (*MEASURES, *SHARES)},
        }


@pytest.mark.parametrize("settings", [{}, {"skip_ahead": True}], ids=["steps", "skips"])
def test_the_points_do_not_depend_on_how_the_rows_arrive(settings, monkeypatch):
    """What makes a resumed run continue where it stopped: the rows of its checkpoint, taken in at once, leave
    the curve as they did one by one."""
    arrived: list[dict[str, np.ndarray]] = []
    monkeypatch.setattr(
        Trackers, "take", lambda self, table, rows: arrived.append(rows) if table == "metrics" else None
    )
    metrics = memory_rl.train(**{**SMALL, "N": 64, **settings}).metrics
    assert sum(len(rows["run"]) for rows in arrived) == metrics.height
    one_by_one = curve_of(**{**SMALL, "N": 64, **settings})
    at_each = [one_by_one.add(rows) for rows in arrived]
    whole = [point for points in at_each for point in points] + one_by_one.finish()
    assert_same(whole, expected_points(metrics, [point.episode for point in whole], 6.0))

    for half in (1, len(arrived) // 3, len(arrived) - 1):
        resumed = curve_of(**{**SMALL, "N": 64, **settings})
        before = {name: np.concatenate([rows[name] for rows in arrived[:half]]) for name in arrived[0]}
        assert_same(resumed.add(before), [point for points in at_each[:half] for point in points])
        after = [point for rows in arrived[half:] for point in resumed.add(rows)] + resumed.finish()
        assert_same(after, whole[len(whole) - len(after) :])
        assert len(after) == len(whole) - sum(map(len, at_each[:half]))


@needs("wandb", "trackio", "tensorboard")
def test_a_resumed_run_continues_in_the_same_place(monkeypatch):
    """Stopped in the middle, at the moment of a checkpoint: nothing is shown twice, and nothing is
    missing."""
    from trackio import Api

    settings = {**SMALL, **ALL, "checkpoint_every": 0.0}
    whole = memory_rl.train(**settings, log_path="whole")
    with monkeypatch.context() as patch:
        patch.setattr(Meter, "_evaluate", stopping_at(60))
        with pytest.raises(KeyboardInterrupt):
            memory_rl.train(**settings, log_path="stopped")
    before = [points_of(read(Path("stopped"))) for read in HISTORIES.values()]
    resumed = memory_rl.train(**settings, log_path="stopped", resume=True)
    assert resumed.metrics.equals(whole.metrics)
    for read, points in zip(HISTORIES.values(), before, strict=True):
        assert 0 < len(points) < len(points_of(read(whole.path)))
        assert_same(points_of(read(resumed.path)), points_of(read(whole.path)))
    assert len({record.run.run_id for record in wandb_records(resumed.path) if record.HasField("run")}) == 1
    assert sum(run.name.startswith("stopped-") for run in Api().runs("tests")) == 1


def stopping_at(last: int):
    evaluate = Meter._evaluate

    def stop(self, policy, runs, episode, *more):
        if np.max(episode) > last:
            raise KeyboardInterrupt
        return evaluate(self, policy, runs, episode, *more)

    return stop


class Broken:
    """A tracker that fails in one of its methods, and notes what it was asked."""

    def __init__(self, where: str) -> None:
        self.where, self.asked = where, []

    def __call__(self, value, subject):
        return self._ask("open") or self

    def log(self, episode, values):
        self._ask("log")

    def close(self, episode, summary):
        self._ask("close")

    def _ask(self, what):
        self.asked.append(what)
        if what == self.where:
            raise RuntimeError("the line is dead\nand more")


@needs("tensorboard")
@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_a_tracker_that_fails_is_left_behind(where, monkeypatch):
    plain = memory_rl.train(**SMALL)
    broken = Broken(where)
    monkeypatch.setitem(trackers._KINDS, "wandb_project", ("wandb", broken))
    monkeypatch.setattr(trackers, "require", lambda *_: None)
    with pytest.warns(
        TrackerWarning,
        match=r"^wandb failed \(the line is dead\), and the experiment continues without it\.$",
    ) as warned:
        result = memory_rl.train(**SMALL, wandb_project="tests", tensorboard=True)
    assert len(warned) == 1
    assert broken.asked.count(where) == 1
    assert broken.asked[-1] == where  # it is not asked again
    for name in MEASURED:
        assert (plain.path / name).read_bytes() == (result.path / name).read_bytes()
    assert result.manifest["status"] == "completed"
    assert "summary/memorised" in tensorboard_history(result.path)[-1].values  # the other one does not suffer


@needs("tensorboard")
def test_a_full_disk_ends_the_event_file_alone(monkeypatch):
    from tensorboard.summary.writer.record_writer import RecordWriter

    write, left = RecordWriter.write, iter(range(9))

    def full(self, data):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.warns(TrackerWarning, match="tensorboard failed .*No space left"):
        result = memory_rl.train(**SMALL, tensorboard=True)
    assert result.manifest["status"] == "completed"
    assert (
        len(tensorboard_history(result.path)) == 7
    )  # of 9 records two are no points; what was written stays readable


def train_apart(environment: dict[str, str], **settings) -> subprocess.CompletedProcess[str]:
    words = [
        f"{key}={value}" for key, value in {**SMALL, "quiet": True, "log_path": "apart", **settings}.items()
    ]
    environment = {**os.environ, "PYTHONWARNINGS": "default::UserWarning", **environment}
    return subprocess.run(
        [sys.executable, "-m", "memory_rl", "train", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@needs("wandb")
def test_without_a_key_wandb_is_left_behind():
    done = train_apart(
        {"WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": str(Path.cwd()), "NETRC": "none"},
        wandb_project="tests",
    )
    assert done.returncode == 0
    assert "memory-rl: warning: wandb failed (" in done.stderr
    assert "Traceback" not in done.stderr
    assert memory_rl.load("apart").manifest["status"] == "completed"


@needs("wandb")
def test_a_wandb_that_is_away_is_one_sentence():
    words = ["train", "backend=tabular", "N=16", "num_runs=1", "quiet=True", "wandb_project=tests"]
    script = "from memory_rl import cli; from memory_rl.runs import trackers\n"
    script += f"trackers._START_SECONDS = 1.0\ncli.main({words})"
    away = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | away, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.returncode) == ("", 0)
    assert done.stderr.startswith("memory-rl: warning: wandb failed (")
    assert "refused" in done.stderr
    assert done.stderr.count("\n") == 1


@needs("trackio")
def test_a_folder_that_trackio_cannot_write_costs_a_warning():
    Path("file").write_text("")
    done = train_apart({"TRACKIO_DIR": str(Path("file").absolute())}, trackio_project="tests")
    assert done.returncode == 0
    assert "trackio failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert memory_rl.load("apart").manifest["status"] == "completed"


@pytest.mark.parametrize("words", ["wandb_project=tests", "trackio_project=tests", "tensorboard=True"])
def test_a_missing_library_is_reported_before_any_work(words, monkeypatch, capsys):
    library = words.split("=")[0].removesuffix("_project")
    Path(library).mkdir()  # such as wandb leaves: a folder that Python could import
    monkeypatch.syspath_prepend(str(Path.cwd()))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: find_spec("memory_rl.task.nothing") if name == library else find_spec(name),
    )
    message = complaint("train", f"backend=tabular N=8 {words}", capsys)
    assert (
        f"{words} needs {library}, which is not installed: type pip install 'memory-rl[{library}]'" in message
    )


@pytest.mark.parametrize("name", ["a/b", "50%"])
def test_a_project_needs_a_name(name, capsys):
    assert "wandb_project= is empty: type for example" in complaint("train", "wandb_project=", capsys)
    assert f"wandb_project={name} is not the name of a project" in complaint(
        "train", f"wandb_project={name}", capsys
    )
