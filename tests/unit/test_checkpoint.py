"""What goes into a checkpoint comes out of it to the bit; how often one is due; and streams that
continue where they stood."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from memory_rl.runs import checkpoint
from memory_rl.runs.checkpoint import Checkpoints
from memory_rl.seeding import RunStreams
from memory_rl.state import SavedModel

ARRAYS = {
    "floats": np.array([0.1, -0.0, np.nan, np.inf, 5e-324]),
    "singles": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "integers": np.array([[2**62, -1]]),
    "flags": np.array([True, False]),
    "nothing": np.zeros((0, 3)),
}


def test_a_state_comes_back_to_the_bit():
    table = pl.DataFrame({"run": [0, 1], "reward": [0.5, None]})
    adapter = SavedModel({"r": 2}, {"a.lora_A.weight": np.ones((2, 3), dtype=np.float32)})
    plain = {"big": 2**127 + 1, "none": None, "list": [{"x": 1}, 0.1], "flag": True}
    written = {
        "loop": plain,
        "policy": {**ARRAYS, "adapters": {"run-0": adapter}, "moments": [{"first": np.ones(2)}, np.eye(2)]},
        "recorder": {"metrics": table},
    }
    checkpoints = Checkpoints(Path.cwd())
    assert checkpoints.read() is None
    checkpoints.write(lambda: written)
    read = Checkpoints(Path.cwd()).read()
    assert read["loop"] == plain
    for name, array in ARRAYS.items():
        assert read["policy"][name].dtype == array.dtype
        assert read["policy"][name].shape == array.shape
        assert read["policy"][name].tobytes() == array.tobytes()
    np.testing.assert_array_equal(read["policy"]["moments"][0]["first"], np.ones(2))
    np.testing.assert_array_equal(read["policy"]["moments"][1], np.eye(2))
    assert read["policy"]["adapters"]["run-0"].config == adapter.config
    assert not read["policy"]["adapters"]["run-0"].whole
    np.testing.assert_array_equal(read["policy"]["adapters"]["run-0"].tensors["a.lora_A.weight"], 1.0)
    assert_frame_equal(read["recorder"]["metrics"], table)


def test_the_last_checkpoint_counts_and_the_one_before_goes():
    checkpoints = Checkpoints(Path.cwd())
    for number in range(3):
        checkpoints.write(lambda number=number: {"loop": {"number": number}})
    assert [folder.name for folder in checkpoints.path.iterdir()] == ["3"]
    assert Checkpoints(Path.cwd()).read()["loop"] == {"number": 2}
    half = checkpoints.path / ".next"  # as a kill would leave it
    half.mkdir()
    (half / "state.json").write_text("{")
    assert Checkpoints(Path.cwd()).read()["loop"] == {"number": 2}
    Checkpoints(Path.cwd()).write(lambda: {"loop": {"number": 3}})
    assert [folder.name for folder in checkpoints.path.iterdir()] == ["4"]


@pytest.mark.parametrize("schema", [1, 99])  # 1: of version 0.1
def test_another_schema_is_reported(schema):
    checkpoints = Checkpoints(Path.cwd())
    checkpoints.write(lambda: {"loop": {}})
    index = checkpoints.path / "1" / "checkpoint.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "schema": schema}))
    with pytest.raises(OSError, match=f"another version .its schema is {schema}, and this version reads 2"):
        checkpoints.read()


@pytest.mark.parametrize(
    ("every", "cost", "wait"), [(None, 0.1, 60), (None, 2.0, 200), (5.0, 2.0, 5), (0.0, 2.0, 0)]
)
def test_checkpoints_come_steadily_and_cost_one_percent_at_most(every, cost, wait, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)

    def make_state():
        nonlocal now
        now += cost
        return {}

    checkpoints = Checkpoints(Path.cwd(), every)
    checkpoints.write(make_state)
    now += wait - 0.01
    assert not checkpoints.due
    now += 0.02
    assert checkpoints.due


def test_streams_continue_where_they_stood():
    once, again = RunStreams(3, "answers", 4), RunStreams(3, "answers", 4)
    once.random([0, 2], 5)
    again.restore(json.loads(json.dumps(once.state())))
    np.testing.assert_array_equal(again.random(np.arange(4), 3), once.random(np.arange(4), 3))
