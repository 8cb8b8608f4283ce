"""Questions by their structure, against the table of all answers and secrets."""

import math

import numpy as np
import pytest
from helpers import all_questions

from memory_rl.information import bits, noisy_bits, questioner, questions
from memory_rl.information.bounds import first_episode_information, question_capacity, shannon_capacity
from memory_rl.information.observer import EachBit, Observer, Partition
from memory_rl.information.outcomes import Outcomes
from memory_rl.information.questions import Beginnings, Listed, Shifted, Sums
from memory_rl.task import MultiStep, SecretSpace, SingleStep, episode_table, make_channel
from memory_rl.task.table import taught_table
from memory_rl.training.ceilings import _best_differences


def listed(shifted: Shifted) -> Listed:
    every = np.arange(shifted.num_secrets)
    return Listed(shifted.classes(every[:, None], every), shifted.num_classes)


def bins_of(N: int, B: int) -> Shifted:
    channel = make_channel("binned_log_distance", N, B)
    return Shifted(channel.by_difference(N), channel.num_classes)


def monotone(N: int, random) -> Shifted:
    """A reward that sinks with the distance, in random steps."""
    sunk = (random.random(N - 1) < random.choice([0.1, 0.4, 0.9])).cumsum()
    of_distance = np.append(0, sunk)
    return Shifted(of_distance[np.abs(np.arange(1 - N, N))], int(of_distance.max()) + 1)


def random_shifted(N: int, random) -> Shifted:
    """Any reward of the signed difference."""
    C = int(random.integers(2, 5))
    runs = np.repeat(random.integers(C, size=2 * N), random.integers(1, 4, size=2 * N))[: 2 * N - 1]
    return Shifted(runs, C)


@pytest.mark.parametrize(("N", "B"), [(2, 2), (3, 2), (16, 32), (37, 5), (64, 8), (100, 3), (150, 16)])
def test_bins_are_the_table_of_their_channel(N, B):
    shifted, table = bins_of(N, B), all_questions(make_channel("binned_log_distance", N, B), N)
    np.testing.assert_array_equal(listed(shifted).table, table.table)
    np.testing.assert_array_equal(np.concatenate([*shifted.counts()]), np.concatenate([*table.counts()]))
    for certainty in (0.3, 0.5, 0.9):
        assert questioner.greedy(shifted, certainty) == questioner.greedy(table, certainty)


@pytest.mark.parametrize("kind", [monotone, random_shifted])
@pytest.mark.parametrize("cells", [None, 64])
def test_the_greedy_questioner_is_that_of_the_table(kind, cells, monkeypatch):
    if cells:  # few sets at a time
        monkeypatch.setattr(questions, "_EVENTS_A_CHUNK", cells)
    random, told = np.random.default_rng(0), 0
    for _ in range(40):
        shifted = kind(int(random.integers(2, 60)), random)
        try:
            expected = questioner.greedy(listed(shifted), 0.5)
        except ValueError:
            with pytest.raises(ValueError, match="apart"):
                questioner.greedy(shifted, 0.5)
            continue
        told += 1
        assert questioner.greedy(shifted, 0.5) == expected
    assert told >= 20


@pytest.mark.parametrize("kind", [monotone, random_shifted])
def test_the_best_answer_to_any_candidates_is_that_of_the_table(kind):
    random = np.random.default_rng(1)
    for _ in range(20):
        N = int(random.integers(3, 50))
        shifted = kind(N, random)
        sets = [np.sort(random.choice(N, int(random.integers(2, N + 1)), replace=False)) for _ in range(8)]
        starts = np.append(0, np.cumsum([len(some) for some in sets]))
        found = shifted.best(np.concatenate(sets), starts)
        np.testing.assert_array_equal(found, listed(shifted).best(np.concatenate(sets), starts))


def test_beliefs_are_summed_as_the_table_sums_them():
    random = np.random.default_rng(2)
    for kind in (monotone, random_shifted):
        shifted = kind(23, random)
        beliefs = random.dirichlet(np.full(23, 0.3), size=4)
        found, expected = (np.array([*one.masses(beliefs)]) for one in (shifted, listed(shifted)))
        np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize(("N", "B", "e"), [(16, 3, 0.1), (37, 5, 0.2), (64, 8, 0.05)])
def test_games_and_capacities_of_noisy_bins_are_those_of_the_table(N, B, e):
    channel = make_channel("binned_log_distance", N, B, e)
    outcomes, shifted = Outcomes(channel.num_classes, channel.outcomes), bins_of(N, B)
    games = [
        questioner.simulated(
            one, outcomes, 0.5, games=64, generator=np.random.default_rng(0), max_episodes=200
        )
        for one in (shifted, listed(shifted))
    ]
    assert games[0] == games[1]
    assert question_capacity(shifted, outcomes) == question_capacity(listed(shifted), outcomes)
    first, expected = (first_episode_information(one, outcomes) for one in (shifted, listed(shifted)))
    assert (first.best, first.mean) == pytest.approx((expected.best, expected.mean), abs=1e-13)


def test_a_channel_with_too_many_rows_has_no_capacity_computed():
    channel = make_channel("binned_log_distance", 16, 4, 0.1)
    outcomes = Outcomes(channel.num_classes, channel.outcomes)
    assert question_capacity(bins_of(16, 4), outcomes, cells=16) is not None
    assert question_capacity(bins_of(16, 4), outcomes, cells=15) is None


@pytest.mark.parametrize("k", [3, 8, 16])
def test_too_high_or_too_low_is_found_by_halving(k):
    """N = 2^k - 1: the middle is answered each time, and 2^(d-1) of the secrets are hit at episode d."""
    N = 2**k - 1
    halving = Shifted(np.sign(np.arange(1 - N, N)) + 1, 3)
    found = questioner.greedy(halving, 1.0)
    assert found.to_hit == pytest.approx(sum(d * 2 ** (d - 1) for d in range(1, k + 1)) / N, rel=1e-14)
    # at the last but one episode the answer, or one of the two that are left, is S
    assert found.to_know == pytest.approx(
        (sum(d * 2 ** (d - 1) for d in range(1, k)) + (k - 1) * 2 ** (k - 1)) / N, rel=1e-14
    )


def test_eight_bins_at_a_large_n():
    """Counted for one answer by hand, and no questioner beats the levels that an episode brings."""
    N, shifted = 2**16, bins_of(2**16, 8)
    rows, answers = np.concatenate([*shifted.counts()]), [0, 1, 777, N // 2, N - 1]
    for answer in answers:
        raw = np.maximum(0, 1 - np.log2(1 + np.abs(np.arange(N) - answer)) / 16)
        counted = np.bincount(np.round(np.round(raw * 7, 9)).astype(int), minlength=8)
        np.testing.assert_array_equal(rows[answer], counted)
    found = questioner.greedy(shifted, 0.5)
    assert 16 / 3 < found.to_reach < found.to_know < found.to_hit < 16


@pytest.mark.parametrize("N", [2, 3, 5, 8, 11, 37, 64])
def test_sums_are_counted_by_blocks(N):
    table = episode_table(MultiStep.with_noise(SecretSpace(N)), credit="episode")
    assert Sums(N).num_classes == table.num_classes
    expected = [*Listed(table.whole(), table.num_classes).counts()]
    np.testing.assert_array_equal(np.concatenate([*Sums(N).counts()]), np.concatenate(expected))


@pytest.mark.parametrize("N", [2, 7, 10, 11, 100, 101, 120, 1234])
def test_beginnings_are_counted_by_digits(N):
    environment = SingleStep(SecretSpace(N), make_channel("binary", N))
    table = taught_table(environment, sampled=True, spelt=True)
    assert Beginnings(N).num_classes == table.num_classes
    expected = [*Listed(table.whole(), table.num_classes).counts()]
    np.testing.assert_array_equal(np.concatenate([*Beginnings(N).counts()]), np.concatenate(expected))


def by_patterns(N: int, e: float) -> tuple[Outcomes, Outcomes, int]:
    """One noisy bit; the patterns of all of them, as a Kronecker product; how many there are."""
    one, k = np.array([[1 - e, e], [e, 1 - e]]), (N - 1).bit_length()
    rows = np.ones((1, 1))
    for _ in range(k):
        rows = np.kron(rows, one)
    return Outcomes(2, one), Outcomes(2**k, rows), k


@pytest.mark.parametrize("N", [2, 3, 5, 8, 11, 16])
@pytest.mark.parametrize("e", [0.1, 0.7])
def test_noisy_bits_are_the_channel_of_their_patterns(N, e):
    """Mean and variance of what is lost, and the posterior, over some episodes; some forfeit turns."""
    random, runs, R = np.random.default_rng(N), np.arange(6), 6
    one, whole, k = by_patterns(N, e)
    table = episode_table(MultiStep.with_noise(SecretSpace(N), e))
    by_bits, by_table = Observer(R, N), Observer(R, N)
    for _ in range(4):
        choices, turns = random.integers(2, size=(R, k)), random.integers(1, k + 1, size=R)
        choices = np.where(np.arange(k) < turns[:, None], choices, -1)
        patterns = Partition(table.classes(choices[:, None], np.arange(N)))
        question, levels = EachBit(choices, choices >= 0), random.integers(2**k, size=R)
        found, expected = question.ask(by_bits, runs, one), patterns.ask(by_table, runs, whole)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        by_bits.observe(runs, question, one, levels)
        by_table.observe(runs, patterns, whole, levels)
        np.testing.assert_allclose(by_bits.posterior(runs), by_table.posterior(runs), atol=1e-13)


@pytest.mark.parametrize("asked", [1, 3, 4])
def test_independent_bits_are_a_case_of_all_that_may_be_told(asked):
    one, _, k = by_patterns(16, 0.15)
    odds = np.random.default_rng(0).dirichlet([1.0, 1.0], size=(5, k))
    posterior, valid = bits.product(odds), np.arange(k) < np.full((5, 1), asked)
    found, expected = bits.gains(posterior, valid, one), bits._joint_gains(posterior, k, asked, one)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("N", "e"), [(2, 0.1), (5, 0.2), (8, 0.3), (11, 0.1), (16, 0.7)])
def test_games_of_noisy_bits_are_those_of_the_patterns(N, e):
    one, whole, k = by_patterns(N, e)
    table = episode_table(MultiStep.with_noise(SecretSpace(N)))
    often = {"games": 200, "max_episodes": 50 * N}
    expected = questioner.simulated(
        Listed(table.whole(), 2**k), whole, 0.9, generator=np.random.default_rng(0), **often
    )
    found = noisy_bits.simulated(N, one, 0.9, generator=np.random.default_rng(0), **often)
    assert found == expected
    everything = shannon_capacity(whole.noisy[np.arange(N)])
    assert noisy_bits.capacity(N, one, 2**20) == pytest.approx(everything, abs=1e-8)
    assert (noisy_bits.capacity(N, one, 0) is None) == (2**k != N)
    told, _ = bits.gains(np.full((1, N), 1 / N), np.full((1, k), True), one)
    first = first_episode_information(Listed(table.whole(), 2**k), whole)
    assert first.best == pytest.approx(first.mean, abs=1e-12)
    assert told[0] == pytest.approx(first.best, abs=1e-12)


@pytest.mark.parametrize("cells", [1, 30])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_runs_that_are_taken_one_by_one_see_the_same(cells, noise, monkeypatch):
    N, R = 13, 9
    channel = make_channel("binned_log_distance", N, 4, noise)
    outcomes, runs, secrets = Outcomes(channel.num_classes, channel.outcomes), np.arange(R), np.arange(R)

    def course() -> list[np.ndarray]:
        random, observer, told = np.random.default_rng(1), Observer(R, N), []
        for _ in range(4):
            answers = random.integers(N, size=R)
            question = Partition(channel.classes(answers[:, None], np.arange(N)))
            levels = channel.level_indices(channel.rewards(answers, secrets, random.random(R)))
            told += [*question.ask(observer, runs, outcomes)]
            observer.observe(runs, question, outcomes, levels)
            told.append(observer.surprise_variance(runs))
        return [*told, observer.posterior(runs)]

    at_once = course()
    monkeypatch.setattr("memory_rl.information.observer._CELLS_A_CHUNK", cells)
    for found, expected in zip(course(), at_once, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_best_paid_answers_of_a_difference_are_those_of_the_table():
    random = np.random.default_rng(3)
    for _ in range(60):
        N = int(random.integers(2, 12))
        earned = random.integers(4, size=2 * N - 1).astype(float)
        earned[N - 1] = random.choice([2.0, 3.0, 3.0])
        most, always = 1, True
        for secret in range(N):
            of_answer = earned[secret - np.arange(N) + N - 1]
            if of_answer[secret] == of_answer.max():
                most = max(most, int((of_answer == of_answer.max()).sum()))
            else:
                always = False
        assert _best_differences(earned) == (most, always)


def test_a_distance_that_reveals_all_has_its_closed_form():
    N = 64
    every = Shifted(np.abs(np.arange(1 - N, N)), N)
    found, exact = questioner.greedy(every), questioner.distance(N)
    assert (found.to_know, found.to_hit) == (exact.to_know, pytest.approx(exact.to_hit))
    assert first_episode_information(every, Outcomes(N)).best == pytest.approx(math.log2(N))
