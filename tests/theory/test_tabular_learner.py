"""The whole loop with the tabular learner against closed forms: episodes to memorise, and how often a group
carries a signal.

Every cell has a seed, and so samples, of its own; no run is censored, so that means are plain means.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from itertools import product

import closed_forms
import numpy as np
import pytest
import scipy.integrate
from helpers import run_loop, setting_of

from memory_rl.analysis.survival import memorisation_times
from memory_rl.assembly import Setting, make_sampling
from memory_rl.information.closed_forms import binary_episodes
from memory_rl.populations import make_learners
from memory_rl.task import MultiStep, SecretSpace, make_channel

RUNS = 400
PLAIN = {"backend": "tabular", "optimiser": "sgd", "baseline": "none", "group_size": 1, "ledger": False}
CELLS = list(product((16, 64, 256, 1024), (0.1, 1.0), (0.5, 0.9)))  # N, eta, p*
QUICK = [(N, step_size, target) for N, step_size, target in CELLS if N / step_size <= 1024]


def episodes_to_memorise(setting: Setting) -> np.ndarray:
    """Of each run, by the loop and the meter themselves."""
    metrics, experiment = run_loop(setting, make_learners(setting).policy).metrics, setting.experiment
    times = memorisation_times(metrics, math.log2(experiment.world.N), experiment.stop.memorised_at)
    assert times.memorised.all()
    return times.episodes


@dataclasses.dataclass(frozen=True)
class Mean:
    """A sample mean and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, sample: np.ndarray) -> Mean:
        return cls(sample.mean(), sample.std(ddof=1) / math.sqrt(len(sample)))

    def standard_errors_from(self, expected: float) -> float:
        return (self.value - expected) / self.error


def assert_unbiased(measured: dict[tuple, Mean], expected: dict[tuple, float]) -> None:
    """About 1 in 20 expectations lies outside its 95 % interval by chance: more than 3 of 16 in 0.7 % of all
    grids, and beyond 3.5 errors in 0.8 %."""
    scores = {cell: measured[cell].standard_errors_from(expected[cell]) for cell in measured}
    outside = {cell: score for cell, score in scores.items() if abs(score) > 1.96}
    assert len(outside) <= 3, outside
    assert max(map(abs, scores.values())) < 3.5, scores


@functools.cache
def measure_binary(N: int, step_size: float, target: float) -> Mean:
    seed, budget = (
        CELLS.index((N, step_size, target)),
        20 * math.ceil(binary_episodes(N, step_size, target)),
    )
    ends = {"memorised_at": target, "stop_at": target + 0.01, "max_episodes": budget}
    setting = setting_of(
        N=N, reward_type="binary", learning_rate=step_size, num_runs=RUNS, seed=seed, **ends, **PLAIN
    )
    return Mean.of(episodes_to_memorise(setting))


@pytest.mark.parametrize(
    "cells", [pytest.param(QUICK, id="quick"), pytest.param(CELLS, id="all", marks=pytest.mark.slow)]
)
def test_a_binary_reward_takes_the_sum_over_hits(cells):
    assert_unbiased(
        {cell: measure_binary(*cell) for cell in cells},
        {cell: binary_episodes(*cell) for cell in cells},
    )


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell[1] == 0.1], ids=str)
def test_small_steps_take_nearly_the_integral(cell):
    assert closed_forms.binary_episodes_small_step(*cell) == pytest.approx(binary_episodes(*cell), rel=0.05)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_long_steps_cost_up_to_what_a_sum_exceeds_its_integral_by(cell):
    """ln P(S) grows by at most eta a hit, and the sum takes each wait at its longest: at most eta / (1 -
    exp(-eta)) times the integral, 1.051 at eta = 0.1."""
    assert (
        1
        < binary_episodes(*cell) / closed_forms.binary_episodes_small_step(*cell)
        < cell[1] / (1 - math.exp(-cell[1]))
    )


PLUS_MINUS = dataclasses.replace(make_channel("binary", 2), levels=np.array([-1.0, 1.0]))


@functools.cache
def measure_dense(N: int, step_size: float, target: float, bits: str = "positions") -> Mean:
    """With reward 1 for a right bit and -1 for a wrong one."""
    seed, budget = (
        100 + CELLS.index((N, step_size, target)),
        20 * math.ceil(dense_episodes(N, step_size, target)),
    )
    ends = {"memorised_at": target, "stop_at": target + 0.01, "max_episodes": budget}
    runs = 1000 if step_size == 1.0 else RUNS
    setting = setting_of(
        env_type="multi_step",
        N=N,
        tabular_bits=bits,
        learning_rate=step_size,
        num_runs=runs,
        seed=seed,
        **ends,
        **PLAIN,
    )
    world = dataclasses.replace(setting.condition, environment=MultiStep(SecretSpace(N), PLUS_MINUS))
    return Mean.of(episodes_to_memorise(dataclasses.replace(setting, condition=world)))


def dense_episodes(N: int, step_size: float, target: float) -> float:
    return closed_forms.dense_episodes((N - 1).bit_length(), step_size, target)


GRID, UNITS = 0.002, 4000


def exact_dense_episodes(N: int, step_size: float, target: float) -> float:
    """E[T] = sum over t of P(T > t), for any step size.

    A bit's log-odds x are a Markov chain of their own: x grows by 2 eta (1 - p) with probability p, else by 2
    eta p. It never falls, so that T > t exactly if the product of the bits' p is below p* after t episodes.
    Distributions are kept on grids.
    """
    num_bits, size = (N - 1).bit_length(), (N - 1).bit_length() * UNITS
    x = np.arange(0, 10 + 2 * step_size, GRID)
    p = 1 / (1 + np.exp(-x))
    lost = np.minimum(
        np.log(p) / math.log(target) * UNITS, UNITS
    )  # -log p: together the bits may lose less than UNITS
    law, episodes = np.eye(len(x))[0], 0.0
    while True:
        one_bit = spread(lost, law, UNITS + 1)[:UNITS]
        reached = np.fft.irfft(np.fft.rfft(one_bit, size) ** num_bits, size)[:UNITS].sum()
        if reached > 1 - 1e-9:
            return episodes
        episodes += 1 - reached
        law = spread((x + 2 * step_size * (1 - p)) / GRID, law * p, len(x)) + spread(
            (x + 2 * step_size * p) / GRID, law * (1 - p), len(x)
        )


def spread(where: np.ndarray, mass: np.ndarray, size: int) -> np.ndarray:
    """The mass on the points 0 to size - 1; what lies between two points is split so that its mean stays."""
    left = np.minimum(where.astype(int), size - 2)
    right = np.minimum(where - left, 1.0)
    return np.bincount(left, mass * (1 - right), size) + np.bincount(left + 1, mass * right, size)


def test_a_reward_for_each_bit_takes_what_its_markov_chains_take():
    assert_unbiased(
        {cell: measure_dense(*cell) for cell in CELLS}, {cell: exact_dense_episodes(*cell) for cell in CELLS}
    )


COARSE = {(16, 1.0, 0.5): -0.078, (64, 1.0, 0.5): -0.086, (256, 1.0, 0.5): -0.058, (1024, 1.0, 0.5): -0.048}
"""How far the approximation for small steps is from the truth where 2 to 5 episodes of step 1 are enough:
time is discrete, and a run ends at a whole episode, beyond p*. At N = 1024 that is within 5 %, but too close
to tell from a sample."""


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in COARSE], ids=str)
def test_a_reward_for_each_bit_takes_the_time_of_small_steps(cell):
    assert dense_episodes(*cell) == pytest.approx(measure_dense(*cell).value, rel=0.05)


@pytest.mark.parametrize("cell", COARSE, ids=str)
def test_a_few_long_steps_take_longer_than_the_time_of_small_steps(cell):
    assert dense_episodes(*cell) / exact_dense_episodes(*cell) - 1 == pytest.approx(COARSE[cell], abs=0.001)
    assert dense_episodes(*cell) < measure_dense(*cell).value


def dense_episodes_by_prefix(N: int, step_size: float, target: float) -> float:
    """Small steps when each prefix of bits has logits of its own: a bit learns in the episodes alone whose
    earlier bits are right, so that dx_j / dt = 4 eta p_j (1 - p_j) p_1 ... p_(j-1)."""

    def right(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def slope(_: float, x: np.ndarray) -> np.ndarray:
        return 4 * step_size * right(x) * (1 - right(x)) * np.append(1, right(x).cumprod()[:-1])

    def memorised(_: float, x: np.ndarray) -> float:
        return right(x).prod() - target

    memorised.terminal = True
    start = np.zeros((N - 1).bit_length())
    return scipy.integrate.solve_ivp(slope, (0, 1e6), start, events=memorised, rtol=1e-8).t_events[0][0]


@pytest.mark.parametrize("cell", list(product((16, 64), (0.1,), (0.5, 0.9))), ids=str)
def test_a_bit_with_logits_for_each_prefix_learns_only_on_the_right_path(cell):
    measured = measure_dense(*cell, "prefixes").value
    assert dense_episodes_by_prefix(*cell) == pytest.approx(measured, rel=0.05)
    assert measured > 1.1 * dense_episodes(*cell)


def levels_at_random(N: int, secret: int, bins: int | None) -> list[float]:
    """The probability of each reward when every answer is equally likely; binned: see "max(0, 1 - log2(1 + d)
    / log2 N) rounded" in docs/semantics/world.md."""
    distances = [abs(answer - secret) for answer in range(N)]
    if bins is None:
        rewards = [distance == 0 for distance in distances]
    else:
        rewards = [
            round(max(0.0, 1 - math.log2(1 + distance) / math.log2(N)) * (bins - 1)) for distance in distances
        ]
    return [count / N for count in Counter(rewards).values()]


@pytest.mark.parametrize(("N", "bins", "group_size"), list(product((16, 64), (None, 8), (2, 4, 8))))
@pytest.mark.parametrize("algorithm", ["reinforce", "grpo"])
def test_a_group_carries_a_signal_as_often_as_its_rewards_differ(N, bins, group_size, algorithm):
    """One run a secret, all at their uniform start."""
    groups, channel = (
        20_000 // N,
        {"reward_type": "binary"}
        if bins is None
        else {"reward_type": "binned_log_distance", "reward_bins": bins},
    )
    setting = setting_of(
        N=N,
        num_runs=N,
        backend="tabular",
        algorithm=algorithm,
        group_size=group_size,
        batch_size=groups,
        max_episodes=groups * group_size,
        seed=group_size,
        **channel,
    )
    runs, policy = np.arange(N), make_learners(setting).policy
    batch = make_sampling(setting, policy, runs[:, None]).next(runs)
    silent = setting.learner.learn(policy, batch)
    fractions = np.array(
        [closed_forms.signal_fraction(levels_at_random(N, secret, bins), group_size) for secret in range(N)]
    )
    standard_error = math.sqrt((fractions * (1 - fractions)).mean() / (N * groups))
    assert 1 - silent.mean() == pytest.approx(fractions.mean(), abs=4 * standard_error)
