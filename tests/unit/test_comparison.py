"""Conditions compared: ratios, log-rank tests and ranks against independent computations, and the words."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import memory_rl
from memory_rl.analysis.collect import Cell
from memory_rl.analysis.survival import MemorisationTimes
from memory_rl.cli import main
from memory_rl.reporting.comparison import compare_cells

RESOLVED = {"N": 16, "memorised_at": 0.5, "max_episodes": 4000, "algorithm": "reinforce"}


def make_cell(name, episodes, *, status="completed", **keys) -> Cell:
    """A cell with these episodes to memorise, censored where infinite at its budget."""
    resolved = {**RESOLVED, **keys}
    config = {**resolved, "seed": keys.get("seed", 0), "num_runs": len(episodes)}
    manifest = {"kind": "train", "condition": name, "status": status, "config": config, "resolved": resolved}
    path = Path(f"{name}-{len(episodes)}-{sorted(keys.items())}".replace("/", ""))
    cell = Cell(path, {**manifest, "why": "ValueError: no"}, {})
    given, budget = np.asarray(episodes, float), resolved["max_episodes"]
    cell.__dict__["times"] = MemorisationTimes(np.minimum(given, budget), np.isfinite(given))
    return cell


def gamma(mean, runs=16, seed=0):
    return np.random.default_rng([seed, mean]).gamma(4, mean / 4, size=runs)


FAST, SLOW = gamma(60), gamma(300)


def log_rank_by_hand(one, other) -> float:
    """The p value, from the hypergeometric mean and variance at each time (Mantel 1966); nobody censored."""
    excess = variance = 0.0
    for time in np.unique(np.concatenate([one, other])):
        at_risk, events = [(x >= time).sum() for x in (one, other)], [(x == time).sum() for x in (one, other)]
        n, d = sum(at_risk), sum(events)
        excess += events[0] - d * at_risk[0] / n
        variance += d * at_risk[0] * at_risk[1] * (n - d) / (n * n * (n - 1)) if n > 1 else 0.0
    return scipy.stats.chi2.sf(excess**2 / variance, 1)


def test_a_ratio_is_the_difference_of_logarithms_with_the_degrees_of_freedom_of_welch():
    found = compare_cells([make_cell("slow", SLOW), make_cell("fast", FAST, seed=1)])
    fast, slow = found.ranked
    assert [fast.name, slow.name, found.reference.name] == ["fast", "slow", "fast"]
    ratio = FAST.mean() / SLOW.mean()
    errors = [x.std(ddof=1) / x.mean() / 4 for x in (FAST, SLOW)]
    error = math.hypot(*errors)
    freedom = error**4 / sum(each**4 / 15 for each in errors)
    reach = scipy.stats.t.ppf(0.975, freedom) * error
    assert slow.ratio.value == pytest.approx(ratio)
    assert slow.ratio.interval == pytest.approx([ratio * math.exp(-reach), ratio * math.exp(reach)])
    assert fast.sample.rate.value == pytest.approx(4 / FAST.mean())
    assert slow.log_rank_p == pytest.approx(log_rank_by_hand(SLOW, FAST), rel=1e-6)
    assert slow.holm_p == slow.log_rank_p  # of one test
    assert (fast.ratio, fast.apart, slow.apart) == (None, None, True)
    times = 1 / slow.ratio.value, 1 / slow.ratio.high, 1 / slow.ratio.low
    assert "fast learns {:.3g} [{:.3g}, {:.3g}] times as fast as slow: ".format(*times) in found.sentence
    assert found.warnings == []


def test_the_first_may_be_what_is_compared_with():
    found = compare_cells([make_cell("slow", SLOW), make_cell("fast", FAST)], "first")
    assert [one.name for one in found.ranked] == ["fast", "slow"]
    assert found.reference.name == "slow"
    assert found.ranked[0].ratio.value == pytest.approx(SLOW.mean() / FAST.mean())
    assert "against slow." in found.sheet().caption


def test_p_values_are_adjusted_for_all_tests():
    cells = [make_cell(f"c{mean}", gamma(mean)) for mean in (60, 90, 100)]
    found = compare_cells(cells)
    p = sorted(log_rank_by_hand(gamma(60), gamma(mean)) for mean in (90, 100))
    adjusted = [min(1, 2 * p[0]), min(1, max(2 * p[0], p[1]))]
    assert sorted(one.holm_p for one in found.ranked[1:]) == pytest.approx(adjusted)


def test_what_cannot_be_told_apart_is_said_so():
    found = compare_cells([make_cell("one", gamma(100)), make_cell("other", gamma(100, seed=1))])
    assert found.ranked[1].apart is False
    assert "cannot be told apart: " in found.sentence
    assert f"(log-rank p = {found.ranked[1].log_rank_p:.2g})" in found.sentence
    several = compare_cells(
        [make_cell("a", gamma(100)), make_cell("b", gamma(100, seed=1)), make_cell("c", SLOW)]
    )
    first, second, third = (one.name for one in several.ranked)
    assert third == "c"
    assert several.sentence.endswith(f"and is told apart from all others but {second}.")
    against = compare_cells([one.sample.first for one in several.ranked], "first")
    assert against.reference.name == first


def test_of_several_it_is_said_how_each_stands_to_the_first():
    cells = [make_cell("mid", gamma(150)), make_cell("slow", gamma(2000)), make_cell("fast", gamma(20))]
    cells.append(make_cell("like", gamma(150, seed=2)))
    said = compare_cells(cells, "first").sentence
    assert said.startswith("Of 4 conditions fast is the fastest with ")
    assert said.endswith("fast is faster; slow is slower; like is not told apart.")


def test_runs_of_several_seeds_are_one_condition_and_the_larger_of_two_counts():
    cells = [
        make_cell("fast", FAST),
        make_cell("fast", gamma(60, seed=3), seed=1),
        make_cell("fast", FAST[:4]),
    ]
    found = compare_cells([*cells, make_cell("slow", SLOW)])
    assert [one.sample.runs for one in found.ranked] == [32, 16]
    (note,) = found.warnings
    assert note == f"{cells[2].path} is not counted again: the same runs are in another folder, too."


def test_where_nobody_memorised_a_ratio_has_a_bound_alone():
    stuck = make_cell("stuck", [math.inf] * 16)
    slow = compare_cells([make_cell("fast", FAST), stuck]).ranked[1]
    assert (slow.ratio.value, slow.ratio.low) == (0.0, 0.0)
    assert 0 < slow.ratio.high < 0.2
    assert slow.apart
    found = compare_cells([stuck, make_cell("fast", FAST)], "first")
    assert found.ranked[0].ratio.value is None
    assert found.ranked[0].ratio.low == pytest.approx(1 / slow.ratio.high)
    assert "fast learns at least " in found.sentence
    none = compare_cells([stuck, make_cell("too", [math.inf] * 8)])
    assert none.ranked[1].ratio.value is None
    assert "told apart" in none.sentence


def test_a_single_run_has_no_interval():
    found = compare_cells([make_cell("fast", FAST), make_cell("one", [200.0])])
    (one,) = (one for one in found.ranked if one.name == "one")
    assert one.ratio.value == pytest.approx(FAST.mean() / 200)
    assert (one.ratio.interval, one.log_rank_p, one.apart) == ([None, None], None, None)
    assert found.warnings == ["one has a single run, and so no interval."]
    assert "without an interval" in found.sentence


UNLIKE = {
    "N": ({"N": 64}, "N differs (16, 64): bits per episode can be compared, but not episodes"),
    "secrets": ({"num_secrets": 4}, "num_secrets differs (4, 1): the runs have not"),
    "threshold": (
        {"memorised_at": 0.9},
        "memorised_at differs (0.9, 0.5): to have memorised means another probability",
    ),
    "fixed": ({"fixed_secret": 3}, "fixed_secret differs: all runs of x learn one given secret"),
    "budget": ({"max_episodes": 500}, "max_episodes differs (500, 4000), and not all runs of x memorised"),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_what_is_not_alike_is_warned_of_in_a_sentence(name):
    keys, sentence = UNLIKE[name]
    episodes = [*FAST[:-1], math.inf] if name == "budget" else FAST
    found = compare_cells([make_cell("x", episodes, **keys), make_cell("y", SLOW)])
    (warning,) = found.warnings
    assert sentence in warning
    assert warning.endswith(".")
    tested = found.ranked[1].log_rank_p is not None
    assert tested == (name in ("fixed", "budget"))


def test_the_share_of_its_secrets_is_compared_among_runs_that_have_several():
    one, few, many = (
        make_cell(name, FAST, **keys)
        for name, keys in (
            ("one", {}),
            ("few", {"num_secrets": 4, "memorised_share": 0.95}),
            ("many", {"num_secrets": 4, "memorised_share": 0.5}),
        )
    )
    (warning,) = compare_cells([one, few]).warnings
    assert warning.startswith("num_secrets differs (4, 1): ")
    (warning,) = compare_cells([few, many]).warnings
    assert warning.startswith("memorised_share differs (0.95, 0.5): to have memorised means another share")


def test_no_note_begins_with_a_capital_that_is_no_name():
    """They stand after "note: "."""
    cells = [make_cell(name, times, fixed_secret=3) for name, times in (("x", FAST), ("y", SLOW))]
    cells.append(make_cell("z", [5.0], num_secrets=4, N=64, memorised_at=0.9))
    notes = compare_cells(cells).warnings
    assert len(notes) == 5
    assert [note for note in notes if note[0].isupper() and not note.startswith("N differs")] == []


def test_conditions_have_the_names_of_a_list():
    keys = {"N": 8, "backend": "tabular", "num_runs": 2, "figures": False}
    for secrets in (1, 3):
        memory_rl.train(**keys, num_secrets=secrets, log_path=f"runs/{secrets}")
    found = memory_rl.compare(["runs/1", "runs/3"])
    assert {*found.frame["name"]} == {*memory_rl.list_runs("runs")["name"]}
    assert {*found.frame["name"]} == {"binary num_secrets=1", "binary num_secrets=3"}


def test_budgets_that_nobody_spent_are_alike():
    assert compare_cells([make_cell("x", FAST, max_episodes=900), make_cell("y", SLOW)]).warnings == []


def test_one_given_secret_for_all_is_said():
    cells = [make_cell(name, times, fixed_secret=3) for name, times in (("x", FAST), ("y", SLOW))]
    (warning,) = compare_cells(cells).warnings
    assert warning == "fixed_secret=3 in all runs: what came out may be about that secret."


def test_the_test_of_whole_curves_and_the_ratio_may_contradict_each_other():
    """Half of one learns at once and half late; the other is in between, with the same mean."""
    one, other = [10.0] * 8 + [1000.0] * 8, np.linspace(450, 560, 16)
    found = compare_cells(
        [make_cell("one", [*one]), make_cell("other", other), make_cell("slow", gamma(3000))]
    )
    (half,) = (each for each in found.ranked[1:] if each.name != "slow")
    assert (half.holm_p < 0.05) != half.beyond_one
    assert any("do not say the same" in warning for warning in found.warnings)


def test_what_is_not_finished_is_left_out_and_named():
    found = compare_cells([make_cell("x", FAST), make_cell("y", SLOW), make_cell("z", SLOW, status="failed")])
    (warning,) = found.warnings
    assert "is left out, since it is not finished (failed: ValueError: no)." in warning
    with pytest.raises(
        memory_rl.RunDirectoryError,
        match=r"to compare: give two finished runs or more; .*failed: ValueError: no\)\.$",
    ):
        compare_cells([make_cell("x", FAST), make_cell("z", SLOW, status="failed")])


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    common = {"N": 8, "backend": "tabular", "num_runs": 4, "figures": False}
    memory_rl.sft(**common, log_path=str(folder / "sft"))
    for seed in (0, 1):
        memory_rl.train(**common, seed=seed, log_path=str(folder / f"binary-{seed}"))
    return folder


def test_paths_results_and_folders_are_compared(runs):
    found = memory_rl.compare([runs / "binary-0", str(runs / "sft")])
    assert [one.name for one in found.ranked] == ["sft", "binary"]
    result = memory_rl.load(runs / "binary-0")
    rate = result.summary["binary"]["bits_per_episode"]
    row = found.frame.row(1, named=True)
    assert [row[f"bits_per_episode{end}"] for end in ("", "_low", "_high")] == [
        rate["estimate"],
        *rate["ci95"],
    ]
    assert row["paths"] == [str(runs / "binary-0")]
    assert repr(memory_rl.compare([result, memory_rl.load(runs / "sft")])) == repr(found)
    assert f"\n{found.sheet().caption}" in repr(found)
    assert found.as_dict()["rows"][0]["rank"] == 1
    assert [one.sample.runs for one in memory_rl.compare(runs).ranked] == [4, 8]  # a folder pools seeds


def test_what_is_given_apart_stays_apart(runs):
    found = memory_rl.compare([runs / "binary-0", runs / "binary-1"])
    assert {one.name for one in found.ranked} == {"binary seed=0", "binary seed=1"}
    with pytest.raises(memory_rl.RunDirectoryError, match="give two finished runs or more"):
        memory_rl.compare([runs / "sft", runs / "sft"])


def test_the_command_prints_the_sentence_first_and_the_table_whole(runs, capsys):
    assert main(["compare", str(runs / "binary-0"), f"runs={runs / 'sft'}", "to=first"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = memory_rl.compare([runs / "binary-0", runs / "sft"], to="first")
    assert lines[0] == found.sentence
    for cell in (cell for row in found.sheet().rows for cell in row):
        assert any(cell in line for line in lines[1:])


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["nothing to compare", "memory-rl compare runs/a runs/b"]),
        (["nowhere"], ["nowhere is not a folder"]),
        (["to=last", "x"], ["to=last is not a choice", "best"]),
        (["too=first", "x"], ["too=first is not a known key", "did you mean to?"]),
    ],
)
def test_bad_input_is_one_sentence(words, parts, capsys):
    assert main(["compare", *words]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert all(part in said.err for part in parts)
