"""The ceilings against their definitions: the rewards are written again here, and every sum is done term by
term."""

import itertools
import math
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from helpers import all_questions

import memory_rl
from memory_rl.cli import main
from memory_rl.information import questioner
from memory_rl.information.bounds import question_capacity, shannon_capacity
from memory_rl.information.outcomes import Outcomes
from memory_rl.information.questions import Listed
from memory_rl.task.rewards import make_channel

with np.errstate():  # dit turns numpy's warnings off as it is imported: for all tests, but for this
    from dit.algorithms.channelcapacity import channel_capacity

ROOT = Path(__file__).parents[2]
SIZES = (2, 3, 5, 16, 37, 64)
BINARY, EXACT = {"reward_type": "binary"}, {"reward_type": "log_distance"}
PER_BIT, SUMMED = {"env_type": "multi_step"}, {"env_type": "multi_step", "credit": "episode"}


def bins(B: int) -> dict:
    return {"reward_type": "binned_log_distance", "reward_bins": B}


NOISELESS = [
    {"N": N, **channel}
    for N in SIZES
    for channel in (BINARY, EXACT, bins(2), bins(4), bins(8), bins(32), PER_BIT, SUMMED)
]
NOISY = [
    {"N": N, **channel, "reward_noise": 0.1}
    for N in (2, 3, 5, 16)
    for channel in (BINARY, EXACT, bins(3), bins(8), PER_BIT, SUMMED)
]
NOISY += [
    {"N": N, **channel, "reward_noise": 0.1}
    for N in (37, 64)
    for channel in (BINARY, bins(8), PER_BIT, SUMMED)
]
NOISY += [{"N": 16, **channel, "reward_noise": 0.3} for channel in (BINARY, EXACT, bins(5), PER_BIT, SUMMED)]


def each(worlds: list[dict]):
    return pytest.mark.parametrize(
        "settings", worlds, ids=[" ".join(map(str, settings.values())) for settings in worlds]
    )


class World:
    """A condition from its definition: `seen[a][s]` without noise, and `laws[seen]`, the probability of each
    signal."""

    def __init__(
        self,
        N,
        reward_type="binary",
        reward_bins=None,
        env_type="single_step",
        credit="step",
        reward_noise=0.0,
    ):
        self.N, self.reward_type, self.B, self.noise = N, reward_type, reward_bins, reward_noise
        self.k, self.by_bit, self.summed = (
            math.ceil(math.log2(N)),
            env_type == "multi_step",
            credit == "episode",
        )
        self.answers = range(2**self.k if self.by_bit else N)
        self.seen = [[self.signal(answer, secret) for secret in range(N)] for answer in self.answers]
        self.signals = sorted({signal for row in self.seen for signal in row})
        self.laws = {signal: self.law(signal) for signal in self.signals}

    def signal(self, answer, secret):
        if self.by_bit:
            right = tuple(
                int((answer >> place) % 2 == (secret >> place) % 2) for place in reversed(range(self.k))
            )
            return sum(right) if self.summed else right
        if self.reward_type == "binary":
            return float(answer == secret)
        raw = max(0.0, 1 - math.log2(1 + abs(answer - secret)) / math.log2(self.N))
        return raw if self.B is None else round(raw * (self.B - 1)) / (self.B - 1)

    def law(self, signal) -> dict:
        if not self.by_bit:
            return {
                level: 1 - self.noise if level == signal else self.noise / (len(self.signals) - 1)
                for level in self.signals
            }
        right, law = (1,) * signal + (0,) * (self.k - signal) if self.summed else signal, Counter()
        for flips in itertools.product((0, 1), repeat=self.k):
            told = tuple(bit ^ flip for bit, flip in zip(right, flips, strict=True))
            law[sum(told) if self.summed else told] += self.noise ** sum(flips) * (1 - self.noise) ** (
                self.k - sum(flips)
            )
        return law

    def information(self, answer, prior) -> float:
        """I(S; R | A = answer) = sum of p(s) p(r|s) log2 p(r|s) / p(r)."""
        marginal = Counter()
        for p, signal in zip(prior, self.seen[answer], strict=True):
            for told, chance in self.laws[signal].items():
                marginal[told] += p * chance
        terms = (
            p * chance * math.log2(chance / marginal[told])
            for p, signal in zip(prior, self.seen[answer], strict=True)
            for told, chance in self.laws[signal].items()
            if p * chance > 0
        )
        return sum(terms)

    def rows(self, answer) -> np.ndarray:
        """p(r | answer, s), each different s once."""
        told = sorted({signal for law in self.laws.values() for signal in law})
        return np.array(
            [[self.laws[signal].get(r, 0.0) for r in told] for signal in sorted(set(self.seen[answer]))]
        )

    def expected_reward(self, answer, secret) -> float:
        return sum(
            chance * (sum(told) if isinstance(told, tuple) else told)
            for told, chance in self.laws[self.seen[answer][secret]].items()
        )


@cache
def _world(settings: tuple) -> World:
    return World(**dict(settings))


@cache
def _limits(settings: tuple):
    return memory_rl.bounds(**dict(settings))


def world_of(settings) -> World:
    return _world(tuple(settings.items()))


def limits_of(settings):
    """The ceilings under test; at N=2 even chance is 0.5."""
    return _limits(tuple({"memorised_at": 0.9 if settings["N"] == 2 else 0.5, **settings}.items()))


def dits_optimum(rows) -> tuple[float, list[float]]:
    """The capacity, and the belief that reaches it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        bits, belief = channel_capacity(np.asarray(rows), rtol=0.0, atol=1e-14)
    return bits, belief.tolist()


def dits_capacity(rows) -> float:
    return dits_optimum(rows)[0]


def h(e: float) -> float:
    return -e * math.log2(e) - (1 - e) * math.log2(1 - e)


@each(NOISELESS + NOISY)
def test_capacity_counts_the_signals_that_occur(settings):
    world = world_of(settings)
    distinct = min(len(world.signals), world.N)  # one answer tells at most N bit patterns apart
    assert limits_of(settings).capacity == pytest.approx(math.log2(distinct), abs=1e-12)


@each(NOISELESS + NOISY)
def test_the_first_episode_is_the_sum_over_its_definition(settings):
    world = world_of(settings)
    told = [world.information(answer, [1 / world.N] * world.N) for answer in world.answers]
    first = limits_of(settings).first_episode
    assert first.best == pytest.approx(max(told), abs=1e-9)
    assert first.mean == pytest.approx(sum(told) / len(told), abs=1e-9)


def best_paid(world) -> tuple[int, bool]:
    """The most answers that share the best expected reward of one secret, and whether every secret is among
    its own."""
    earned = [
        [world.expected_reward(answer, secret) for answer in world.answers] for secret in range(world.N)
    ]
    best = [[answer for answer, reward in enumerate(row) if reward > max(row) - 1e-9] for row in earned]
    return max(map(len, best)), all(secret in answers for secret, answers in enumerate(best))


@each(NOISELESS + NOISY)
def test_the_best_paid_answers_are_counted(settings):
    limits, (most, secret_is_best) = limits_of(settings), best_paid(world_of(settings))
    assert secret_is_best
    assert (limits.best_answers, limits.secret_is_best) == (most, True)
    assert limits.bits_by_reward == pytest.approx(math.log2(settings["N"] / most), abs=1e-12)


@each(
    [
        {"N": 8, **BINARY, "reward_noise": 0.5},
        {"N": 8, **BINARY, "reward_noise": 0.9},
        {"N": 8, **PER_BIT, "reward_noise": 0.5},
    ]
)
def test_noise_of_a_half_and_more_makes_others_as_well_paid_as_the_secret(settings):
    limits = limits_of(settings)
    assert (limits.best_answers, limits.secret_is_best) == best_paid(world_of(settings))


@each(NOISELESS)
def test_without_noise_an_answer_tells_as_much_as_it_tells_secrets_apart(settings):
    most = max(len(set(row)) for row in world_of(settings).seen)
    assert limits_of(settings).shannon_capacity == pytest.approx(math.log2(most), abs=1e-12)


@each(NOISY)
def test_with_noise_the_shannon_capacity_is_what_dit_finds(settings):
    world = world_of(settings)
    answers = {
        frozenset(row): answer for answer, row in enumerate(world.seen)
    }.values()  # those that tell different things
    if world.by_bit and not world.summed:
        answers = [0]  # another answer swaps right and wrong at some places: the same channel by other names
    largest = max(dits_capacity(world.rows(answer)) for answer in answers)
    assert limits_of(settings).shannon_capacity == pytest.approx(largest, abs=1e-6)


@each(NOISELESS + NOISY)
def test_no_belief_and_no_answer_beat_the_shannon_capacity(settings):
    world, limits, rng = world_of(settings), limits_of(settings), np.random.default_rng(0)
    assert limits.first_episode.mean <= limits.first_episode.best + 1e-12
    assert limits.first_episode.best <= limits.shannon_capacity + 1e-9
    assert limits.shannon_capacity <= limits.capacity + 1e-9
    for concentration in (0.05, 0.3, 1.0, 10.0):
        belief, answer = rng.dirichlet(np.full(world.N, concentration)), int(rng.integers(len(world.answers)))
        assert world.information(answer, belief.tolist()) <= limits.shannon_capacity + 1e-9


@pytest.mark.parametrize("N", SIZES)
def test_binary_closed_forms(N):
    limits = limits_of({"N": N, **BINARY})
    assert limits.ideal_questioner.to_hit == (N + 1) / 2
    assert limits.ideal_questioner.to_know == pytest.approx((N - 1) * (N + 2) / (2 * N))
    assert limits.first_episode.best == pytest.approx(h(1 / N))


def test_known_numbers_of_the_binary_channel():
    for N, bits in ((64, 0.116), (1024, 0.0112)):
        assert memory_rl.bounds(N=N).first_episode.best == pytest.approx(bits, rel=5e-3)
    assert memory_rl.bounds(N=10**6).ideal_questioner.to_hit == 500_000.5


@pytest.mark.parametrize("e", [0.01, 0.1, 0.25, 0.4, 0.5])
def test_the_symmetric_channel_has_capacity_1_minus_h(e):
    rows = np.array([[1 - e, e], [e, 1 - e]])
    assert shannon_capacity(rows) == pytest.approx(1 - h(e), abs=2e-9)
    assert shannon_capacity(rows) == pytest.approx(dits_capacity(rows), abs=1e-6)
    assert memory_rl.bounds(N=8, reward_noise=e).shannon_capacity == pytest.approx(1 - h(e), abs=2e-9)
    assert memory_rl.bounds(N=8, reward_noise=e, **PER_BIT).shannon_capacity == pytest.approx(
        3 * (1 - h(e)), abs=6e-9
    )


@pytest.mark.parametrize("e", [0.05, 0.3, 0.8])
def test_lopsided_channels_have_their_textbook_capacities(e):
    z, erasure = np.array([[1, 0], [e, 1 - e]]), np.array([[1 - e, e, 0], [0, e, 1 - e]])
    assert shannon_capacity(z) == pytest.approx(math.log2(1 + (1 - e) * e ** (e / (1 - e))), abs=2e-9)
    assert shannon_capacity(z) == pytest.approx(dits_capacity(z), abs=1e-6)
    assert shannon_capacity(erasure) == pytest.approx(1 - e, abs=2e-9)


@pytest.mark.parametrize("sparsity", [0.2, 1.0, 5.0])
def test_random_channels_have_the_capacity_that_dit_finds(sparsity):
    rng = np.random.default_rng(0)
    for rows in rng.dirichlet(np.full(4, sparsity), size=(8, 3)):
        assert shannon_capacity(rows) == pytest.approx(dits_capacity(rows), abs=1e-6)


def test_a_sum_that_is_nearly_noise_still_has_a_capacity():
    world = World(5, **SUMMED, reward_noise=0.499)
    least = world.information(3, [0, 0, 0, 0.5, 0.5])  # 3 = 011 and 4 = 100: all bits right or none
    assert (
        least - 1e-9
        <= memory_rl.bounds(N=5, **SUMMED, reward_noise=0.499).shannon_capacity
        <= 3 * (1 - h(0.499)) + 1e-9
    )


def test_the_capacity_of_a_question_is_that_of_the_best_answer():
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows, classes = (
            rng.dirichlet(np.full(4, 0.5), size=5),
            np.array([rng.permutation(5)[[0, 0, 1]] for _ in range(6)]),
        )
        largest = max(dits_capacity(rows[np.unique(row)]) for row in classes)
        assert question_capacity(Listed(classes, 5), Outcomes(5, rows)) == pytest.approx(largest, abs=1e-6)


@pytest.mark.parametrize(("N", "B", "e"), [(3, 2, 0.2), (5, 3, 0.05), (7, 4, 0.3), (9, 8, 0.6)])
def test_the_best_belief_reaches_the_capacity_of_a_question(N, B, e):
    world, channel, secrets = (
        World(N, **bins(B), reward_noise=e),
        make_channel("binned_log_distance", N, B, e),
        np.arange(N),
    )
    found = question_capacity(all_questions(channel, N), Outcomes(channel.num_classes, channel.outcomes))
    reached = []
    for answer in secrets.tolist():
        all_rows = np.array([list(world.laws[signal].values()) for signal in world.seen[answer]])
        bits, belief = dits_optimum(all_rows)
        assert bits <= found + 1e-6
        reached.append(world.information(answer, belief))
    assert max(reached) == pytest.approx(found, abs=1e-6)


def information_told(table, answer, candidates) -> float:
    counts = Counter(table[answer][secret] for secret in candidates)
    return sum(count / len(candidates) * math.log2(len(candidates) / count) for count in counts.values())


def next_answer(table, candidates) -> int:
    if len(candidates) == 1:
        return candidates[0]
    told = [information_told(table, answer, candidates) for answer in range(len(table))]
    best = [answer for answer, bits in enumerate(told) if bits > max(told) - 1e-10]
    return min([answer for answer in best if answer in candidates] or best)


def play_out(table, certainty) -> np.ndarray:
    """(N, 3) episodes to know, hit and reach each secret, for a questioner that asks what tells most."""
    choose, outcomes = cache(lambda candidates: next_answer(table, candidates)), []
    for secret in range(len(table[0])):
        candidates, episode, known, hit, reached = tuple(range(len(table[0]))), 0, None, None, None
        while None in (known, hit, reached):
            answer, episode = choose(candidates), episode + 1
            candidates = tuple(s for s in candidates if table[answer][s] == table[answer][secret])
            known = episode if known is None and len(candidates) == 1 else known
            hit = episode if hit is None and answer == secret else hit
            reached = episode if reached is None and 1 / len(candidates) >= certainty - 1e-9 else reached
        outcomes.append((known, hit, reached))
    return np.array(outcomes)


@pytest.mark.parametrize("certainty", [0.3, 0.5, 0.9])
@each(NOISELESS)
def test_the_ideal_questioner_is_what_play_gives(settings, certainty):
    if certainty <= 1 / settings["N"]:
        with pytest.raises(memory_rl.ConfigError, match=f"memorised_at={certainty}"):
            memory_rl.bounds(**settings, memorised_at=certainty)
        return
    asker = memory_rl.bounds(**settings, memorised_at=certainty).ideal_questioner
    played = play_out(world_of(settings).seen, certainty).mean(axis=0)
    np.testing.assert_allclose([asker.to_know, asker.to_hit, asker.to_reach], played)


@each(NOISELESS)
def test_no_questioner_knows_s_before_its_bits_went_through_the_channel(settings):
    limits = limits_of(settings)
    least = math.log2(settings["N"]) / limits.shannon_capacity
    best = limits.ideal_questioner.to_know if limits.optimal_to_know is None else limits.optimal_to_know
    assert least - 1e-12 <= best <= limits.ideal_questioner.to_know
    assert (limits.optimal_to_know is not None) == (limits.method == "greedy" and settings["N"] <= 12)


@pytest.mark.parametrize("N", SIZES[1:])
@pytest.mark.parametrize("left", [1, 2, 3])
def test_binary_certainty_comes_with_a_hit_or_with_few_left(N, left):
    if left >= N:
        return
    certainty = 1 / (left + 0.1)
    episodes = [min(secret + 1, N - left) for secret in range(N)]  # tried in order
    assert memory_rl.bounds(N=N, memorised_at=certainty).ideal_questioner.to_reach == pytest.approx(
        np.mean(episodes)
    )


def exact_episodes(N, e, certainty, horizon=10_000) -> tuple[float, float, float]:
    """Mean and deviation of the episodes of the noisy binary questioner, and the share still playing at the
    horizon, from the law of all its states.

    A yes weighs the answer up by (1 - e) / e, a no down; the answer whose probability is nearest to 1/2 tells
    most.
    """
    playing = {((0,) * N, secret): 1 / N for secret in range(N)}
    mean = square = 0.0
    for episode in range(horizon):
        share = sum(playing.values())
        if share < 1e-9:
            break
        mean, square = mean + share, square + (2 * episode + 1) * share
        later = Counter()
        for (votes, secret), p in playing.items():
            weights = [((1 - e) / e) ** vote for vote in votes]
            answer = min(range(N), key=lambda a: abs(weights[a] / sum(weights) - 0.5))
            for vote, chance in (
                (1, 1 - e if answer == secret else e),
                (-1, e if answer == secret else 1 - e),
            ):
                told = list(votes)
                told[answer] += vote
                lowest = min(told)
                told = tuple(votes - lowest for votes in told)
                believed = ((1 - e) / e) ** told[secret] / sum(((1 - e) / e) ** v for v in told)
                if believed < certainty - 1e-9:
                    later[told, secret] += p * chance
        playing = {state: p for state, p in later.items() if p > 1e-13}
    return mean, math.sqrt(max(square - mean**2, 0.0)), sum(playing.values())


def simulate(reward_type, N, e, certainty, B=None, games=8000, max_episodes=2000) -> float:
    channel = make_channel(reward_type, N, B, e)
    outcomes, generator = Outcomes(channel.num_classes, channel.outcomes), np.random.default_rng(0)
    asked, often = all_questions(channel, N), {"games": games, "max_episodes": max_episodes}
    return questioner.simulated(asked, outcomes, certainty, generator=generator, **often).to_reach


@pytest.mark.parametrize(
    ("N", "e", "certainty"),
    [(2, 0.1, 0.9), (2, 0.2, 0.95), (3, 0.1, 0.5), (3, 0.25, 0.8), (4, 0.1, 0.7), (4, 0.2, 0.9)],
)
def test_the_noisy_binary_questioner_is_the_exact_one(N, e, certainty):
    mean, deviation, unended = exact_episodes(N, e, certainty)
    assert unended < 1e-6
    assert simulate("binary", N, e, certainty) == pytest.approx(mean, abs=4 * deviation / math.sqrt(8000))
    asker = memory_rl.bounds(N=N, reward_noise=e, memorised_at=certainty).ideal_questioner
    assert asker.to_reach == pytest.approx(mean, abs=4 * deviation / math.sqrt(512))
    assert (asker.to_know, asker.to_hit) == (None, None)


@pytest.mark.parametrize("horizon", [3, 6])
def test_games_cut_short_count_as_a_constant_rate(horizon):
    played, _, unended = exact_episodes(3, 0.25, 0.8, horizon)
    assert 0.2 < unended < 0.8
    found = simulate("binary", 3, 0.25, 0.8, games=20_000, max_episodes=horizon)
    assert found == pytest.approx(played / (1 - unended), rel=5 * math.sqrt(unended / (1 - unended) / 20_000))


def test_a_coin_never_ends_a_game():
    assert simulate("binary", 4, 0.5, 0.9, games=10, max_episodes=50) == math.inf
    assert memory_rl.bounds(N=4, reward_noise=0.5).ideal_questioner is None


TINY_NOISE = [("binary", 3, None), ("binary", 16, None), ("log_distance", 16, None)]
TINY_NOISE += [("binned_log_distance", N, B) for N, B in ((8, 3), (16, 4), (37, 5), (64, 8))]


@pytest.mark.parametrize("certainty", [0.45, 0.9])
@pytest.mark.parametrize(("reward_type", "N", "B"), TINY_NOISE)
def test_with_hardly_any_noise_the_simulated_questioner_is_the_greedy_one(reward_type, N, B, certainty):
    world = World(N, reward_type, B)
    episodes = play_out(world.seen, certainty)[:, 2]
    greedy = questioner.greedy(all_questions(make_channel(reward_type, N, B), N), certainty).to_reach
    assert greedy == pytest.approx(episodes.mean())
    assert simulate(reward_type, N, 1e-6, certainty, B, games=4000) == pytest.approx(
        greedy, abs=4 * episodes.std() / math.sqrt(4000) + 1e-9
    )


def printed_by(words: str, capsys) -> tuple[dict[str, float], list[str]]:
    """The rows and the notes that `memory-rl bounds` prints."""
    assert main(["bounds", *words.split()]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return read_table(captured.out), [line for line in captured.out.splitlines() if line.startswith("note: ")]


def read_table(printed: str) -> dict[str, float]:
    rows = (re.split(" {2,}", line) for line in printed.splitlines())
    return {row[0]: float(row[1]) for row in rows if len(row) == 3 and row[2] != "unit"}


def value_of(rows: dict[str, float], ending: str) -> float:
    (value,) = (value for what, value in rows.items() if what.endswith(ending))
    return value


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "N=64",
            {
                "log2 of the levels": 1,
                "best answer": 0.116,
                "mean answer": 0.116,
                "answers S": 32.5,
                "knows S": 63 * 66 / 128,
            },
        ),
        ("N=1024", {"best answer": 0.0112, "answers S": 512.5, "knows S": 1023 * 1026 / 2048}),
        (
            "N=64 reward_type=binned_log_distance reward_bins=8",
            {"log2 of the levels": 3, "best answer": 2.61, "knows S": 2.98},
        ),
        (
            "N=1024 reward_type=binned_log_distance reward_bins=8",
            {"log2 of the levels": 3, "best answer": 2.17, "knows S": 5.73},
        ),
        ("N=64 reward_type=log_distance", {"log2 of the levels": 6, "best answer": 6, "knows S": 1}),
        ("N=64 env_type=multi_step", {"log2 of the levels": 6, "best answer": 6, "knows S": 1}),
        ("N=8 reward_noise=0.1", {"log2 of the levels": 1, "an answer can tell": 1 - h(0.1)}),
    ],
)
def test_the_command_prints_known_numbers(words, expected, capsys):
    rows, notes = printed_by(words, capsys)
    for ending, value in expected.items():
        assert value_of(rows, ending) == pytest.approx(value, rel=3e-3)
    assert notes == []


def test_the_command_tells_of_ties(capsys):
    _, notes = printed_by("N=1024 reward_type=binned_log_distance reward_bins=4", capsys)
    assert notes == [
        "note: up to 5 answers share the top reward: a policy spread over them knows 7.68 of 10 bits."
    ]


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("B", [2, 4, 8, 32])
def test_the_command_counts_the_levels_that_never_occur(N, B, capsys):
    _, notes = printed_by(f"N={N} reward_type=binned_log_distance reward_bins={B} memorised_at=0.9", capsys)
    unused = B - len(World(N, **bins(B)).signals)
    told = [note.partition(":")[2].partition(" of the")[0] for note in notes if "never occur" in note]
    assert told == ([f" {unused}"] if unused else [])


def test_the_command_tells_of_unused_levels(capsys):
    rows, notes = printed_by("N=16 reward_type=binned_log_distance reward_bins=32", capsys)
    assert value_of(rows, "log2 of the levels") == pytest.approx(math.log2(15), abs=5e-3)
    assert notes == ["note: 17 of the reward levels never occur at N=16: the capacity is 3.91 bits."]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("N=1", ["N=1 ", "N=2 or more"]),
        ("N=2 memorised_at=0.5", ["memorised_at=0.5", "memorised_at=0.9"]),
        ("learning_rate=1", ["learning_rate=1 is not a known key"]),
        ("reward_type=binned_log_distance", ["reward_bins=8"]),
        ("reward_noise=1", ["reward_noise=1", "reward_noise=0.1"]),
        ("N=5000 reward_type=log_distance reward_noise=0.1", ["reward_noise=0.1", "5000 x 5000", "N=4096"]),
        ("N=2000000 env_type=multi_step credit=episode", ["N=2000000", "N=1048576"]),
        ("env_type=multi_step reward_bins=8", ["reward_bins=8", "use env_type=single_step"]),
    ],
)
def test_the_command_refuses_in_one_sentence(words, parts, capsys):
    assert main(["bounds", *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("memory-rl: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err


def test_the_script_at_the_root_prints_the_same_and_leaves_nothing_behind():
    words = ["N=64", "reward_type=binned_log_distance", "reward_bins=8"]
    done = subprocess.run(
        [sys.executable, ROOT / "bounds.py", *words],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert value_of(read_table(done.stdout), "knows S") == pytest.approx(2.98, abs=5e-3)
    assert not list(Path().iterdir())
