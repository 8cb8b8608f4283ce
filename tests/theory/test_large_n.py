"""Ledger and ceilings where no table of all answers and secrets would fit into memory."""

import math
from collections import Counter

import numpy as np
import pytest

import memory_rl
from memory_rl.cli import main
from memory_rl.learning.batch import Batch
from memory_rl.task import INVALID, MultiStep, SecretSpace, SingleStep, episode_table, make_channel
from memory_rl.training.accounts import Accounts

N = 2**16


def entered(environment, secrets, choices, credit="step") -> dict[str, np.ndarray]:
    """The ledger of runs with these secrets (R,) after these choices (R, E, K)."""
    table, runs = episode_table(environment, credit=credit), np.arange(len(secrets))
    accounts = Accounts(secrets[:, None], environment.space.N, 0.5, table)
    rewards, asked = environment.rewards(choices, secrets), np.zeros((len(runs), 1), dtype=np.int64)
    accounts.enter(Batch(runs, asked, choices, choices, runs, rewards), np.ones_like(runs))
    return accounts.sums(runs)


def counted(classes_of, secret, episodes) -> tuple[float, float]:
    """Asked and observer bits, from lists of candidates; `classes_of` an episode and secrets."""
    candidates, asked = np.arange(N), 0.0
    for episode in episodes:
        seen = classes_of(episode, candidates)
        sizes = Counter(seen.tolist()).values()
        asked += sum(size / len(candidates) * math.log2(len(candidates) / size) for size in sizes)
        candidates = candidates[seen == classes_of(episode, np.array([secret]))[0]]
    return asked, math.log2(N / len(candidates))


def test_the_ledger_of_bins_is_that_of_lists_of_candidates():
    random, secrets = np.random.default_rng(0), np.array([5, 40_000, N - 1])
    answers = random.integers(N, size=(3, 6, 1))
    found = entered(SingleStep(SecretSpace(N), make_channel("binned_log_distance", N, 8)), secrets, answers)

    def level(answer, candidates):
        raw = np.maximum(0, 1 - np.log2(1 + np.abs(answer - candidates)) / 16)
        return np.round(np.round(raw * 7, 9))

    for run, secret in enumerate(secrets.tolist()):
        expected = counted(level, secret, answers[run, :, 0])
        assert (found["asked_bits"][run], found["observer_bits"][run]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("credit", ["step", "episode"])
def test_the_ledger_of_bits_is_that_of_lists_of_candidates(credit):
    random, secrets = np.random.default_rng(1), np.array([5, 40_000, N - 1])
    choices = random.integers(2, size=(3, 3, 16))
    choices[:, 0, 10:] = INVALID  # the first of them forfeits six turns
    found = entered(MultiStep.with_noise(SecretSpace(N)), secrets, choices, credit)

    def right(bits, candidates):
        valid = [place for place in range(16) if bits[place] != INVALID]
        each = [(candidates >> (15 - place) & 1) == bits[place] for place in valid]
        return sum(each) if credit == "episode" else sum(one << i for i, one in enumerate(np.int64(each)))

    for run, secret in enumerate(secrets.tolist()):
        expected = counted(right, secret, choices[run])
        assert (found["asked_bits"][run], found["observer_bits"][run]) == pytest.approx(expected, abs=1e-9)


def h(e: float) -> float:
    return -e * math.log2(e) - (1 - e) * math.log2(1 - e)


def test_ceilings_of_bits_at_two_to_the_twentieth():
    plain, noisy = (
        memory_rl.bounds(N=2**20, env_type="multi_step", reward_noise=noise) for noise in (0.0, 0.1)
    )
    assert (plain.capacity, plain.shannon_capacity, plain.first_episode.best) == (20.0, 20.0, 20.0)
    assert plain.ideal_questioner.to_know == 1.0
    assert noisy.shannon_capacity == pytest.approx(20 * (1 - h(0.1)), abs=1e-6)
    assert noisy.first_episode.mean == pytest.approx(20 * (1 - h(0.1)), abs=1e-9)
    assert 20 / noisy.shannon_capacity < noisy.ideal_questioner.to_reach < 8


def test_sums_at_a_large_n_have_no_questioner(capsys):
    found = memory_rl.bounds(N=2**13, env_type="multi_step", credit="episode")
    binomial = [math.comb(13, right) / 2**13 for right in range(14)]
    assert found.first_episode.best == pytest.approx(-sum(p * math.log2(p) for p in binomial), abs=1e-12)
    assert found.shannon_capacity == found.capacity == math.log2(14)
    assert (found.ideal_questioner, found.method) == (None, "not computed")
    assert main(["bounds", "N=8192", "env_type=multi_step", "credit=episode"]) == 0
    assert "ideal questioner" not in capsys.readouterr().out


def test_noise_that_would_take_minutes_has_no_questioner():
    found = memory_rl.bounds(N=2**14, reward_noise=0.1)
    assert found.ideal_questioner is None
    assert found.shannon_capacity == pytest.approx(1 - h(0.1), abs=1e-8)
    told = 0.9 / 2**14 + 0.1 * (1 - 1 / 2**14)  # the chance of a reward
    assert found.first_episode.best == pytest.approx(h(told) - h(0.1), abs=1e-12)


def test_digits_of_a_teacher_at_a_large_n():
    """N = 10^4: of one to four digits each, an answer of four begins as 1, 10, 100 or 1000 secrets do."""
    found = memory_rl.bounds(N=10**4, signal="teacher", told="sampled")
    sizes = [10**4 - 1111, 1111 - 111, 111 - 11, 11 - 1, 1]  # of an answer of four digits: 9000 of 10000
    longest = sum(n / 1e4 * math.log2(1e4 / n) for n in sizes)
    assert found.first_episode.best == pytest.approx(longest, abs=1e-12)
    assert found.shannon_capacity == math.log2(5)
    assert found.ideal_questioner is None
