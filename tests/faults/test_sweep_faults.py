"""Whatever stops a sweep or a worker of it, the state on disk is true, nothing is lost, and the same command
continues."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import polars as pl
import psutil
import pytest
from helpers import without_progress

import memory_rl
from memory_rl.cli import main
from memory_rl.errors import RunDirectoryError
from memory_rl.experiments import executors
from memory_rl.experiments.settings import SweepConfig
from memory_rl.experiments.store import SweepDirectory
from memory_rl.experiments.worker import CellOutcome

ROOT = Path(__file__).parents[2]
LONG = (
    "conditions=log_distance N=256 backend=tabular num_runs=16 max_episodes=20000 memorised_at=0.9 "
    "ledger=False seed=0,1,2,3"
)
"""Four cells of a few seconds each."""


def start(words: str, **popen) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ROOT / "sweep.py", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def status_of(cell: Path) -> str | None:
    try:
        return json.loads((cell / "manifest.json").read_text())["status"]
    except (FileNotFoundError, NotADirectoryError):
        return None


def statuses(path: str) -> list[str | None]:
    return sorted(filter(None, (status_of(cell) for cell in Path(path, "cells").glob("*"))))


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def measured(path: str) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in Path(path, "cells").rglob("*.parquet")
        if file.name != "timing.parquet"
    }


def pids_of(process: subprocess.Popen) -> list[int]:
    """The worker processes of a sweep that are at work."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("reference") / "sweep"
    assert main(["sweep", *LONG.split(), f"log_path={path}", "quiet=True"]) == 0
    return measured(str(path))


@pytest.mark.parametrize(
    ("number", "code", "executor"),
    [
        (signal.SIGTERM, 143, "executor=inline"),
        (signal.SIGINT, 130, "executor=processes workers=2"),
        pytest.param(signal.SIGINT, 130, "executor=inline", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, "executor=processes workers=2", marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_cleanly_and_the_same_command_continues(number, code, executor, reference):
    process = start(f"{LONG} {executor} log_path=stopped")
    wait_until(lambda: "completed" in statuses("stopped") and "running" in statuses("stopped"))
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    errors = without_progress(errors)
    assert process.returncode == code
    assert errors.count("\n") == 1
    assert signal.Signals(number).name in errors
    assert "; complete cells are kept, and the same command continues." in errors
    found = statuses("stopped")
    assert "interrupted" in found
    assert "completed" in found
    assert "running" not in found
    summary = json.loads(Path("stopped/summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert sorted(row["status"] for row in summary["cells"]) == sorted(
        [*found, *["not run"] * (4 - len(found))]
    )
    complete = {row["id"] for row in summary["cells"] if row["status"] == "completed"}
    before = {
        name: content for name, content in measured("stopped").items() if name.split("/")[1] in complete
    }

    assert main(["sweep", *LONG.split(), "log_path=stopped", "quiet=True"]) == 0
    assert before.items() <= measured("stopped").items()
    assert measured("stopped") == reference


def test_a_signal_to_all_processes_loses_no_more_than_one_to_the_sweep(reference):
    """As batch systems send it; a worker then hears of it twice."""
    words = f"{LONG} checkpoint_every=0.5 executor=processes workers=2 log_path=stopped"
    process = start(words, start_new_session=True)
    wait_until(lambda: list(Path("stopped/cells").glob("*/checkpoint/*")))
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted" in statuses("stopped")
    for checkpoint in Path("stopped/cells").glob("*/checkpoint/*"):
        saved = pl.read_parquet(checkpoint / "metrics.parquet")
        assert saved.equals(memory_rl.load(checkpoint.parents[1]).metrics)  # nothing is lost
    assert main(["sweep", *LONG.split(), "log_path=stopped", "quiet=True"]) == 0
    assert measured("stopped") == reference


class FakePool:
    """Workers that tell a slot to stop while they are started."""

    def __init__(self, slot) -> None:
        self.slot, self.terminated, self._processes = slot, 0, {1: self}

    def submit(self, *task) -> Future:
        self.slot.stop()
        return Future()

    def terminate(self) -> None:
        self.terminated += 1


def test_a_worker_that_is_started_while_the_sweep_stops_is_stopped_too():
    slot = executors._Slot(SweepConfig())
    slot._pool = pool = FakePool(slot)
    slot._submit(None)
    assert pool.terminated == 1


def test_a_cell_whose_worker_was_told_to_stop_gets_another_process(monkeypatch):
    """What was interrupted may have been half imported."""
    done = []

    def submit(self, task) -> Future:
        future = Future()
        future.set_result(CellOutcome("cell", "interrupted" if not done else "completed"))
        done.append("submitted")
        return future

    monkeypatch.setattr(executors._Slot, "_submit", submit)
    monkeypatch.setattr(executors._Slot, "close", lambda self: done.append("closed"))
    assert executors._Slot(SweepConfig()).run(None).status == "completed"
    assert done == ["submitted", "closed", "submitted"]


def test_a_killed_worker_is_replaced_and_the_others_continue(reference):
    process = start(f"{LONG} executor=processes workers=2 log_path=killed")
    wait_until(lambda: statuses("killed").count("running") == 2)
    os.kill(pids_of(process)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    errors = without_progress(errors)
    assert (process.returncode, errors) == (0, "")
    assert measured("killed") == reference
    assert (
        len(list(Path("killed/discarded").iterdir())) == 1
    )  # what the killed worker had measured; its other worker lost nothing


def test_a_worker_that_is_always_lost_fails_its_cells_alone():
    process = start(f"{LONG} executor=processes workers=2 retries=0 log_path=lost")
    wait_until(lambda: statuses("lost").count("running") == 2)
    os.kill(pids_of(process)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    errors = without_progress(errors)
    assert process.returncode == 1
    why = "its worker was lost 1 times (its process was ended by signal 9, Killed, as the system does where"
    assert errors.count(why) == errors.count("\n") >= 1
    assert statuses("lost").count("completed") >= 2


@pytest.mark.parametrize("way", ["a script", "standard input"])
def test_workers_need_nothing_of_a_script_without_a_main_guard(way):
    words = "conditions='sft', N=8, backend='tabular', num_runs=2, ledger=False, log_path='once'"
    script = (
        f"print('from the top')\nimport memory_rl\nmemory_rl.sweep(executor='processes', workers=1, {words})"
    )
    Path("script.py").write_text(script)
    told = subprocess.run(
        [sys.executable, "script.py" if way == "a script" else "-"],
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (told.stdout, told.stderr, told.returncode) == ("from the top\n", "", 0)
    assert statuses("once") == ["completed"]


OWN = """
from memory_rl import Learner

class Half(Learner):
    def advantages(self, returns):
        return (returns - returns.mean(axis=2, keepdims=True)) / 2

def near(answer, secret):
    return float(abs(answer - secret) < 2)
"""


@pytest.mark.parametrize("key", ["algorithm=own.py:Half", "reward_type=own.py:near"])
def test_workers_run_a_users_own_code(key):
    Path("own.py").write_text(OWN)
    words = f"sweep {key} N=8 backend=tabular num_runs=2 max_episodes=40 seed=0,1".split()
    assert main([*words, "log_path=inline"]) == 0
    assert main([*words, "executor=processes", "workers=2", "log_path=processes"]) == 0
    assert statuses("processes") == ["completed"] * 2
    assert measured("processes") == measured("inline")


def test_processes_that_cannot_be_started_are_said(monkeypatch):
    def start(*_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(multiprocessing.context.SpawnProcess, "start", start)
    words = {"conditions": "sft", "N": 8, "backend": "tabular", "num_runs": 2, "log_path": "none"}
    (cell,) = memory_rl.sweep(**words, executor="processes", workers=1, retries=0)["cells"]
    assert cell["status"] == "failed"
    assert "(it could not be started: [Errno 11] Resource temporarily unavailable)" in cell["why"]


def test_workers_do_not_outlive_a_killed_sweep():
    process = start(f"{LONG} executor=processes workers=2 log_path=gone")
    wait_until(lambda: statuses("gone").count("running") == 2)
    pids = pids_of(process)
    assert len(pids) == 2
    process.kill()
    process.communicate(timeout=60)
    wait_until(
        lambda: (
            not any(
                psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
                for pid in pids
            )
        )
    )
    assert "running" in statuses("gone")  # it had no chance to say; a second start sets it aside


def test_two_sweeps_never_share_a_directory(capsys):
    directory = SweepDirectory("taken")
    with directory.locked():
        assert main(["sweep", "conditions=sft", "backend=tabular", "log_path=taken"]) == 2
    message = capsys.readouterr().err
    assert "log_path=taken is in use by another sweep" in message
    assert list(Path("taken").iterdir()) == []
    with (
        directory.locked(),
        pytest.raises(RunDirectoryError, match="in use"),
        SweepDirectory("./taken/").locked(),
    ):
        pass
    with directory.locked():  # free again
        pass


@pytest.mark.parametrize(
    "same",
    [
        "{here}/place",
        "file://{here}/place",
        "file:{here}/place/",
        "local://{here}/place",
        "link",
        "a/../place/",
    ],
)
def test_all_names_of_a_directory_are_one_lock_and_one_place(same, tmp_path):
    Path("a").mkdir()
    Path("link").symlink_to("place")
    other = SweepDirectory(same.format(here=tmp_path))
    with SweepDirectory("place").locked(), pytest.raises(RunDirectoryError, match="in use"), other.locked():
        pass
    other.write_bytes("cells/here", b"")
    assert Path(other.local, "cells/here").samefile("place/cells/here")  # where a worker would write
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link", "place"]


@pytest.mark.parametrize("same", ["memory:///bucket/sweep", "memory://bucket/sweep/"])
def test_all_names_of_a_url_are_one_lock(same):
    url = SweepDirectory("memory://bucket/sweep")
    with url.locked(), pytest.raises(RunDirectoryError, match="in use"), SweepDirectory(same).locked():
        pass
    with url.locked(), SweepDirectory("memory://bucket/other").locked():
        pass


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("command", ["train", "sweep conditions=sft,binary"])
def test_without_locks_runs_and_sweeps_warn_once_and_continue(command, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    words = f"{command} backend=tabular N=8 num_runs=2 max_episodes=8 quiet=True log_path=place"
    assert main(words.split()) == 0
    told = capsys.readouterr().err
    assert told.startswith("memory-rl: warning: ")
    assert "place is on a file system without locks" in told
    assert told.count("\n") == 1


def test_the_lock_of_a_killed_sweep_is_free():
    process = start(f"{LONG} log_path=dead")
    wait_until(lambda: "running" in statuses("dead"))
    with pytest.raises(RunDirectoryError, match="in use"), SweepDirectory("dead").locked():
        pass
    process.kill()
    process.communicate(timeout=60)
    with SweepDirectory("dead").locked():
        pass


def test_a_sweep_of_version_0_1_is_left_alone(capsys):
    """Its cells had other ids; its run directories can still be loaded and reported."""
    Path("old").mkdir()
    Path("old/sweep.json").write_text(
        json.dumps({"schema": 1, "protocol": None, "tuning": None, "cells": []})
    )
    assert main(["sweep", "conditions=sft", "backend=tabular", "log_path=old"]) == 2
    message = capsys.readouterr().err
    assert (
        "log_path=old already holds a sweep of schema 1, and this version writes 2: give another" in message
    )
    assert [file.name for file in Path("old").iterdir()] == ["sweep.json"]


@pytest.mark.parametrize(
    ("name", "part"), [("manifest.json", "already holds a run"), ("notes.txt", "notes.txt")]
)
def test_a_folder_with_other_files_is_left_alone(name, part, capsys):
    Path("mine").mkdir()
    Path("mine", name).write_text("mine")
    assert main(["sweep", "conditions=sft", "backend=tabular", "log_path=mine"]) == 2
    assert part in capsys.readouterr().err
    assert [file.name for file in Path("mine").iterdir()] == [name]
    assert Path("mine", name).read_text() == "mine"


@pytest.mark.parametrize("url", ["nosuch://place/sweep", "s3://bucket/sweep"])
def test_a_url_that_cannot_be_written_is_reported(url, capsys):
    pytest.importorskip("fsspec")
    assert main(["sweep", "conditions=sft", "backend=tabular", f"log_path={url}"]) == 2
    message = capsys.readouterr().err
    assert f"log_path={url}" in message
    assert message.count("\n") == 1


def test_a_path_that_is_a_file_is_refused(capsys):
    Path("file").write_text("mine")
    assert main(["sweep", "conditions=sft", "backend=tabular", "log_path=file"]) == 2
    assert "log_path=file" in capsys.readouterr().err
    assert Path("file").read_text() == "mine"


def test_a_full_disk_is_reported(monkeypatch, capsys):
    write = SweepDirectory.write_bytes

    def full(self, name, content):
        if name == "summary.json":
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", fail)
                return write(self, name, content)
        return write(self, name, content)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SweepDirectory, "write_bytes", full)
    assert (
        main(
            [
                "sweep",
                "conditions=sft",
                "N=16",
                "num_runs=2",
                "backend=tabular",
                "ledger=False",
                "log_path=full",
                "quiet=True",
            ]
        )
        == 2
    )
    message = capsys.readouterr().err
    assert "full/summary.json cannot be written" in message
    assert "No space left" in message
    assert message.count("\n") == 1
    assert not list(Path("full").rglob("*.part"))
    assert statuses("full") == ["completed"]
