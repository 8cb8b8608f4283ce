"""Means over runs and Holm's correction, against scipy, a hand-worked example and simulation."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from memory_rl.analysis.statistics import (
    Estimate,
    bootstrap_mean,
    expanded_tail,
    holm,
    independent_means,
    mean_interval,
)


@pytest.mark.parametrize("runs", [5, 40, 2000])
def test_bootstrap_intervals_are_those_of_scipy_at_the_expanded_level(runs):
    values = np.random.default_rng(1).exponential(size=runs)
    level = 1 - 2 * expanded_tail(runs)
    peer = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", confidence_level=level, rng=np.random.default_rng(2)
    ).confidence_interval
    ours, width = bootstrap_mean(values), peer.high - peer.low
    assert (ours.low, ours.high) == (
        pytest.approx(peer.low, abs=0.05 * width),
        pytest.approx(peer.high, abs=0.05 * width),
    )


def test_the_expanded_tail_gives_a_normal_sample_student_s_interval():
    assert expanded_tail(16) == pytest.approx(scipy.stats.norm.cdf(-2.1314 * np.sqrt(16 / 15)), rel=1e-3)
    assert expanded_tail(100_000) == pytest.approx(0.025, rel=1e-3)
    values = scipy.stats.norm.ppf((np.arange(16) + 0.5) / 16)
    peer = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert bootstrap_mean(values).high == pytest.approx(peer.high, rel=0.03)


def test_an_estimate_as_words_and_in_other_units():
    half = Estimate(10.0, 8.0, None).divided_by(4)
    assert half == Estimate(2.5, 2.0, None)
    assert str(half) == "2.5 [2, -]"
    assert half.as_dict() == {"estimate": 2.5, "ci95": [2.0, None]}
    assert half.as_row("rate") == {"rate": 2.5, "low": 2.0, "high": None}


def test_samples_of_as_many_runs_are_resampled_independently():
    one, other = independent_means([np.arange(16.0), np.arange(16.0)])
    assert one.std() == pytest.approx(other.std())
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03  # 9999 resamples have a standard error of 0.01


def test_the_summary_of_a_run_loads_no_scipy_stats():
    """It takes a second or more, which every first command would wait for."""
    code = "import sys, numpy, memory_rl.analysis.summary, memory_rl.analysis.statistics as s"
    code += "; s.bootstrap_mean(numpy.arange(4.0)); sys.exit('scipy.stats' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_run_has_no_interval():
    assert (bootstrap_mean(np.array([3.0])).value, bootstrap_mean(np.array([3.0])).low) == (3.0, None)


def test_mean_interval_stays_within_what_was_seen():
    values = np.random.default_rng(0).random((16, 50))
    mean, low, high = mean_interval(values)
    assert ((values.min(axis=0) <= low) & (low < mean) & (mean < high) & (high <= values.max(axis=0))).all()


def test_holm_on_a_hand_worked_example():
    """p = 0.01, 0.04, 0.03, 0.005: sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, and none below the one
    before. The example of R's and of statsmodels' documentation of the method."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_seldom_rejects_a_true_hypothesis_and_more_often_a_false_one_than_bonferroni():
    random = np.random.default_rng(0)
    true, false = random.random((4000, 3)), random.beta(0.05, 1, size=(4000, 3))
    adjusted = np.array([holm(row) for row in np.hstack([true, false])])
    wrong = (adjusted[:, :3] < 0.05).any(axis=1).mean()
    assert 0.02 < wrong < 0.05
    assert (adjusted[:, 3:] < 0.05).mean() > (6 * false < 0.05).mean()
