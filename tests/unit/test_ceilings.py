"""Naive capacities and ties of the conditions against known values."""

import math

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
