"""The report on disk: its files and what they say, the labels of its cells, and what it refuses."""

import json
import re
import shlex
import shutil
from html import unescape

import polars as pl
import pytest
from reporting_helpers import EVIL, change

from memory_rl.analysis.collect import find_cells
from memory_rl.cli import main
from memory_rl.experiment import parse_experiment
from memory_rl.reporting.answer import make_answer
from memory_rl.reporting.charts import FIGURES
from memory_rl.reporting.drawing import live
from memory_rl.reporting.page import GENERATOR
from memory_rl.reporting.provenance import command_of, judge_sweeps
from memory_rl.reporting.study import KEEP, make_study
from memory_rl.reporting.tables import cells_frame, tables
from memory_rl.reporting.values import STEPS


def complaint(capsys, *words: str) -> str:
    assert main(["report", *words]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n"), "Traceback" in captured.err) == ("", 1, False)
    return captured.err


def test_the_files_of_a_report(report):
    pictures = {f"figures/{make.__name__}.svg" for make in FIGURES}
    found = {str(path.relative_to(report.parent)) for path in report.parent.rglob("*") if path.is_file()}
    assert found == {"index.html", "summary.md", "cells.csv", *pictures}


def test_the_page_is_of_a_reasonable_size(report):
    assert report.stat().st_size < 4e6
    assert report.read_text().count("vegaEmbed=") <= 2  # one engine for all figures


def test_the_csv_has_a_row_a_cell_with_the_numbers_of_its_summary(report, sweep):
    frame = pl.read_csv(report.parent / "cells.csv")
    cells = {str(cell.path): cell for cell in find_cells([sweep])}
    assert set(frame["path"]) == set(cells)
    for row in frame.rows(named=True):
        summary, config = cells[row["path"]].summary, cells[row["path"]].config
        assert (row["condition"], row["N"]) == (cells[row["path"]].condition, cells[row["path"]].N)
        assert row["bits_per_episode"] == summary["bits_per_episode"]["estimate"]
        assert [row["median_low"], row["median_high"]] == summary["episodes_to_memorise"]["ci95"]
        assert row["absorption_loss"] == summary["losses"]["absorption"]
        assert (row["config.seed"], row["config.lora_rank"]) == (config["seed"], config.get("lora_rank"))


def test_the_markdown_shows_every_figure_and_verdict_and_no_user_s_html(report, sweep):
    text = (report.parent / "summary.md").read_text()
    for make in FIGURES:
        assert f"](figures/{make.__name__}.svg)" in text
    (judgement,) = judge_sweeps([sweep], find_cells([sweep]))
    for verdict in judgement.verdicts:
        assert f"| {verdict.id} |" in text
        assert f"**{verdict.verdict}**" in text
    assert judgement.protocol.sha256 in text
    assert EVIL not in text.partition("## Commands")[0]


def test_words_that_a_newcomer_cannot_know_are_explained_where_they_stand_and_below(report, sweep):
    """A tip for each of those headings, none for a heading that there is not; the losses by one name each."""
    study = make_study(find_cells([sweep]))
    (table, *_) = tables(study, make_answer(study))
    private = {f"{step} \u00f7" for step in STEPS} | {"p", "ceiling", "of ceiling"}
    assert private <= table.tips.keys() <= set(table.headings)
    page = unescape(report.read_text())
    for heading, tip in table.tips.items():
        assert re.search(
            rf'<th scope="col" title="{re.escape(tip)}"[^>]*><button[^>]*>{re.escape(heading)}<', page
        )
    explained = " ".join(re.findall(r"<dt>(.*?)</dt>", page)).lower()
    for word in (*STEPS, "ceiling", "stuck", "told apart", "ideal questioner", "ideal observer", "memorised"):
        assert word in explained


def test_the_page_tells_protocol_hash_commands_and_versions(report, sweep):
    page = report.read_text()
    (judgement,) = judge_sweeps([sweep], find_cells([sweep]))
    assert judgement.protocol.sha256 in page
    assert [verdict.id for verdict in judgement.verdicts] == ["H2", "H5"]
    assert "memory-rl train env_type=multi_step N=16 backend=tabular num_runs=4" in page
    manifest = find_cells([sweep])[0].manifest
    for version in (*manifest["versions"].values(), manifest["code"]["commit"] or "no checkout"):
        assert version in page


def test_the_commands_make_the_same_configurations(sweep):
    for cell in find_cells([sweep]):
        _, command, *words = shlex.split(command_of(cell))
        config = parse_experiment(words, {"train": "train", "sft-train": "sft"}[command]).flat()
        for key, value in cell.config.items():
            assert key in KEEP or config[key] == value


def test_labels_name_what_sets_cells_apart(sweep):
    study = make_study(find_cells([sweep]))
    assert [(label.name, label.color, label.group, label.starts_hidden) for label in study.labels] == [
        ("sft", 0, 0, False),
        ("multi_step", 1, 0, False),
        ("binary", 4, 0, False),
        ("binary backend=local", 5, 0, False),
        (EVIL, 6, 0, False),
        ("binary backend=local lora_rank=1", 0, 1, True),
    ]
    assert [entry.N for entry in study.entries if entry.label == "sft"] == [8, 16]


def test_a_key_that_differs_between_conditions_alone_is_not_named(sweep, tmp_path):
    for name in ("sft-16", "binary-16"):
        shutil.copytree(sweep / "cells" / name, tmp_path / name)
    change(tmp_path / "binary-16", learning_rate=0.7)
    assert [label.name for label in make_study(find_cells([tmp_path])).labels] == ["sft", "binary"]


def test_what_may_be_set_for_each_N_is_named_only_where_cells_of_one_N_differ(sweep, tmp_path):
    for N in (8, 16):
        shutil.copytree(sweep / "cells" / f"sft-{N}", tmp_path / f"a-{N}")
    change(tmp_path / "a-16", learning_rate=0.7)
    assert [label.name for label in make_study(find_cells([tmp_path])).labels] == ["sft"]
    change(tmp_path / "a-16", optimiser="sgd")
    assert [label.name for label in make_study(find_cells([tmp_path])).labels] == [
        "sft optimiser=sgd",
        "sft optimiser=adam",
    ]  # neither is usual
    shutil.copytree(sweep / "cells" / "sft-16", tmp_path / "b-16")
    change(tmp_path / "b-16", optimiser="sgd")
    names = [label.name for label in make_study(find_cells([tmp_path])).labels]
    assert names == ["sft", "sft optimiser=adam", "sft learning_rate=0.7"]


def test_keys_that_have_no_meaning_in_a_configuration_change_nothing(sweep, tmp_path):
    """Run directories of version 0.1 hold them: a table with a LoRA rank."""
    cells = [cell for cell in find_cells([sweep]) if cell.config["backend"] == "tabular"]
    for cell in cells:
        shutil.copytree(cell.path, tmp_path / cell.path.name)
        change(tmp_path / cell.path.name, lora_rank=8, adapter="lora")
    old, new = make_study(find_cells([tmp_path])), make_study(cells)
    assert old.labels == new.labels
    for make in FIGURES:
        drawn = [[live(panel, study, "") for panel in make(study).panels] for study in (old, new)]
        assert drawn[0] == drawn[1]
    assert "config.lora_rank" not in cells_frame(new).columns


def test_of_two_ranks_that_as_many_cells_have_the_greater_is_usual(sweep):
    cells = [cell for cell in find_cells([sweep]) if cell.config["backend"] == "local"]
    assert [(label.name, label.starts_hidden) for label in make_study(cells).labels] == [
        ("binary", False),
        ("binary lora_rank=1", True),
    ]


def test_of_several_channels_of_a_kind_the_commonest_has_the_usual_colour(sweep, tmp_path):
    for name, condition in {
        "a": "binned_log_distance B=2",
        "b": "binned_log_distance B=8",
        "c": "binned_log_distance B=16",
    }.items():
        for N in (8, 16) if name == "b" else (16,):
            shutil.copytree(sweep / "cells" / f"binary-{N}", tmp_path / f"{name}-{N}")
            change(tmp_path / f"{name}-{N}", condition=condition)
    labels = make_study(find_cells([tmp_path])).labels
    assert [(label.name, label.color) for label in labels] == [
        ("binned_log_distance B=2", 5),
        ("binned_log_distance B=8", 3),
        ("binned_log_distance B=16", 6),
    ]


def test_cells_that_differ_in_nothing_are_told_apart_by_their_folders(sweep, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(sweep / "cells" / "sft-8", tmp_path / name)
    assert [label.name for label in make_study(find_cells([tmp_path])).labels] == ["sft (one)", "sft (two)"]


def test_a_protocol_that_was_changed_is_told(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "sweep")
    noted = {
        "schema": 1,
        "protocol": {"name": "small", "sha256": "0" * 64},
        "command": "python sweep.py",
        "cells": [],
    }
    (tmp_path / "sweep" / "sweep.json").write_text(json.dumps(noted))
    (judgement,) = judge_sweeps([tmp_path], find_cells([tmp_path]))
    assert (judgement.changed, judgement.command) == (True, "python sweep.py")
    (kept,) = judge_sweeps([sweep], find_cells([sweep]))
    assert not kept.changed


def test_a_run_without_a_sweep_is_shown_and_not_judged(sweep, tmp_path, capsys):
    assert (
        main(
            [
                "report",
                f"runs={sweep / 'cells' / 'sft-8'},{sweep / 'cells' / 'multi-8'}",
                f"out={tmp_path / 'out'}",
                "title=Two runs",
            ]
        )
        == 0
    )
    assert f"wrote {tmp_path / 'out' / 'index.html'}" in capsys.readouterr().out
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h1>Two runs</h1>" in page
    assert "2 cells with 8 runs of 2 conditions at N = 8." in page
    assert "Nothing is judged" not in page
    assert '<section id="figure-rank"' not in page
    assert "(no two cells differ in lora_rank alone)" in page
    assert "(all cells have one N)" in page
    assert not (tmp_path / "out" / "figures" / "film.svg").exists()


def test_unfinished_runs_are_named_and_not_shown(sweep, tmp_path):
    for name in ("sft-8", "multi-8"):
        shutil.copytree(sweep / "cells" / name, tmp_path / "runs" / name)
    manifest = json.loads((tmp_path / "runs" / "multi-8" / "manifest.json").read_text())
    (tmp_path / "runs" / "multi-8" / "manifest.json").write_text(
        json.dumps({**manifest, "status": "interrupted"})
    )
    assert main(["report", f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}", "quiet=True"]) == 0
    frame = pl.read_csv(tmp_path / "out" / "cells.csv")
    assert sorted(frame.select("status", "runs").rows()) == [("completed", 4), ("interrupted", None)]
    assert "multi-8 (interrupted)" in (tmp_path / "out" / "index.html").read_text()


def test_an_earlier_report_is_replaced_and_nothing_else_ever(sweep, tmp_path, capsys):
    words = [f"runs={sweep / 'cells' / 'sft-8'}", "quiet=True"]
    assert main(["report", *words, f"out={tmp_path / 'out'}"]) == 0
    assert main(["report", *words, f"out={tmp_path / 'out'}", "title=Again"]) == 0
    assert GENERATOR in (tmp_path / "out" / "index.html").read_text()
    assert "<h1>Again</h1>" in (tmp_path / "out" / "index.html").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my homepage")
    assert f"out={tmp_path / 'mine'}" in complaint(capsys, *words, f"out={tmp_path / 'mine'}")
    assert (tmp_path / "mine" / "index.html").read_text() == "my homepage"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["runs=nowhere"], ["nowhere", "give the path of a run directory"]),
        (["runs=."], [". holds no run directory", "manifest.json"]),
        (["runs=,"], ["runs=,", "runs=runs"]),
        (["out="], ["out=", "out=report"]),
        (["run=runs"], ["run=runs", "did you mean runs?"]),
        (["quiet=maybe"], ["quiet=maybe", "True or False"]),
        (["runs"], ["'runs'", "key=value"]),
    ],
)
def test_bad_input_is_one_sentence(words, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence = complaint(capsys, *words)
    for part in parts:
        assert part in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_unfinished_runs_alone_is_refused(sweep, tmp_path, capsys):
    shutil.copytree(sweep / "cells" / "sft-8", tmp_path / "runs" / "a")
    manifest = json.loads((tmp_path / "runs" / "a" / "manifest.json").read_text())
    (tmp_path / "runs" / "a" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    assert "none that is completed" in complaint(
        capsys, f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}"
    )
    assert not (tmp_path / "out").exists()
