"""Questions about each bit of S that are answered with noise, each for itself: k channels side by side.

A number below 2^k is its k bits, the most significant first. A bit is told wrongly with one probability,
whatever it is; so it does not matter which bit a step names: what is told is S behind k symmetric channels.
"""

from __future__ import annotations

import numpy as np

from memory_rl.information.entropy import xlog2x
from memory_rl.information.outcomes import Outcomes


def digits(numbers: np.ndarray, num_bits: int) -> np.ndarray:
    """The bits of each number, most significant first: (...) to (..., k)."""
    return (np.asarray(numbers)[..., None] >> np.arange(num_bits - 1, -1, -1)) & 1


def product(factors: np.ndarray) -> np.ndarray:
    """The product of one factor for each bit, for every number: (R, k, 2) to (R, 2^k)."""
    table = np.ones((len(factors), 1))
    for factor in np.moveaxis(factors, 1, 0):
        table = (table[:, :, None] * factor[:, None, :]).reshape(len(factors), -1)
    return table


def marginals(posterior: np.ndarray) -> np.ndarray:
    """The probability that each bit is 1: (R, 2^k) to (R, k)."""
    rest, ones = posterior, []
    while rest.shape[1] > 1:
        halves = rest.reshape(len(rest), 2, -1)
        ones.append(halves[:, 1].sum(axis=1))
        rest = halves.sum(axis=1)
    return np.stack(ones, axis=1)


def gains(posterior: np.ndarray, valid: np.ndarray, outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the entropy of S that an observer loses, in bits and squared bits, each (R,).

    Where N is a power of two its bits are independent, and remain so, since each is told for itself: what is
    lost is the sum over bits. Elsewhere the law of all that may be told is worked out.

    Args:
        posterior: (R, N), from questions of this kind alone.
        valid: (R, k) whether a bit is asked for; behind the first that is not none is.
        outcomes: p(level | wrong or right).
    """
    num_secrets, num_bits = posterior.shape[1], valid.shape[1]
    if num_secrets == 2**num_bits:
        ones = marginals(posterior)
        masses = np.stack([1 - ones, ones], axis=2).reshape(-1, 2)
        each = outcomes.gains(masses, -xlog2x(masses))
        mean, variance = ((part.reshape(valid.shape) * valid).sum(axis=1) for part in each)
        return mean, variance
    mean, variance = np.zeros(len(posterior)), np.zeros(len(posterior))
    for asked in np.unique(valid.sum(axis=1)):
        rows = valid.sum(axis=1) == asked
        mean[rows], variance[rows] = _joint_gains(posterior[rows], num_bits, int(asked), outcomes)
    return mean, variance


def _joint_gains(
    posterior: np.ndarray, num_bits: int, asked: int, outcomes: Outcomes
) -> tuple[np.ndarray, np.ndarray]:
    """The same where the first `asked` bits are told: by passing p(S, told) and its logarithm through."""
    assert outcomes.noisy is not None  # noqa: S101
    runs, (right, wrong) = len(posterior), outcomes.noisy[1, ::-1].tolist()
    known = np.zeros((runs, 2**num_bits))
    known[:, : posterior.shape[1]] = posterior
    # told: p(told bits); logs: the sum over S of p(S, told) log2 p(S, told)
    told, logs = (table.reshape(runs, 2**asked, -1).sum(axis=2) for table in (known, xlog2x(known)))
    before = -logs.sum(axis=1)
    log_right, log_wrong = (float(part) for part in xlog2x(np.array([right, wrong])))
    for place in range(asked):
        told, logs = (table.reshape(runs, 2**place, 2, -1) for table in (told, logs))
        other, other_logs = told[:, :, ::-1], logs[:, :, ::-1]
        logs = right * logs + wrong * other_logs + log_right * told + log_wrong * other
        told = right * told + wrong * other
    told, logs = told.reshape(runs, -1), logs.reshape(runs, -1)
    possible = np.where(told > 0, told, 1.0)
    gain = before[:, None] + logs / possible - np.log2(possible)
    mean = (told * gain).sum(axis=1)
    return np.maximum(mean, 0.0), np.maximum((told * gain**2).sum(axis=1) - mean**2, 0.0)
