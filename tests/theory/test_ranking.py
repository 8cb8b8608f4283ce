"""The ranking's statistics: against rliable's formulas, written out with scipy; and in simulation, how often
intervals cover the truth and how often equal learners are told apart."""

import itertools

import numpy as np
import polars as pl
import pytest
import scipy.stats

from memory_rl.analysis import strata
from memory_rl.analysis.entrants import RUNS
from memory_rl.analysis.ranking import rank
from memory_rl.analysis.statistics import holm, proportion
from memory_rl.analysis.strata import interquartile_mean

TASKS, CEILING, BUDGET = ("easy", "hard", "noisy"), 0.75, 400
MEDIANS = {"easy": 40, "hard": 160, "noisy": 80}


def task_id(name: str) -> str:
    return f'{{"condition": "{name}", "N": 64, "max_episodes": {BUDGET}}}'


def learner_id(name: str) -> str:
    return f'{{"algorithm": "{name}"}}'


def runs(times: dict[str, dict[str, np.ndarray]]) -> pl.DataFrame:
    """Runs of learners by task, half of them on either of two bases; those of the budget are stuck."""
    frames = [
        pl.DataFrame({"episodes": episodes})
        .with_row_index("run")
        .with_columns(
            learner=pl.lit(learner_id(learner)),
            task=pl.lit(task_id(task)),
            base=pl.col("run").cast(pl.Int64) % 2,
            seed=1 + pl.col("run").cast(pl.Int64) % 2,
            learning_rate=pl.lit(0.1),
            memorised=pl.col("episodes") < BUDGET,
            information=pl.lit(6.0),
            ceiling=pl.lit(CEILING),
            by_questioner=pl.lit(True),
            observer=pl.lit(0.5),
        )
        for learner, of_tasks in times.items()
        for task, episodes in of_tasks.items()
    ]
    return pl.concat(frames).select(pl.col(name).cast(kind) for name, kind in RUNS.items())


def draw(random: np.random.Generator, factor: float = 1.0, size: int = 64, stuck: float = 0.1) -> dict:
    """Times to memorise by task: log-normal, a run in ten stuck."""
    drawn = {
        task: np.minimum(np.ceil(median * factor * random.lognormal(0, 0.7, size)), BUDGET)
        for task, median in MEDIANS.items()
    }
    return {task: np.where(random.random(size) < stuck, BUDGET, t).astype(int) for task, t in drawn.items()}


def scores(episodes: np.ndarray) -> np.ndarray:
    return np.log2(6 / episodes / CEILING)


@pytest.mark.parametrize("size", [10, 64])
def test_values_are_those_of_rliable_s_formulas(size):
    random = np.random.default_rng(1)
    times = {"x": draw(random, size=size), "y": draw(random, 1.3, size), "z": draw(random, 2, size)}
    found = rank(runs(times))
    matrices = {
        name: np.column_stack([scores(of[task]) for task in TASKS]) for name, of in times.items()
    }  # (runs, tasks), as rliable has them
    for learner in found.learners:
        matrix = matrices[learner.name]
        mean = scipy.stats.trim_mean(matrix, proportiontocut=0.25, axis=None)
        assert learner.iqm.value == pytest.approx(mean, abs=1e-12)
        assert learner.share.value == pytest.approx(2**mean)
        assert learner.profile[0] == pytest.approx([np.mean(matrix > tau) for tau in found.taus])
        assert learner.stuck == pytest.approx(np.mean(matrix == scores(np.array(BUDGET))))
    for pair in found.pairs:
        x, y = matrices[pair.better], matrices[pair.worse]
        each = [
            scipy.stats.mannwhitneyu(x[:, task], y[:, task], alternative="greater").statistic / size**2
            for task in range(len(TASKS))
        ]
        assert pair.improvement.value == pytest.approx(np.mean(each))
    assert len(found.pairs) == 3
    assert [learner.name for learner in found.learners] == sorted(
        matrices, key=lambda name: -scipy.stats.trim_mean(matrices[name], 0.25, axis=None)
    )
    assert [pair.adjusted for pair in found.pairs] == holm([pair.p for pair in found.pairs])


def test_intervals_are_those_of_a_stratified_bootstrap_written_as_a_loop():
    random = np.random.default_rng(2)
    times = {"x": draw(random), "y": draw(random, 1.5)}
    found = rank(runs(times))
    means, wins, profiles = [], [], []
    for _ in range(1500):
        drawn = {
            name: np.column_stack([resampled(random, scores(of[task])) for task in TASKS])
            for name, of in times.items()
        }
        means.append(scipy.stats.trim_mean(drawn["x"], 0.25, axis=None))
        profiles.append((drawn["x"] > -5).mean())
        x, y = drawn["x"][:, None], drawn["y"][None]
        wins.append(((x > y) + 0.5 * (x == y)).mean())
    tau, learner = found.taus.index(-5.0), next(one for one in found.learners if one.name == "x")
    profile = (learner.profile[1][tau], learner.profile[2][tau])
    for interval, values in (
        (learner.iqm.interval, means),
        (found.pairs[0].improvement.interval, wins),
        (profile, profiles),
    ):
        low, high = np.quantile(values, [0.02, 0.98])  # about the expanded tail of 32 runs
        width = high - low
        assert interval == pytest.approx([low, high], abs=0.08 * width)


def resampled(random, values: np.ndarray) -> np.ndarray:
    """Each base on its own: even runs are of the one, odd ones of the other."""
    kept = [random.choice(values[base::2], len(values) // 2) for base in (0, 1)]
    return np.concatenate(kept)


def test_the_p_value_is_brunner_and_munzel_s_where_there_is_one_task_and_one_stratum():
    random = np.random.default_rng(3)
    x, y = (
        np.ceil(random.lognormal(4, 1, 40)).astype(int),
        np.ceil(random.lognormal(4.3, 0.4, 30)).astype(int),
    )
    frame = runs({"x": {"easy": x}, "y": {"easy": y}}).with_columns(base=pl.lit(0), seed=pl.lit(1))
    (pair,) = rank(frame).pairs
    assert pair.p == pytest.approx(scipy.stats.brunnermunzel(scores(x), scores(y)).pvalue)


def test_what_sets_strata_apart_is_not_in_the_error():
    random = np.random.default_rng(4)
    sizes, bases = (12, 36), np.repeat([0, 1], (12, 36))
    times = {name: np.ceil(random.lognormal(3 + 2 * bases, 0.5)).astype(int) for name in "xy"}
    frame = runs({name: {"easy": of} for name, of in times.items()})
    frame = frame.with_columns(base=pl.Series([*bases, *bases]), seed=pl.lit(1))
    (pair,) = rank(frame).pairs
    better, worse = (scores(times[name]) for name in (pair.better, pair.worse))
    wins = np.sign(better[:, None] - worse[None]) / 2 + 0.5
    variance, squared = 0.0, 0.0
    for influence in (wins.mean(axis=1), wins.mean(axis=0)):
        for base, size in enumerate(sizes):
            part = (size / 48) ** 2 * np.var(influence[bases == base], ddof=1) / size
            variance, squared = variance + part, squared + part**2 / (size - 1)
    t = (wins.mean() - 0.5) / variance**0.5
    assert pair.p == pytest.approx(2 * scipy.stats.t.sf(abs(t), variance**2 / squared))
    (pooled,) = rank(frame.with_columns(base=pl.lit(0))).pairs
    assert pooled.p > pair.p


def test_runs_that_do_not_overlap_are_told_apart_by_the_count_of_permutations():
    frame = runs({"x": {"easy": np.arange(10, 14)}, "y": {"easy": np.arange(30, 34)}})
    (pair,) = rank(frame.with_columns(base=pl.lit(0), seed=pl.lit(1))).pairs
    assert pair.p == pytest.approx(2 / 70)  # of 8 over 4 splits, these two are as extreme
    assert pair.improvement.value == 1
    same = runs({name: {"easy": np.full(8, BUDGET)} for name in "xy"})
    assert [pair.p for pair in rank(same).pairs] == [1.0]
    assert rank(same).pairs[0].improvement.value == 0.5


def test_permutations_count_only_the_strata_that_differ():
    times = {"x": np.array([10, 40, 10, 40]), "y": np.array([20, 40, 20, 40])}  # one base tied, one apart
    (pair,) = rank(runs({name: {"easy": of} for name, of in times.items()})).pairs
    assert pair.p == pytest.approx(2 / 6)


def test_a_stuck_run_counts_as_one_that_memorised_with_its_last_episode_and_is_not_left_out():
    frame = runs({"x": {"easy": np.array([50, 100, 200, 400])}, "y": {"easy": np.full(4, 400)}})
    cells = {cell.learner: cell for cell in rank(frame).cells}
    assert cells["x"].score == pytest.approx(np.mean(np.log2(6 / np.array([50, 100, 200, 400]) / CEILING)))
    assert cells["x"].runs == 4
    assert cells["x"].share.value == pytest.approx(3 * 6 / 750 / CEILING)  # the mean rate, as everywhere
    assert cells["x"].absorption == pytest.approx(0.5 / (3 * 6 / 750))
    assert (cells["y"].share.value, cells["y"].absorption) == (0, None)
    peer = scipy.stats.binomtest(1, 4).proportion_ci(method="exact")
    assert [cells["x"].stuck.value, *cells["x"].stuck.interval] == pytest.approx([0.25, peer.low, peer.high])


def test_absorption_is_missing_where_some_runs_have_no_observer():
    frame = runs({name: {"easy": np.arange(10, 18)} for name in "xy"})
    some = pl.when(pl.col("base") == 0).then(pl.col("observer"))
    assert [cell.absorption for cell in rank(frame.with_columns(observer=some)).cells] == [None, None]


@pytest.mark.parametrize("count", [0, 1, 13, 64])
def test_shares_of_runs_have_clopper_and_pearson_s_interval(count):
    peer = scipy.stats.binomtest(count, 64).proportion_ci(method="exact")
    assert proportion(count, 64).interval == pytest.approx([peer.low, peer.high])


def test_tasks_with_fewer_runs_weigh_as_much_as_the_others():
    values, weights = np.array([0.0, 1, 2, 3]), np.array([[0.4, 0.2, 0.2, 0.2]])
    assert interquartile_mean(values, weights) == pytest.approx([(0.15 * 0 + 0.2 * 1 + 0.15 * 2) / 0.5])
    frame = runs({name: {"easy": np.full(8, 10), "hard": np.full(2, 160)} for name in "xy"})
    stuck = frame.with_columns(memorised=pl.col("episodes") != 160)
    assert [one.stuck for one in rank(stuck).learners] == [0.5, 0.5]
    assert rank(frame).pairs[0].improvement.value == 0.5


def mean_score(episodes: np.ndarray) -> float:
    return scipy.stats.trim_mean(scores(episodes), 0.25)


def test_learners_are_compared_on_the_same_secrets_and_what_is_left_out_is_said():
    """y lacks base 1 of one task, z all of another; each learner ranks on what all that are ranked have."""
    random = np.random.default_rng(5)
    times = {name: draw(random) for name in "xyz"}
    lost = (
        (pl.col("learner") == learner_id("y")) & (pl.col("task") == task_id("easy")) & (pl.col("base") == 1)
    )
    del times["z"]["hard"], times["z"]["noisy"]
    found = rank(runs(times).filter(~lost))
    assert [one.name for one in found.learners] == sorted("xy", key=lambda name: -found_iqm(times[name]))
    for one in found.learners:
        assert one.iqm.value == pytest.approx(found_iqm(times[one.name]))
        assert found.cell(one.name, "easy N=64").runs == 32
        assert found.cell(one.name, "hard N=64").runs == 64
    assert found.cell("z", "easy N=64").runs == 64
    assert found.notes == [
        "z is not ranked, since it has no runs on hard N=64 and noisy N=64.",
        "easy N=64 counts without base_seed=1 seed=2, since y has no runs there.",
    ]
    seeds = runs({"x": times["x"], "y": times["y"]})
    other = (pl.col("base") == 0) == (pl.col("learner") == learner_id("x"))
    apart = rank(seeds.filter((pl.col("task") != task_id("noisy")) | other))
    assert apart.notes == ["noisy N=64 does not count, since x and y have no runs on some of the seeds."]
    assert rank(seeds.filter(other)) is None
    alone = runs({"x": times["x"], "y": {"easy": times["y"]["easy"]}})
    assert rank(alone).notes == ["hard N=64 and noisy N=64 do not count, since y has no runs there."]


def found_iqm(of_tasks: dict[str, np.ndarray]) -> float:
    """Every task weighs the same; of the easy one the even runs alone count: those of base 0."""
    parts = [scores(of_tasks["easy"][::2]), *(scores(of_tasks[task]) for task in ("hard", "noisy"))]
    copies = np.concatenate([np.repeat(part, 64 // len(part)) for part in parts])  # 192 of equal weight
    values, n = np.sort(copies), int(0.25 * 160) / 160 * 192
    reached = np.clip(np.arange(193), n, 192 - n)
    return float(np.diff(reached) @ values / (192 - 2 * n))


def test_a_task_has_one_ceiling_whatever_the_order_and_whoever_ran():
    random = np.random.default_rng(6)
    of_seed = pl.when(pl.col("seed") == 1).then(6 / 39.2).otherwise(6 / 42.14)
    frame = runs({name: {"easy": draw(random)["easy"]} for name in "xyz"}).with_columns(ceiling=of_seed)
    found, again = rank(frame), rank(frame.sample(fraction=1, shuffle=True, seed=3))
    ceiling = 6 / np.mean([39.2, 42.14])
    assert [task.ceiling for task in found.tasks] == [pytest.approx(ceiling)]
    assert again == found
    fewer = frame.filter((pl.col("learner") != learner_id("x")) | (pl.col("run") < 10))
    assert rank(fewer).tasks == found.tasks
    for cell in found.cells:
        own = frame.filter(pl.col("learner") == learner_id(cell.learner))
        rate = 6 * own["memorised"].sum() / own["episodes"].sum()
        assert cell.share.value == pytest.approx(rate / ceiling)
        assert cell.score == pytest.approx(np.log2(6 / own["episodes"].to_numpy() / ceiling).mean())
    mixed = rank(frame.with_columns(by_questioner=pl.col("seed") == 1))
    assert mixed.tasks[0].ceiling == pytest.approx(6 / 39.2)
    assert mixed.notes == [
        "The ideal questioner of easy N=64 is known for some seeds only, and the ceiling of all."
    ]


def test_what_a_cell_that_diverged_is_part_of_has_a_value_and_no_test():
    """One run of x diverges, which ends its whole cell: 32 stuck runs that are one observation."""
    random = np.random.default_rng(7)
    times = {name: draw(random) for name in "xyz"}
    lost = (
        (pl.col("learner") == learner_id("x")) & (pl.col("task") == task_id("easy")) & (pl.col("base") == 1)
    )
    frame = runs(times).with_columns(
        episodes=pl.when(lost).then(BUDGET).otherwise("episodes"),
        memorised=pl.col("memorised") & ~lost,
        ceiling=pl.when(~lost).then("ceiling"),
        by_questioner=pl.when(~lost).then("by_questioner"),
    )
    found = rank(frame)
    times["x"]["easy"][1::2] = BUDGET
    (x,) = (one for one in found.learners if one.name == "x")
    assert x.iqm.value == pytest.approx(mean_score(np.concatenate([*times["x"].values()])))
    assert (x.iqm.interval, x.share.interval) == ([None, None], [None, None])
    assert np.isnan(x.profile[1:]).all()
    cell = found.cell("x", "easy N=64")
    assert (cell.share.interval, cell.stuck.interval, cell.runs) == ([None, None], [None, None], 64)
    for other in "yz":
        pair = found.pair("x", other)
        better, worse = times[pair.better], times[pair.worse]
        wins = [np.sign(worse[task][None] - better[task][:, None]) / 2 + 0.5 for task in TASKS]
        assert pair.improvement.value == pytest.approx(np.mean(wins))
        assert (pair.improvement.interval, pair.p, pair.adjusted, pair.apart) == (
            [None] * 2,
            None,
            None,
            False,
        )
    tested = found.pair("y", "z")
    assert tested.adjusted == tested.p == rank(runs({name: times[name] for name in "yz"})).pairs[0].p
    assert all(end is not None for end in tested.improvement.interval)
    everywhere = frame.with_columns(ceiling=pl.when(pl.col("task") != task_id("easy")).then("ceiling"))
    assert "easy N=64 does not count, since all learners diverged on it." in rank(everywhere).notes


def test_one_run_has_no_interval_and_no_test():
    found = rank(runs({"x": {"easy": np.array([50])}, "y": {"easy": np.array([90])}}))
    for one in found.learners:
        assert (one.iqm.interval, one.share.interval) == ([None, None], [None, None])
        assert np.isnan(one.profile[1:]).all()
    (pair,) = found.pairs
    assert (pair.improvement.value, pair.improvement.interval, pair.p, pair.apart) == (
        1,
        [None] * 2,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("stuck", "easy", "at_most"),
    [(0, 10, False), (4, 10, False), (5, 10, True), (1, BUDGET, False), (16, 10, True)],
)
def test_a_mean_is_an_upper_bound_where_a_stuck_run_stands_above_the_lowest_quarter(stuck, easy, at_most):
    """As it is where the mean falls once stuck runs are worth less than they are scored."""
    episodes = np.array([BUDGET] * stuck + [easy] * (16 - stuck))
    frame = runs({"x": {"easy": episodes}, "y": {"easy": np.full(16, 20)}})
    frame = frame.with_columns(memorised=pl.int_range(pl.len()).over("learner") >= stuck)
    frame = frame.with_columns(memorised=pl.col("memorised") | (pl.col("learner") == learner_id("y")))
    (x,) = (one for one in rank(frame).learners if one.name == "x")
    worth = scores(np.where(np.arange(16) < stuck, 100 * BUDGET, episodes))
    assert (scipy.stats.trim_mean(worth, 0.25) < x.iqm.value - 1e-9) == x.at_most == at_most


def test_permutations_within_strata_by_brute_force():
    """Two bases, of three and two runs of each learner, apart in both: all exchanges within each."""
    bases = np.repeat([7, 8], (3, 2))
    frame = runs({"x": {"easy": np.full(5, 10)}, "y": {"easy": np.full(5, 30)}})
    (pair,) = rank(frame.with_columns(base=pl.Series([*bases, *bases]), seed=pl.lit(1))).pairs
    sums = [
        sum(place < 3 for place in first)
        - sum(place >= 3 for place in first)
        + sum(place < 2 for place in second)
        - sum(place >= 2 for place in second)
        for first in itertools.combinations(range(6), 3)
        for second in itertools.combinations(range(4), 2)
    ]  # of who is called x: those that were, less those that were not
    assert pair.p == pytest.approx(np.mean(np.abs(sums) >= 5))


def coverage(repeats: int, monkeypatch) -> tuple[dict[str, float], float]:
    """How often the intervals of IQM, profile and improvement hold the truth; and in how many rankings of
    four equal learners a pair is told apart."""
    monkeypatch.setattr(strata, "RESAMPLES", 400)
    random = np.random.default_rng(7)
    x, y = (draw(random, factor, 400_000) for factor in (1.0, 1.25))
    pooled = np.concatenate([scores(x[task]) for task in TASKS])
    truth = {
        "iqm": scipy.stats.trim_mean(pooled, 0.25),
        "profile": np.mean(pooled > -4),
        "improvement": np.mean(
            [scipy.stats.mannwhitneyu(-x[task], -y[task]).statistic / 400_000**2 for task in TASKS]
        ),
    }
    held, wrong = dict.fromkeys(truth, 0), 0
    for _ in range(repeats):
        found = rank(runs({"x": draw(random), "y": draw(random, 1.25)}))
        one, tau = next(one for one in found.learners if one.name == "x"), found.taus.index(-4.0)
        (pair,) = found.pairs
        sign = 1 if pair.better == "x" else -1
        improvement = sorted(0.5 + sign * (np.array(pair.improvement.interval) - 0.5))
        intervals = {
            "iqm": one.iqm.interval,
            "profile": [one.profile[1][tau], one.profile[2][tau]],
            "improvement": improvement,
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= truth[name] <= high
        equal = rank(runs({name: draw(random) for name in "abcd"}))
        wrong += any(pair.apart for pair in equal.pairs)
    return {name: count / repeats for name, count in held.items()}, wrong / repeats


def test_intervals_cover_the_truth_and_equal_learners_are_not_told_apart(monkeypatch):
    covered, wrong = coverage(60, monkeypatch)
    assert min(covered.values()) >= 0.86  # three standard errors below 95 %
    assert wrong <= 0.13


@pytest.mark.slow
def test_intervals_cover_92_to_98_percent_and_one_ranking_in_twenty_is_wrong(monkeypatch):
    covered, wrong = coverage(500, monkeypatch)  # each share within 0.03 of the truth, three standard errors
    assert all(0.92 <= share <= 0.98 for share in covered.values()), covered
    assert wrong <= 0.05 + 0.01, wrong
