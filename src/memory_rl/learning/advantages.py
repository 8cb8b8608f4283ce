"""Credit and baselines: from the rewards of a group to the advantage of each step. Numpy only.

Axes: R runs, B groups, G episodes of a group, K steps. A group whose credited rewards are all equal at a step
gets advantage exactly 0 there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def credit_rewards(rewards: np.ndarray, credit: str) -> np.ndarray:
    """What each step is credited with: (R, B, G, K) to (R, B, G, K).

    Args:
        rewards: the reward of each step.
        credit: "step" (its own reward), "reward_to_go" (its own and all later ones) or "episode" (the sum
            over the episode: what common tools spread over all tokens).
    """
    if credit == "step":
        return rewards
    if credit == "reward_to_go":
        return np.flip(np.cumsum(np.flip(rewards, axis=-1), axis=-1), axis=-1)
    if credit == "episode":
        return np.broadcast_to(rewards.sum(axis=-1, keepdims=True), rewards.shape)
    raise ValueError(f"unknown credit {credit!r}")


def mean_baseline(returns: np.ndarray) -> np.ndarray:
    """Return minus the group's mean (reinforce with a group baseline, and ppo)."""
    return returns - returns.mean(axis=2, keepdims=True)


def standardised(returns: np.ndarray) -> np.ndarray:
    """Return minus the group's mean, divided by its standard deviation over G (GRPO: Shao et al. 2024,
    arXiv:2402.03300).
    """
    deviation = returns.std(axis=2, keepdims=True)
    return mean_baseline(returns) / np.where(deviation > 0, deviation, 1.0)


def leave_one_out(returns: np.ndarray) -> np.ndarray:
    """Return minus the mean of the G - 1 others (RLOO: Kool et al. 2019; Ahmadian et al. 2024,
    arXiv:2402.14740).
    """
    size = returns.shape[2]
    others = (returns.sum(axis=2, keepdims=True) - returns) / (size - 1)
    return returns - others


ESTIMATORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reinforce": mean_baseline,
    "grpo": standardised,
    "rloo": leave_one_out,
    "ppo": mean_baseline,
}


def estimate_advantages(
    rewards: np.ndarray, algorithm: str, credit: str, baseline: str = "group"
) -> np.ndarray:
    """The advantage of each step of each episode: (R, B, G, K) to (R, B, G, K).

    Args:
        rewards: the reward of each step.
        algorithm: a key of `ESTIMATORS`.
        credit: see `credit_rewards`; the baseline is the group's own at the same step.
        baseline: "group", or "none": the return itself is the advantage.
    """
    returns = credit_rewards(rewards, credit)
    if baseline == "none":
        return returns
    silent = returns.max(axis=2, keepdims=True) == returns.min(axis=2, keepdims=True)
    return np.where(
        silent, 0.0, ESTIMATORS[algorithm](returns)
    )  # rounding must not make a signal out of equal rewards
