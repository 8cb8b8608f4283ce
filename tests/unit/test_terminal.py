"""The last screen of a run: the answer, then one table that says where the bits went."""

import os
import re
from signal import SIGINT

import pytest
from reporting_helpers import cell_of

import memory_rl
from memory_rl import execution
from memory_rl.analysis.remarks import why_alike
from memory_rl.cli import main
from memory_rl.reporting.terminal import answer_sheet, show_answer


def with_rates(**rates: float | None):
    cell = cell_of(most=(1.0, 1.0))
    cell.summary["rates"] = {
        name: {"estimate": value, "ci95": None if name in ("capacity", "questioner") else [0.01, 0.9]}
        for name, value in rates.items()
    }
    return cell


def against(cell) -> list[str]:
    return [row[2] for row in answer_sheet(cell).rows]


def test_each_line_is_compared_with_the_one_above_and_a_gain_is_called_one():
    cell = with_rates(capacity=1.0, questioner=0.25, observer=0.25, policy=0.05)
    assert against(cell) == ["", "alphabet ÷4", "exploration ÷1", "absorption ÷5"]
    assert answer_sheet(cell).rows[2] == ["ideal observer", "0.25 [0.01, 0.9]", "exploration ÷1"]
    cell = with_rates(capacity=1.0, questioner=0.1, observer=0.295, policy=0.0)
    assert against(cell) == ["", "alphabet ÷10", "exploration ×2.95 (a gain)", "absorption: all lost"]
    cell = with_rates(capacity=1.0, questioner=None, observer=0.3, policy=0.1)
    assert against(cell) == ["", "", "", "absorption ÷3"]


def test_where_runs_are_stuck_the_losses_multiply_to_the_rate_of_all_and_the_others_have_a_line():
    others = {"median": (120.0, 68.0, 144.0), "rate": (0.2, 0.1, 0.3)}
    cell = cell_of(memorised=13, others=others)
    values = {"capacity": 1.0, "questioner": 0.5, "observer": 0.4, "policy": 0.05}
    cell.summary["rates"] = {name: {"estimate": value, "ci95": None} for name, value in values.items()}
    cell.summary["losses_ci95"] = {"exploration": [1.1, 1.4], "absorption": [6.0, 11.0]}
    sheet = answer_sheet(cell)
    assert [row[0] for row in sheet.rows[-2:]] == ["policy, all 16 runs", "policy, 13 that memorised"]
    assert [row[1] for row in sheet.rows[-2:]] == ["0.05", "0.2 [0.1, 0.3]"]
    lost = [row[2] for row in sheet.rows]
    assert lost == ["", "alphabet ÷2", "exploration ÷1.25 [1.1, 1.4]", "absorption ÷8 [6, 11]", ""]
    assert values["capacity"] / values["policy"] == pytest.approx(2 * 1.25 * 8)
    assert (
        "Observer and policy are over all runs, each up to 4,000 episodes, but for the last line; 3, 19 % "
        "[4, 46], are stuck there." in sheet.caption
    )
    del cell.summary["of_memorised"], cell.summary["losses_ci95"]  # as in an older run directory
    assert [row[2] for row in answer_sheet(cell).rows][-1] == "absorption ÷8"
    cell.summary["rates"]["policy"]["estimate"] = 0.5
    cell.summary["losses_ci95"] = {"absorption": [0.5, 2.0]}
    assert answer_sheet(cell).rows[-1][2] == "absorption ×1.25 [0.5, 2] (a gain)"


def test_without_a_ledger_there_are_ceiling_and_policy_and_noise_lowers_the_ceiling():
    assert [row[0] for row in answer_sheet(cell_of()).rows] == [
        "naive capacity",
        "policy",
    ]
    assert against(cell_of()) == ["", "÷20.4"]
    assert answer_sheet(cell_of()).caption.split("\n") == [
        "Naive capacity: log2 of the number of signals that a reward can bring.",
        "In brackets: 95 %, over runs of one base model. No run of 16 is stuck: fewer than 21 % are (95 %).",
    ]
    alone = answer_sheet(cell_of(memorised=1, num_runs=1, backend="tabular")).caption
    assert "In brackets" not in alone
    many = answer_sheet(cell_of(memorised=64, num_runs=64, backend="tabular")).caption
    assert many.endswith(
        "\nIn brackets: 95 %, over runs. No run of 64 is stuck: fewer than 5.6 % are (95 %)."
    )
    noisy = cell_of(most=(1.0, 0.531), reward_noise=0.1)
    assert answer_sheet(noisy).rows[1] == ["Shannon capacity", "0.531", "÷1.88"]
    assert " Shannon capacity: noise and ties counted." in answer_sheet(noisy).caption
    shown = cell_of(signal="example", most=(6.0, 6.0))
    assert answer_sheet(shown).rows[0][:2] == ["naive capacity", "6"]
    assert "that an example can bring" in answer_sheet(shown).caption
    assert answer_sheet(shown).headings[1] == "bits per example"


def test_one_bit_is_one_bit():
    assert answer_sheet(cell_of(N=2, memorised_at=0.75)).title == "binary, N = 2: 1 bit to learn"
    assert answer_sheet(cell_of(num_secrets=2**16)).title.endswith(": 393,216 bits to learn")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            "breached",
            "Self-check: breached (policy bits <= observer bits); there is a bug, or the secret leaks.",
        ),
        ("skipped", "Self-check: skipped, since there is one secret."),
        ("holds", "Self-check: the measurement keeps the laws of information theory."),
    ],
)
def test_the_self_check_is_a_sentence(status, words):
    cell = cell_of()
    law = {"law": "policy bits <= observer bits", "status": status, "why": "there is one secret"}
    cell.summary["checks"] = {"policy_within_observer": law}
    assert words in answer_sheet(cell).caption


def test_of_a_run_that_failed_there_is_a_sentence_and_its_place(capsys):
    show_answer(cell_of(status="failed"))
    assert capsys.readouterr().out.splitlines() == [
        "There is no answer, since the experiment failed: DivergedError: run 3 diverged at its update 7.",
        "run directory: run",
    ]


def test_ceilings_are_of_bounds_and_of_verbose(capsys):
    keys = {"N": 8, "backend": "tabular", "num_runs": 1, "max_episodes": 4, "figures": False, "quiet": False}
    memory_rl.train(**keys)
    brief = capsys.readouterr().out
    memory_rl.train(**keys, verbose=True)
    long = capsys.readouterr().out
    assert "Shannon" not in brief
    assert "Shannon" in long
    assert main(["bounds", "N=8"]) == 0
    table = capsys.readouterr().out
    assert long.startswith(table)


def test_the_sentence_comes_first_and_notes_last(capsys):
    keys = {"N": 16, "backend": "tabular", "num_runs": 2, "max_episodes": 80, "figures": False}
    tied = {"reward_type": "binned_log_distance", "reward_bins": 32}
    tied |= {"learning_rate": 1e-3, "log_path": "run", "quiet": False}
    for more, note in (
        ({}, "17 of the reward levels never occur at N=16: the capacity is 3.91 bits."),
        ({"resume": True}, "run is complete already; nothing was run."),
    ):
        memory_rl.train(**keys, **tied, **more)
        first, *_, last, place = capsys.readouterr().out.splitlines()
        assert first.startswith("None of 2 runs memorised the secret")
        assert (last, place) == (f"note: {note}", "run directory: run")


def test_of_a_sweep_too(capsys):
    keys = ["backend=tabular", "N=8", "num_runs=2", "max_episodes=40", "figures=False", "executor=inline"]
    assert main(["sweep", *keys, "algorithm=reinforce,rloo", "log_path=sweep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    sentence = next(place for place, line in enumerate(lines) if line.startswith("2 of 2 cells are complete"))
    notes = [place for place, line in enumerate(lines) if line.startswith("note: ")]
    assert notes[-1] == len(lines) - 1
    assert min(notes) > sentence
    assert "reinforce and rloo give the same numbers" in lines[-1]


def test_one_unit_is_not_plural(capsys):
    assert main(["bounds", "N=1048576"]) == 0
    told = [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    # (N + 1) / 2, to four digits
    assert ["ideal questioner (exact): answers S", "524,300", "episodes"] in told
    assert main(["bounds", "N=64", "reward_type=log_distance"]) == 0
    told = [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()]
    assert ["ideal questioner (exact): knows S", "1", "episode"] in told
    assert main(["bounds", "N=2", "reward_type=binned_log_distance", "reward_bins=8"]) == 0
    out = capsys.readouterr().out
    assert "the capacity is 1 bit." in out
    assert re.search(r"log2 of the levels +1  bit per episode\n", out)


SAME = ("binary N=64", "grpo", "adam", (208.0, 0.02))


@pytest.mark.parametrize(
    ("compared", "parts"),
    [
        (
            [SAME, ("binary N=64", "rloo", *SAME[2:]), ("binary N=16", "rloo", "adam", (1.0,))],
            ["grpo and rloo give the same numbers in 1 of 2 comparisons", "with one group an update"],
        ),
        (
            [("a", "reinforce", *SAME[2:]), ("a", "rloo", *SAME[2:])],
            ["reinforce and rloo give", "ignored: their advantages differ by a positive factor alone"],
        ),
        ([SAME, ("binary N=64", "ppo", *SAME[2:])], []),
        ([SAME, ("binary N=64", "rloo", "adam", (207.0, 0.02))], []),
        ([("a", "grpo", "sgd", (1.0,)), ("a", "rloo", "sgd", (1.0,))], []),
    ],
)
def test_learners_that_must_do_the_same_are_explained(compared, parts):
    said = why_alike(compared)
    assert len(said) == bool(parts)
    for part in parts:
        assert part in said[0]


def test_under_adam_they_are_the_same_and_under_sgd_they_are_not():
    """What the sentence claims, measured."""
    found = {}
    for optimiser in ("adam", "sgd"):
        for algorithm in ("reinforce", "rloo"):
            result = memory_rl.train(
                N=8, backend="tabular", num_runs=4, max_episodes=80, ledger=False, figures=False,
                algorithm=algorithm, optimiser=optimiser, skip_ahead=False,
            )  # fmt: skip
            found[optimiser, algorithm] = result.metrics["bits_known"].round(6).to_list()
    assert found["adam", "reinforce"] == found["adam", "rloo"]
    assert found["sgd", "reinforce"] != found["sgd", "rloo"]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("make_learners", "memory-rl: interrupted; nothing had been measured yet.\n"),
        (
            "_report",
            "memory-rl: interrupted; what was measured is kept, and the same command with log_path=run "
            "resume=True resumes it.\n",
        ),
    ],
)
def test_an_interruption_says_what_is_kept_and_no_more(where, words, monkeypatch, capsys):
    def interrupted(*arguments, **keys):
        raise KeyboardInterrupt

    words_of = ["train", "N=8", "backend=tabular", "num_runs=1", "max_episodes=4", "log_path=run"]
    with monkeypatch.context() as patch:
        patch.setattr(execution, where, interrupted)
        assert main(words_of) == 130
    assert capsys.readouterr().err == words
    assert main([*words_of, "resume=True"]) == 0


def test_an_interruption_before_anything_is_only_that(monkeypatch, capsys):
    monkeypatch.setattr(execution, "find_teacher", lambda experiment: os.kill(os.getpid(), SIGINT))
    assert main(["train", "N=8", "backend=tabular"]) == 130
    assert capsys.readouterr().err == "memory-rl: interrupted.\n"
