"""A contest in rounds: which cells it wants when, who wins, and what is reported; times are made up."""

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from memory_rl.analysis.survival import MemorisationTimes, pool
from memory_rl.errors import ConfigError
from memory_rl.experiments.contests import make_halved, wanted_next
from memory_rl.experiments.found import Found
from memory_rl.experiments.grid import GridCell, cells_of_entries, make_cell
from memory_rl.experiments.halving import Round, Share, read_halving, read_tune, spread
from memory_rl.experiments.races import MOST_BEYOND, Entrance, Standing, in_order, standing_of
from memory_rl.experiments.roles import with_default, with_seeds
from memory_rl.experiments.settings import Tuning

BINARY = {"command": "train", "N": "16", "reward_type": "binary", "num_runs": "16", "max_episodes": "1000"}
SFT = {"command": "sft", "N": "16", "num_runs": "16"}
ROUNDS = [{"num_runs": "8", "keep": "2"}, {"num_runs": "16"}]


def cells_of(*entries: dict) -> list[GridCell]:
    return cells_of_entries(entries, {})


@dataclass
class Imagined(Found):
    """Cells whose runs memorise when a law says: of the cell, to episodes, or None for one that diverges."""

    law: object = None
    done: dict = field(default_factory=dict)

    def run(self, cells) -> None:
        for cell in cells:
            told = self.law(cell)
            if told is None:
                self.diverged.add(cell.id)
                self.whys[cell.id] = "it diverged"
                continue
            runs = cell.values["num_runs"]
            episodes = np.resize(np.atleast_1d(told), runs).astype(float)
            self.done[cell.id] = MemorisationTimes(np.minimum(episodes, 1000), episodes < 1000)

    def times(self, cell):
        return self.done.get(cell.id)

    def pooled(self, cells):
        return pool([self.done[cell.id] for cell in cells if cell.id in self.done])


def imagined(law) -> Imagined:
    return Imagined(None, {}, set(), law=law)


def play(contests, found):
    """What is run, batch by batch, until every contest is over."""
    tried = [cell for contest in contests for cell in contest.opening]
    batches = [tried[:]]
    found.run(tried)
    while wanted := wanted_next(contests, {cell.id for cell in tried}, found):
        batches.append(wanted)
        tried += wanted
        found.run(wanted)
    return batches


def factor_of(cell: GridCell) -> float:
    return round(cell.experiment.step_size / cell.experiment.own_step_size, 6)


def best_at(optimum: float):
    """The further a factor is from the optimum, on the logarithmic scale, the longer it takes."""
    return lambda cell: 10 + 20 * abs(np.log(factor_of(cell) / optimum))


def standing(name: str, stuck: float, median: float | None, rate: float = 0.1, step: float = 1.0) -> Standing:
    return Standing(name, 4, 1.0, step, name, 16, stuck, median, rate)


@pytest.mark.parametrize(
    ("standings", "order"),
    [
        # the least share stuck is 0: up to 1/16 is compared by median, 2/16 comes after, fast as it may be
        ([("a", 0, 20), ("b", 1 / 16, 10), ("c", 2 / 16, 5)], "bac"),
        ([("a", 3 / 16, 20), ("b", 2 / 16, 30), ("c", 4 / 16, 1), ("d", 5 / 16, 1)], "abcd"),
        ([("a", 1 / 16, 10), ("b", 0, 10)], "ba"),  # ties by the share stuck,
        ([("a", 0, 10, 0.1), ("b", 0, 10, 0.2)], "ba"),  # then by bits per episode,
        ([("a", 0, 10, 0.1, 3.0), ("b", 0, 10, 0.1, 1.0)], "ba"),  # then the smaller step
        ([("a", 0.6, None), ("b", 0.55, None), ("c", 0.5, 900)], "cba"),  # c has a median, b and a have none
        ([("a", 0, 10, 0.1), ("b", 0, 0, None)], "ba"),  # b knew before it began
    ],
)
def test_the_order_is_by_median_among_those_that_are_stuck_about_as_rarely(standings, order):
    found = in_order({one[0]: standing(*one) for one in standings})
    assert "".join(found) == order


def test_a_standing_is_of_all_runs_together():
    one = Entrance(make_cell({"N": "16", "backend": "tabular"}), 3.0)
    episodes, memorised = np.array([10, 40, 20, 90, 30, 90, 90, 90.0]), np.arange(8) % 2 == 0
    memorised[1] = True  # 10, 20, 30, 40 and 90; three censored at 90
    found = standing_of(one, "x", MemorisationTimes(episodes, memorised))
    assert (found.runs, found.stuck, found.median) == (8, 3 / 8, 40)  # half have memorised at 40
    assert found.bits_per_episode == pytest.approx(5 * 4 / episodes.sum())
    assert (found.learner, found.group_size, found.learning_rate) == ("reinforce", 4, pytest.approx(0.9))


def test_runs_are_spread_over_bases_and_secrets_evenly():
    rounds = [Round(16, 8), Round(64, 3), Round(128)]
    shares = spread(rounds, [100, 101, 102, 103], 7)
    assert shares[0] == [Share(100, 7, 8), Share(101, 8, 8)]  # eight runs a base, so two of them
    assert shares[1] == [Share(100, 11, 8), Share(101, 12, 8), Share(102, 13, 16), Share(103, 14, 16)]
    assert shares[2] == [Share(100 + at, 15 + at, 16) for at in range(4)]
    seeds = [share.seed for each in shares for share in each]
    assert len(set(seeds)) == len(seeds)
    assert spread(rounds, None, 7) == [[Share(None, 7, 16)], [Share(None, 8, 48)], [Share(None, 9, 64)]]
    uneven = spread([Round(20, 2), Round(33)], [1, 2, 3], 0)
    assert [[share.num_runs for share in each] for each in uneven] == [[10, 10], [1, 1, 11]]


def contest_of(*entries: dict, **tune):
    return make_halved(cells_of(*entries), read_halving({"rounds": ROUNDS, **tune}))


def test_each_round_adds_runs_to_those_that_stay():
    contests = contest_of(
        BINARY,
        learners=[{"algorithm": "reinforce"}, {"algorithm": "ppo"}],
        group_size=["2", "4"],
        factors=["1", "3"],
        bases=["100", "101"],
    )
    speed = {("ppo", 2, 1.0): 12, ("reinforce", 2, 3.0): 15}

    def law(cell):
        key = (cell.values["algorithm"], cell.values["group_size"], factor_of(cell))
        if key == ("ppo", 4, 3.0):  # its median is 10 in round 1, and 90 once seven of sixteen have 10
            return 90 if cell.values["base_seed"] == 101 else [10] * 7 + [90]
        return speed.get(key, 50)

    found = imagined(law)
    first, second = play(contests, found)
    assert len(first) == 2 * 2 * 2
    assert {cell.values["num_runs"] for cell in first} == {8}
    assert {(cell.values["base_seed"], cell.values["seed"]) for cell in first} == {(100, 1_000_000)}
    stayed = {(cell.values["algorithm"], cell.values["group_size"], factor_of(cell)) for cell in second}
    assert stayed == {("ppo", 4, 3.0), ("ppo", 2, 1.0)}
    assert {(cell.values["base_seed"], cell.values["seed"], cell.values["num_runs"]) for cell in second} == {
        (101, 1_000_003, 8)
    }
    settled = contests[0].settle(found, [])
    choice = settled.choice
    assert (choice.learner, choice.group_size, choice.factor, choice.runs) == ("ppo", 2, 1.0, 16)
    assert (choice.candidates, choice.rounds, choice.median, choice.stuck) == (8, 2, 12, 0)
    assert (choice.default["learner"], choice.default["runs"], choice.default["median"]) == (
        "reinforce",
        8,
        50,
    )
    (reported,) = settled.cells
    assert (reported.values["algorithm"], reported.values["group_size"]) == ("ppo", 2)
    assert (reported.values["seed"], reported.values["base_seed"], reported.values["num_runs"]) == (0, 0, 16)
    assert reported.experiment.step_size == reported.experiment.own_step_size
    json.dumps(settled.choice.scores)


class AllKnown(Imagined):
    """The same as if every cell had been run."""

    def times(self, cell):
        if cell.id not in self.done:
            self.run([cell])
        return self.done[cell.id]


@pytest.mark.parametrize("widen", ["true", "false"])
def test_who_wins_is_the_same_as_if_every_candidate_had_all_its_runs(widen):
    spared = []
    for seed in range(25):

        def law(cell, seed=seed):
            content = f"{seed} {cell.values['algorithm']} {cell.values['group_size']} {factor_of(cell)}"
            drawn = np.random.default_rng([*hashlib.sha256(content.encode()).digest()])
            own = np.random.default_rng([*hashlib.sha256((content + cell.id).encode()).digest()])
            stuck, median = drawn.choice([0, 0.03, 0.1, 0.5, 1]), drawn.choice([20, 25, 200])
            memorised = own.random(64) >= stuck
            return np.where(memorised, np.ceil(median * own.exponential(size=64)).clip(1, 999), 1000)

        (contest,) = contest_of(
            BINARY,
            learners=[{"algorithm": "reinforce"}, {"algorithm": "ppo"}, {"algorithm": "grpo"}],
            group_size=["2", "4"],
            factors=["1", "3"],
            widen=widen,
            rounds=[{"num_runs": "16", "keep": "3"}, {"num_runs": "32", "keep": "2"}, {"num_runs": "64"}],
            bases=["100", "101", "102", "103"],
        )
        spare, every = imagined(law), AllKnown(None, {}, set(), law=law)
        play([contest], spare)
        race, whole = contest.race(spare), contest.race(every)
        assert race.best == whole.best
        assert race.tried.keys() == whole.tried.keys()
        assert race.standings[race.best] == whole.standings[race.best]
        assert {cell.id for cell in race.asked} == spare.done.keys() <= every.done.keys()
        spared.append(1 - len(spare.done) / len(every.done))
    assert 0.05 < np.mean(spared) < 0.5
    assert max(spared) > 0.2


def test_a_count_of_what_is_left_holds_whoever_stays():
    (contest,) = contest_of(
        BINARY,
        learners=[{"algorithm": "reinforce"}, {"algorithm": "ppo"}],
        group_size=["2", "4"],
        factors=["1", "3"],
    )
    whole = contest.at_most(lambda cell: 1.0)
    assert len(whole) == 8 + 2
    slow, fast = contest.own.with_values(group_size=4), contest.own.with_values(group_size=2)

    def law(cell):
        return 500 if cell.values["group_size"] == 4 else best_at(1.0)(cell)

    found = imagined(law)
    found.run([cell for cell in whole if cell.values["group_size"] == 4])
    left = contest.at_most(lambda cell: float(cell.values["group_size"]), found.done)
    assert {cell.id for cell in left}.isdisjoint(found.done)
    before = len(found.done)
    play([contest], found)
    assert slow.id != fast.id
    assert len(found.done) - before <= len(left) == 4 + 2


def test_learners_and_group_sizes_only_where_they_have_a_meaning():
    contests = contest_of(
        SFT,
        {**BINARY, "reward_type": None, "signal": "teacher"},
        BINARY,
        learners=[{"algorithm": "ppo", "ppo_clip_high": ["0.28", "0.3"]}],
        group_size=["4", "16"],
    )
    assert [len(contest.arms) for contest in contests] == [1, 2, 4]
    assert [len(contest.opening) for contest in contests] == [4, 8, 16]
    assert "group_size" not in contests[0].arms[0].values
    with pytest.raises(ConfigError, match="ppo_clip"):
        contest_of(BINARY, learners=[{"algorithm": "reinforce", "ppo_clip": "0.1"}])


@pytest.mark.parametrize(
    ("optimum", "best", "widened", "at_edge"),
    [
        (1.0, 1.0, 0, False),
        (111.0, 111.0, 3, False),  # 33.3, 111, and 370, which is worse
        (0.027, 0.027, 3, False),
        (1e9, 1230.0, MOST_BEYOND, True),
        (1e-9, 0.00243, MOST_BEYOND, True),
    ],
)
def test_factors_are_widened_until_the_best_is_not_at_the_edge(optimum, best, widened, at_edge):
    for wide in (True, False):
        (contest,) = contest_of(BINARY, factors=["0.3", "1", "3", "10"], widen=str(wide))
        found = imagined(best_at(optimum))
        play([contest], found)
        choice = contest.settle(found, []).choice
        if wide:
            assert (choice.factor, choice.widened, choice.at_edge) == (best, widened, at_edge)
        else:
            assert (choice.factor, choice.widened) == (min(max(best, 0.3), 10.0), 0)
            assert choice.at_edge == (best != 1.0)


def test_factors_that_nearly_agree_are_not_widened_for_ever():
    """The next one beyond is 1.002, which three digits cannot tell from 1."""
    (contest,) = contest_of(BINARY, factors=["1", "1.001"], widen="true")
    found = imagined(best_at(1e9))
    play([contest], found)
    choice = contest.settle(found, []).choice
    assert (choice.factor, choice.widened, choice.at_edge) == (1.001, 0, True)


def test_what_lies_beyond_is_found_in_a_later_round_too():
    rounds = [{"num_runs": "8", "keep": "3"}, {"num_runs": "16"}]
    (contest,) = contest_of(BINARY, rounds=rounds, factors=["1", "3"], widen="true", bases=["100", "101"])

    def law(cell):  # round 1 has the first base alone, and of both together the other has the faster half
        first = cell.values["base_seed"] == 100
        return 500 + best_at(0.9)(cell) if first else best_at(111.0)(cell)

    found = imagined(law)
    batches = play([contest], found)
    assert [sorted({factor_of(cell) for cell in batch}) for batch in batches[:2]] == [[1, 3], [0.333]]
    assert {cell.values["base_seed"] for batch in batches[-2:] for cell in batch} == {100, 101}
    choice = contest.settle(found, []).choice
    assert (choice.factor, choice.at_edge, choice.runs) == (81, False, 16)


def test_where_nothing_tells_candidates_apart_nothing_is_widened():
    for law, decided in ((lambda cell: 1000, False), (lambda cell: 7, False)):  # all stuck, all the same
        (contest,) = contest_of(BINARY, factors=["1", "3"], widen="true")
        found = imagined(law)
        assert len(play([contest], found)) == 2
        choice = contest.settle(found, []).choice
        assert (choice.factor, choice.decided, choice.widened) == (1.0, decided, 0)


def test_what_diverged_in_any_of_its_cells_is_out():
    (contest,) = contest_of(BINARY, factors=["1", "3", "10"], widen="true")
    found = imagined(
        lambda cell: (
            None
            if factor_of(cell) == 10 or (factor_of(cell) == 3 and cell.values["seed"] > 1_000_000)
            else 30 / factor_of(cell)
        )
    )
    play([contest], found)
    choice = contest.settle(found, []).choice
    assert (choice.factor, choice.at_edge, choice.candidates) == (1.0, False, 4)  # 0.333 was tried, too
    found = imagined(lambda cell: None)
    play([contest], found)
    settled = contest.settle(found, [])
    assert settled.why.startswith("all candidate rates diverged")
    assert settled.cells == contest.reported


def test_one_that_failed_leaves_the_contest_undecided():
    (contest,) = contest_of(BINARY, factors=["1", "3"])
    found = imagined(lambda cell: 10)
    found.whys[contest.opening[0].id] = "no memory"
    assert wanted_next([contest], set(), found) == []
    assert contest.settle(found, []).why == (
        f"its tuning is not complete: {contest.opening[0].id} failed (no memory)"
    )


def test_every_other_n_takes_its_learner_from_one():
    entry = {**BINARY, "N": ["16", "64", "256"]}
    large = {**BINARY, "N": "4096", "max_episodes": "9000", "scoring": "paths", "num_runs": "4"}
    contests = contest_of(
        entry,
        large,
        {**SFT, "N": ["16", "64"]},
        learners=[{"algorithm": "reinforce"}, {"algorithm": "ppo"}],
        group_size=["4", "16"],
        factors=["1", "10"],
        learner_on=[{"N": "64"}],
        step_runs="24",
        widen="true",
        bases=["100", "101", "102"],
    )
    by_size = {(contest.own.command, contest.own.values["N"]): contest for contest in contests}
    assert {key for key, one in by_size.items() if one.leader is None} == {("train", 64), ("sft", 64)}

    def law(cell):
        better = (cell.values.get("algorithm"), cell.values.get("group_size")) == ("ppo", 16)
        optimum = 300 if cell.values["N"] == 4096 else 10
        return best_at(optimum)(cell) - 5 * better

    found = imagined(law)
    batches = play(contests, found)
    assert {cell.values["N"] for cell in batches[0]} == {64}
    of_large = [[cell for cell in batch if cell.values["N"] == 4096] for batch in batches]
    of_large = [batch for batch in of_large if batch]
    assert sorted({factor_of(cell) for cell in of_large[0]}) == [3.33, 10, 30]
    assert {(cell.values["algorithm"], cell.values["group_size"]) for cell in of_large[0]} == {("ppo", 16)}
    assert {cell.values["num_runs"] for cell in of_large[0]} == {8}  # 24 on three bases
    assert [{cell.values["base_seed"] for cell in batch} for batch in of_large[:2]] == [{100}, {101, 102}]
    choice = by_size["train", 4096].settle(found, []).choice
    assert (choice.learner, choice.group_size, choice.factor) == ("ppo", 16, 270)
    assert (choice.taken_from, choice.rounds, choice.runs) == (64, 1, 24)
    (reported,) = by_size["train", 4096].settle(found, []).cells
    assert (reported.values["algorithm"], reported.values["max_episodes"]) == ("ppo", 9000)
    assert by_size["sft", 16].settle(found, []).choice.factor == 10
    broken = imagined(lambda cell: None if cell.values["N"] == 64 else 10)
    play(contests, broken)
    assert (
        by_size["train", 4096].settle(broken, []).why.startswith("its learner was to be chosen at N=64: all")
    )


def test_cells_of_other_bases_and_seeds_are_one_contest():
    contests = contest_of(
        {**BINARY, "base_seed": ["0", "1"], "seed": ["0", "1"]},
        {**BINARY, "lora_rank": "1"},
        {**BINARY, "lora_rank": "4"},
        together=["lora_rank"],
    )
    assert [len(contest.reported) for contest in contests] == [6]
    assert len(contest_of({**BINARY, "lora_rank": ["1", "4"]})) == 2


def test_a_grid_of_candidates_is_counted_at_most():
    (contest,) = contest_of(BINARY, learners=[{"algorithm": "reinforce"}, {"algorithm": "ppo"}])
    cells = contest.at_most(lambda cell: factor_of(cell) + (cell.values["algorithm"] == "ppo"))
    assert len(cells) == 8 + 2
    assert [(cell.values["algorithm"], factor_of(cell)) for cell in cells[8:]] == [
        ("ppo", 10),
        ("reinforce", 10),
    ]
    assert {cell.id for cell in contest.opening} == {cell.id for cell in cells[:8]}


def test_every_cell_twice_and_each_with_a_seed_of_its_own():
    bare = {**BINARY, "base_seed": "1", "tune": "false"}
    cells = cells_of({**BINARY, "base_seed": ["0", "1"]}, {**SFT, "tune": "false"}, bare)
    assert [cell.tuned for cell in cells] == [True, True, False, False]
    both = with_default(cells)
    about = [(cell.command, cell.values.get("base_seed"), cell.values["role"], cell.tuned) for cell in both]
    assert about == [
        ("train", 0, "best", True),
        ("train", 0, "default", False),
        ("train", 1, "best", True),
        ("train", 1, "default", False),  # which the last entry is, too
        ("sft", 0, "default", False),
    ]
    assert len({cell.id for cell in both}) == 3  # a role is not what is measured
    seeded = with_seeds(both)
    assert len({cell.id for cell in seeded}) == len({cell.values["seed"] for cell in seeded}) == 5
    assert all(0 <= cell.values["seed"] < 2**48 for cell in seeded)
    apart = {"N": 16, "reward_type": "binary", "max_episodes": 1000}
    content = json.dumps(["train", "best", True, apart], sort_keys=True)
    digest = hashlib.sha256(f"{content} 0".encode()).hexdigest()
    assert seeded[0].values["seed"] == int(digest[:12], 16) == with_seeds(both)[0].values["seed"]
    second = with_seeds(both, {seeded[0].values["seed"]})[0].values["seed"]
    assert second == int(hashlib.sha256(f"{content} 1".encode()).hexdigest()[:12], 16)


def test_the_old_form_is_read_as_before():
    assert read_tune({"factors": ["1", "3"], "num_runs": "4"}) == Tuning(factors=[1, 3], num_runs=4)


REFUSED = {
    "no rounds": ({"learners": [{"algorithm": "ppo"}]}, ["tune: learners=", "add rounds"]),
    "runs beside rounds": ({"rounds": ROUNDS, "num_runs": "4"}, ["unknown key num_runs"]),
    "rounds that shrink": (
        {"rounds": [{"num_runs": "16", "keep": "2"}, {"num_runs": "8"}]},
        ["tune has rounds=", "more and more runs"],
    ),
    "a last one that keeps two": ({"rounds": [{"num_runs": "16", "keep": "2"}]}, ["rounds="]),
    "a first one that says not how many": ({"rounds": [{"num_runs": "8"}, {"num_runs": "16"}]}, ["rounds="]),
    "one factor": ({"rounds": ROUNDS, "factors": ["1"]}, ["factors=[1]", "two or more"]),
    "the same base twice": ({"rounds": ROUNDS, "bases": ["1", "1"]}, ["bases=[1, 1]"]),
    "an unknown setting": (
        {"rounds": ROUNDS, "learners": [{"algorithm": "ppo", "ppo_klip": "0.1"}]},
        ["ppo_klip", "did you mean ppo_clip"],
    ),
    "an unknown key of cells": ({"rounds": ROUNDS, "learner_on": [{"M": "4"}]}, ["learner_on has M"]),
    "a value that no cell has": ({"rounds": ROUNDS, "learner_on": [{"N": "many"}]}, ["learner_on", "N=many"]),
    "neither true nor false": ({"rounds": ROUNDS, "widen": "maybe"}, ["widen=maybe", "true or false"]),
}


@pytest.mark.parametrize(("values", "parts"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_keys_are_refused_in_one_sentence(values, parts):
    with pytest.raises(ConfigError) as caught:
        read_tune(values)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert "\n" not in str(caught.value)
