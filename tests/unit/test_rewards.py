"""Reward channels against brute force, written again from their definition."""

import math

import numpy as np
import pytest
from helpers import likelihoods_of

from memory_rl.seeding import generator
from memory_rl.task.rewards import INVALID, make_channel

SIZES = [2, 3, 16, 37, 64]


def brute_force_log_distance(answer: int, secret: int, N: int) -> float:
    return max(0.0, 1 - math.log2(1 + abs(answer - secret)) / math.log2(N))


def all_pairs(N: int):
    answers, secrets = np.meshgrid(np.arange(N), np.arange(N), indexing="ij")
    return answers, secrets


@pytest.mark.parametrize("N", SIZES)
def test_binary_for_every_pair(N):
    answers, secrets = all_pairs(N)
    expected = [[1.0 if a == s else 0.0 for s in range(N)] for a in range(N)]
    np.testing.assert_array_equal(make_channel("binary", N).rewards(answers, secrets), expected)


@pytest.mark.parametrize("N", SIZES)
def test_log_distance_for_every_pair(N):
    answers, secrets = all_pairs(N)
    expected = [[brute_force_log_distance(a, s, N) for s in range(N)] for a in range(N)]
    np.testing.assert_allclose(
        make_channel("log_distance", N).rewards(answers, secrets), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("bins", [2, 3, 4, 8, 32, 100])
@pytest.mark.parametrize("N", SIZES)
def test_binned_log_distance_for_every_pair(N, bins):
    answers, secrets = all_pairs(N)
    expected = [
        [round(brute_force_log_distance(a, s, N) * (bins - 1)) / (bins - 1) for s in range(N)]
        for a in range(N)
    ]
    np.testing.assert_array_equal(
        make_channel("binned_log_distance", N, bins).rewards(answers, secrets), expected
    )


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize(
    ("reward_type", "bins"), [("binary", None), ("log_distance", None), ("binned_log_distance", 8)]
)
def test_levels_are_those_that_occur(N, reward_type, bins):
    channel = make_channel(reward_type, N, bins)
    np.testing.assert_array_equal(channel.levels, np.unique(channel.rewards(*all_pairs(N))))


def test_known_levels_of_the_binned_channel():
    assert len(make_channel("binned_log_distance", 16, 32).levels) == 15
    top = make_channel("binned_log_distance", 1024, 4)
    assert [d for d in range(1024) if top.rewards(np.array(d), np.array(0)) == 1.0] == [
        0,
        1,
        2,
    ]  # five answers share the top bin


@pytest.mark.parametrize(
    ("reward_type", "bins"), [("binary", None), ("log_distance", None), ("binned_log_distance", 8)]
)
def test_an_invalid_answer_earns_the_lowest_level_and_tells_nothing(reward_type, bins):
    channel = make_channel(reward_type, 16, bins, noise=0.25)
    secrets = np.arange(16)
    assert (channel.classes(INVALID, secrets) == 0).all()
    likelihoods = likelihoods_of(channel, np.array(INVALID), secrets)
    assert (likelihoods == likelihoods[0]).all()


def test_noise_replaces_the_reward_by_another_level_drawn_uniformly():
    channel = make_channel("binned_log_distance", 64, 8, noise=0.3)
    uniforms = generator(0, "test").random(200_000)
    rewards = channel.rewards(np.full(uniforms.shape, 10), np.array(12), uniforms)
    observed = (rewards[:, None] == channel.levels).sum(axis=0)
    expected = likelihoods_of(channel, np.array(10), np.array(12)) * len(uniforms)
    assert expected.sum() == pytest.approx(len(uniforms))
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic < 24.3  # chi-square with 7 degrees of freedom, p = 0.001


def test_likelihoods_without_noise_are_the_channel_itself():
    channel = make_channel("binned_log_distance", 37, 5)
    answers, secrets = all_pairs(37)
    likelihoods = likelihoods_of(channel, answers, secrets)
    np.testing.assert_array_equal(likelihoods.sum(axis=-1), 1.0)
    np.testing.assert_array_equal(
        channel.levels[likelihoods.argmax(axis=-1)], channel.rewards(answers, secrets)
    )


def test_halves_are_rounded_as_halves():
    """N=64, d=31: raw = 1 - 5/6, times 9 is 1.5 exactly, which goes to the even 2, though floating-point
    logarithms say a little less."""
    channel = make_channel("binned_log_distance", 64, 10)
    assert channel.rewards(np.array(31), np.array(0)) == 2 / 9
