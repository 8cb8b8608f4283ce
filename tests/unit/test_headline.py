"""The sentence that every run ends with: right for all ways in which runs end, and the same everywhere."""

from dataclasses import replace

import pytest
from reporting_helpers import cell_of

import memory_rl
from memory_rl.analysis.digits import short
from memory_rl.reporting.headline import ceiling, headline, share_of_ceiling
from memory_rl.runs.lock import LOCK, Lock

NONE, ONE = (None, None, None), (None, None)

CASES = [
    (
        {},
        "16 of 16 runs memorised the secret after a median of 116 episodes [68, 144]: 0.049 bits an episode, "
        "5 % of the 1-bit ceiling.",
    ),
    (
        {"memorised": 9, "median": (300.0, 120.0, None), "rate": (0.0101, 0.004, 0.02)},
        "9 of 16 runs memorised the secret; 7, 44 % [20, 70], were stuck at 4,000. Over all runs by then: "
        "0.01 bits an episode [0.004, 0.02], 1 % of the 1-bit ceiling, and half had memorised after "
        "300 episodes [120, beyond].",  # of an older version, which does not tell how fast the others were
    ),
    (
        {"memorised": 3, "median": (None, 900.0, None), "rate": (0.0003, 1e-4, 9e-4), "max_episodes": 524288},
        "3 of 16 runs memorised the secret; 13, 81 % [54, 96], were stuck at 524,288. Over all runs by then: "
        "0.0003 bits an episode [0.0001, 0.0009], 0.03 % of the 1-bit ceiling.",
    ),
    (
        {
            "memorised": 13,
            "others": {"median": (120.0, 68.0, 144.0), "rate": (0.0401, 0.0312, 0.0517)},
            "most": (3.0, 3.0),
        },
        "13 of 16 runs memorised the secret, after a median of 120 episodes [68, 144]; 3, 19 % [4, 46], were "
        "stuck at 4,000. Those that memorised: 0.04 bits an episode [0.031, 0.052], 1 % of the 3-bit "
        "ceiling.",
    ),
    (
        {"memorised": 1, "others": {"median": (8.0, *ONE), "rate": (0.5, *ONE)}},
        "1 of 16 runs memorised the secret, after 8 episodes; 15, 94 % [70, 100], were stuck at 4,000. "
        "The one that memorised: 0.5 bits an episode, 50 % of the 1-bit ceiling.",
    ),
    (
        {"memorised": 15, "others": {"median": (0.0, 0.0, 0.0), "rate": NONE}},
        "15 of 16 runs memorised the secret, before the first episode; 1, 6.2 % [0.16, 30], was stuck at "
        "4,000, so that there is nothing to measure.",
    ),
    (
        {"memorised": 0, "median": (None, 0.0, None), "rate": (0.0, 0.0, 0.00034)},
        "None of 16 runs memorised the secret within 4,000 episodes (stuck: 100 % [79, 100]): 0 bits an "
        "episode, at most 0.00034 (95 %), 0 % of the 1-bit ceiling.",
    ),
    (
        {"memorised": 1, "num_runs": 1, "median": (72.0, *ONE), "rate": (0.0833, *ONE)},
        "The run memorised the secret after 72 episodes: 0.083 bits an episode, 8 % of the 1-bit ceiling.",
    ),
    (
        {"memorised": 0, "num_runs": 1, "median": NONE, "rate": (0.0, 0.0, 0.0055)},
        "The run did not memorise the secret within 4,000 episodes: 0 bits an episode, at most 0.0055 "
        "(95 %), 0 % of the 1-bit ceiling.",
    ),
    (
        {
            "signal": "example",
            "median": (14.0, 13.0, 14.0),
            "rate": (0.4321, 0.42, 0.44),
            "most": (6.0, 6.0),
            "fixed_secret": 42,
        },
        "16 of 16 runs memorised the one secret 42 after a median of 14 examples [13, 14]: 0.43 bits an "
        "example, 7 % of the 6-bit ceiling.",
    ),
    (
        {"num_secrets": 64, "median": (5243.0, 5000.0, 5500.0), "rate": (0.0702, 0.069, 0.071)},
        "16 of 16 runs memorised at least 61 of 64 secrets after a median of 5,243 episodes [5,000, 5,500]: "
        "0.07 bits an episode, 7 % of the 1-bit ceiling.",
    ),
    (
        {"num_secrets": 2, "memorised_share": 1.0, "median": (12.0, 12.0, 12.0), "rate": (1.0, 1.0, 1.0)},
        "16 of 16 runs memorised all 2 secrets after a median of 12 episodes [12, 12]: 1 bit an episode, "
        "100 % of the 1-bit ceiling.",
    ),
    (
        {"median": (0.0, 0.0, 0.0), "rate": NONE},
        "16 of 16 runs memorised the secret before the first episode, so that there is nothing to measure.",
    ),
    (
        {"memorised": 2, "median": (None, 100.0, None), "stopped": "max_tokens_total=2500 leaves too few"},
        "2 of 16 runs memorised the secret; 14, 88 % [62, 98], were stuck when max_tokens_total was spent. "
        "Over all runs by then: 0.049 bits an episode [0.037, 0.064], 5 % of the 1-bit ceiling.",
    ),
    (
        {"reward_noise": 0.1, "most": (1.0, 0.531)},
        "16 of 16 runs memorised the secret after a median of 116 episodes [68, 144]: 0.049 bits an episode, "
        "9 % of the 0.531-bit ceiling.",
    ),
    (
        {"memorised": 0, "median": NONE, "rate": (0.0, 0.0, 0.0003), "most": (0.0, 0.0)},
        "None of 16 runs memorised the secret within 4,000 episodes (stuck: 100 % [79, 100]): 0 bits an "
        "episode, at most 0.0003 (95 %), and no reward of this kind tells anything.",
    ),
    (
        {"median": (3e5, 2e5, 4e5), "rate": (0.00002, 1e-5, 3e-5), "most": (1.0, None)},
        "16 of 16 runs memorised the secret after a median of 300,000 episodes [200,000, 400,000]: 0.00002 "
        "bits an episode, less than 0.01 % of the 1-bit ceiling.",
    ),
    (
        {"rate": (0.02, 0.008, 0.05)},
        "16 of 16 runs memorised the secret after a median of 116 episodes [68, 144]: 0.02 bits an episode "
        "(over all episodes of all runs, the slow ones too), 2 % of the 1-bit ceiling.",
    ),
    (
        {"status": "failed"},
        "There is no answer, since the experiment failed: DivergedError: run 3 diverged at its update 7.",
    ),
    (
        {"status": "running"},
        "There is no answer yet: the experiment was killed, and what it had measured by its last checkpoint "
        "is kept.",
    ),
    (
        {"status": "interrupted"},
        "There is no answer yet: the experiment was interrupted, and what it had measured is kept.",
    ),
]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0491, "0.0491"),
        (2e-05, "0.00002"),
        (1.5e-06, "0.0000015"),
        (2e-07, "2e-07"),
        (524288.0, "524,288"),
        (524288.5, "524,000"),
        (1e16, "1e+16"),
        (0.0, "0"),
        (116.0, "116"),
    ],
)
def test_numbers_have_no_exponent_where_a_person_would_write_none(value, words):
    assert short(value) == words


@pytest.mark.parametrize(("how", "sentence"), CASES)
def test_the_sentence_of_each_way_to_end(how, sentence):
    assert headline(cell_of(**how)) == sentence


def test_a_run_at_work_is_told_from_one_that_was_killed(tmp_path):
    cell = replace(cell_of(status="running"), path=tmp_path)
    lock = Lock(tmp_path / LOCK)
    assert headline(cell) == "There is no answer yet: the experiment is still running."
    lock.release()
    assert "was killed" in headline(cell)


def test_the_share_is_of_the_least_ceiling_that_is_known():
    summary = cell_of(rate=(0.25, 0.2, 0.3), most=(3.0, 0.5)).summary
    assert (ceiling(summary), share_of_ceiling(summary)) == (0.5, "50 %")
    assert share_of_ceiling(cell_of(rate=(None, *ONE)).summary) is None


def test_a_real_run_says_what_its_summary_holds():
    result = memory_rl.train(N=8, backend="tabular", num_runs=4, ledger=False, figures=False)
    summary = result.summary["binary"]
    said = headline(result.cell)
    assert said.startswith(f"{summary['memorised']} of 4 runs memorised the secret after a median of ")
    median = summary["episodes_to_memorise"]["median"]
    assert f" {median:.0f} episodes (too few runs for an interval): " in said  # 4 runs bound no median
    assert f": {summary['bits_per_episode']['estimate']:.2g} bits an episode, " in said
    assert said.endswith(f"{100 * summary['bits_per_episode']['estimate']:.0f} % of the 1-bit ceiling.")
