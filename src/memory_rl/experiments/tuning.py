"""Fair comparison: the learning rate of each condition is chosen on secrets of its own, and reported on fresh
ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memory_rl.analysis.selections import fits
from memory_rl.errors import ConfigError
from memory_rl.experiments.grid import Cell
from memory_rl.experiments.settings import Tuning

_NOT_TUNED_APART = ("seed", "learning_rate", "num_runs", "threads")


@dataclass(frozen=True)
class Contest:
    """One condition and N whose rate is to be chosen.

    Attributes:
        reported: the cells that will be reported with it.
        candidates: a cell for each rate, ascending, on the tuning secrets.
    """

    reported: list[Cell]
    candidates: list[Cell]


@dataclass(frozen=True)
class Score:
    """How a candidate did on the tuning secrets; bits_per_episode is None if every run knew its secret before
    it began.
    """

    learning_rate: float
    id: str
    bits_per_episode: float | None
    restricted_mean: float
    stored: float | None = None

    @property
    def rank(self) -> tuple[float, float, float]:
        """Greater is better: bits per episode, then fewer episodes, then more bits known at the end, where
        there are several secrets.
        """
        return (
            float("inf") if self.bits_per_episode is None else self.bits_per_episode,
            -self.restricted_mean,
            self.stored or 0.0,
        )


@dataclass(frozen=True)
class Choice:
    """The rate of a condition and N.

    Attributes:
        condition: its name.
        N: the size of the secret space.
        learning_rate: the best candidate's.
        at_edge: whether that is the least or the greatest candidate, so that a better one may lie beyond.
        decided: whether any candidate did better than any other.
        scores: of all candidates, ascending in their rates.
    """

    condition: str
    N: int
    learning_rate: float
    at_edge: bool
    decided: bool
    scores: list[Score]

    def as_dict(self) -> dict[str, Any]:
        """For summary.json."""
        return asdict(self)


def make_contests(cells: Sequence[Cell], tuning: Tuning) -> list[Contest]:
    """A contest for each set of cells that differ in their seeds and numbers of runs alone, and in the keys
    that are tuned together.

    Raises:
        ConfigError: if a cell brings its own rate, or its secrets would be those of the tuning.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        _check(cell, tuning)
        world = {
            key: value
            for key, value in cell.values.items()
            if key not in (*_NOT_TUNED_APART, *tuning.together)
        }
        groups.setdefault(json.dumps([cell.command, world], sort_keys=True), []).append(cell)
    return [Contest(group, _candidates(_tuned_on(group, tuning), tuning)) for group in groups.values()]


def _check(cell: Cell, tuning: Tuning) -> None:
    config = cell.config
    if config.learning_rate is not None:
        raise ConfigError(
            f"learning_rate={config.learning_rate:g} of {cell.id} leaves nothing to tune: give the candidates as the rates of the tuning instead."
        )
    if config.seed == tuning.seed:
        raise ConfigError(
            f"seed={config.seed} of {cell.id} is the seed of the tuning, whose secrets must be others: give another seed, or another tuning seed."
        )
    if config.fixed_secret is not None:
        raise ConfigError(
            f"fixed_secret={config.fixed_secret} of {cell.id} would be tuned and reported on the same secret: leave fixed_secret or the tuning out."
        )


def _tuned_on(group: Sequence[Cell], tuning: Tuning) -> Cell:
    for selection in tuning.chosen_on:
        for cell in group:
            if fits(cell.values, selection):
                return cell
    return group[len(group) // 2]


def _candidates(cell: Cell, tuning: Tuning) -> list[Cell]:
    rates = tuning.rates or tuple(float(f"{factor * cell.config.step_size:.6g}") for factor in tuning.factors)
    num_runs = tuning.num_runs or cell.config.num_runs
    return [cell.with_values(learning_rate=rate, seed=tuning.seed, num_runs=num_runs) for rate in rates]


def choose(contest: Contest, summaries: Mapping[str, Mapping[str, Any]]) -> Choice:
    """The candidate with the most bits per episode; of equals the one with the least restricted mean of
    episodes, the most bits stored, then the least rate.

    Args:
        contest: what is compared.
        summaries: of each candidate by its id, as in its summary.json.
    """
    scores = [_score(cell, summaries[cell.id]) for cell in contest.candidates]
    best = max(scores, key=lambda score: score.rank)
    config = contest.reported[0].config
    at_edge = best.learning_rate in (scores[0].learning_rate, scores[-1].learning_rate)
    return Choice(
        config.condition,
        config.N,
        best.learning_rate,
        at_edge,
        len({score.rank for score in scores}) > 1,
        scores,
    )


def _score(cell: Cell, summary: Mapping[str, Any]) -> Score:
    episodes, rate = summary["episodes_to_memorise"], summary["bits_per_episode"]
    return Score(
        cell.config.step_size,
        cell.id,
        rate["estimate"],
        episodes["restricted_mean"],
        summary.get("stored", {}).get("estimate"),
    )


def with_rates(contests: Sequence[Contest], choices: Sequence[Choice]) -> list[Cell]:
    """The reported cells with the rates that were chosen for them."""
    return [
        cell.with_values(learning_rate=choice.learning_rate)
        for contest, choice in zip(contests, choices, strict=True)
        for cell in contest.reported
    ]
