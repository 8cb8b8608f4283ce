"""Laws of pass rates over prompts, fitted to counts of passes, and what follows from them.

A law is an array of points in [0, 1] and one of weights that sum to 1. One that is fitted to counts stands
on `POINTS`; `beta_law` gives a Beta law that integrates exactly. Of graded rewards each level has a law of
its own, of the probability that a rollout is given it.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betainc, gammaln, psi, roots_jacobi, xlog1py, xlogy, zeta

from memory_rl.information.entropy import entropy, xlog2x

POINTS = (1 - np.cos(np.pi * np.arange(101) / 100)) / 2
"""Where a fitted law may have mass: both ends, and closer together near them, as the spread of a rate is."""

STEPS = 300
"""Of expectation-maximisation, from the Beta law: enough to leave it where counts contradict it."""

_EDGES = np.concatenate([[0.0], (POINTS[1:] + POINTS[:-1]) / 2, [1.0]])
_ELSEWHERE = 0.01
"""Of the mass from which a fit starts this share is spread evenly, since what is 0 stays 0."""
_LOG_RANGE = (-5.0, 8.0)  # of both parameters of a Beta law
_QUADRATURE = 256
_TINY = np.finfo(float).tiny
"""A kind of group that a resample lacks may be impossible under its law: a share of 0 is divided by this."""
_NEWTON, _FLAT, _CLOSE = 40, 1e-6, 1e-4  # most steps, least curvature, and when a fit has ended


Beta = tuple[np.ndarray, np.ndarray]
"""a and b of Beta laws."""


def fit_beta(sizes: np.ndarray, hits: np.ndarray, counts: np.ndarray, start: Beta | None = None) -> Beta:
    """The beta-binomial law of greatest likelihood, by Newton's method: empirical Bayes for a pass rate.

    Args:
        sizes: (M,) rewards of a group.
        hits: (M,) how many of them are hits.
        counts: (..., M) how many groups there are of this kind; several data sets are fitted at once.
        start: a guess.

    Returns:
        a and b of Beta(a, b), each (...), from 0.007 to 3000: beyond that a law is one point, or two, for any
        data.
    """
    share = counts / counts.sum(axis=-1, keepdims=True)
    rate = np.clip(share @ hits / (share @ sizes), 0.001, 0.999)
    logs = np.log(np.stack([rate, 1 - rate], axis=-1))
    if start is not None:
        logs = np.broadcast_to(np.log(np.stack(start, axis=-1)), logs.shape)
    best, height = logs, _beta_likelihood(logs, sizes, hits, share)
    for _ in range(_NEWTON):
        before = logs
        logs = logs + _newton_step(np.exp(logs), sizes, hits, share)
        logs = logs - np.maximum(logs.max(axis=-1, keepdims=True) - _LOG_RANGE[1], 0)  # the mean stays
        logs = np.maximum(logs, _LOG_RANGE[0])
        now = _beta_likelihood(logs, sizes, hits, share)
        best = np.where((now > height)[..., None], logs, best)
        height = np.maximum(now, height)
        if np.abs(logs - before).max() < _CLOSE:
            break
    return np.exp(best[..., 0]), np.exp(best[..., 1])


def _beta_likelihood(logs: np.ndarray, sizes: np.ndarray, hits: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The mean logarithm of the likelihood, but for a constant: (..., 2) to (...)."""
    a, b = np.exp(logs[..., :1]), np.exp(logs[..., 1:])
    return (share * (_log_beta(hits + a, sizes - hits + b) - _log_beta(a, b))).sum(axis=-1)


def _log_beta(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As SciPy's betaln, which is infinite where denormal numbers are flushed to zero, as in training."""
    return gammaln(a) + gammaln(b) - gammaln(a + b)


def _newton_step(pair: np.ndarray, sizes: np.ndarray, hits: np.ndarray, share: np.ndarray) -> np.ndarray:
    """A step of the logarithms of a and b: uphill whatever the curvature, and not too long. (..., 2)."""
    both = pair.sum(axis=-1, keepdims=True)
    slope, curve = np.zeros(pair.shape), np.zeros((*pair.shape, 2))
    shared = [(share * (psi_n(both) - psi_n(sizes + both))).sum(axis=-1) for psi_n in (psi, _trigamma)]
    for place, seen in enumerate((hits, sizes - hits)):
        one = pair[..., place : place + 1]
        own = [(share * (psi_n(seen + one) - psi_n(one))).sum(axis=-1) for psi_n in (psi, _trigamma)]
        slope[..., place] = (own[0] + shared[0]) * pair[..., place]
        curve[..., place, place] = own[1] * pair[..., place] ** 2 + slope[..., place]
    curve += shared[1][..., None, None] * pair[..., :, None] * pair[..., None, :]
    values, axes = np.linalg.eigh(curve)
    along = np.einsum("...ji,...j->...i", axes, slope) / np.maximum(np.abs(values), _FLAT)
    return np.einsum("...ij,...j->...i", axes, np.clip(along, -1, 1))


def _trigamma(values: np.ndarray) -> np.ndarray:
    return zeta(2, values)


def spread_beta(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The mass of Beta(a, b) around each of `POINTS`, from which `fit_law` starts: (...) to (..., P)."""
    masses = np.diff(betainc(np.asarray(a)[..., None], np.asarray(b)[..., None], _EDGES))
    return (1 - _ELSEWHERE) * masses + _ELSEWHERE / len(POINTS)


def likelihoods(sizes: np.ndarray, hits: np.ndarray, points: np.ndarray = POINTS) -> np.ndarray:
    """The binomial probability of so many hits at each point: (M,) and (P,) to (M, P)."""
    sizes, hits = sizes[:, None], hits[:, None]
    ways = gammaln(sizes + 1) - gammaln(hits + 1) - gammaln(sizes - hits + 1)
    return np.exp(ways + xlogy(hits, points) + xlog1py(sizes - hits, -points))


def fit_law(likely: np.ndarray, counts: np.ndarray, start: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Weights on the points that make counts likelier, from a first guess on.

    In the limit of many steps it is the nonparametric law of greatest likelihood (Kiefer and Wolfowitz 1956,
    Laird 1978), which has few points; after a few hundred it still has the breadth of the guess.

    Args:
        likely: (M, P) from `likelihoods`.
        counts: (..., M) how many groups there are of each kind; several data sets are fitted at once.
        start: (..., P) a guess for each, from `spread_beta`.
        steps: of expectation-maximisation (Dempster, Laird and Rubin 1977).

    Returns:
        (..., P) weights.
    """
    shares = counts / counts.sum(axis=-1, keepdims=True)
    weights = np.broadcast_to(start, (*counts.shape[:-1], start.shape[-1]))
    for _ in range(steps):
        weights = weights * ((shares / np.maximum(weights @ likely.T, _TINY)) @ likely)
    return weights


def beta_law(a: float, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Beta(a, b) by Gauss and Jacobi, exact for powers of a rate up to 511."""
    points, weights = roots_jacobi(_QUADRATURE, b - 1, a - 1)
    return (points + 1) / 2, weights / weights.sum()


def expected_entropy(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bits that pass or fail tells on average, the mean of h(p): points (P,), weights (..., P) to (...)."""
    return weights @ _pass_or_fail(points)


def equal_chance(points: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """The chance that all G rewards of a group are hits, the mean of p^G: (P,) and (..., P) to (...)."""
    return weights @ points**size


def silent_chance(points: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """The chance that a group carries no signal, the mean of p^G + (1 - p)^G: (P,) and (..., P) to (...)."""
    return equal_chance(points, weights, size) + equal_chance(1 - points, weights, size)


def advantage_bits(points: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """The most that the advantages of a group can tell, in bits a rollout: H(A | p, G) / G, on average.

    A group's advantages (reward less the group's mean, over its standard deviation or not) are zero where all
    rewards are equal, and name the answers that passed in every other case. So what is lost of the G h(p)
    bits of the rewards is which of the two equal groups it was, by the chain rule (Cover and Thomas 2006,
    2.2): H(A) = G h(p) - s h(p^G / s), with s = p^G + (1 - p)^G.

    Args:
        points: (P,) pass rates.
        weights: (..., P) how often each is met.
        size: G, 2 or more.
    """
    right, wrong = points**size, (1 - points) ** size
    silent = right + wrong
    lost = xlog2x(silent) - xlog2x(right) - xlog2x(wrong)
    return weights @ (_pass_or_fail(points) - lost / size)


def signal_bits(points: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """The same in groups with a signal alone, which move anything: P(signal) H(A | p, signal) / G.

    That a group is silent is known to an onlooker, too, and is left out here: H(A) is h(s) bits more, by the
    chain rule. Like `advantage_bits` it only grows with G, towards the mean of h(p).

    Args:
        points: (P,) pass rates.
        weights: (..., P) how often each is met.
        size: G, 2 or more.
    """
    silent = points**size + (1 - points) ** size
    told = weights @ _pass_or_fail(silent)
    return np.maximum(advantage_bits(points, weights, size) - told / size, 0.0)


def chance_of_change(points: np.ndarray, weights: np.ndarray, seen: np.ndarray, size: int) -> np.ndarray:
    """The chance that the next group is not all hits, where all rewards so far were hits: (M,) to (M,).

    The posterior mean of 1 - p^G, with the law (P,), (P,) as the prior.

    Args:
        points: where the law has mass.
        weights: how much.
        seen: (M,) rewards so far.
        size: G of the next group.
    """
    before = points ** seen[:, None] * weights
    return 1 - (before @ points**size) / before.sum(axis=1)


def _pass_or_fail(points: np.ndarray) -> np.ndarray:
    return entropy(np.stack([points, 1 - points], axis=-1))
