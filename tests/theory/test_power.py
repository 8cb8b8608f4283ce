"""How many runs tell two rates apart: the noncentral t distribution, published tables, and simulated
experiments that are judged as comparisons judge them."""

import math

import numpy as np
import pytest
import scipy.stats

from memory_rl.analysis.power import (
    Demand,
    interval_factor,
    power_of,
    rarest_seen,
    ratio_seen,
    runs_for_interval,
    runs_needed,
    spread_of,
    with_one_more_stuck,
)
from memory_rl.analysis.survival import MemorisationTimes, Normal, contrast, log_rate

USUAL = Demand(1.5, 0.8, 0.05)
EXPERIMENTS = 2000


@pytest.mark.parametrize("runs", [2, 5, 16, 400])
@pytest.mark.parametrize("spread", [0.3, 2.0])
@pytest.mark.parametrize("ratio", [1.05, 1.5, 4.0])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 1e-3])
def test_power_is_what_lies_in_both_tails_of_the_noncentral_t_distribution(runs, spread, ratio, alpha):
    freedom, shift = 2 * (runs - 1), math.log(ratio) / (spread * math.sqrt(2 / runs))
    quantile = scipy.stats.t.ppf(1 - alpha / 2, freedom)
    density = scipy.stats.nct(freedom, shift)
    wrong = density.cdf(-quantile)
    expected = density.sf(quantile) + (0 if np.isnan(wrong) else wrong)  # it is where it falls below 1e-300
    assert power_of(runs, spread, ratio, alpha) == pytest.approx(expected, rel=1e-9)


COHEN = {0.01: (586, 95, 38), 0.05: (393, 64, 26), 0.1: (310, 50, 20)}
"""Cohen 1992 (A power primer, table 2): runs of two means 0.2, 0.5 or 0.8 standard deviations apart."""


@pytest.mark.parametrize("alpha", COHEN)
def test_runs_needed_are_those_of_the_tables_of_cohen(alpha):
    found = [runs_needed(1.0, Demand(math.exp(effect), 0.8, alpha)) for effect in (0.2, 0.5, 0.8)]
    more = [runs - table for runs, table in zip(found, COHEN[alpha], strict=True)]
    assert set(more) <= {0, 1}, (
        more
    )  # he rounds to the nearest whole number, which may have a little less power


def test_two_equal_rates_are_told_apart_with_a_chance_of_alpha():
    assert power_of(16, 0.7, 1.0, 0.03) == pytest.approx(0.03)


@pytest.mark.parametrize("spread", [0.05, 0.25, 0.7, 3.0])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
def test_no_fewer_runs_would_do_and_the_ratio_that_is_seen_is_the_inverse(spread, power):
    demand = Demand(1.5, power, 0.05)
    runs = runs_needed(spread, demand)
    assert power_of(runs, spread, 1.5, 0.05) >= power
    assert runs == 2 or power_of(runs - 1, spread, 1.5, 0.05) < power
    assert power_of(runs, spread, ratio_seen(runs, spread, demand), 0.05) == pytest.approx(power)
    assert ratio_seen(runs, spread, demand) <= 1.5 * (1 + 1e-9)


@pytest.mark.parametrize("spread", [0.0, 1e-9, 1e-3, 50.0])
def test_extremes_are_numbers(spread):
    for demand in (USUAL, Demand(1000.0, 0.999, 1e-9), Demand(1.001, 0.06, 0.05)):
        runs = runs_needed(spread, demand)
        assert runs >= 2
        assert 1 <= ratio_seen(2, spread, demand) < math.inf
        assert spread or runs == 2


def apart(one: MemorisationTimes, other: MemorisationTimes) -> bool:
    low, high = contrast([log_rate(one), log_rate(other)], [1, -1]).interval()
    return low > 0 or high < 0


def drawn(random, runs, *, sigma, stuck=0.0):
    """Log-normal times of median 1, of which a share is stuck at a budget of 8."""
    episodes, memorised = random.lognormal(0, sigma, size=runs), random.random(runs) >= stuck
    return MemorisationTimes(np.where(memorised, episodes, 8.0), memorised)


def true_spread(sigma, stuck):
    """From the moments of the law: var(d / E d - t / E t), with d whether it memorised."""
    kept = 1 - stuck
    mean = kept * math.exp(sigma**2 / 2) + stuck * 8
    squares = kept * math.exp(2 * sigma**2) + stuck * 64
    return math.sqrt(1 / kept - 2 * math.exp(sigma**2 / 2) / mean + squares / mean**2)


def inside_binomial(hits: int, chance: float) -> bool:
    ends = scipy.stats.binomtest(hits, EXPERIMENTS).proportion_ci(0.99)
    return bool(ends.low <= chance <= ends.high)


@pytest.mark.parametrize(("spread", "ratio", "power"), [(0.4, 1.5, 0.8), (1.0, 1.5, 0.9), (0.2, 1.5, 0.8)])
def test_so_many_normal_log_rates_are_told_apart_as_often_as_planned(spread, ratio, power):
    runs = runs_needed(spread, Demand(ratio, power, 0.05))
    random = np.random.default_rng(0)
    one, other = random.normal(0, spread, size=(2, EXPERIMENTS, runs))
    p = scipy.stats.ttest_ind(one, other + math.log(ratio), axis=1, equal_var=False).pvalue
    assert inside_binomial(int((p < 0.05).sum()), power_of(runs, spread, ratio, 0.05))


@pytest.mark.parametrize(("sigma", "stuck"), [(0.3, 0.0), (0.6, 0.0), (0.4, 0.1)])
def test_so_many_runs_are_told_apart_as_comparisons_do_as_often_as_planned(sigma, stuck):
    spread, random = true_spread(sigma, stuck), np.random.default_rng(1)
    runs = runs_needed(spread, USUAL)
    hits = 0
    for _ in range(EXPERIMENTS):
        one, other = (drawn(random, runs, sigma=sigma, stuck=stuck) for _ in range(2))
        hits += apart(one, MemorisationTimes(1.5 * other.episodes, other.memorised))
    assert inside_binomial(hits, power_of(runs, spread, 1.5, 0.05))


def test_a_spread_is_the_standard_deviation_over_the_mean_where_no_run_is_stuck():
    episodes = np.array([10.0, 20.0, 30.0, 60.0])
    found = spread_of(MemorisationTimes(episodes, np.ones(4, bool)))
    assert found.value == pytest.approx(episodes.std(ddof=1) / 30)
    assert found.low < found.value < found.high


def test_a_spread_with_a_stuck_run_by_hand():
    """d / 0.75 - t / 40 of 10, 20, 30 and a stuck 100 is 13/12, 5/6, 7/12, -5/2."""
    episodes, memorised = np.array([10.0, 20.0, 30.0]), np.ones(3, bool)
    times = with_one_more_stuck(MemorisationTimes(episodes, memorised), 100)
    assert times.memorised.tolist() == [True, True, True, False]
    squares = ((13 / 12) ** 2, (5 / 6) ** 2, (7 / 12) ** 2, 2.5**2)
    assert spread_of(times).value == pytest.approx(math.sqrt(sum(squares) / 3))


@pytest.mark.parametrize(("shape", "runs"), [(1, 16), (1, 64), (4, 8), (4, 16)])
def test_the_interval_of_a_spread_covers_it(shape, runs):
    """Gamma times, whose spread is 1 / sqrt(shape); of 64 exponential ones chi squared's covers 87 %."""
    random, covered = np.random.default_rng(2), 0
    for _ in range(1000):
        found = spread_of(MemorisationTimes(random.gamma(shape, size=runs), np.ones(runs, bool)))
        covered += found.low <= shape**-0.5 <= found.high
    assert 0.92 < covered / 1000 < 0.995


def test_fewer_than_four_runs_have_a_spread_without_an_interval():
    found = spread_of(MemorisationTimes(np.array([1.0, 2.0, 3.0]), np.ones(3, bool)))
    assert (found.value, found.low, found.high) == (pytest.approx(0.5), None, None)


@pytest.mark.parametrize("runs", [8, 128])
def test_an_interval_reaches_by_its_factor(runs):
    low, high = Normal(0.0, 0.7 / math.sqrt(runs), runs - 1.0).interval()
    assert math.log(interval_factor(runs, 0.7)) == pytest.approx(high) == pytest.approx(-low)


@pytest.mark.parametrize("runs", [8, 64, 1000])
def test_the_rarest_mishap_that_is_seen_is_missed_one_time_in_twenty(runs):
    assert scipy.stats.binom.pmf(0, runs, rarest_seen(runs)) == pytest.approx(0.05)
    assert rarest_seen(runs) == pytest.approx(3 / runs, rel=0.2)


@pytest.mark.parametrize("width", [1.05, 1.2, 2.0, 30.0])
@pytest.mark.parametrize("spread", [0.05, 0.4, 1.0, 2.5])
def test_runs_for_an_interval_are_the_first_that_have_it(spread, width):
    def factor(runs):
        return math.exp(scipy.stats.t.ppf(0.975, runs - 1) * spread / math.sqrt(runs))

    assert runs_for_interval(spread, width) == next(
        runs for runs in range(2, 20_000) if factor(runs) <= width
    )


def test_the_interval_of_so_many_runs_has_the_width_that_was_asked_for():
    random = np.random.default_rng(3)
    runs = runs_for_interval(0.5, 1.3)
    widths = []
    for _ in range(400):
        rate = log_rate(MemorisationTimes(random.gamma(4, 10, size=runs), np.ones(runs, bool)))
        widths.append(math.exp(scipy.stats.t.ppf(0.975, runs - 1) * rate.error))
    assert np.mean(widths) == pytest.approx(1.3, abs=0.02)
    assert runs_for_interval(0.0, 1.01) == 2
