"""Ceilings where each bit of an answer is told with noise: what any answer tells, and how long it takes."""

from __future__ import annotations

import math

import numpy as np

from memory_rl.information import bits
from memory_rl.information.bounds import shannon_capacity
from memory_rl.information.outcomes import Outcomes
from memory_rl.information.questioner import Episodes, play_out


def capacity(N: int, outcomes: Outcomes, cells: float) -> float | None:
    """The most that an answer can reveal, whatever is known before, in bits.

    That is k times what one bit can where all strings of bits are secrets; else it is sought among all
    beliefs, if the channel has at most so many `cells`, secrets x strings.
    """
    assert outcomes.noisy is not None  # noqa: S101
    num_bits = (N - 1).bit_length()
    if num_bits == math.log2(N):
        return num_bits * shannon_capacity(outcomes.noisy)
    told = outcomes.noisy[bits.digits(np.arange(N), num_bits)] if N << num_bits <= cells else None
    return None if told is None else shannon_capacity(bits.product(told))


def simulated(
    N: int,
    outcomes: Outcomes,
    certainty: float,
    *,
    games: int,
    generator: np.random.Generator,
    max_episodes: int,
) -> Episodes:
    """The episodes of a questioner of noisy bits, by playing games as `questioner.simulated` does.

    Whatever it answers tells the same. Of each game no more need be known than how often each bit was told
    rightly.
    """
    assert outcomes.noisy is not None  # noqa: S101
    num_bits, (wrong, right) = (N - 1).bit_length(), np.log2(outcomes.noisy[1])
    secrets, threshold = bits.digits(generator.integers(N, size=games), num_bits), math.log2(certainty) - 1e-9
    lead = np.zeros((games, num_bits))  # how much more often the bits of S were told rightly than wrongly

    def play(playing: np.ndarray) -> np.ndarray:
        # answered with zeros, of which those are right that S has: one number in [0, 1) decides on all levels
        is_right = secrets[playing] == 0
        lead[playing] += 1 - 2 * (is_right ^ _levels(is_right, outcomes, generator))
        return _log_secret(lead[playing] * (right - wrong), secrets[playing], N) < threshold

    open_at_first = threshold > -math.log2(N)
    return play_out(games, play, max_episodes) if open_at_first else Episodes(None, None, 0.0)


def _levels(right: np.ndarray, outcomes: Outcomes, generator: np.random.Generator) -> np.ndarray:
    """Draws what is seen of bits that are right or not, (R, k), with one number for all k."""
    assert outcomes.noisy is not None  # noqa: S101
    left, seen = generator.random(len(right)), []
    for place in range(right.shape[1]):
        zero = outcomes.noisy[right[:, place].astype(np.int64), 0]
        one = left >= zero
        left = np.where(one, (left - zero) / np.where(one, 1 - zero, 1.0), left / np.where(one, 1.0, zero))
        seen.append(one)
    return np.stack(seen, axis=1)


def _log_secret(odds: np.ndarray, secrets: np.ndarray, N: int) -> np.ndarray:
    """log2 P(S) from the log2 odds that each bit is that of S, (R, k), given that S is below N: (R,)."""
    of_bit = -np.logaddexp2(0.0, -odds)  # log2 of the probability of S's bit
    of_other = -np.logaddexp2(0.0, odds)
    of_zero, of_one = (np.where(secrets == bit, of_bit, of_other) for bit in (0, 1))
    below, so_far = np.full(len(odds), -np.inf), np.zeros(len(odds))
    for place, bit in enumerate(bits.digits(np.array(N - 1), secrets.shape[1]).tolist()):
        if bit:  # numbers that agree with N - 1 so far, and have a zero here
            below = np.logaddexp2(below, so_far + of_zero[:, place])
        so_far = so_far + (of_one if bit else of_zero)[:, place]
    return np.asarray(of_bit.sum(axis=1) - np.logaddexp2(below, so_far))
