"""Run directories with a missing key, column or row, or something else there: one sentence, or as before.

What a sentence must name is the file; what must never come is another kind of error.
"""

import copy
import html
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.errors import DamageWarning
from memory_rl.files import from_json, to_csv, to_json
from memory_rl.reporting.answer import make_answer
from memory_rl.reporting.curves import scaling, waterfall
from memory_rl.reporting.provenance import command_of, versions
from memory_rl.reporting.study import make_study
from memory_rl.reporting.tables import about, cells_frame, tables

SMALL = {"backend": "tabular", "N": 8, "num_runs": 2, "max_episodes": 40}
JSON_FILES = ["manifest.json", "summary.json"]
REFUSED = memory_rl.MemoryRLError

TEXTS = {
    "empty": b"",
    "cut": b'{"schema": 1, "conf',
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "brackets": b"[" * 100_000,
    "objects": b'{"schema":' * 100_000,
    "a long integer": b'{"schema": 1' + b"0" * 5000 + b"}",
    "NaN": b'{"schema": NaN}',
    "Infinity": b'{"schema": -Infinity}',
    "beyond floats": b'{"schema": 1e999}',
    "no UTF-8": b'{"schema": "\xff"}',
    "a picture": b"\x89PNG\r\n\x1a\n\0\0",
}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("template") / "run"
    memory_rl.train(**SMALL, log_path=str(path))
    return path


@pytest.fixture
def run(template) -> Path:
    return Path(shutil.copytree(template, "runs/run"))


@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize("content", TEXTS)
def test_what_is_no_object_in_json(file, content, run, capsys):
    (run / file).write_bytes(TEXTS[content])
    said = rf"{re.escape(file)} (cannot be read|has schema|is not a manifest|does not hold|is damaged)"
    with pytest.raises(memory_rl.RunDirectoryError, match=said) as caught:
        memory_rl.load(run)
    assert len(str(caught.value)) < 400
    with pytest.raises(memory_rl.RunDirectoryError, match=said):
        memory_rl.report(runs="runs")
    if file == "manifest.json":
        with pytest.raises(memory_rl.RunDirectoryError, match=said):
            memory_rl.train(**SMALL, log_path=str(run), resume=True)


def look_at(path: Path) -> None:
    """Reads whatever is read of a run directory, but draws nothing."""
    result = memory_rl.load(path)
    repr(result)
    for read in ("metrics", "episodes", "timing", "ledger"):
        getattr(result, read)
    study = make_study(find_cells([path]))
    (
        about(study),
        tables(study, make_answer(study)),
        to_csv(cells_frame(study)),
        versions([result.cell]),
        command_of(result.cell),
    )
    str(result.cell.settings)
    if study.entries:
        waterfall(study.entries), scaling(study.entries)


def places(value: object, place: tuple = ()) -> list[tuple]:
    """Where each key of nested objects is."""
    here = [(*place, key) for key in value] if isinstance(value, dict) else []
    return here + [deeper for key in here for deeper in places(value[key[-1]], key)]


def changed(value: dict, place: tuple, *content: object) -> dict:
    """The same without the key at a place, or with other content there."""
    whole = copy.deepcopy(value)
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    if content:
        inner[place[-1]] = content[0]
    else:
        del inner[place[-1]]
    return whole


CONTENTS = {"missing": (), "null": (None,), "a text": ("x",), "a list": ([],), "a vast number": (10**300,)}


@pytest.mark.parametrize("file", JSON_FILES)
@pytest.mark.parametrize("name", CONTENTS)
def test_every_key_may_be_missing_or_bad(file, name, run):
    whole = json.loads((run / file).read_text())
    said = []
    for place in places(whole):
        (run / file).write_text(json.dumps(changed(whole, place, *CONTENTS[name])))
        try:
            look_at(run)
        except REFUSED as error:
            said.append(str(error))
    assert len(said) >= 5
    assert all(str(run) in sentence and sentence.endswith((".", "?")) for sentence in said)


FRAMES = ["metrics.parquet", "episodes.parquet", "timing.parquet"]


@pytest.mark.parametrize("file", FRAMES)
def test_every_column_may_be_missing_or_bad(file, run):
    whole = pl.read_parquet(run / file)
    for column in whole.columns:
        for frame in (whole.drop(column), whole.with_columns(pl.lit("x").alias(column))):
            frame.write_parquet(run / file)
            with pytest.raises(memory_rl.RunDirectoryError, match=rf"{file} cannot be read \(it.* {column}"):
                look_at(run)


@pytest.mark.parametrize("file", FRAMES)
def test_rows_may_be_missing_or_null(file, run):
    whole = pl.read_parquet(run / file)
    frames = [whole.clear(), whole.head(1), whole.tail(1), whole.gather_every(2), pl.concat([whole, whole])]
    frames += [whole.with_columns(pl.lit(None).alias(column)) for column in whole.columns]
    for frame in frames:
        frame.write_parquet(run / file)
        with suppress(REFUSED):
            look_at(run)


@pytest.mark.parametrize("file", FRAMES)
@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_a_table_that_is_cut_short(file, damage, run):
    content = (run / file).read_bytes()
    (run / file).write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(memory_rl.RunDirectoryError, match=rf"{file} cannot be read"):
        look_at(run)


def test_a_run_of_an_older_version_that_diverged_is_named(run, capsys):
    """It completed with nulls, which broke every report that held it."""
    metrics = pl.read_parquet(run / "metrics.parquet")
    metrics.with_columns(bits_known=pl.lit(None, pl.Float64)).write_parquet(run / "metrics.parquet")
    said = complaint_of_report(capsys)
    assert "run/metrics.parquet cannot be read (its column bits_known has rows without a number)" in said


def test_a_damaged_record_of_a_sweep_is_named_in_a_report(run):
    (run.parent / "sweep.json").write_bytes(b"[")
    (run.parent / "protocol.yaml").write_text("name: [")
    with pytest.warns(DamageWarning, match=r"runs/sweep\.json and runs/protocol\.yaml are damaged"):
        page = memory_rl.report(runs="runs").read_text("utf-8")
    assert "runs/sweep.json cannot be read" in page
    assert "runs/protocol.yaml" in page


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(run: Path, *kept: str) -> None:
    for file in run.iterdir():
        if file.name not in kept and file.is_file():
            file.unlink()


DAMAGES = {
    "no manifest": (lambda run: (run / "manifest.json").unlink(), "manifest.json cannot be read, since"),
    "a cut manifest": (lambda run: cut(run / "manifest.json"), "manifest.json cannot be read ("),
    "another schema": (lambda run: (run / "manifest.json").write_text('{"schema": 9}'), "has schema 9"),
    "a folder": (lambda run: [remove(run), (run / "manifest.json").mkdir()], "manifest.json cannot be read"),
    "no summary": (
        lambda run: (run / "summary.json").unlink(),
        "summary.json cannot be read, since it is missing: restore it, or run it again.",
    ),
    "a summary of garbage": (
        lambda run: (run / "summary.json").write_bytes(b"\xff\0"),
        "summary.json cannot",
    ),
    "another summary": (
        lambda run: (run / "summary.json").write_text("{}"),
        "does not hold the condition binary: restore it, or run it again.",
    ),
    "no metrics": (
        lambda run: (run / "metrics.parquet").unlink(),
        "metrics.parquet cannot be read, since it is missing: restore it, or run it again.",
    ),
    "cut metrics": (lambda run: cut(run / "metrics.parquet"), "metrics.parquet cannot be read ("),
    "empty metrics": (
        lambda run: (run / "metrics.parquet").write_bytes(b""),
        "metrics.parquet cannot be read",
    ),
    "a cut film": (lambda run: cut(run / "film.parquet"), "film.parquet cannot be read ("),
    "nothing": (lambda run: [shutil.rmtree(run), run.mkdir()], "is empty: nothing was measured there"),
    "no experiment": (lambda run: other_config(run, group_size=-3), "is of no experiment"),
}


def other_config(run: Path, **keys: object) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["config"] |= keys
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_report_names_a_damaged_run_and_shows_the_others(name, run, template):
    shutil.copytree(template, "runs/damaged")
    damage, why = DAMAGES[name]
    damage(Path("runs/damaged"))
    with pytest.warns(DamageWarning, match="runs/damaged is damaged and left out"):
        page = memory_rl.report(runs="runs")
    shown = html.unescape(page.read_text("utf-8"))
    assert "1 cell with 2 runs of 1 condition at N = 8." in shown
    assert f"runs/damaged{'/' if 'is empty' not in why else ' '}" in shown
    assert why in shown
    assert "Damaged, and in no figure" in (page.parent / "summary.md").read_text("utf-8")
    rows = pl.read_csv(page.parent / "cells.csv").select("path", "status").rows()
    assert sorted(rows) == [("runs/damaged", "damaged"), ("runs/run", "completed")]


def complaint_of_report(capsys) -> str:
    from memory_rl.cli import main

    assert main(["report", "runs=runs"]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("content", TEXTS)
def test_a_damaged_cell_of_a_sweep_is_run_again(content):
    settings = {**SMALL, "conditions": "binary", "log_path": "sweep"}
    (cell,) = memory_rl.sweep(**settings)["cells"]
    for file in ("manifest.json", "summary.json"):
        (Path("sweep/cells") / cell["id"] / file).write_bytes(TEXTS[content])
        (again,) = memory_rl.sweep(**settings)["cells"]
        assert {**again, "seconds": None} == {**cell, "seconds": None}
    assert len(list(Path("sweep/discarded").iterdir())) == 2


@pytest.mark.parametrize(
    "content", ['{"conditions": {}}', '{"conditions": []}', '{"conditions": {"binary": 1}}']
)
def test_a_cell_whose_summary_lacks_its_condition_is_run_again(content):
    settings = {**SMALL, "conditions": "binary", "log_path": "sweep"}
    (cell,) = memory_rl.sweep(**settings)["cells"]
    (Path("sweep/cells") / cell["id"] / "summary.json").write_text(content)
    (again,) = memory_rl.sweep(**settings)["cells"]
    assert again["status"] == "completed"


@pytest.mark.parametrize("content", TEXTS)
def test_a_damaged_checkpoint_is_refused(content, run, capsys):
    folder = run / "checkpoint/1"
    folder.mkdir(parents=True)
    (run / "checkpoint/1 (copy)").mkdir()  # which is nobody's
    (folder / "checkpoint.json").write_bytes(TEXTS[content])
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    with pytest.raises(memory_rl.RunDirectoryError, match="checkpoint/1 is damaged or of another version"):
        memory_rl.train(**SMALL, log_path=str(run), resume=True)


RECORDS = {
    **TEXTS,
    "cells that are none": b'{"schema": 2, "name": "sweep", "protocol": null, "tuning": null, "cells": 5}',
    "a cell without id": b'{"schema": 2, "name": "sweep", "protocol": null, "tuning": null, "cells": [{}]}',
}


@pytest.mark.parametrize("content", RECORDS)
def test_a_damaged_record_of_a_sweep_is_left_as_it_is(content):
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_bytes(RECORDS[content])
    with pytest.raises(memory_rl.RunDirectoryError, match=r"sweep/sweep\.json is damaged: restore it"):
        memory_rl.sweep(**SMALL, conditions="binary", log_path="sweep")
    assert Path("sweep/sweep.json").read_bytes() == RECORDS[content]


@pytest.mark.parametrize("content", TEXTS)
def test_damaged_records_of_a_sweep_are_one_sentence_in_a_report(content, run):
    (run.parent / "sweep.json").write_bytes(TEXTS[content])
    (run.parent / "protocol.yaml").write_text("name: x\nminimum_runs: 2\nhypotheses: []\ngrid: [{N: 8}]\n")
    with pytest.warns(DamageWarning, match=r"sweep\.json.* damaged and left out"):
        memory_rl.report(runs="runs")


@pytest.mark.parametrize("content", TEXTS)
def test_damaged_examples_are_one_sentence(content):
    path = memory_rl.generate_sft_data(N=8, fixed_secret=3) / "train.jsonl"
    path.write_bytes(TEXTS[content])
    with pytest.raises(memory_rl.DataError, match=r"train\.jsonl.*(is empty|cannot be read|line 1)"):
        memory_rl.sft(**SMALL, fixed_secret=3)


def test_json_has_no_nan():
    content = {"a": [float("nan"), 1.5, (float("inf"), "NaN")], "b": {"c": -float("inf")}}
    assert from_json(to_json(content)) == {"a": [None, 1.5, [None, "NaN"]], "b": {"c": None}}
    for text in ("NaN", '{"a": Infinity}', '{"a": 1e999}', "[1]", "[" * 10**5):
        with pytest.raises(ValueError, match=r"NaN|Infinity|1e999|not an object|nested"):
            from_json(text)


def test_no_cell_of_a_csv_is_a_formula():
    texts = ["=1+1", "+x", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "-5", "+3e4", "ok", None]
    frame = pl.DataFrame({"text": texts, "number": [-1.5] * len(texts)})
    read = pl.read_csv(to_csv(frame).encode(), infer_schema=False)
    assert read["text"].to_list() == [
        *("'" + text for text in texts[:6]),
        *("-5", "+3e4", "ok", None),
    ]
    assert set(read["number"]) == {"-1.5"}


def test_a_formula_in_a_report_and_in_a_sweep_is_quoted(run):
    summary = json.loads((run / "summary.json").read_text())
    manifest = json.loads((run / "manifest.json").read_text())
    summary["conditions"] = {"=HYPERLINK(1)": summary["conditions"]["binary"]}
    manifest |= {"condition": "=HYPERLINK(1)"}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "manifest.json").write_text(json.dumps(manifest))
    page = memory_rl.report(runs="runs")
    row = pl.read_csv(page.parent / "cells.csv").row(0, named=True)
    assert (row["label"], row["condition"]) == ("'=HYPERLINK(1)", "'=HYPERLINK(1)")
    assert row["N"] == 8


def test_names_in_a_note_have_no_meaning_as_markdown(run):
    """The note names the cells without a ledger."""
    memory_rl.train(**SMALL, ledger=False, log_path="runs/other")
    evil = "<img src=x onerror=1>"
    manifest, summary = (json.loads(Path("runs/other", name).read_text()) for name in JSON_FILES)
    Path("runs/other/manifest.json").write_text(json.dumps({**manifest, "condition": evil}))
    summary["conditions"] = {evil: summary["conditions"]["binary"]}
    Path("runs/other/summary.json").write_text(json.dumps(summary))
    memory_rl.report(runs="runs")
    text = Path("report/summary.md").read_text("utf-8")
    assert "they have no ledger: &lt;img src=x" in text
    assert "<img" not in text
