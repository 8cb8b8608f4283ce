"""The law of silent groups against enumeration: every sequence of levels, with its probability."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from memory_rl.learning.silence import GroupLaw, draw

LAWS = [([0.9, 0.1], 4, 1), ([0.5, 0.3, 0.2], 3, 1), ([0.85, 0.15], 2, 3), ([0.6, 0.0, 0.4], 3, 2)]


def sequences(q, group_size, batch_size):
    """Each update as a tuple of levels, its probability, and whether it is silent."""
    for levels in itertools.product(range(len(q)), repeat=group_size * batch_size):
        groups = [levels[start : start + group_size] for start in range(0, len(levels), group_size)]
        yield levels, math.prod(q[level] for level in levels), all(len(set(group)) == 1 for group in groups)


def chi_square(drawn, expected: dict) -> float:
    """p-value of draws against the probabilities of all outcomes."""
    counts = dict.fromkeys(expected, 0)
    for outcome in map(tuple, drawn):
        counts[outcome] += 1  # an impossible outcome is a KeyError
    total = sum(expected.values())
    return float(
        scipy.stats.chisquare(
            list(counts.values()), [len(drawn) * p / total for p in expected.values()]
        ).pvalue
    )


@pytest.mark.parametrize(("q", "group_size", "batch_size"), LAWS)
def test_the_signal_is_what_is_not_silent(q, group_size, batch_size):
    law = GroupLaw(np.array(q), group_size, batch_size)
    silent = sum(probability for _, probability, silent in sequences(q, group_size, 1) if silent)
    assert law.signal == pytest.approx(1 - silent)


@pytest.mark.parametrize(("q", "group_size", "batch_size"), LAWS)
def test_updates_with_a_signal_and_without_follow_their_conditional_laws(q, group_size, batch_size):
    law, random = GroupLaw(np.array(q), group_size, batch_size), np.random.default_rng(0)
    possible = {
        levels: p for levels, p, silent in sequences(q, group_size, batch_size) if p > 0 and not silent
    }
    assert chi_square([law.draw_informative(random) for _ in range(20_000)], possible) > 1e-3
    quiet = {levels: p for levels, p, silent in sequences(q, group_size, batch_size) if p > 0 and silent}
    assert chi_square(law.draw_silent(20_000, random), quiet) > 1e-3


@pytest.mark.parametrize(("q", "group_size", "batch_size"), LAWS)
def test_the_wait_is_geometric(q, group_size, batch_size):
    law, random = GroupLaw(np.array(q), group_size, batch_size), np.random.default_rng(1)
    waits = np.array([law.silent_updates(random, at_most=10**9) for _ in range(20_000)])
    quiet = (1 - law.signal) ** batch_size
    longest = int(math.log(50 / 20_000) / math.log(quiet))
    observed = np.bincount(waits.clip(max=longest), minlength=longest + 1)
    expected = 20_000 * np.append((1 - quiet) * quiet ** np.arange(longest), quiet**longest)
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_rare_signals_keep_their_digits():
    """With q = 1e-15 the signal is 4 q in groups of 4; 1 - sum q^G in floating point has no digit of it."""
    law = GroupLaw(np.array([1.0, 1e-15]), 4)
    assert law.signal == pytest.approx(4e-15, rel=1e-9)
    random = np.random.default_rng(0)
    assert sum(law.draw_informative(random).sum() for _ in range(500)) == 500  # one hit each
    waits = [law.silent_updates(random, at_most=2**62) for _ in range(4000)]
    assert np.mean(waits) == pytest.approx(1 / 4e-15, rel=0.1)


def test_the_wait_ends_at_the_budget():
    random = np.random.default_rng(0)
    assert GroupLaw(np.array([1.0, 0.0]), 4).silent_updates(random, at_most=17) == 17
    assert GroupLaw(np.array([1.0, 1e-12]), 4).silent_updates(random, at_most=3) == 3


def test_draws_never_hit_what_has_no_weight():
    class Extreme:
        def random(self, shape):
            return np.full(shape, np.nextafter(1.0, 0.0))

    assert draw(np.array([0.3, 0.7, 0.0]), (2,), Extreme()).tolist() == [1, 1]
