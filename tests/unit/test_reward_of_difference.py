"""A reward of the user's own that says what it depends on: the distance, or the signed difference."""

import math

import numpy as np
import polars as pl
import pytest
from helpers import complaint
from polars.testing import assert_frame_equal

import memory_rl
from memory_rl.task import as_reward, from_table, make_channel, table_of, tabulate
from memory_rl.task.rewards import with_noise


def near(distance):
    return round(2.0**-distance, 3)


def logarithm(distance, N):
    return max(0.0, 1 - math.log2(1 + distance) / math.log2(N))


def exact(distance):
    return float(distance == 0)


def way(difference):
    return (difference < 0) - (difference > 0)


def doubtful(difference):
    return {1: 0.75, 0: 0.25} if difference < 1 else {1: 0.1, 0: 0.9}


class Steps:
    def __init__(self, N):
        self.width = max(1, N // 4)

    def reward(self, distance):
        return -(distance // self.width)


GIVEN = [near, logarithm, exact, way, doubtful, Steps]


def channel_of(given, N):
    return tabulate(as_reward(given, N, "test"), N, "test")


@pytest.mark.parametrize("N", [2, 3, 16, 33])
@pytest.mark.parametrize("given", GIVEN)
def test_it_is_the_reward_of_all_pairs(given, N):
    short, reward = channel_of(given, N), as_reward(given, N, "test")
    long = tabulate(lambda answer, secret: reward(answer, secret), N, "test")  # which nothing is known of
    assert short.shifted
    np.testing.assert_array_equal(short.levels, long.levels)
    for channel in (short, long):
        assert table_of(channel, N).shape == (N, N)
    assert short.certain == long.certain
    every = np.arange(N)
    means = [channel.mean_rewards[channel.classes(every[:, None], every)] for channel in (short, long)]
    np.testing.assert_allclose(*means, atol=1e-15)
    laws = [
        (np.eye(len(one.levels)) if one.outcomes is None else one.outcomes)[table_of(one, N)]
        for one in (short, long)
    ]
    np.testing.assert_array_equal(*laws)


def test_the_difference_is_answer_minus_secret():
    reward = as_reward(way, 8, "way")
    assert [reward(5, 3), reward(3, 3), reward(1, 3)] == [-1, 0, 1]
    assert as_reward(near, 8, "near")(1, 4) == 0.125


def test_two_parameters_are_an_answer_and_a_secret_whatever_their_names():
    def odd(distance, difference):
        return distance == difference + 1

    assert as_reward(odd, 4, "odd")(2, 1)


@pytest.mark.parametrize("given", [near, logarithm, way, Steps])
def test_its_ceilings_are_those_of_all_pairs(given):
    reward = as_reward(given, 24, "test")

    def pairs(answer, secret):
        return reward(answer, secret)

    for settings in ({}, {"reward_noise": 0.2}):
        keys = {"N": 24, "memorised_at": 0.6, **settings}
        short, long = memory_rl.bounds(reward_type=given, **keys), memory_rl.bounds(reward_type=pairs, **keys)
        for name in ("capacity", "shannon_capacity", "best_answers", "secret_is_best", "bits_by_reward"):
            assert getattr(short, name) == pytest.approx(getattr(long, name), abs=1e-9)
        assert short.first_episode.best == pytest.approx(long.first_episode.best, abs=1e-12)
        assert short.ideal_questioner.to_reach == pytest.approx(long.ideal_questioner.to_reach, abs=1e-12)


def test_what_is_built_in_is_found_again():
    """Kinds with closed forms, and bins, at an N of which no table fits into memory."""
    N = 2**17
    assert channel_of(exact, 64).kind == "hit"
    assert channel_of(lambda distance: -distance, 64).kind == "distance"
    built_in = make_channel("binned_log_distance", N, 8)

    def bins(distance):
        raw = max(0.0, 1 - math.log2(1 + distance) / math.log2(N))
        return round(round(7 * raw, 9)) / 7

    own = channel_of(bins, N)
    np.testing.assert_array_equal(own.levels, built_in.levels)
    np.testing.assert_array_equal(own.by_difference(N), built_in.by_difference(N))
    again = from_table("own", own.levels, table_of(own, N), own.outcomes)
    np.testing.assert_array_equal(
        again.classes(np.array([3, N - 1]), 5), own.classes(np.array([3, N - 1]), 5)
    )


def test_it_is_asked_for_each_difference_once_and_then_repeated():
    asked = []

    def counted(distance):
        asked.append(distance)
        return -distance

    channel_of(counted, 5000)
    assert asked[:5000] == [*range(5000)]
    assert len(asked) == 5000 + 5000  # all of them again, in another order


def test_bad_rewards_are_named_as_ever():
    with pytest.raises(memory_rl.ConfigError, match=r"gave .* for answer=0, secret=3, which is not finite"):
        channel_of(lambda distance: math.inf if distance == 3 else 0.0, 8)
    with pytest.raises(memory_rl.ConfigError, match="does not depend on the secret"):
        channel_of(lambda difference: 1.0, 8)
    left = [*np.random.default_rng(0).random(100_000)]
    with pytest.raises(memory_rl.ConfigError, match="gave two different rewards"):
        channel_of(lambda distance: left.pop(), 8)


def test_other_rewards_stop_where_all_pairs_are_too_many(tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def mine(answer, secret):\n    return abs(answer - secret) % 7\n")
    sentence = complaint("bounds", f"N=5000 reward_type={tmp_path}/mine.py:mine", capsys)
    for part in ("N=5000", "N=4096 or less", "distance or difference"):
        assert part in sentence
    with pytest.raises(memory_rl.ConfigError, match="5000 x 5000 levels"):
        with_noise(channel_of(lambda distance: -distance, 5000), 0.1)


def test_a_run_keeps_it_and_its_ledger_is_recomputed():
    result = memory_rl.train(N=16, reward_type=near, backend="tabular", num_runs=3, max_episodes=60)
    again = memory_rl.ledger_from_episodes(result.path)
    columns = ["run", "episode", "observer_bits", "asked_bits"]
    measured = result.metrics.filter(pl.col("episode") > 0).select(columns).sort("run", "episode")
    kept = again.join(measured.select("run", "episode"), on=["run", "episode"], how="semi").select(columns)
    assert kept.height == measured.height
    assert_frame_equal(kept, measured, check_exact=False, abs_tol=1e-9)
