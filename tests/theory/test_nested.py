"""Runs nested in bases: the error against other ways to find it, and how often intervals cover.

The spreads between bases are those measured over twelve bases of the built-in model at N = 64: the logarithm
of the rate varies by 0.148 (a reward for each bit), 0.089 (SFT), 0.074 (binary reward) and 0 (8 bins).
"""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize

from memory_rl.analysis.bottleneck import Linear, Split, closed, gap, loss
from memory_rl.analysis.collect import Cell
from memory_rl.analysis.samples import CannotJudgeError, Sample, gather
from memory_rl.analysis.statistics import nested_share, proportion
from memory_rl.analysis.survival import MemorisationTimes, contrast, log_rate

BASES, RUNS, BUDGET = 8, 16, 30.0
SPREADS = (0.0, 0.074, 0.148)


def nested(random, spread, stuck=0.0, shape=4.0, bases=BASES, factor=None):
    """Times of 16 runs on each base; a base makes all its runs faster or slower, some are stuck."""
    factor = np.exp(spread * random.standard_normal((bases, 1))) if factor is None else factor
    episodes = factor * random.gamma(shape, 1 / shape, size=(bases, RUNS))
    memorised = random.random((bases, RUNS)) >= stuck
    units = np.repeat([f"base {base}" for base in range(bases)], RUNS)
    return MemorisationTimes(np.where(memorised, episodes, BUDGET).ravel(), memorised.ravel(), units)


def covered(make, truth, trials=600, rate=log_rate):
    found = [rate(make()).interval() for _ in range(trials)]
    return np.mean([low <= truth <= high for low, high in found])


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("stuck", [0.0, 0.05])
def test_the_interval_of_a_rate_covers_over_bases(spread, stuck):
    random = np.random.default_rng(int(1000 * spread) + int(100 * stuck))
    mean = math.exp(spread**2 / 2)
    truth = math.log((1 - stuck) / ((1 - stuck) * mean + stuck * BUDGET))
    share = covered(lambda: nested(random, spread, stuck), truth)
    assert 0.92 <= share <= 0.98
    memorised = covered(lambda: nested(random, spread, stuck).of_memorised, -math.log(mean))
    assert 0.92 <= memorised <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("shape", [1.0, 4.0, 12.0])
@pytest.mark.parametrize("stuck", [0.0, 0.05, 0.1])
def test_the_interval_of_a_rate_covers_for_many_laws(spread, shape, stuck):
    random = np.random.default_rng([int(1000 * spread), int(shape), int(100 * stuck)])
    mean = math.exp(spread**2 / 2)
    truth = math.log((1 - stuck) / ((1 - stuck) * mean + stuck * BUDGET))
    assert 0.93 <= covered(lambda: nested(random, spread, stuck, shape), truth, 4000) <= 0.97
    memorised = covered(lambda: nested(random, spread, stuck, shape).of_memorised, -math.log(mean), 4000)
    assert 0.93 <= memorised <= 0.97


def test_without_bases_as_units_the_interval_is_far_too_narrow():
    """What was printed before: the runs as if they had a base each."""
    random = np.random.default_rng(1)

    def as_if_independent(times):
        return log_rate(MemorisationTimes(times.episodes, times.memorised))

    truth = -(0.148**2) / 2
    assert covered(lambda: nested(random, 0.148, shape=12), truth, 300, as_if_independent) < 0.75


def test_the_error_is_that_of_the_jackknife_over_bases_and_of_the_bootstrap():
    random = np.random.default_rng(2)
    times = nested(random, 0.3, stuck=0.1, bases=60)
    names = np.unique(times.units)

    def ratio(kept):
        return np.log(kept.memorised.mean() / kept.episodes.mean())

    left = np.array([ratio(times.where(times.units != name)) for name in names])
    jackknife = math.sqrt((60 - 1) / 60 * np.sum((left - left.mean()) ** 2))
    assert log_rate(times).error == pytest.approx(jackknife, rel=0.05)
    sums = np.array(
        [
            [part.memorised.sum(), part.episodes.sum()]
            for part in map(times.where, [times.units == name for name in names])
        ]
    )
    drawn = sums[random.integers(60, size=(20_000, 60))].sum(axis=1)
    assert log_rate(times).error == pytest.approx(np.log(drawn[:, 0] / drawn[:, 1]).std(), rel=0.05)


@pytest.mark.parametrize("paired", [True, False])
def test_a_ratio_over_the_same_bases_is_compared_base_by_base(paired):
    """A base that is fast for both conditions does not blur their ratio; other bases do."""
    random, widths, hits = np.random.default_rng(3), [], []
    for _ in range(400):
        factor = np.exp(0.3 * random.standard_normal((BASES, 1)))
        one = nested(random, 0, factor=factor)
        other = nested(
            random, 0, factor=factor if paired else np.exp(0.3 * random.standard_normal((BASES, 1)))
        )
        if not paired:
            other = MemorisationTimes(other.episodes, other.memorised, np.char.add(other.units, " of others"))
        low, high = contrast([log_rate(one), log_rate(other)], [1, -1]).interval()
        widths.append(high - low)
        hits.append(low <= 0 <= high)
    assert 0.92 <= np.mean(hits) <= 0.98
    assert (np.median(widths) < 0.4) == paired


def test_what_shares_units_is_compared_by_unit_whatever_the_others_have():
    """Policy and observer of one condition go together, even if another condition has other units."""
    random = np.random.default_rng(10)
    factor = np.exp(0.3 * random.standard_normal((BASES, 1)))
    policy, observer = (log_rate(nested(random, 0, factor=factor)) for _ in range(2))
    apart = MemorisationTimes(random.gamma(9, 1 / 9, 20), np.ones(20, bool), np.arange(20).astype(str))
    other = log_rate(apart)
    lost, found = contrast([observer, policy], [1, -1]), contrast([observer, policy, other], [1, -1, 2])
    variances = lost.error**2, (2 * other.error) ** 2
    assert found.value == pytest.approx(lost.value + 2 * other.value)
    assert found.error == pytest.approx(math.sqrt(sum(variances)))
    welch = sum(variances) ** 2 / (variances[0] ** 2 / (BASES - 1) + variances[1] ** 2 / 19)
    assert found.freedom == pytest.approx(welch)


def test_the_share_of_a_cluster_sample():
    """Independent runs give Clopper and Pearson's interval nearly; runs that go together a wider one."""
    random = np.random.default_rng(4)
    units = np.repeat(np.arange(8), 16)
    assert nested_share(np.zeros(128, bool), units) == proportion(0, 128)
    hits, widths = [], []
    for _ in range(1000):
        chance = random.beta(1, 9, size=8)  # 10 %, very unlike between bases
        happened = random.random(128) < np.repeat(chance, 16)
        found = nested_share(happened, units)
        hits.append(found.low <= 0.1 <= found.high)
        plain = proportion(int(happened.sum()), 128)
        widths.append((found.high - found.low) / (plain.high - plain.low))
    assert np.mean(hits) >= 0.9
    assert np.median(widths) > 1.2
    assert min(widths) >= 1 - 1e-9


def made(condition, times, observer, *, N=64, asks=1.0, base=0, seed=0):
    """A cell of 16 runs with its observers' times."""
    config = {"N": N, "seed": seed, "num_runs": len(times), "base_seed": base}
    manifest = {
        "kind": "train",
        "condition": condition,
        "status": "completed",
        "config": config,
        "resolved": config,
    }
    ceilings = {"capacity": 6.0, "ideal_questioner": {"to_reach": math.log2(N) / asks}}
    cell = Cell(Path(f"{condition}-{base}-{seed}"), manifest, {"ceilings": ceilings})
    cell.__dict__["times"] = MemorisationTimes(times, np.isfinite(times))
    cell.__dict__["observer"] = MemorisationTimes(observer, np.ones(len(observer), bool))
    return cell


def pair(random, bases=BASES):
    """SFT, asked at 6 bits and storing 1; and a condition asked at 0.2, watched at 0.1, storing 0.05."""
    cells = []
    for base in range(bases):
        pace = math.exp(0.15 * random.standard_normal())
        cells.append(made("sft", pace * random.gamma(9, 6 / 9, 16), np.ones(16), asks=6.0, base=base))
        watched = random.gamma(4, 60 / 4, 16)
        cells.append(
            made("binary", pace * (0.5 * watched + random.gamma(4, 90 / 4, 16)), watched, asks=0.2, base=base)
        )
    return gather(cells)


def test_the_parts_of_a_gap_add_to_it_and_are_what_was_made():
    random = np.random.default_rng(5)
    fast, slow = pair(random, 400)
    split = gap(fast, slow)
    assert sum(split.value(part).value for part in split.parts) == pytest.approx(split.value().value)
    assert split.value("channel").value == pytest.approx(math.log(6 / 0.2))
    assert split.value("exploration").value == pytest.approx(math.log(0.2 / 0.1), abs=0.05)
    assert split.value("absorption").value == pytest.approx(math.log(2) - math.log(6), abs=0.05)
    assert split.value().value == pytest.approx(math.log(20), abs=0.05)
    assert loss(slow, "absorption").value == pytest.approx(2, rel=0.05)
    assert loss(slow, "exploration").value == pytest.approx(2, rel=0.05)
    assert loss(fast, "absorption").value == pytest.approx(6, rel=0.05)


def test_intervals_of_shares_and_losses_cover():
    random = np.random.default_rng(6)
    truths = {"channel": math.log(30) / math.log(20), "exploration": math.log(2) / math.log(20)}
    truths["absorption"] = 1 - sum(truths.values())
    hits = {name: [] for name in (*truths, "loss")}
    for _ in range(300):
        fast, slow = pair(random)
        split = gap(fast, slow)
        for part, truth in truths.items():
            found = split.share(part)
            hits[part].append(found.low <= truth <= found.high)
        lost = loss(slow, "absorption")
        hits["loss"].append(lost.low <= 2 <= lost.high)
    for name, found in hits.items():
        assert 0.91 <= np.mean(found) <= 0.99, name


def test_fieller_s_ends_are_where_the_test_has_a_chance_of_2_5_percent():
    fast, slow = pair(np.random.default_rng(7))
    split = gap(fast, slow)
    for part in split.parts:
        found = split.share(part)
        for end, chance in ((found.low, "chance_above"), (found.high, "chance_below")):

            def excess(share, chance=chance, part=part):
                return getattr(split.beyond(part, share), chance)(0.0) - 0.025

            assert scipy.optimize.brentq(excess, end - 0.3, end + 0.3) == pytest.approx(end, abs=1e-6)


def test_a_whole_that_may_be_0_has_shares_without_an_interval():
    one = contrast([log_rate(nested(np.random.default_rng(8), 0.1))], [1])
    split = Split([one], Linear((0,), 0.0), {"part": Linear((1,))})
    assert split.share("part").value is None
    near = Split([one], Linear((1,), -one.value + 1e-3), {"part": Linear((1,))})
    assert (near.share("part").low, near.share("part").high) == (None, None)


def test_what_another_learner_closes():
    random = np.random.default_rng(9)
    watched = [random.gamma(4, 60 / 4, 16) for _ in range(BASES)]
    default = Sample(tuple(made("binary", 8 * seen, seen, base=base) for base, seen in enumerate(watched)))
    best = Sample(
        tuple(made("binary", 2 * seen, seen, base=base, seed=1) for base, seen in enumerate(watched))
    )
    share = closed(default, best).share("closed")
    assert share.value == pytest.approx(math.log(8 / 2) / math.log(8))
    assert share.low == pytest.approx(
        share.high
    )  # nothing varies: each policy needs as many times its observer's
    assert loss(default, "absorption").interval == pytest.approx([8, 8])


def test_a_gap_without_a_ledger_is_not_judged():
    bare = made("binary", np.arange(1.0, 17), np.ones(16))
    bare.__dict__["observer"] = None
    with pytest.raises(CannotJudgeError, match="binary at N = 64 lacks a ledger"):
        gap(Sample((made("sft", np.arange(1.0, 17), np.ones(16)),)), Sample((bare,)))
