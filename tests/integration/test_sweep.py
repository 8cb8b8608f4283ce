"""Sweeps on the tabular learner: every cell is the run it says it is, wherever it ran; a second start does
only what is missing; tuning stays apart."""

import csv
import json
from pathlib import Path

import fsspec
import polars as pl
import pytest

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.protocol import load_protocol
from memory_rl.cli import main
from memory_rl.experiments.estimates import estimate_all
from memory_rl.experiments.grid import cells_of_axes
from memory_rl.experiments.store import SweepDirectory
from memory_rl.experiments.sweep import sweep

GRID = "conditions=sft,binary,multi_step N=16 backend=tabular num_runs=8 ledger=False"


def run(words: str, code: int = 0) -> None:
    assert main(["sweep", *words.split(), "quiet=True"]) == code


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def measured(path: Path) -> dict[str, bytes]:
    """What a sweep measured: metrics and episodes of every cell, which its configuration determines to the
    byte."""
    return {
        name: content
        for name, content in snapshot(path).items()
        if name.endswith(("metrics.parquet", "episodes.parquet"))
    }


def read(name: str) -> dict:
    return json.loads(Path(name).read_text())


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> dict[str, bytes]:
    """The grid, run in one process without interruption."""
    path = tmp_path_factory.mktemp("reference") / "sweep"
    run(f"{GRID} log_path={path}")
    return measured(path)


def test_every_cell_is_the_run_it_says_it_is(capsys):
    assert (
        main(
            [
                "sweep",
                *[
                    "conditions=sft,multi_step",
                    "N=16",
                    "backend=tabular",
                    "num_runs=8",
                    "seed=0,1",
                    "log_path=all",
                ],
            ]
        )
        == 0
    )
    output = capsys.readouterr().out
    rows = read("all/summary.json")["cells"]
    assert [(row["condition"], row["seed"]) for row in rows] == [
        (name, seed) for name in ("sft", "multi_step") for seed in (0, 1)
    ]
    alone = memory_rl.train(env_type="multi_step", N=16, backend="tabular", num_runs=8, seed=1)
    cell = Path("all/cells", rows[3]["id"])
    for name in ("metrics.parquet", "episodes.parquet"):
        assert (cell / name).read_bytes() == (alone.path / name).read_bytes()
    summary = alone.summary["multi_step"]
    assert rows[3]["bits_per_episode"] == summary["bits_per_episode"]["estimate"]
    assert [rows[3]["median_low"], rows[3]["median_high"]] == summary["episodes_to_memorise"]["ci95"]
    assert (rows[3]["memorised"], rows[3]["censored"], rows[3]["laws"]) == (8, 0, "holds")
    with Path("all/results.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [float(row["bits_per_episode"]) for row in table] == [row["bits_per_episode"] for row in rows]
    for row in rows:
        assert f"] {row['condition']} N=16 seed={row['seed']}: 8 of 8 runs memorised (" in output
    assert "sweep directory: all" in output
    assert (
        {entry["id"] for entry in read("all/sweep.json")["cells"]}
        == {row["id"] for row in rows}
        == {cell.path.name for cell in find_cells(["all"])}
    )


def test_a_second_start_does_only_what_is_missing(reference, capsys):
    run(f"{GRID} log_path=again")
    before = snapshot(Path("again/cells"))
    run(f"{GRID} log_path=again")
    assert snapshot(Path("again/cells")) == before  # not a byte, not a time stamp in a manifest

    first, second, third = (Path("again/cells", row["id"]) for row in read("again/summary.json")["cells"])
    first.rename("elsewhere")
    manifest = read(f"{second}/manifest.json")
    Path(second, "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    Path(second, "metrics.parquet").write_bytes(b"half of")
    assert main(["sweep", *GRID.split(), "log_path=again"]) == 0
    assert "1 of 3 are complete already" in capsys.readouterr().out
    assert measured(Path("again/cells")) == {
        name.removeprefix("cells/"): content for name, content in reference.items()
    }
    assert Path("again/discarded", f"{second.name}-1", "metrics.parquet").read_bytes() == b"half of"
    untouched = {name: content for name, content in before.items() if name.startswith(third.name)}
    assert len(untouched) > 5
    assert untouched.items() <= snapshot(Path("again/cells")).items()
    assert len(find_cells(["again"])) == 3


def test_a_grid_may_grow():
    run("conditions=sft backend=tabular num_runs=4 ledger=False N=16,32 log_path=grown")
    before = snapshot(Path("grown/cells"))
    run("conditions=sft backend=tabular num_runs=4 ledger=False N=32,64 log_path=grown")
    assert before.items() <= snapshot(Path("grown/cells")).items()
    assert [row["N"] for row in read("grown/summary.json")["cells"]] == [16, 32, 64]
    assert [entry["config"]["N"] for entry in read("grown/sweep.json")["cells"]] == [16, 32, 64]


def test_local_processes_measure_the_same(reference):
    run(f"{GRID} log_path=processes executor=processes workers=2")
    assert measured(Path("processes")) == reference


def test_a_url_gets_the_same(reference, tmp_path):
    run(f"{GRID} log_path=file://{tmp_path}/url")
    assert measured(tmp_path / "url") == reference
    assert not list((tmp_path / "url").rglob("*.part"))


def test_a_store_without_a_disk_gets_the_same(reference):
    run(f"{GRID} log_path=memory://sweeps/one")
    files = fsspec.filesystem("memory").find("/sweeps/one")
    content = {
        name.removeprefix("/sweeps/one/"): fsspec.filesystem("memory").cat_file(name) for name in files
    }
    assert {name: data for name, data in content.items() if name in reference} == reference
    assert {name.split("/")[-1] for name in content if name.startswith("cells/")} >= {
        "manifest.json",
        "summary.json",
        "bits_known.svg",
    }
    assert not [name for name in content if name.endswith(".part")]
    assert len(json.loads(content["summary.json"])["cells"]) == 3
    directory = SweepDirectory("memory://sweeps/one")
    cell = json.loads(content["summary.json"])["cells"][0]["id"]
    directory.write_json(
        f"cells/{cell}/manifest.json", {"status": "running"}
    )  # as a killed worker would leave it
    run(f"{GRID} log_path=memory://sweeps/one")
    assert directory.summary(f"cells/{cell}") is not None
    assert directory.read_json(f"discarded/{cell}-1/manifest.json") == {"status": "running"}


TIRED = """\
from memory_rl import Learner

class Mine(Learner):
    asked, most = 0, 20

    def advantages(self, returns):
        self.asked += 1
        if self.asked > self.most:
            raise ValueError("too tired to go on")
        return returns - returns.mean(axis=2, keepdims=True)
"""
"""A learner that passes every check before the first cell, and fails in the middle of its run."""


def test_a_failed_cell_stops_no_other(capsys):
    Path("mine.py").write_text(TIRED)
    grid = (
        "conditions=binary algorithm=reinforce,mine.py:Mine,grpo N=8 backend=tabular num_runs=2 ledger=False"
    )
    run(f"{grid} log_path=one", code=1)
    rows = read("one/summary.json")["cells"]
    assert [row["status"] for row in rows] == ["completed", "failed", "completed"]
    assert read("one/summary.json")["status"] == "failed"
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert rows[1]["id"] in message
    assert "too tired to go on" in message
    Path("mine.py").write_text(TIRED.replace("20", "10**9"))
    before = {place: snapshot(Path("one/cells", place)) for place in (rows[0]["id"], rows[2]["id"])}
    run(f"{grid} log_path=one")
    assert before == {place: snapshot(Path("one/cells", place)) for place in before}
    assert [row["status"] for row in read("one/summary.json")["cells"]] == ["completed"] * 3


def test_rates_are_chosen_on_secrets_of_their_own():
    words = (
        "conditions=sft,binary N=16 backend=tabular num_runs=8 ledger=False tune=True tune_rates=0.03,0.3,3"
    )
    run(f"{words} log_path=tuned")
    summary = read("tuned/summary.json")
    assert [row["status"] for row in summary["cells"]] == ["completed", "completed"]
    for row, choice in zip(summary["cells"], summary["tuning"], strict=True):
        # the same choice once more, from the frames
        rates = {}
        for path in Path("tuned/tuning").glob(f"{row['condition']}-*"):
            result = memory_rl.load(path)
            ends = result.metrics.group_by("run").agg(
                first=pl.col("episode").filter(pl.col("bits_known") >= 3).min(),
                last=pl.col("episode").max(),
                rate=pl.col("learning_rate").first(),
            )
            rates[ends["rate"][0]] = (
                4
                * ends["first"].is_not_null().sum()
                / ends.select(pl.coalesce("first", "last")).to_series().sum()
            )
        assert len(rates) == 3
        assert row["learning_rate"] == choice["learning_rate"] == max(rates, key=lambda rate: rates[rate])
        assert {
            score["learning_rate"]: score["bits_per_episode"] for score in choice["scores"]
        } == pytest.approx(rates)
        assert row["id"] not in {score["id"] for score in choice["scores"]}
        reported = memory_rl.load(Path("tuned/cells", row["id"]))
        tuning = memory_rl.load(Path("tuned/tuning", choice["scores"][0]["id"]))
        assert (reported.config["seed"], tuning.config["seed"]) == (0, 1_000_000)
    assert {cell.path.name for cell in find_cells(["tuned"])} == {
        row["id"] for row in summary["cells"]
    }  # tuning is no result
    assert [entry["id"] for entry in read("tuned/sweep.json")["cells"]] == [
        row["id"] for row in summary["cells"]
    ]
    before = snapshot(Path("tuned"))
    run(f"{words} log_path=tuned")
    assert snapshot(Path("tuned")) == before


def test_a_condition_whose_tuning_failed_is_not_reported():
    Path("mine.py").write_text(TIRED)
    words = "conditions=binary algorithm=reinforce,mine.py:Mine N=16 backend=tabular num_runs=4 tune=True"
    run(f"{words} tune_rates=0.1,0.3 log_path=half", code=1)
    rows = read("half/summary.json")["cells"]
    assert [(row["algorithm"], row["status"]) for row in rows] == [
        ("reinforce", "completed"),
        ("mine.py:Mine", "failed"),
    ]
    assert "its tuning is not complete" in rows[1]["why"]
    assert len(list(Path("half/cells").iterdir())) == 1


@pytest.mark.parametrize("own", ["reward_type=none.py:Mine", "algorithm=none.py:Mine"])
@pytest.mark.parametrize("tuned", ["", " tune=True"])
def test_code_of_ones_own_that_cannot_be_used_starts_no_cell(own, tuned, capsys):
    run(f"{own} N=16 backend=tabular num_runs=4 log_path=nothing{tuned}", code=2)
    assert f"{own} names no file" in capsys.readouterr().err
    assert not Path("nothing").exists()


PROTOCOL = """\
name: tiny
grid:
  - {command: sft, backend: tabular, N: [16, 32], num_runs: 4, ledger: false}
tune: {rates: [0.1, 0.3], num_runs: 3}
"""


def test_a_protocol_is_kept_with_its_results(monkeypatch, capsys):
    from memory_rl import execution

    found = []
    run_experiment = execution.run_experiment

    def look_and_run(experiment):
        found.append((Path("kept/protocol.yaml").read_text(), len(read("kept/sweep.json")["cells"])))
        return run_experiment(experiment)

    monkeypatch.setattr(execution, "run_experiment", look_and_run)
    Path("tiny.yaml").write_text(PROTOCOL)
    run("protocol=tiny.yaml log_path=kept")
    assert found == [(PROTOCOL, 2)] * (4 + 2)  # it was there before the first of the tuning
    assert Path("kept/protocol.yaml").read_text() == PROTOCOL
    record = read("kept/sweep.json")
    assert record["protocol"] == {"name": "tiny", "sha256": load_protocol("tiny.yaml").sha256}
    assert [row["N"] for row in read("kept/summary.json")["cells"]] == [16, 32]
    assert {cell["config"]["num_runs"] for cell in record["tuning_cells"]} == {3}
    before = snapshot(Path("kept"))
    Path("tiny.yaml").write_text(PROTOCOL + "minimum_runs: 4\n")
    for other in ("protocol=tiny.yaml", "conditions=sft backend=tabular"):
        assert main(["sweep", *other.split(), "log_path=kept"]) == 2
        assert "another protocol" in capsys.readouterr().err
    assert snapshot(Path("kept")) == before


def test_a_dry_run_writes_nothing(capsys):
    assert main(["sweep", *GRID.split(), "tune=True", "dry_run=True", "log_path=dry"]) == 0
    output = capsys.readouterr().out
    assert "18 cells" in output  # 5 candidates of 3 conditions, and 3 cells
    assert "estimates" in output
    assert list(Path().iterdir()) == []


def test_estimates_are_right_to_a_factor_of_three():
    for cell in cells_of_axes(
        "sft,binary,multi_step", {"backend": "tabular", "N": "64", "num_runs": "32", "ledger": "False"}
    ):
        command = memory_rl.sft if cell.command == "sft" else memory_rl.train
        result = command(**cell.values)
        spent = result.metrics.group_by("run").agg(pl.col("episode").max())["episode"].sum()
        assert 1 / 3 < estimate_all([cell], [])[0]["episodes"] / spent < 3


def test_help_lists_every_key(capsys):
    assert main(["sweep", "--help"]) == 0
    output = capsys.readouterr().out
    for key in (
        "protocol",
        "grid",
        "conditions",
        "executor",
        "workers",
        "ray_address",
        "retries",
        "dry_run",
        "tune",
        "tune_rates",
        "tune_seed",
        "tune_runs",
    ):
        assert f"\n  {key}=" in output
    assert main(["--help"]) == 0
    assert "\n  sweep " in capsys.readouterr().out


def test_the_same_from_python(reference):
    summary = sweep(
        conditions=["sft", "binary", "multi_step"],
        N=16,
        backend="tabular",
        num_runs=8,
        ledger=False,
        log_path="python",
    )
    assert measured(Path("python")) == reference
    assert summary == read("python/summary.json")
