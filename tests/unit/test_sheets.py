"""Tables as they come out at 80, 100 and 120 columns: nothing is cut, and each row says what it is of."""

import io
import re
import shutil

import pytest
from rich.console import Console

import memory_rl
from memory_rl.experiments.estimates import costs_sheet, estimate_all
from memory_rl.experiments.grid import cells_of_axes
from memory_rl.experiments.results import (
    FIELDS,
    keys_apart,
    name_of_cell,
    results_sheet,
    sweep_headline,
    what_is_kept,
)
from memory_rl.experiments.store import SweepDirectory
from memory_rl.experiments.sweep import make_plan
from memory_rl.reporting import sheets
from memory_rl.reporting.sheets import Sheet, say, show
from memory_rl.reporting.values import MEDIAN, OTHERS, RATE, STUCK

WIDTHS = (80, 100, 120)
LONGEST = {
    "memorised": 16,
    "runs": 16,
    "censored": 0,
    "capacity": 3.0,
    "laws": "holds",
    "seconds": 12.3,
    **dict(zip(MEDIAN, (1296.0, 1204.0, 12432.0), strict=True)),
    **dict(zip(RATE, (0.0000999, 0.0000103, 0.000968), strict=True)),
    **dict(zip(STUCK, (0.0, 0.0, 0.2059), strict=True)),
    "budget": 524288,
}
SOME_STUCK = {
    "memorised": 13,
    "censored": 3,
    **dict(zip(STUCK, (3 / 16, 0.0405, 0.4565), strict=True)),
    **dict(zip(OTHERS, (0.000105, 0.0000113, 0.000998), strict=True)),
}


def rows_of(cells) -> list[dict]:
    """What a sweep says of its cells, each with numbers as long as any."""
    keys = [key for key in keys_apart(cells) if key not in FIELDS]
    return [
        {
            **dict.fromkeys(FIELDS),
            **cell.about,
            "status": "completed",
            **LONGEST,
            **{key: cell.values.get(key) for key in keys},
        }
        for cell in cells
    ]


def printed(sheet: Sheet, width: int, terminal: bool = True) -> list[str]:
    file = io.StringIO()
    show(sheet, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return file.getvalue().splitlines()


def blocks(lines: list[str], first: re.Pattern) -> list[str]:
    """The lines of each row as one text; rows begin with this."""
    rule = next(place for place, line in enumerate(lines) if set(line) == {"─"})
    found: list[str] = []
    for line in lines[rule + 1 :]:
        if line.startswith(("the same", "no room", "In brackets: ")):
            break
        if first.match(line):
            found.append(line)
        else:
            found[-1] += "\n" + line
    return found


CONDITION = re.compile(r"(sft|binary|binned_log_distance|log_distance|multi_step)\b")


@pytest.fixture(scope="module")
def quick() -> list:
    return make_plan(["protocol=quick"]).cells


@pytest.mark.parametrize("width", WIDTHS)
def test_the_quick_protocol_has_its_keys_and_whole_intervals_in_every_row(quick, width):
    lines = printed(results_sheet(rows_of(quick), "sweeps/quick"), width)
    assert max(map(len, lines)) <= width
    rows = blocks(lines, CONDITION)
    assert len(rows) == len(quick) == 23
    for cell, row in zip(quick, rows, strict=True):
        words = row.replace("N=", " ").replace("lora_rank=", " ").split()
        assert row.startswith(cell.experiment.condition)
        assert str(cell.experiment.world.N) in words
        assert str(cell.values["lora_rank"]) in words
        assert "16 of 16" in row
        assert "[1,204, 12,432]" in row  # on one line
        assert "[0.0000103, 0.000968]" in row
        assert "1,296" in words
        assert "0.0000999" in words
    assert "…" not in "".join(lines)
    assert any("the same in all rows: status completed, laws holds, rate 0.0005" in line for line in lines)


@pytest.mark.parametrize("width", [*WIDTHS, 60])
def test_where_runs_are_stuck_each_row_has_their_share_and_both_rates(quick, width):
    cells = [cell for cell in quick if cell.values["lora_rank"] == 8][:4]
    rows = [{**row, **(SOME_STUCK if place else {})} for place, row in enumerate(rows_of(cells))]
    lines = printed(results_sheet(rows, "sweeps/quick", cells), width)
    assert max(map(len, lines)) <= width
    whole, *stuck = blocks(lines, CONDITION)
    assert "19 %" not in whole
    assert len(stuck) == 3
    for row in stuck:
        assert "19 %" in row
        assert "[4, 46]" in row
        assert "[0.0000103, 0.000968]" in row  # over all runs
        assert "[0.0000113, 0.000998]" in row  # of those that memorised
    said = " ".join(lines)
    assert "over all runs, up to the budget of 524,288 episodes, the stuck ones too." in said
    assert "Where no run of 16 is stuck, fewer than 21 % are (95 %)." in said  # 1 - 0.025^(1/16)
    assert "95 %, over runs of one base model each." in said
    alone = " ".join(printed(results_sheet(rows[:1], "sweeps/quick", cells[:1]), width))
    assert "fewer than 21 %" in alone
    assert "over all runs" not in alone


@pytest.mark.parametrize("width", [*WIDTHS, 60, 40])
def test_four_algorithms_are_told_apart(width):
    cells = cells_of_axes(None, {"algorithm": "reinforce,grpo,rloo,ppo", "backend": "tabular", "N": "16,64"})
    lines = printed(results_sheet(rows_of(cells), "sweep"), width)
    rows = blocks(lines, re.compile("binary"))
    assert len(rows) == len({row.split("16 of")[0] + row.split("[")[0] for row in rows}) == 8
    for cell, row in zip(cells, rows, strict=True):
        assert re.search(rf"\b{cell.values['algorithm']}\b", row)
    assert max(map(len, lines)) <= width


def row_of(name: str) -> list[str]:
    return [name, "16 of 16", "0.0526 [0.0397, 0.0698]", "0.513 [0.253, 1.04]", "0.086"]


@pytest.mark.parametrize("width", [30, 40, 60, 80])
def test_no_table_is_wider_than_its_terminal_and_no_interval_is_broken(width):
    names = ("binary algorithm=reinforce", "binary algorithm=ppo")
    headings = ["condition", "memorised", "bits per episode", "ratio", "p"]
    sheet = Sheet(headings, [row_of(name) for name in names], spare=["memorised"], words=["condition"])
    lines = printed(sheet, width)
    assert max(map(len, lines)) <= width
    for interval in ("[0.0397, 0.0698]", "[0.253, 1.04]"):
        assert sum(interval in line for line in lines) == 2
    assert all(word in " ".join(lines).split() for word in ["algorithm=reinforce", "algorithm=ppo"])


def test_where_no_table_fits_each_row_is_a_paragraph():
    headings = ["rank", "name", "rate", "p", "note"]
    sheet = Sheet(headings, [["1", "one", "0.5 [0.4, 0.6]", "", "long"]], spare=["rank"])
    assert printed(sheet, 17) == [
        "name",
        "─" * 13,
        "one",
        "  rank 1,",
        "  rate 0.5",
        "  [0.4, 0.6],",
        "  note long",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_no_line_ends_in_blanks(terminal):
    rows = [["one", "1"], ["two", ""]]
    lines = printed(
        Sheet(["name", "value"], rows, words=["value"], title="x", caption="y " * 60 + "z"), 80, terminal
    )
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_sentence_keeps_a_share_on_one_line():
    file = io.StringIO()
    say("a b c 5 % of it", Console(file=file, width=7, force_terminal=True, color_system=None))
    assert file.getvalue().splitlines() == ["a b c", "5 % of", "it"]


@pytest.mark.parametrize("width", range(25, 60))
def test_a_sentence_breaks_in_no_interval(width):
    file = io.StringIO()
    sentence = "The fastest has 0.111 [0.078, 0.158] bits an episode, that is 5.1 [4.2, 6.3] % at N = 256."
    say(sentence, Console(file=file, width=width, force_terminal=True, color_system=None))
    lines = file.getvalue().splitlines()
    assert " ".join(lines) == sentence
    assert max(map(len, lines)) <= width
    for whole in ("0.111 [0.078, 0.158]", "5.1 [4.2, 6.3] %", "N = 256"):
        assert any(whole in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_a_sweep_would_take_has_the_keys_that_vary(quick, width):
    lines = printed(costs_sheet(estimate_all(quick, [])), width)
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines if CONDITION.match(line)]
    for cell, row in zip(quick, rows, strict=True):
        of_cell = [cell.experiment.condition, cell.about["N"], cell.values["lora_rank"]]
        assert " ".join(row).startswith(" ".join(map(str, of_cell)) + " ")


@pytest.mark.parametrize("axis", ["algorithm", "ppo_clip"])
def test_what_a_sweep_would_take_says_which_learner_once(axis):
    axes = {"algorithm": "ppo,grpo" if axis == "algorithm" else "ppo", "backend": "tabular"}
    cells = cells_of_axes(None, axes | ({"ppo_clip": "0.1,0.3"} if axis == "ppo_clip" else {}))
    sheet = costs_sheet(estimate_all(cells, []))
    assert sheet.headings[:4] == ("part", "condition", "N", "learner")
    assert axis not in sheet.headings
    assert len({row[3] for row in sheet.rows}) == 2


def test_a_file_gets_every_column_in_one_line_a_row(quick):
    rows = rows_of(quick)
    rows[0]["status"] = "failed"  # not the same in all rows any more
    lines = printed(results_sheet(rows, "a/very/long/path/" * 20), 80, terminal=False)
    found = blocks(lines, CONDITION)
    assert len(found) == 23
    assert all("\n" not in row and "0.0000999 [0.0000103, 0.000968]" in row for row in found)
    assert found[0].split()[-1] == "failed"
    assert not any(line.startswith("no room") for line in lines)
    assert lines[-1].endswith("a/very/long/path/" * 20)


def test_columns_are_left_out_in_the_stated_order_and_named():
    sheet = Sheet(
        ["key", "spare 1", "spare 2", "value"],
        [["one", "a" * 30, "b" * 30, "1 [0, 2]"], ["two", "c" * 30, "d" * 30, "1 [0, 2]"]],
        keys=["key"],
        spare=["spare 2", "spare 1"],
        words=["key"],
    )
    for width, left_out in ((80, ""), (60, "spare 2"), (40, "spare 2, spare 1")):
        lines = printed(sheet, width)
        said = " ".join(lines[4:])
        wider = f"no room for: {left_out}; a terminal of 77 columns or a pipe shows all"
        assert said == (wider if left_out else "")
        assert sum("1 [0, 2]" in line for line in lines) == 2


def test_markup_in_a_name_is_text():
    sheet = Sheet(["name", "value"], [["[red]x[/]", "1"]], keys=["name"], words=["name"])
    assert "[red]x[/]" in printed(sheet, 80)[-1]


def test_cells_have_names_of_the_keys_that_vary():
    cells = cells_of_axes(
        "sft,binary", {"backend": "tabular", "N": "16", "algorithm": "grpo,ppo", "seed": "0,1"}
    )
    names = [name_of_cell(cell, keys_apart(cells)) for cell in cells]
    assert names[0] == "sft N=16 seed=0"
    assert "binary N=16 algorithm=ppo seed=1" in names
    assert len(set(names)) == len(cells)


def test_a_sweep_in_a_sentence(quick):
    rows = rows_of(quick)[:3]
    for row, rate in zip(rows, (0.25, 0.001, 1.5), strict=True):
        row["bits_per_episode"] = rate
    assert sweep_headline(rows) == (
        "3 of 3 cells are complete: from 0.001 bits an episode (sft N=64 lora_rank=8) to 1.5 bits an episode "
        "(sft N=256 lora_rank=8)."
    )
    rows[1] |= SOME_STUCK
    assert sweep_headline(rows) == (
        "3 of 3 cells are complete: from 0.001 bits an episode (sft N=64 lora_rank=8; 3 of 16 runs, 19 % "
        "[4, 46], stuck at 524,288 episodes; the others 0.000105 [0.0000113, 0.000998]) to 1.5 bits an "
        "episode (sft N=256 lora_rank=8). Some runs are stuck in 1 of 3 cells: rates are over all runs up to "
        "the budget."
    )
    for row in rows:
        row |= LONGEST | {"bits_per_episode": 0.0526}
    assert sweep_headline(rows) == "3 of 3 cells are complete, with 0.053 bits an episode each."
    rows[0]["bits_per_episode"], rows[1]["bits_per_episode"] = 0.25, 0.001
    rows[0]["status"] = rows[1]["status"] = "failed"
    assert sweep_headline(rows) == "1 of 3 cells are complete, with 0.053 bits an episode."
    rows[2]["bits_per_episode"] = None
    assert sweep_headline(rows) == "1 of 3 cells are complete."


def test_in_a_notebook_no_line_is_broken_or_wider_than_its_page(monkeypatch):
    """Its page breaks sentences; the output of a kernel calls itself a terminal of 80 columns."""
    out = io.StringIO()
    out.isatty = lambda: True
    monkeypatch.setattr(sheets, "in_notebook", lambda: True)
    monkeypatch.setattr("sys.stdout", out)
    sheets.say("word " * 40)
    rows = [[str(n), "0.0123 [0.0101, 0.0144]", f"{n}" * 90] for n in range(3)]
    sheets.show(Sheet(["N", "rate", "spare"], rows, spare=["spare"], keys=["N"]))
    first, *lines = out.getvalue().splitlines()
    assert first.split() == ["word"] * 40
    assert "no room for: spare; a terminal of 118 columns or a pipe shows all" in lines
    assert max(map(len, lines)) <= 110
    assert "\x1b" not in out.getvalue()


def test_a_stopped_sweep_says_what_is_kept(tmp_path):
    tuned = {"tune": True, "tune_rates": [0.1, 0.3], "tune_runs": 1}
    memory_rl.sweep(conditions="sft", N=8, backend="tabular", num_runs=1, **tuned, log_path="stopped")
    directory = SweepDirectory("stopped")
    assert what_is_kept(directory) == "complete cells are kept"
    shutil.rmtree("stopped/cells")
    assert what_is_kept(directory) == "complete cells are kept"  # those that tuned it
    shutil.rmtree("stopped/tuning")
    assert what_is_kept(directory) == "no cell was complete yet"
