"""Fair comparison: each learning rate is chosen on secrets of its own, and reported on fresh ones."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memory_rl.analysis.samples import fits
from memory_rl.catalogue import KEEP
from memory_rl.errors import ConfigError
from memory_rl.experiments.found import Found
from memory_rl.experiments.grid import GridCell, check_count
from memory_rl.experiments.settings import FACTORS, Tuning, cell_keys
from memory_rl.experiments.store import TUNING, SweepDirectory
from memory_rl.files import Json
from memory_rl.runs.store import SUMMARY

ALL_DIVERGED = "all candidate rates diverged"
"""How the reason begins why a cell has no rate, and so no runs."""

_NOT_TUNED_APART = KEEP | {"seed", "learning_rate", "num_runs"}


@dataclass(frozen=True)
class Contest:
    """One condition and N whose rate is to be chosen.

    Attributes:
        reported: the cells that will be reported with it.
        candidates: a cell for each rate, ascending, on the tuning secrets.
    """

    reported: list[GridCell]
    candidates: list[GridCell]

    def with_rate(self, rate: float) -> list[GridCell]:
        """The reported cells with the rate that was chosen."""
        return [cell.with_values(learning_rate=rate) for cell in self.reported]

    @property
    def opening(self) -> list[GridCell]:
        """The cells that it wants first: all of them."""
        return self.candidates

    def at_most(self, cost: object, known: object = ()) -> list[GridCell]:
        """All cells that it takes, whatever they cost."""
        return self.candidates

    def asked(self, found: Found) -> list[GridCell]:
        """All its cells."""
        return self.candidates

    def wanted(self, found: Found) -> list[GridCell]:
        """The cells to run after those of the opening: none."""
        return []

    def settle(self, found: Found, apart: Sequence[str]) -> Settled:
        """What came out; a candidate that diverged is none."""
        left = [cell for cell in self.candidates if cell.id not in found.diverged] or self.candidates
        why = why_incomplete([cell.id for cell in left], found)
        if why is not None:
            return Settled(self.reported, why=why)
        choice = choose(self, {cell.id: found.summary(cell) for cell in left}, apart)
        return Settled(self.with_rate(choice.learning_rate), choice)


@dataclass(frozen=True)
class Settled:
    """What came out of a contest.

    Attributes:
        cells: to be reported, with what was chosen.
        choice: what is said of it; None if it could not be decided.
        why: it could not.
    """

    cells: list[GridCell]
    choice: Any = None
    why: str | None = None


def why_incomplete(ids: Sequence[str], found: Found) -> str | None:
    """Why these candidates cannot be compared: one failed, or all diverged; None if they can be."""
    failed = next((name for name in ids if name in found.whys), None)
    if failed is None:
        return None
    if failed in found.diverged:
        return f"{ALL_DIVERGED} (of {failed}: {found.whys[failed]})"
    return f"its tuning is not complete: {failed} failed ({found.whys[failed]})"


@dataclass(frozen=True)
class Score:
    """How a candidate did on the tuning secrets.

    Attributes:
        bits_per_episode: None if every run knew its secret before it started.
        restricted_mean: of the episodes to memorise.
        stored: bits known at the end, where there are several secrets.
    """

    learning_rate: float
    id: str
    bits_per_episode: float | None
    restricted_mean: float
    stored: float | None = None

    @property
    def rank(self) -> tuple[float, float, float]:
        """Greater is better: bits per episode, then fewer episodes, then more bits stored."""
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
        settings: what else sets it apart from other choices, by key.
        learning_rate: the best candidate's.
        untuned: the one that it has without tuning, which need not be a candidate.
        at_edge: whether that is the least or the greatest candidate, so that a better one may lie beyond.
        decided: whether any candidate did better than any other.
        scores: of all candidates that did not diverge, ascending in their rates.
    """

    condition: str
    N: int
    settings: Json
    learning_rate: float
    untuned: float
    at_edge: bool
    decided: bool
    scores: list[Score]


def make_contests(cells: Sequence[GridCell], tuning: Tuning) -> list[Contest]:
    """A contest for each set of cells that differ in seeds, runs and the keys that are tuned together alone.

    Raises:
        ConfigError: if a cell brings its own rate, or its secrets would be those of the tuning.
    """
    groups: dict[str, list[GridCell]] = {}
    for cell in cells:
        check_secrets(cell, (tuning.seed,))
        apart = {
            word: cell.values.get(word, one.default)
            for word, one in cell_keys().items()
            if word not in _NOT_TUNED_APART.union(tuning.together or ())
        }
        groups.setdefault(json.dumps(apart), []).append(cell)
    check_count(len(groups) * len(tuning.rates or tuning.factors or FACTORS))
    return [Contest(group, _candidates(_tuned_on(group, tuning), tuning)) for group in groups.values()]


def check_secrets(cell: GridCell, seeds: Container[int], *, rated: bool = False) -> None:
    """Refuses a cell whose secrets would be those of the tuning, or, unless it may, that brings its own rate.

    Raises:
        ConfigError: one sentence that names the cell.
    """
    rate, world = cell.experiment.updates.learning_rate, cell.experiment.world
    if rate is not None and not rated:
        raise ConfigError(
            f"learning_rate={rate:g} of {cell.id} leaves nothing to tune: "
            "give the candidates as the rates of the tuning instead."
        )
    if world.seed in seeds:
        raise ConfigError(
            f"seed={world.seed} of {cell.id} is the seed of the tuning, whose secrets must be others: "
            "give another seed, or another tuning seed."
        )
    if world.fixed_secret is not None and not rated:
        raise ConfigError(
            f"fixed_secret={world.fixed_secret} of {cell.id} would be tuned and reported on the same secret: "
            "leave fixed_secret or the tuning out."
        )


def _tuned_on(group: Sequence[GridCell], tuning: Tuning) -> GridCell:
    for selection in tuning.chosen_on or ():
        for cell in group:
            if fits(cell.values, selection):
                return cell
    return group[len(group) // 2]


def _candidates(cell: GridCell, tuning: Tuning) -> list[GridCell]:
    own = cell.experiment.own_step_size
    rates = tuning.rates or [float(f"{factor * own:.6g}") for factor in tuning.factors or FACTORS]
    num_runs = tuning.num_runs or cell.experiment.stop.num_runs
    others = {"seed": tuning.seed, "num_runs": num_runs, "figures": False}
    return [cell.without("role").with_values(learning_rate=rate, **others) for rate in rates]


def choose(contest: Contest, summaries: Mapping[str, Json], apart: Sequence[str] = ()) -> Choice:
    """The candidate with the best `Score.rank`; of equals the one with the least rate.

    Args:
        contest: what is compared.
        summaries: of the candidates by id, as in summary.json; those that diverged have none.
        apart: the keys, beside the condition's, in which contests differ.
    """
    scores, rates = [], [cell.experiment.step_size for cell in contest.candidates]
    for cell in (cell for cell in contest.candidates if cell.id in summaries):
        summary = summaries[cell.id]
        rate, mean = summary["bits_per_episode"], summary["episodes_to_memorise"]["restricted_mean"]
        stored = summary.get("stored", {}).get("estimate")
        scores.append(Score(cell.experiment.step_size, cell.id, rate["estimate"], mean, stored))
    best = max(scores, key=lambda score: score.rank)
    experiment = contest.reported[0].experiment
    return Choice(
        experiment.condition,
        experiment.world.N,
        {key: contest.reported[0].values[key] for key in apart if key in contest.reported[0].values},
        best.learning_rate,
        experiment.own_step_size,
        best.learning_rate in (rates[0], rates[-1]),
        len({score.rank for score in scores}) > 1,
        scores,
    )


def candidates_of(cells: Sequence[GridCell], record: Json, directory: SweepDirectory) -> list[Json]:
    """For sweep.json: these candidates, after those that are complete of an earlier grid in its directory."""
    new = [cell.as_dict() for cell in cells]
    ids = {one["id"] for one in new}
    earlier = (one for one in record.get("tuning_cells", []) if one["id"] not in ids)
    return [*(one for one in earlier if directory.summary(f"{TUNING}/{one['id']}")), *new]


def choices_of(choices: Sequence[Any], tried: Sequence[GridCell], directory: SweepDirectory) -> list[Json]:
    """For summary.json: what was chosen, after what was chosen for an earlier grid in its directory.

    Args:
        choices: of all contests that are over.
        tried: all their candidates.
        directory: of the sweep.
    """
    ids = {cell.id for cell in tried}
    earlier = (directory.read_json(SUMMARY) or {}).get("tuning") or []
    kept = [one for one in earlier if ids.isdisjoint(score["id"] for score in one["scores"])]
    return [*kept, *map(asdict, choices)]
