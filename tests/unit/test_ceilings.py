"""Naive capacities and ties of the conditions against known values."""

import math
from pathlib import Path

import pytest

from memory_rl.assembly import make_setting
from memory_rl.cli import main
from memory_rl.experiment import make_experiment


def of(command="train", **settings):
    return make_setting(make_experiment(settings, command)).condition.ceilings.as_dict()


@pytest.mark.parametrize(
    ("settings", "capacity"),
    [
        ({"N": 64}, 1.0),
        ({"N": 64, "reward_type": "log_distance"}, 6.0),
        ({"N": 64, "reward_type": "binned_log_distance", "reward_bins": 8}, 3.0),
        ({"N": 16, "reward_type": "binned_log_distance", "reward_bins": 32}, math.log2(15)),
        ({"N": 64, "env_type": "multi_step"}, 6.0),
        ({"N": 37, "env_type": "multi_step"}, math.log2(37)),
        ({"N": 64, "env_type": "multi_step", "credit": "episode"}, math.log2(7)),
    ],
)
def test_capacity_is_log2_of_the_signals_that_occur(settings, capacity):
    assert of(**settings)["capacity"] == pytest.approx(capacity)


@pytest.mark.parametrize(
    ("settings", "capacity", "shannon", "first", "answers"),
    [
        ({}, 6.0, 6.0, 6.0, 2.0),
        ({"told": "top_k"}, 6.0, 6.0, 6.0, 2.0),
        ({"teacher": "runs/mine", "told": "sampled"}, 6.0, 6.0, 6.0, 2.0),
        ({"env_type": "multi_step"}, 6.0, 6.0, 6.0, 2.0),
        ({"told": "sampled", "backend": "tabular"}, 1.0, 1.0, 0.1161, 32.5),
        ({"told": "sampled", "env_type": "multi_step"}, 6.0, 6.0, 6.0, 2 - 1 / 64),
        ({"told": "sampled"}, math.log2(3), math.log2(3), None, None),
        ({"teacher": "observer", "reward_type": "log_distance"}, 6.0, 6.0, 6.0, 2 - 1 / 64),
    ],
    ids=str,
)
def test_what_a_teacher_can_tell(settings, capacity, shannon, first, answers):
    """All of S; or hit or miss; or which bits are right; or how many digits; or what its rewards tell."""
    limits = of(N=64, signal="teacher", **settings)
    assert limits["capacity"] == pytest.approx(capacity)
    assert limits["shannon_capacity"] == pytest.approx(shannon)
    assert limits["bits_by_reward"] == 6.0  # whatever pays, it is S that is taught
    if first is not None:
        assert limits["first_episode"]["best"] == pytest.approx(first, abs=1e-4)
        assert limits["ideal_questioner"]["to_hit"] == pytest.approx(answers)


def test_a_sampled_answer_of_two_digits_tells_a_share_of_the_first():
    """N = 64, the best first answer: one that ten others begin like, of 63; those are 1 to 5 and a digit."""
    others = [sum(str(s)[0] == str(a)[0] and s != a for s in range(64)) for a in range(64)]
    assert max(others) == 10
    masses = [1 / 64, 10 / 64, 53 / 64]
    best = -sum(mass * math.log2(mass) for mass in masses)
    assert of(N=64, signal="teacher", told="sampled")["first_episode"]["best"] == pytest.approx(best)


def test_rewards_that_do_not_pay_for_s_do_not_keep_an_observer_from_teaching_it():
    keys = {"N": 1024, "reward_type": "binned_log_distance", "reward_bins": 4}
    assert of(signal="teacher", teacher="observer", **keys)["bits_by_reward"] == 10


def test_an_example_carries_the_answer():
    limits = of("sft", N=64)
    assert (limits["capacity"], limits["shannon_capacity"], limits["bits_by_reward"]) == (6.0, 6.0, 6.0)
    assert limits["first_episode"] == {"best": 6.0, "mean": 6.0}
    assert limits["ideal_questioner"]["to_know"] == 1.0


def test_ties_at_the_top_are_counted():
    tied = of(N=1024, reward_type="binned_log_distance", reward_bins=4)
    assert tied["bits_by_reward"] == pytest.approx(10 - math.log2(5))  # 7.7 of 10 bits
    assert of(N=64, reward_type="binned_log_distance", reward_bins=8)["bits_by_reward"] == 6.0
    assert of(N=1024, reward_type="log_distance")["bits_by_reward"] == 10.0


@pytest.mark.parametrize(("law", "told"), [("answer % 2 == secret % 2", True), ("answer >= secret", False)])
def test_a_reward_that_cannot_tell_secrets_apart_is_called_so(law, told, capsys):
    Path("own.py").write_text(f"def reward(answer, secret):\n    return float({law})\n")
    assert main(["bounds", "N=16", "reward_type=own.py:reward"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ("no learner can tell from this reward which of them is S" in said) == told
    assert "share the top reward" in said  # of an answer for each secret, many are as good as it in both


def test_ties_are_told_before_the_run_starts(capsys):
    assert (
        main(
            [
                "train",
                "N=128",
                "reward_type=binned_log_distance",
                "reward_bins=3",
                "num_runs=1",
                "max_episodes=4",
            ]
        )
        == 0
    )
    notes = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("note:") and "computes on" not in line
    ]
    assert len(notes) == 1
    assert "answers share the top reward: a policy spread over them knows " in notes[0]
    assert main(["train", "N=16", "num_runs=1", "max_episodes=4"]) == 0
    assert not [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("note:") and "computes on" not in line
    ]
