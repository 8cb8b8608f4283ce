"""What a notebook shows of results, ceilings and sweeps, without a network."""

import base64
import dataclasses
import json
import math
import re
import shutil

import polars as pl
import pytest
from IPython.core.formatters import DisplayFormatter
from polars.testing import assert_frame_equal

import memory_rl
from memory_rl.errors import RunDirectoryError
from memory_rl.reporting.headline import headline
from memory_rl.reporting.notebook import answer_html
from memory_rl.reporting.sheets import Sheet
from memory_rl.reporting.values import MINDS

SMALL = {"N": 16, "num_runs": 4, "backend": "tabular", "figures": False}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return memory_rl.train(**SMALL, log_path=str(tmp_path_factory.mktemp("runs") / "a<b"))


def _pictures(html):
    """The words of each figure of a text; neither they nor anything else is loaded from elsewhere."""
    assert not re.search(r"""(src|href)=["']?https?:|<script""", html)
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert len(found) == html.count("<img")
    return [_words(base64.b64decode(one).decode()) for one in found]


def _words(drawing):
    assert drawing.startswith("<svg")
    assert "<text" not in drawing  # outlines look the same with any font
    return " ".join(re.findall(r'aria-label="([^"]*)"', drawing))


def _cells(html):
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]


def test_a_result_is_a_sentence_a_table_and_a_figure(result):
    html = result._repr_html_()
    assert html.startswith(f"<p>{headline(result.cell)}</p>")
    rows = {name: (rate, lost) for name, rate, lost in _cells(html)}
    (summary,) = result.summary.values()
    assert list(rows) == ["", *MINDS.values()]
    assert rows["naive capacity"] == ("1", "")
    asker = math.log2(16) / summary["ceilings"]["ideal_questioner"]["to_reach"]
    assert float(rows["ideal questioner"][0]) == pytest.approx(asker, rel=1e-2)
    spent = result.metrics.filter(pl.col("bits_known") >= 3).group_by("run").agg(pl.col("episode").min())
    rate = float(rows["policy"][0].split()[0])
    assert rate == pytest.approx(4 * 4 / spent["episode"].sum(), rel=1e-2)
    low, high = summary["losses_ci95"]["absorption"]
    lost = f"absorption \N{DIVISION SIGN}{summary['losses']['absorption']:.3g} [{low:.3g}, {high:.3g}]"
    assert rows["policy"][1].replace("<br>", " ") == lost
    (picture,) = _pictures(html)
    assert "Bits known: log2 N + log2 P(S)." in picture


def test_names_are_escaped():
    """A condition may bear the name of a file of one's own."""
    found = dataclasses.replace(memory_rl.bounds(N=8), condition="<b>.py:R")
    assert "<b>" not in found._repr_html_()
    assert "&lt;b&gt;.py:R" in found._repr_html_()


def test_a_result_without_an_end_says_how_it_stands(result, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(result.path, folder)
    (folder / "summary.json").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "interrupted"}))
    html = memory_rl.load(folder)._repr_html_()
    assert html.startswith("<p>There is no answer yet: the experiment was interrupted")
    assert "<table>" not in html
    assert len(_pictures(html)) == 1  # what it had measured
    with pytest.raises(RunDirectoryError, match="has not ended"):
        memory_rl.load(folder).plot_ledger()


@pytest.mark.parametrize("name", ["plot", "plot_ledger"])
def test_plots_are_pictures_wherever_a_notebook_is(result, name):
    """IPython asks a chart as Jupyter and editors do."""
    chart = getattr(result, name)()
    shown, _ = DisplayFormatter().format(chart)
    assert {"image/svg+xml"} <= shown.keys() <= {"image/svg+xml", "text/plain"}
    assert "binary, N = 16" in _words(shown["image/svg+xml"])
    assert type(chart.properties(height=200)) is type(chart)


def test_a_ledger_that_was_not_kept_is_not_plotted(tmp_path):
    kept_none = memory_rl.train(**SMALL, ledger=False, log_path=str(tmp_path / "run"))
    with pytest.raises(RunDirectoryError, match="kept no ledger: there is no ledger to plot"):
        kept_none.plot_ledger()
    assert "absorption" not in kept_none._repr_html_()


def test_ceilings_say_what_they_are_of():
    found = memory_rl.bounds(N=64, reward_type="binary")
    answers = sum(min(n, 63) for n in range(1, 65)) / 64  # asked one by one; the last is known by then
    assert found.ideal_questioner.to_know == pytest.approx(answers)
    h = -(1 / 64) * math.log2(1 / 64) - (63 / 64) * math.log2(63 / 64)
    assert f"at most {h:.3g} bits" in repr(found)
    assert "N = 64: an episode carries at most 1 bit;" in repr(found)
    rows = {name: value for name, value, _ in _cells(found._repr_html_())}
    told = rows["the ideal questioner knows S after"].removesuffix(" episodes")
    assert float(told) == pytest.approx(answers, rel=1e-3)
    assert rows["naive capacity"] == "1 bit"
    assert "N" not in found.as_dict()
    assert len(_pictures(found._repr_html_())) == 1


def test_ceilings_without_a_questioner_say_less():
    found = memory_rl.bounds(N=2**20, env_type="multi_step", reward_noise=0.1, credit="step")
    assert ("questioner" in repr(found)) == (found.ideal_questioner is not None)


def test_a_sweep_is_a_frame(tmp_path):
    summary = memory_rl.sweep(
        conditions=["sft", "binary"],
        N=[8, 16],
        num_runs=3,
        backend="tabular",
        figures=False,
        log_path=str(tmp_path / "sweep"),
    )
    assert len(summary.frame) == 4
    read = pl.read_csv(tmp_path / "sweep" / "results.csv")
    assert_frame_equal(
        summary.frame.select("condition", "N", "bits_per_episode", "memorised"),
        read.select("condition", "N", "bits_per_episode", "memorised"),
    )
    html = summary._repr_html_()
    assert html.startswith("<p>4 of 4 cells are complete: from ")
    headings, *rows = _cells(html)
    assert headings[:2] == ["condition", "N"]
    assert [row[:2] for row in rows] == [["sft", "8"], ["sft", "16"], ["binary", "8"], ["binary", "16"]]


def test_what_varies_is_a_column_of_a_sweep(tmp_path):
    """As in the terminal: rows are told apart by their keys, not by the hash of an id, and learners rank."""
    summary = memory_rl.sweep(
        conditions="binary",
        algorithm=["posterior", "reinforce"],
        N=8,
        num_runs=3,
        backend="tabular",
        max_episodes=40,
        figures=False,
        log_path=str(tmp_path / "sweep"),
    )
    tables = re.findall(r"<table>.*?</table>", summary._repr_html_())
    (headings, *cells), (_, *ranks) = map(_cells, tables)
    place = headings.index("algorithm")
    assert [row[place] for row in cells] == ["posterior", "reinforce"]
    assert repr(summary).startswith("2 of 2 cells are complete")
    assert repr(summary).count("posterior") == 3  # in the sentence and in both tables
    assert [row[1] for row in ranks] == pl.read_csv(tmp_path / "sweep" / "ranking.csv")["learner"].to_list()


def test_a_comparison_and_a_plan_are_tables(result, tmp_path):
    other = memory_rl.sft(**SMALL, ledger=False, log_path=str(tmp_path / "sft"))
    for found in (memory_rl.compare([result, other]), memory_rl.plan([result, other])):
        html = found._repr_html_()
        assert html.startswith(f"<p>{found.sentence}</p>".replace("<0", "&lt;0"))
        headings, *rows = _cells(html)
        assert {row[headings.index("condition")] for row in rows} == {"sft", "binary"}
        lines = repr(found).split("\n")
        (rule,) = (line for line in lines if set(line) == {"─"})
        start = lines[lines.index(rule) - 1].index("condition")
        below = [line[start:].split()[0] for line in lines[lines.index(rule) + 1 :][:2]]
        assert sorted(below) == ["binary", "sft"]


def test_of_a_long_table_the_first_rows_are_shown():
    sheet = Sheet(["n"], [[str(n)] for n in range(100)])
    html = answer_html("A sentence.", [sheet])
    assert len(_cells(html)) == 61
    assert "40 more rows are not shown." in html


def test_a_dry_run_is_a_frame():
    costs = memory_rl.sweep(conditions="sft", N=[8, 16], backend="tabular", dry_run=True)
    assert costs.frame["N"].to_list() == [8, 16]
    assert "<table>" in costs._repr_html_()
