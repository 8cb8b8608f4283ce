"""What runs and sweeps there are: each end is named, all can be sorted, and nothing ends in a traceback."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import memory_rl
from memory_rl.cli import main
from memory_rl.reporting.listing import listing_sheet
from memory_rl.runs.lock import LOCK, Lock
from memory_rl.runs.store import MANIFEST

SMALL = {"N": 8, "backend": "tabular", "num_runs": 4, "figures": False}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """Two runs and a sweep."""
    folder = tmp_path_factory.mktemp("template")
    memory_rl.train(**SMALL, log_path=str(folder / "runs/binary"))
    memory_rl.sft(**SMALL | {"N": 16}, learning_rate=0.5, log_path=str(folder / "runs/sft"))
    memory_rl.sweep(**SMALL, conditions=["sft", "binary"], log_path=str(folder / "sweeps/both"))
    return folder


@pytest.fixture
def here(template, tmp_path) -> Path:
    """A copy in the working directory."""
    return Path(shutil.copytree(template, tmp_path, dirs_exist_ok=True))


def change(path: str, **about) -> None:
    manifest = json.loads(Path(path, "manifest.json").read_text())
    Path(path, "manifest.json").write_text(json.dumps({**manifest, **about}))


def row_of(path: str) -> dict:
    (row,) = memory_rl.list_runs().filter(pl.col("path") == path).rows(named=True)
    return row


def test_what_is_there_and_what_came_out(here):
    frame = memory_rl.list_runs()
    assert set(frame["path"]) == {"runs/binary", "runs/sft", "sweeps/both"}
    for name in ("binary", "sft"):
        row, result = row_of(f"runs/{name}"), memory_rl.load(f"runs/{name}")
        summary = result.summary[name]
        assert (row["kind"], row["N"], row["ended"]) == ("run", result.config["N"], "finished")
        assert (row["runs"], row["memorised"]) == (summary["runs"], summary["memorised"])
        assert row["bits_per_episode"] == summary["bits_per_episode"]["estimate"]
        assert (row["started"], row["why"]) == (result.manifest["started"], None)
    sweep = row_of("sweeps/both")
    assert (sweep["kind"], sweep["cells"], sweep["complete"], sweep["runs"]) == ("sweep", 2, 2, 8)
    assert sweep["name"] == "sweep: binary and sft"


def test_a_sweep_is_opened_where_it_is_given_itself_or_asked_for(here):
    of_sweep = memory_rl.list_runs("sweeps/both")
    assert sorted(of_sweep["name"]) == ["binary", "sft"]
    assert all(path.startswith("sweeps/both/cells/") for path in of_sweep["path"])
    assert len(memory_rl.list_runs(cells=True)) == len(memory_rl.list_runs("sweeps/both", ".")) == 4


def test_names_say_in_what_runs_differ(here):
    shutil.copytree("runs/binary", "runs/other")
    manifest = json.loads(Path("runs/other/manifest.json").read_text())
    change("runs/other", config={**manifest["config"], "seed": 7})
    names = memory_rl.list_runs("runs").sort("path")["name"].to_list()
    assert names == ["binary", "binary seed=7", "sft"]


ENDS = {
    "running": {"status": "running"},
    "killed": {"status": "running"},
    "interrupted": {"status": "interrupted", "why": "interrupted by SIGINT"},
    "failed": {"status": "failed", "why": "OSError: no space left"},
    "diverged": {"status": "failed", "why": "DivergedError: run 2 diverged at its update 9 (episode 36)"},
}


@pytest.mark.parametrize("ended", ENDS)
def test_each_end_has_its_word_and_its_reason(here, ended, capsys):
    change("runs/binary", **ENDS[ended])
    lock = Lock(Path("runs/binary", LOCK)) if ended == "running" else None
    row = row_of("runs/binary")
    assert (row["ended"], row["why"], row["runs"]) == (ended, ENDS[ended].get("why"), None)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert ended in out
    assert ENDS[ended].get("why", "") in out
    if lock:
        lock.release()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "no manifest": lambda run: (run / MANIFEST).unlink(),
    "a cut manifest": lambda run: cut(run / MANIFEST),
    "a manifest that is a folder": lambda run: [
        (run / "manifest.json").unlink(),
        (run / "manifest.json").mkdir(),
    ],
    "no summary": lambda run: (run / "summary.json").unlink(),
    "a summary of garbage": lambda run: (run / "summary.json").write_bytes(b"\x00\xff garbage"),
    "no metrics": lambda run: (run / "metrics.parquet").unlink(),
    "cut metrics": lambda run: cut(run / "metrics.parquet"),
    "metrics of garbage": lambda run: (run / "metrics.parquet").write_bytes(b"garbage " * 99),
    "empty metrics": lambda run: (run / "metrics.parquet").write_bytes(b""),
    "another table for metrics": lambda run: shutil.copy(run / "timing.parquet", run / "metrics.parquet"),
    "no episodes": lambda run: (run / "episodes.parquet").unlink(),
    "an empty summary": lambda run: (run / "summary.json").write_text('{"conditions": {}}'),
    "nothing": lambda run: [shutil.rmtree(run), run.mkdir()],
    "nothing but a checkpoint": lambda run: [shutil.rmtree(run), (run / "checkpoint").mkdir(parents=True)],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_named_and_the_rest_is_listed(here, name, capsys):
    DAMAGES[name](Path("runs/binary"))
    row = row_of("runs/binary")
    assert (row["kind"], row["ended"]) == ("folder", "damaged")
    assert row["why"].startswith("runs/binary")
    assert row["why"].endswith(".")
    assert row_of("runs/sft")["ended"] == "finished"
    assert main(["list"]) == 0
    assert f"runs/binary damaged: {row['why']}" in capsys.readouterr().out


def test_ends_of_sweeps(here):
    (cell, _) = sorted(Path("sweeps/both/cells").iterdir())
    change(str(cell), status="failed", why="OSError: no space left")
    assert (row_of("sweeps/both")["ended"], row_of("sweeps/both")["complete"]) == ("failed", 1)
    change(str(cell), status="interrupted", why="interrupted by SIGINT")
    assert row_of("sweeps/both")["ended"] == "interrupted"
    lock = Lock(Path("sweeps/both", LOCK))
    assert row_of("sweeps/both")["ended"] == "running"
    lock.release()
    shutil.rmtree(cell)
    assert (row_of("sweeps/both")["ended"], row_of("sweeps/both")["cells"]) == ("killed", 2)
    summary = json.loads(Path("sweeps/both/summary.json").read_text())
    Path("sweeps/both/summary.json").write_text(json.dumps({**summary, "status": "failed"}))
    assert row_of("sweeps/both")["ended"] == "failed"
    cell.mkdir()
    assert (row_of("sweeps/both")["ended"], row_of("sweeps/both")["complete"]) == ("damaged", 1)
    Path("sweeps/both/sweep.json").write_text("[")
    assert row_of("sweeps/both")["why"].startswith("sweeps/both/sweep.json cannot be read")


def test_a_sweep_that_has_only_begun_is_listed(here):
    shutil.rmtree("sweeps/both/cells")
    for folders in ([], ["sweeps"], ["sweeps/both"]):
        (row,) = memory_rl.list_runs(*folders).filter(pl.col("path") == "sweeps/both").rows(named=True)
        assert (row["cells"], row["complete"], row["runs"]) == (2, 0, 0)


def test_it_can_be_sorted_by_columns_and_by_keys(here):
    change("runs/binary", updated="2031-01-01T00:00:00+00:00")
    change("runs/sft", updated="2030-01-01T00:00:00+00:00")

    def order(sort):
        return [Path(path).name for path in memory_rl.list_runs(sort=sort)["path"]]

    assert order(None) == ["binary", "sft", "both"]
    assert order("when") == order("updated") == ["binary", "sft", "both"]
    assert order("-when") == ["both", "sft", "binary"]
    assert order("rate") == ["sft", "binary", "both"]  # what has none comes last
    assert order("-rate") == ["binary", "sft", "both"]
    assert order("N") == ["binary", "both", "sft"]
    assert order("-N") == ["sft", "binary", "both"]
    assert order("learning_rate") == ["sft", "binary", "both"]  # the other has its default, None
    assert order("path") == ["binary", "sft", "both"]
    assert order("cells")[0] == "both"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["sort=rat"], ["sort=rat is neither a column nor a key: did you mean rate?"]),
        (["sort=lr"], ["did you mean learning_rate?"]),
        (["nowhere"], ["nowhere is not a folder"]),
        (["empty"], ["empty holds no run directory"]),
        (["cells=maybe"], ["cells=maybe", "True or False"]),
        ([], ["there is no folder runs or sweeps here"]),
    ],
)
def test_bad_input_is_one_sentence(words, parts, capsys):
    Path("empty").mkdir()
    assert main(["list", *words]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert all(part in said.err for part in parts)


def test_folders_that_are_no_run_s_are_nobody_s_damage(here):
    """Empty ones far from any run, an earlier report, and what stands apart."""
    Path("notes/empty").mkdir(parents=True)
    Path("runs/report").mkdir()
    Path("runs/report/index.html").write_text("a page")
    Path("sweeps/both/tuning/half").mkdir(parents=True)
    assert set(memory_rl.list_runs(".")["path"]) == {"runs/binary", "runs/sft", "sweeps/both"}


def test_a_run_that_begins_is_no_damage(here):
    Path("runs/new").mkdir()
    lock = Lock(Path("runs/new", LOCK))
    assert "runs/new" not in memory_rl.list_runs("runs")["path"].to_list()
    lock.release()
    assert row_of("runs/new")["why"].startswith("runs/new is empty")


def test_a_sweep_with_a_damaged_table_is_damaged(here):
    next(Path("sweeps/both/cells").rglob("metrics.parquet")).unlink()
    row = row_of("sweeps/both")
    assert (row["ended"], row["complete"], row["runs"]) == ("damaged", 1, 4)
    assert "metrics.parquet cannot be read, since it is missing" in row["why"]


def test_of_a_table_only_the_end_is_read(here):
    """So that a thousand directories are listed in about two seconds."""
    for table in Path().rglob("*.parquet"):
        content = table.read_bytes()
        end = 8 + int.from_bytes(content[-8:-4], "little")
        table.write_bytes(b"PAR1" + bytes(len(content) - end - 4) + content[-end:])
    assert set(memory_rl.list_runs()["ended"]) == {"finished"}


def test_of_several_secrets_their_table_is_needed_too(tmp_path):
    memory_rl.train(**SMALL, num_secrets=2, log_path=str(tmp_path / "runs/two"))
    assert memory_rl.list_runs(tmp_path)["ended"].to_list() == ["finished"]
    (tmp_path / "runs/two/secrets.parquet").unlink()
    assert memory_rl.list_runs(tmp_path)["ended"].to_list() == ["damaged"]


@pytest.mark.parametrize(("width", "columns"), [(30, 1), (60, 1), (80, 3), (200, 6)])
def test_a_narrow_terminal_has_fewer_columns_and_each_value_as_it_is(template, width, columns):
    """And it fits, down to what a number or a date takes."""
    frame = memory_rl.list_runs(template / "runs")
    sheet = listing_sheet(frame, width).fitted(width)
    assert len(sheet.headings) == columns
    assert sheet.width <= width
    lines = [line for row in sheet.rows for cell in row for line in cell.split("\n")]
    assert {"4 of 4", "finished"} <= {*lines}
