"""Runs beside a reference: the test's p values against enumeration and simulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from memory_rl.analysis.reference import Placement, Reference, place, shipped

EPISODES = np.array([4, 8, 16, 32])


def climbing(runs: int, seed: int, pace: float = 1.0) -> np.ndarray:
    """(runs, 4) curves that jump from 0 to 6 bits after an exponential time of mean 12 / pace."""
    times = np.random.default_rng(seed).exponential(12 / pace, runs)
    return np.where(times[:, None] <= EPISODES, 6.0, 0.0)


def enumerated(reference: np.ndarray, ours: np.ndarray) -> float:
    """The share of all choices of n rows that deviate at least as far, written anew."""
    rows = np.vstack([ours, reference])
    spread = [max(np.std(column, ddof=1), 0.05) for column in rows.T]
    found = []
    for chosen in combinations(range(len(rows)), len(ours)):
        others = [row for row in range(len(rows)) if row not in chosen]
        apart = rows[list(chosen)].mean(axis=0) - rows[others].mean(axis=0)
        found.append(max(abs(apart) / spread))
    return sum(value >= found[0] - 1e-12 for value in found) / len(found)


@pytest.mark.parametrize("runs", [1, 3])
def test_p_is_that_of_all_choices(runs):
    reference = np.random.default_rng(0).normal(size=(12, 4)).cumsum(axis=1)
    ours = np.random.default_rng(1).normal(0.5, size=(runs, 4)).cumsum(axis=1)
    found = place(Reference({}, EPISODES, reference), ours)
    assert found.p == pytest.approx(enumerated(reference, ours), abs=0 if runs == 1 else 0.02)


@pytest.mark.parametrize(("runs", "experiments"), [(1, 400), (16, 200)])
def test_sound_runs_lie_outside_as_seldom_as_is_said(runs, experiments):
    """p <= 0.1 has a chance of 0.1 (a little less with ties); the bound is that of 4 standard errors."""
    seldom = 0
    for seed in range(experiments):
        reference = Reference({}, EPISODES, climbing(64, 2 * seed))
        seldom += place(reference, climbing(runs, 2 * seed + 1)).p <= 0.1
    assert seldom / experiments < 0.1 + 4 * np.sqrt(0.09 / experiments)


def test_runs_of_half_the_pace_lie_below():
    found = place(Reference({}, EPISODES, climbing(128, 0)), climbing(32, 1, pace=0.4))
    assert not found.inside
    assert found.bits < -0.5


def test_a_run_that_never_learns_lies_outside_and_where_it_ended_nothing_is_compared():
    reference = Reference({}, EPISODES, np.tile([0.0, 1, 3, 6], (128, 1)) + np.linspace(0, 0.2, 128)[:, None])
    still = np.array([[0.0, 0.0, 0.0, np.nan]])
    found = place(reference, still)
    assert (found.p, found.inside, found.episode) == (1 / 129, False, 16)
    assert found.bits == pytest.approx(-3.1)


def test_the_band_is_that_of_ninety_percent():
    bits = np.tile(np.arange(101.0)[:, None], (1, 4))
    band = Reference({}, EPISODES, bits).band()
    assert band.row(2) == (16, 5.0, 50.0, 95.0)


def test_every_shipped_reference_has_enough_runs_and_ends_knowing_nearly_all():
    references = shipped()
    assert {reference.settings["N"] for reference in references} == {16, 64}
    for reference in references:
        assert len(reference.bits) >= 64
        assert (np.diff(reference.episodes) > 0).all()
        assert not np.isnan(reference.bits).any()
        median = reference.band()["median"]
        assert median[0] < median[-1] > np.log2(reference.settings["N"]) - 0.1


def test_each_shipped_run_is_inside_its_own_reference_as_often_as_it_should():
    """Each of the first 20 runs against the others of its estimator: at most one beyond p = 0.01."""
    reference = shipped()[0]
    outside = 0
    for run in range(20):
        others = Reference({}, reference.episodes, np.delete(reference.bits, run, axis=0))
        outside += not place(others, reference.bits[run : run + 1]).inside
    assert outside <= 1


def test_inside_means_that_chance_is_not_excluded():
    assert Placement(1, 128, 0.01, 4, 0.0).inside
    assert not Placement(1, 128, 0.0078, 4, 0.0).inside
