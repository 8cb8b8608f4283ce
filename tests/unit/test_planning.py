"""Plans from a pilot: what is read of runs, the words, the table at 80 columns, JSON, and bad input."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import memory_rl
from memory_rl.analysis.collect import Cell
from memory_rl.analysis.power import Demand, interval_factor, power_of, rarest_seen
from memory_rl.analysis.survival import MemorisationTimes, bits_per_episode
from memory_rl.cli import main
from memory_rl.reporting.planning import SIZES, plan_paths
from memory_rl.reporting.sheets import show

USUAL = Demand(1.5, 0.8, 0.05)
BUDGET = 4000


def cell(name: str, episodes, tmp_path, *, status="completed", **keys) -> Cell:
    """A cell with these episodes to memorise, censored where infinite at its budget."""
    resolved = {"N": 16, "memorised_at": 0.5, "max_episodes": BUDGET, "algorithm": "reinforce", **keys}
    config = {**resolved, "seed": 0, "num_runs": len(episodes)}
    manifest = {"kind": "train", "condition": name, "status": status, "config": config, "resolved": resolved}
    made = Cell(tmp_path / name, manifest, {})
    given = np.asarray(episodes, float)
    made.__dict__["times"] = MemorisationTimes(np.minimum(given, BUDGET), np.isfinite(given))
    return made


def gamma(mean, runs=16):
    return np.random.default_rng(mean).gamma(4, mean / 4, size=runs)


def test_a_condition_asks_for_what_its_spread_says(tmp_path):
    times = gamma(60)
    (one,) = plan_paths([cell("binary", times, tmp_path)], USUAL).conditions
    spread = times.std(ddof=1) / times.mean()
    assert one.spread.value == pytest.approx(spread)
    needed = one.runs_a_side
    assert power_of(needed.value, spread, 1.5, 0.05) >= 0.8 > power_of(needed.value - 1, spread, 1.5, 0.05)
    assert needed.low < needed.value < needed.high
    assert power_of(16, spread, one.ratio_seen, 0.05) == pytest.approx(0.8)
    rate = bits_per_episode(one.sample.times, 4.0)
    assert one.factors[SIZES.index(16)] == pytest.approx(rate.high / rate.value)
    assert one.factors[SIZES.index(16)] == pytest.approx(rate.value / rate.low)


def test_a_width_is_answered_first_with_runs_from_the_spread_and_its_interval(tmp_path):
    cells = [cell("fast", gamma(60), tmp_path), cell("even", [9.0] * 8, tmp_path)]
    plan = plan_paths(cells, USUAL, 1.2)
    fast, even = plan.conditions

    def enough(spread, runs):
        return interval_factor(runs, spread) <= 1.2

    for end in ("value", "low", "high"):
        runs, spread = getattr(fast.runs_for_width, end), getattr(fast.spread, end)
        assert enough(spread, runs)
        assert not enough(spread, runs - 1)
    assert even.runs_for_width.value == 2
    runs = fast.runs_for_width
    assert plan.sentence == plan.sentences[0]
    assert plan.sentence == (
        f"With {runs.value} [{runs.low}, {runs.high}] runs the 95 % interval of a rate is from the "
        "rate / 1.2 to the rate x 1.2 in every condition: fast needs that many, even 2."
    )
    assert plan.sentences[1] == plan_paths(cells, USUAL).sentence
    row = plan.frame.row(0, named=True)
    assert [row[f"runs_for_width{end}"] for end in ("", "_low", "_high")] == [runs.value, runs.low, runs.high]
    assert plan.as_dict()["width"] == 1.2
    assert f"{runs.value} [{runs.low}, {runs.high}]" in plan.sheet().rows[0]
    assert plan_paths(cells, USUAL).frame["runs_for_width"].to_list() == [None, None]


def test_one_more_stuck_run_is_what_verdicts_would_add(tmp_path):
    times = gamma(60)
    added = cell("more", [*times, math.inf], tmp_path)
    plan = plan_paths([cell("whole", times, tmp_path), added], USUAL)
    whole, more = plan.conditions
    assert (whole.stuck, more.stuck, more.runs_if_stuck) == (0, 1, None)
    assert whole.runs_if_stuck == more.runs_a_side.value > whole.runs_a_side.value
    assert plan.notes == [
        "1 of 17 runs of more did not memorise: their episodes count in the rate and they do not, so the "
        "plan holds for this share of them and this max_episodes alone.",
        "17 % of all runs might get stuck where none of the pilot did, and 16 runs would not have shown it "
        "(one time in 20): see the column one stuck.",
    ]


def test_the_sentence_names_the_most_and_the_least(tmp_path):
    cells = [cell("fast", gamma(60), tmp_path), cell("even", [9.0] * 8, tmp_path)]
    plan = plan_paths(cells, Demand(1.2, 0.9, 0.05))
    (fast, even) = plan.conditions
    assert even.runs_a_side.value == 2
    most = f"{fast.runs_a_side.value} [{fast.runs_a_side.low}, {fast.runs_a_side.high}]"
    assert plan.sentence == (
        f"With {most} runs a side a ratio of 1.2 is seen with a chance of 90 % in every condition: fast "
        "needs that many, even 2."
    )
    single = plan_paths(cells[1:], USUAL).sentence
    assert single == "With 2 runs a side of even a ratio of 1.5 is seen with a chance of 80 %."


def test_what_has_no_spread_is_left_out_and_named(tmp_path):
    cells = [
        cell("fine", gamma(60), tmp_path),
        cell("single", [5.0], tmp_path),
        cell("stuck", [math.inf] * 3, tmp_path),
        cell("at once", [0.0] * 3, tmp_path),
        cell("half", gamma(60), tmp_path, status="interrupted"),
    ]
    plan = plan_paths(cells, USUAL)
    assert [one.name for one in plan.conditions] == ["fine"]
    starts = [note.split(": ")[0] for note in plan.notes[1:4]]
    assert starts == ["single is left out", "stuck is left out", "at once is left out"]
    assert plan.notes[4].endswith("half is left out, since it is not finished (interrupted).")


@pytest.mark.parametrize(
    ("episodes", "part"),
    [([5.0], "from x: a single run has no spread; give"), ([math.inf] * 3, "from x: none of its 3 runs mem")],
)
def test_a_pilot_without_any_spread_is_one_sentence(episodes, part, tmp_path):
    with pytest.raises(memory_rl.RunDirectoryError, match=part):
        plan_paths([cell("x", episodes, tmp_path)], USUAL)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pilot")
    common = {"N": 8, "backend": "tabular", "num_runs": 6, "figures": False}
    memory_rl.sft(**common, log_path=str(folder / "sft"))
    memory_rl.train(**common, log_path=str(folder / "binary"))
    return folder


def test_folders_paths_and_results_are_pilots(pilot):
    plan = memory_rl.plan(pilot)
    assert {one.sample.first.condition for one in plan.conditions} == {"sft", "binary"}
    assert isinstance(plan, memory_rl.RunPlan)
    alone = memory_rl.plan(memory_rl.load(pilot / "binary"), ratio=2, power=0.9, alpha=0.01)
    assert alone.demand == Demand(2.0, 0.9, 0.01)
    assert repr(alone) == repr(memory_rl.plan([str(pilot / "binary")], 2, 0.9, 0.01))
    row = alone.frame.row(0, named=True)
    interval = memory_rl.load(pilot / "binary").summary["binary"]["bits_per_episode"]
    factor = interval["ci95"][1] / interval["estimate"]
    assert math.log(factor) / math.log(row["factor_8"]) == pytest.approx(
        2.570582 / 2.364624 * math.sqrt(8 / 6),
        rel=1e-5,  # Student's 97.5 % quantiles with 5 and 7 degrees
    )
    assert row["paths"] == [str(pilot / "binary")]


def test_json_has_the_sentence_the_demand_and_the_rows(pilot):
    plan = memory_rl.plan(pilot)
    read = json.loads(json.dumps(plan.as_dict(), allow_nan=False))
    assert (read["sentence"], read["ratio"], read["power"], read["alpha"]) == (plan.sentence, 1.5, 0.8, 0.05)
    assert [row["runs_a_side"] for row in read["rows"]] == [one.runs_a_side.value for one in plan.conditions]
    assert read["rarest_seen"]["8"] == rarest_seen(8)


def test_the_command_prints_the_sentence_first_and_the_table_whole(pilot, capsys):
    assert main(["plan", str(pilot), "ratio=1.2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    plan = memory_rl.plan(pilot, ratio=1.2)
    assert lines[0] == plan.sentence
    assert main(["plan", str(pilot), "width=1.2"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == memory_rl.plan(pilot, width=1.2).sentences
    for word in (word for row in plan.sheet().rows for word in row):
        assert any(word in line for line in lines[1:])
    assert lines[-1] == f"note: {plan.notes[-1]}"


def test_three_conditions_fit_into_80_columns(tmp_path):
    names = ("binary", "binned_log_distance", "multi_step")
    plan = plan_paths([cell(name, gamma(60 + 9 * at), tmp_path) for at, name in enumerate(names)], USUAL)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    show(plan.sheet(), console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for one in plan.conditions:
        (line,) = (line for line in lines if line.startswith(one.name))
        assert str(one.runs_a_side.value) in line.split()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["no finished run to plan from", "memory-rl plan runs/pilot"]),
        (["cut"], ["no finished run to plan from: cut is left out, since it is damaged: cut/manifest.json"]),
        (["nowhere"], ["nowhere is not a folder"]),
        (["ratio=1", "x"], ["ratio=1 is not in (1, 1000]", "ratio=1.5"]),
        (["ratio=0.5", "x"], ["ratio=0.5 is not in (1, 1000]"]),
        (["power=1", "x"], ["power=1 is not in (0, 1)", "power=0.8"]),
        (["power=0", "x"], ["power=0 is not in (0, 1)"]),
        (["alpha=2", "x"], ["alpha=2 is not in (0, 1)"]),
        (["power=0.04", "x"], ["power=0.04 is no more than alpha=0.05"]),
        (["powr=0.9", "x"], ["powr=0.9 is not a known key", "did you mean power?"]),
    ],
)
def test_bad_input_is_one_sentence(words, parts, capsys):
    Path("cut").mkdir()
    Path("cut/manifest.json").write_text("{")
    assert main(["plan", *words]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert [part for part in parts if part not in said.err] == [], said.err
