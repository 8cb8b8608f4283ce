"""The entropy of a reward given its prompt, estimated from the few rewards of a group.

Each is a sum over levels of a part that depends on how many of a group's rewards have that level; so an
estimate for any set of groups is a sum over (size, hits). All parts are in bits.
"""

from __future__ import annotations

import numpy as np
from scipy.special import psi

from memory_rl.information.entropy import LN2, xlog2x


def plug_in(sizes: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """-(n/G) log2 (n/G): the entropy of the shares seen; too low by about (levels - 1) / (2 G ln 2). (M,)."""
    return -xlog2x(hits / sizes)


def miller_madow(sizes: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """The plug-in and the first term of its bias, (levels seen - 1) / (2 G ln 2) (Miller 1955). (M,)."""
    return plug_in(sizes, hits) + ((hits > 0) - hits / sizes) / (2 * sizes * LN2)


def grassberger(sizes: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """(n/G) (ln G - G_n) / ln 2 (Grassberger 2003, arXiv:physics/0307138, equation 35). (M,).

    G_n = psi(n) + (-1)^n (psi((n + 1) / 2) - psi(n / 2)) / 2.
    """
    n: np.ndarray = np.maximum(hits, 1).astype(float)
    terms = psi(n) + (-1.0) ** n * (psi((n + 1) / 2) - psi(n / 2)) / 2
    return hits / sizes * (np.log(sizes) - terms) / LN2


def under_beta(sizes: np.ndarray, hits: np.ndarray, a: float, b: float) -> np.ndarray:
    """The posterior mean of -p log2 p where p has the prior Beta(a, b) (Wolpert and Wolf 1995). (M,)."""
    of_level, of_all = a + hits, a + b + sizes
    return of_level / of_all * (psi(of_all + 1) - psi(of_level + 1)) / LN2


def under_law(likely: np.ndarray, weights: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The same where p has a law on points: likelihoods (M, P) and weights (..., P) to (..., M)."""
    part = -xlog2x(points)
    return ((weights * part) @ likely.T) / np.maximum(weights @ likely.T, np.finfo(float).tiny)
