"""Times to memorise: published survival analyses, closed forms, and how often the intervals cover the truth
in simulation."""

import warnings

import numpy as np
import polars as pl
import pytest
import scipy.stats

from memory_rl.analysis.survival import (
    MemorisationTimes,
    Normal,
    bits_per_episode,
    contrast,
    exponent,
    log_rank,
    log_rate,
    median_episodes,
    memorisation_times,
    pool,
    restricted_mean,
    survival_curve,
)

INFORMATION = 6.0


def times(episodes, memorised=None):
    episodes = np.array(episodes)
    return MemorisationTimes(
        episodes, np.ones(len(episodes), bool) if memorised is None else np.array(memorised, bool)
    )


def geometric(random, p, budget, runs):
    """Geometric times, censored at a budget if there is one."""
    drawn = random.geometric(p, size=runs)
    return times(drawn) if budget is None else times(np.minimum(drawn, budget), drawn <= budget)


# Weeks in remission of 42 children with leukaemia (Freireich et al. 1963), the example of most textbooks of
# survival analysis.
TREATED = times(
    [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35],
    [1] * 9 + [0] * 12,
)
PLACEBO = times([1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23])


def test_curve_and_bands_of_a_published_sample():
    """The table that Stata, SAS and R print for the treated children (log-log bands)."""
    curve = survival_curve(TREATED).filter(pl.col("episode").is_in([6.0, 7, 10, 13, 16, 22, 23]))
    assert curve["surviving"].to_list() == pytest.approx(
        [0.8571, 0.8067, 0.7529, 0.6902, 0.6275, 0.5378, 0.4482], abs=5e-5
    )
    assert curve["low"].to_list() == pytest.approx(
        [0.6197, 0.5631, 0.5032, 0.4316, 0.3675, 0.2678, 0.1881], abs=5e-5
    )
    assert curve["high"].to_list() == pytest.approx(
        [0.9516, 0.9228, 0.8894, 0.8491, 0.8049, 0.7468, 0.6801], abs=5e-5
    )


@pytest.mark.parametrize("budget", [None, 3, 40])
@pytest.mark.parametrize("runs", [2, 3, 16, 64])
def test_curve_and_bands_are_those_of_scipy(runs, budget):
    sample = geometric(np.random.default_rng(runs), 0.03, budget, runs)
    censored = scipy.stats.CensoredData(
        uncensored=sample.episodes[sample.memorised], right=sample.episodes[~sample.memorised]
    )
    peer = scipy.stats.ecdf(censored).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # undefined where the estimate is 0 or 1
        band = peer.confidence_interval(method="log-log")
    curve = survival_curve(sample).slice(1)
    assert curve["episode"].to_list() == peer.quantiles.tolist()
    assert curve["surviving"].to_numpy() == pytest.approx(peer.probabilities, rel=1e-12, abs=1e-15)
    within = (peer.probabilities > 0) & (peer.probabilities < 1)
    for name, end in (("low", band.low), ("high", band.high)):
        assert curve[name].to_numpy()[within] == pytest.approx(end.probabilities[within], rel=1e-12)


def test_medians_of_a_published_sample():
    """SAS: 23 (13, none) weeks, and 8 (4, 11)."""
    treated, placebo = median_episodes(TREATED), median_episodes(PLACEBO)
    assert (treated.value, treated.low, treated.high) == (23, 13, None)
    assert (placebo.value, placebo.low, placebo.high) == (8, 4, 11)


def test_log_rank_of_a_published_sample():
    """chi2 = 16.79 with one degree of freedom."""
    assert log_rank(TREATED, PLACEBO) == pytest.approx(scipy.stats.chi2.sf(16.79, 1), rel=5e-3)
    assert log_rank(PLACEBO, PLACEBO) == pytest.approx(1.0)
    assert log_rank(times([9, 9], [0, 0]), times([9, 9], [0, 0])) == 1.0


def test_the_curve_is_bounded_by_the_exact_binomial_where_no_run_or_every_run_has_memorised():
    curve = survival_curve(times(np.arange(10, 90, 10)))
    first, last = curve.row(0, named=True), curve.row(-1, named=True)
    assert (first["episode"], first["surviving"], first["high"]) == (0, 1, 1)
    assert scipy.stats.binom.cdf(0, 8, 1 - first["low"]) == pytest.approx(0.025)
    assert (last["surviving"], last["low"]) == (0, 0)
    assert scipy.stats.binom.sf(7, 8, 1 - last["high"]) == pytest.approx(0.025)


def test_median_without_censoring_is_the_lower_middle_value():
    for runs in range(2, 80):
        assert median_episodes(times(np.arange(1, runs + 1))).value == (runs + 1) // 2


def test_censored_runs_count_as_later_than_the_budget():
    median = median_episodes(times([10, 20, 30, 100, 100], [1, 1, 1, 0, 0]))
    assert (median.value, median.low, median.high) == (
        30,
        0,
        None,
    )  # five runs cannot exclude any median from below
    assert median_episodes(times([10, 100, 100], [1, 0, 0])).value is None
    assert median_episodes(times([100, 100], [0, 0])).value is None


def test_the_median_s_interval_ends_at_order_statistics_of_the_right_binomial_probability():
    """16 runs: the 4th and the 12th, of which one is beyond the median with probability 0.0106 + 0.0384; 64
    runs: the 24th and the 40th."""
    for runs, low, high in ((16, 4, 12), (64, 24, 40)):
        median = median_episodes(times(np.arange(1, runs + 1)))
        assert (median.low, median.high) == (low, high)
        assert scipy.stats.binom.cdf(low - 1, runs, 0.5) + scipy.stats.binom.sf(
            high - 1, runs, 0.5
        ) == pytest.approx(0.05, abs=0.012)


def test_restricted_mean_is_the_area_under_the_survival_curve():
    sample = times([10, 20, 50, 50], [1, 1, 0, 0])
    curve = survival_curve(sample)
    steps = np.diff(curve["episode"].to_numpy())
    assert restricted_mean(sample).value == pytest.approx(float(steps @ curve["surviving"].to_numpy()[:-1]))


def test_restricted_mean_s_interval_stays_between_zero_and_the_budget():
    many = restricted_mean(times([*range(1, 4), *[50] * 13], [1] * 3 + [0] * 13))
    assert 0 < many.low < many.value < many.high < 50
    none = restricted_mean(times([50] * 16, [0] * 16))
    assert (none.value, none.high) == (50, 50)
    assert (none.low / 50) ** 16 == pytest.approx(
        0.025
    )  # if more had memorised at once, 16 that did not would be rarer than that
    same = restricted_mean(times([5] * 16))
    assert (same.low, same.value, same.high) == (5, 5, 5)


def test_rate_is_bits_memorised_over_episodes_spent():
    assert bits_per_episode(times([10, 20, 30]), 6.0).value == pytest.approx(6 / 20)
    assert bits_per_episode(times([10, 20, 70], [1, 1, 0]), 6.0).value == pytest.approx(2 * 6 / 100)
    assert bits_per_episode(times([0, 0]), 6.0).value is None


def test_rate_without_any_memorised_run_is_bounded_above():
    rate = bits_per_episode(times([1000, 1000], [0, 0]), 6.0)
    assert rate.value == rate.low == 0.0
    assert np.exp(-rate.high / 6 * 2000) == pytest.approx(
        0.025
    )  # no event in 2000 episodes has this probability


def test_one_run_has_no_interval():
    for estimate, value in (
        (bits_per_episode(times([10]), 6.0), 0.6),
        (median_episodes(times([10])), 10),
        (restricted_mean(times([10])), 10),
    ):
        assert (estimate.value, estimate.low, estimate.high) == (value, None, None)


def test_the_rate_s_error_is_that_of_the_delta_method_and_of_the_bootstrap():
    sample = geometric(np.random.default_rng(3), 0.01, 120, 200)
    means = np.stack([sample.memorised, sample.episodes])
    d, t = means.mean(axis=1)
    covariance = np.cov(means) / 200
    assert log_rate(sample).error ** 2 == pytest.approx(
        covariance[0, 0] / d**2 - 2 * covariance[0, 1] / (d * t) + covariance[1, 1] / t**2
    )
    peer = scipy.stats.bootstrap(
        tuple(means),
        lambda m, e, axis: np.log(m.mean(axis=axis) / e.mean(axis=axis)),
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(4),
    )
    assert log_rate(sample).error == pytest.approx(peer.standard_error, rel=0.05)
    with pytest.raises(ValueError, match="one run that memorised"):
        log_rate(times([9, 9], [0, 0]))


def test_a_difference_of_two_means_is_welch_s_test():
    random = np.random.default_rng(0)
    one, other = random.normal(1.0, 3.0, size=12), random.normal(0.0, 1.0, size=30)
    estimates = [
        Normal(sample.mean(), sample.std(ddof=1) / np.sqrt(len(sample)), len(sample) - 1.0)
        for sample in (one, other)
    ]
    difference, peer = contrast(estimates, [1, -1]), scipy.stats.ttest_ind(one, other, equal_var=False)
    assert difference.freedom == pytest.approx(peer.df)
    assert difference.interval() == pytest.approx(tuple(peer.confidence_interval()))
    assert difference.chance_above(0.0) == pytest.approx(
        scipy.stats.ttest_ind(one, other, equal_var=False, alternative="greater").pvalue
    )
    assert difference.chance_below(0.0) == pytest.approx(1 - difference.chance_above(0.0))


def test_populations_without_spread_are_judged_by_their_value():
    certain = contrast([Normal(1.0, 0.0, 15.0), Normal(0.5, 0.0, 15.0)], [1, -1])
    assert (certain.interval(), certain.chance_above(0.0), certain.chance_below(0.0)) == (
        (0.5, 0.5),
        0.0,
        1.0,
    )


def test_pooled_runs_are_those_of_all_populations():
    both = pool([times([1, 2]), times([9, 9], [1, 0])])
    assert (both.episodes.tolist(), both.memorised.tolist()) == ([1, 2, 9, 9], [True, True, True, False])


def test_the_exponent_of_an_exact_power_law():
    cells = {size: times([2 * size**2] * 4) for size in (4, 16, 64)}
    estimate = exponent(cells)
    assert (estimate.value, estimate.low, estimate.high) == (
        pytest.approx(2),
        pytest.approx(2),
        pytest.approx(2),
    )


def test_the_exponent_counts_episodes_of_censored_runs():
    """Half of the runs of the larger cell never memorise: twice the episodes a memorised run."""
    cells = {4: times([10, 10]), 16: times([10, 10], [1, 0])}
    assert exponent(cells).value == pytest.approx(np.log(2) / np.log(4))
    assert exponent({4: times([10, 10]), 16: times([10, 10], [0, 0])}).value is None
    assert exponent({4: times([10, 10])}).value is None


def test_memorised_is_the_first_episode_at_which_it_holds():
    frame = pl.DataFrame(
        {"run": [0, 0, 0, 1, 1, 1], "episode": [0, 4, 8] * 2, "bits_known": [0.0, 5.0, 4.0, 0.0, 1.0, 4.99]}
    )
    sample = memorisation_times(frame, 6.0, 0.5)
    assert sample.episodes.tolist() == [4, 8]
    assert sample.memorised.tolist() == [True, False]


LAWS = {
    "geometric": (0.01, None),
    "15 % censored": (0.01, 190),
    "30 % censored": (0.01, 120),
    "half censored": (0.01, 69),
    "short": (0.05, 30),
}
"""The chance of memorising in an episode, and the budget."""


def coverage(p, budget, runs, trials, seed):
    """How often each interval holds the truth. The hazard is p with and without a budget; the median is
    beyond it where half are censored."""
    random = np.random.default_rng(seed)
    mean = 1 / p if budget is None else (1 - (1 - p) ** budget) / p
    middle = np.ceil(np.log(0.5) / np.log(1 - p))
    truths = {"median": middle, "restricted mean": mean, "bits per episode": INFORMATION * p}
    held = dict.fromkeys(truths, 0)
    for _ in range(trials):
        sample = geometric(random, p, budget, runs)
        estimates = (median_episodes(sample), restricted_mean(sample), bits_per_episode(sample, INFORMATION))
        for name, estimate in zip(truths, estimates, strict=True):
            low, high = (
                (-np.inf if estimate.low is None else estimate.low),
                (np.inf if estimate.high is None else estimate.high),
            )
            held[name] += low <= truths[name] <= high
    return {name: count / trials for name, count in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize("runs", [16, 64])
@pytest.mark.parametrize(("p", "budget"), LAWS.values(), ids=LAWS.keys())
def test_95_percent_intervals_cover_between_92_and_98(p, budget, runs):
    """Of 5000 populations the share has a standard error of 0.3 %."""
    for name, share in coverage(p, budget, runs, trials=5000, seed=1).items():
        assert 0.92 <= share <= 0.98, (name, share)


@pytest.mark.parametrize("runs", [16, 64])
@pytest.mark.parametrize(
    ("p", "budget"), [LAWS["geometric"], LAWS["30 % censored"]], ids=["geometric", "30 % censored"]
)
def test_95_percent_intervals_cover_about_as_often_as_they_say(p, budget, runs):
    """The quick check: of 1000 populations the share has a standard error of 0.7 %."""
    for name, share in coverage(p, budget, runs, trials=1000, seed=2).items():
        assert 0.91 <= share <= 0.99, (name, share)


@pytest.mark.parametrize("budgets", [(None, None, None), (60, 200, 400)])
def test_the_exponent_s_interval_covers(budgets):
    """Episodes ~ N: mean times of 16, 64 and 256, with about a fifth censored or none."""
    random, sizes, trials, held = np.random.default_rng(7), (16, 64, 256), 400, 0
    for _ in range(trials):
        cells = {
            size: geometric(random, 1 / size, budget, 16) for size, budget in zip(sizes, budgets, strict=True)
        }
        estimate = exponent(cells)
        truth = np.polyfit(np.log(sizes), np.log(sizes), 1)[0]  # the hazard is 1 / N, whatever the budget
        held += estimate.low <= truth <= estimate.high
    assert 0.92 <= held / trials <= 0.98


@pytest.mark.parametrize("budget", [None, 120])
def test_equal_rates_are_seldom_called_different(budget):
    random, trials = np.random.default_rng(8), 2000
    chances = np.array(
        [
            contrast([log_rate(geometric(random, 0.01, budget, 16)) for _ in range(2)], [1, -1]).chance_above(
                0.0
            )
            for _ in range(trials)
        ]
    )
    assert 0.015 < (chances < 0.025).mean() < 0.035
    assert 0.015 < (chances > 0.975).mean() < 0.035
