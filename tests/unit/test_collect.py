"""Run directories as cells: which folders are found, and what a cell tells of its run."""

import json
import shutil

import pytest

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.survival import restricted_mean
from memory_rl.errors import RunDirectoryError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One finished run directory, to be copied about."""
    path = tmp_path_factory.mktemp("made") / "run"
    memory_rl.train(N=4, backend="tabular", num_runs=3, seed=5, log_path=str(path))
    return path


def put(run, *places):
    for place in places:
        shutil.copytree(run, place)


def test_cells_are_found_at_any_depth_and_sorted_by_path(run, tmp_path):
    put(run, tmp_path / "b", tmp_path / "cells" / "a", tmp_path / "cells" / "deep" / "er")
    assert [cell.path for cell in find_cells([tmp_path])] == [
        tmp_path / "b",
        tmp_path / "cells" / "a",
        tmp_path / "cells" / "deep" / "er",
    ]


def test_tuning_and_discarded_runs_are_not_mixed_with_the_reported_ones(run, tmp_path):
    put(run, tmp_path / "cells" / "a", tmp_path / "tuning" / "b", tmp_path / "cells" / "discarded" / "c")
    assert [cell.path for cell in find_cells([tmp_path])] == [tmp_path / "cells" / "a"]
    assert [cell.path for cell in find_cells([tmp_path / "tuning"])] == [tmp_path / "tuning" / "b"]


def test_a_run_that_is_given_twice_is_one_cell(run, tmp_path):
    put(run, tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert len(find_cells([tmp_path, tmp_path / "a", "a", tmp_path / "link"])) == 1


def test_a_cell_tells_what_was_run_and_what_came_of_it(run):
    (cell,) = find_cells([run])
    loaded = memory_rl.load(run)
    assert (cell.kind, cell.condition, cell.N, cell.completed) == ("train", "binary", 4, True)
    assert cell.config["seed"] == 5
    assert cell.summary == loaded.summary["binary"]
    assert cell.metrics.equals(loaded.metrics)
    assert cell.episodes.equals(loaded.episodes)
    assert int(cell.times.memorised.sum()) == cell.summary["memorised"] == 3
    mean = restricted_mean(cell.times)
    assert (
        cell.summary["episodes_to_memorise"]["restricted_mean"]
        == mean.value
        == pytest.approx(cell.times.episodes.mean())
    )
    assert cell.summary["episodes_to_memorise"]["restricted_mean_ci95"] == [mean.low, mean.high]


def test_an_unfinished_run_is_a_cell_without_a_summary(run, tmp_path):
    put(run, tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    (tmp_path / "a" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    (tmp_path / "a" / "summary.json").unlink()
    (cell,) = find_cells([tmp_path])
    assert (cell.completed, cell.summary) == (False, {})


def test_what_is_no_run_directory_is_said_in_one_sentence(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="empty holds no run directory"):
        find_cells([tmp_path / "empty"])
    with pytest.raises(RunDirectoryError, match="nowhere is not a folder"):
        find_cells([tmp_path / "nowhere"])
    put(run, tmp_path / "a")
    (tmp_path / "a" / "summary.json").write_text(json.dumps({"schema": 1, "conditions": {}}))
    with pytest.raises(RunDirectoryError, match="does not hold the condition binary"):
        find_cells([tmp_path])
