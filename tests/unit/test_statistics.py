"""Estimates against hand-computed samples, closed forms and simulation."""

import numpy as np
import polars as pl
import pytest
import scipy.stats

from memory_rl.analysis.statistics import MemorisationTimes, bits_per_episode, bootstrap_mean, mean_interval, median_episodes, restricted_mean_episodes
from memory_rl.analysis.summary import memorisation_times


def times(episodes, memorised=None):
    episodes = np.array(episodes)
    return MemorisationTimes(episodes, np.ones(len(episodes), bool) if memorised is None else np.array(memorised, bool))


def test_median_without_censoring_is_the_lower_middle_value():
    assert median_episodes(times([40, 10, 30, 20])).value == 20
    assert median_episodes(times([40, 10, 30])).value == 30


def test_censored_runs_count_as_later_than_the_budget():
    median = median_episodes(times([10, 20, 30, 100, 100], [1, 1, 1, 0, 0]))
    assert (median.value, median.low, median.high) == (30, 10, None)
    assert median_episodes(times([10, 100, 100], [1, 0, 0])).value is None
    assert median_episodes(times([100, 100], [0, 0])).value is None


def test_restricted_mean_is_the_area_under_the_survival_curve():
    sample = times([10, 20, 50, 50], [1, 1, 0, 0])
    survival = scipy.stats.ecdf(scipy.stats.CensoredData(uncensored=[10, 20], right=[50, 50])).sf
    area = np.trapezoid(survival.evaluate(np.arange(0, 50) + 0.5), dx=1) + survival.evaluate(0.5) / 2 + survival.evaluate(49.5) / 2
    assert restricted_mean_episodes(sample) == pytest.approx(float(area))


def test_rate_is_bits_memorised_over_episodes_spent():
    assert bits_per_episode(times([10, 20, 30]), 6.0).value == pytest.approx(6 / 20)
    assert bits_per_episode(times([10, 20, 70], [1, 1, 0]), 6.0).value == pytest.approx(2 * 6 / 100)


@pytest.mark.parametrize("runs", [5, 40, 2000])
def test_bootstrap_intervals_are_those_of_scipy(runs):
    rng = np.random.default_rng(1)
    values, episodes = rng.exponential(size=runs), rng.integers(1, 100, size=runs)
    peer = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=rng).confidence_interval
    ours = bootstrap_mean(values)
    width = peer.high - peer.low
    assert (ours.low, ours.high) == (pytest.approx(peer.low, abs=0.05 * width), pytest.approx(peer.high, abs=0.05 * width))
    memorised = np.append(rng.random(runs - 1) < 0.7, True)
    ratio = scipy.stats.bootstrap(
        (memorised, episodes), lambda m, e, axis: 6 * m.sum(axis=axis) / e.sum(axis=axis), paired=True, vectorized=True, method="percentile", rng=rng
    ).confidence_interval
    rate = bits_per_episode(times(episodes, memorised), 6.0)
    width = ratio.high - ratio.low
    assert (rate.low, rate.high) == (pytest.approx(ratio.low, abs=0.05 * width), pytest.approx(ratio.high, abs=0.05 * width))


def test_rate_without_any_memorised_run_is_bounded_above():
    rate = bits_per_episode(times([1000, 1000], [0, 0]), 6.0)
    assert rate.value == rate.low == 0.0
    assert np.exp(-rate.high / 6 * 2000) == pytest.approx(0.025)  # no event in 2000 episodes has this probability


def test_one_run_has_no_interval():
    assert (bits_per_episode(times([10]), 6.0).value, bits_per_episode(times([10]), 6.0).low) == (0.6, None)
    assert (median_episodes(times([10])).value, median_episodes(times([10])).high) == (10, None)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(5)
    mean, trials, hits = 100.0, 400, 0
    for _ in range(trials):
        rate = bits_per_episode(times(rng.exponential(mean, size=32)), 6.0)
        hits += rate.low <= 6 / mean <= rate.high
    assert hits / trials > 0.88  # the percentile bootstrap is a little short at 32 runs


def test_mean_interval_stays_within_what_was_seen():
    values = np.random.default_rng(0).random((16, 50))
    mean, low, high = mean_interval(values)
    assert ((values.min(axis=0) <= low) & (low < mean) & (mean < high) & (high <= values.max(axis=0))).all()


def test_memorised_is_the_first_episode_at_which_it_holds():
    frame = pl.DataFrame({"run": [0, 0, 0, 1, 1, 1], "episode": [0, 4, 8] * 2, "bits_known": [0.0, 5.0, 4.0, 0.0, 1.0, 4.99]})
    sample = memorisation_times(frame, 6.0, 0.5)
    assert sample.episodes.tolist() == [4, 8]
    assert sample.memorised.tolist() == [True, False]
