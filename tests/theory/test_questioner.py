"""Ideal questioners and first-episode information against known numbers, closed forms, play and exhaustive
search."""

import itertools
import math

import numpy as np
import pytest
from helpers import all_questions

from memory_rl.information import questioner
from memory_rl.information.bounds import first_episode_information
from memory_rl.information.outcomes import Outcomes
from memory_rl.information.questions import Listed, most_informative
from memory_rl.task.rewards import make_channel


def listed(reward_type, N, bins=None) -> Listed:
    return all_questions(make_channel(reward_type, N, bins), N)


def information_of(reward_type, N, bins=None):
    questions = listed(reward_type, N, bins)
    first = first_episode_information(questions, Outcomes(questions.num_classes))
    return first.best, first.mean


def test_a_no_is_worth_little():
    for N, bits in ((64, 0.116), (1024, 0.0112)):
        best, mean = information_of("binary", N)
        assert (
            best
            == pytest.approx(mean)
            == pytest.approx(-math.log2(1 / N) / N - (1 - 1 / N) * math.log2(1 - 1 / N))
        )
        assert best == pytest.approx(bits, rel=5e-3)


@pytest.mark.parametrize(("N", "first", "episodes"), [(64, 2.61, 2.98), (1024, 2.17, 5.73)])
def test_known_numbers_of_eight_bins(N, first, episodes):
    assert information_of("binned_log_distance", N, 8)[0] == pytest.approx(first, abs=0.005)
    assert questioner.greedy(listed("binned_log_distance", N, 8)).to_know == pytest.approx(
        episodes, abs=0.005
    )


@pytest.mark.parametrize("N", [2, 3, 16, 64])
def test_the_binary_questioner_is_the_formula_and_the_greedy_one(N):
    exact, greedy = questioner.binary(N), questioner.greedy(listed("binary", N))
    assert greedy.to_know == pytest.approx(exact.to_know)
    assert greedy.to_hit == pytest.approx(exact.to_hit)
    assert exact.to_hit == np.mean(
        np.arange(1, N + 1)
    )  # tried in order, S is the first, the second, ... to the last


@pytest.mark.parametrize("N", [3, 16, 37])
def test_a_distance_is_known_after_one_end_point(N):
    greedy = questioner.greedy(listed("log_distance", N))
    assert greedy.to_know == questioner.distance(N).to_know == 1.0
    assert greedy.to_hit == pytest.approx(questioner.distance(N).to_hit)


def play(questions, secret) -> tuple[int, int]:
    """Episodes to know and to hit one secret, by playing the greedy questioner out against it."""
    levels, episode, known, hit = questions.table, 0, None, None
    candidates = np.arange(levels.shape[1])
    while known is None or hit is None:
        answer = candidates[0] if len(candidates) == 1 else most_informative(questions, candidates)
        episode += 1
        candidates = candidates[levels[answer, candidates] == levels[answer, secret]]
        if known is None and len(candidates) == 1:
            known = episode
        if hit is None and answer == secret:
            hit = episode
    return known, hit


@pytest.mark.parametrize(("N", "bins"), [(64, 8), (37, 5), (16, 32), (64, 3), (40, 2)])
def test_the_greedy_sums_are_what_play_gives(N, bins):
    levels = listed("binned_log_distance", N, bins)
    played = np.array([play(levels, secret) for secret in range(N)])
    expected = questioner.greedy(levels)
    np.testing.assert_allclose(played.mean(axis=0), [expected.to_know, expected.to_hit])


def exhaustive(levels, candidates) -> float:
    """The least expected episodes to know S, by trying every strategy; written again, over sets."""
    if len(candidates) == 1:
        return 0.0
    best = math.inf
    for row in levels:
        parts = [[s for s in candidates if row[s] == level] for level in {row[s] for s in candidates}]
        if len(parts) > 1:
            best = min(
                best, 1 + sum(len(part) * exhaustive(levels, part) for part in parts) / len(candidates)
            )
    return best


@pytest.mark.parametrize(("N", "bins"), list(itertools.product([3, 5, 7], [2, 3, 8])))
def test_dynamic_programming_finds_the_optimum_and_greedy_never_beats_it(N, bins):
    levels = listed("binned_log_distance", N, bins)
    optimum = questioner.optimal_episodes_to_know(levels.table)
    assert optimum == pytest.approx(exhaustive(levels.table.tolist(), list(range(N))))
    assert questioner.greedy(levels).to_know >= optimum - 1e-12


def test_greedy_is_not_always_optimal():
    levels = listed("binned_log_distance", 8, 4)
    assert questioner.greedy(levels).to_know == 1.875
    assert questioner.optimal_episodes_to_know(levels.table) == 1.75


def test_secrets_that_cannot_be_told_apart_are_refused():
    blind = np.zeros((4, 4), dtype=int)
    with pytest.raises(ValueError, match="apart"):
        questioner.greedy(Listed(blind, 1))
    with pytest.raises(ValueError, match="apart"):
        questioner.optimal_episodes_to_know(blind)
