"""A race of candidates: how each did on its runs so far, which of them stay, and where factors are widened.

How many runs each has, and on which secrets, is for `memory_rl.experiments.contests`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from memory_rl.analysis.survival import MemorisationTimes, bits_per_episode, median_episodes
from memory_rl.experiments.grid import GridCell
from memory_rl.experiments.halving import Share
from memory_rl.files import Json

MOST_BEYOND = 4
"""How often the factors of a learner are widened at either end."""

SLACK = 1 / 16
"""So much more of the runs may be stuck than of the best, for medians to be compared."""


@dataclass(frozen=True)
class Entrance:
    """One candidate of a contest.

    Attributes:
        arm: the cell that it is tuned on, with its learner and group size.
        factor: of the step size that this has by itself.
    """

    arm: GridCell
    factor: float

    @property
    def name(self) -> str:
        """What tells it apart from all others of its contest."""
        return f"{self.arm.id} x {self.factor:g}"

    @property
    def rate(self) -> float:
        """Its step size."""
        return float(f"{self.factor * self.arm.experiment.own_step_size:.6g}")

    def cells(self, shares: Iterable[Share]) -> list[GridCell]:
        """Its cells on these runs."""
        return [
            self.arm.with_values(
                learning_rate=self.rate,
                num_runs=share.num_runs,
                seed=share.seed,
                figures=False,
                **({} if share.base_seed is None else {"base_seed": share.base_seed}),
            )
            for share in shares
        ]


@dataclass(frozen=True)
class Standing:
    """How a candidate did on all its runs so far.

    Attributes:
        learner: its name; "" without one.
        group_size: None without groups.
        id: of its first cell.
        stuck: the share of the runs that had not memorised when their budget was spent.
        median: of the episodes to memorise (Kaplan-Meier); None if most are stuck.
        bits_per_episode: None if every run knew its secret before it started.
    """

    learner: str
    group_size: int | None
    factor: float
    learning_rate: float
    id: str
    runs: int
    stuck: float
    median: float | None
    bits_per_episode: float | None

    @property
    def result(self) -> tuple[float, float, float]:
        """What it is compared by, less is better."""
        median = math.inf if self.median is None else self.median
        rate = math.inf if self.bits_per_episode is None else self.bits_per_episode
        return median, self.stuck, -rate


def in_order(standings: Mapping[str, Standing]) -> list[str]:
    """The names of candidates, the best first.

    Those of which at most `SLACK` more is stuck than of the best are compared by median, then by the share
    stuck, the bits per episode and the step size, of which the smaller is better; all others come after them,
    by the share stuck and then the same.
    """
    least = min((one.stuck for one in standings.values()), default=0.0)

    def place(name: str) -> tuple[float, ...]:
        one = standings[name]
        late = behind(one.stuck, least)
        return late, one.stuck * late, *one.result, one.learning_rate

    return sorted(standings, key=place)


def behind(stuck: float, least: float) -> bool:
    """Whether so many more are stuck than the least of any candidate that medians are not compared."""
    return stuck > least + SLACK + 1e-9


@dataclass(frozen=True)
class Winner:
    """What a contest chose.

    Attributes:
        condition: its name.
        N: the size of the secret space.
        settings: what else sets it apart from other contests, by key.
        learner, group_size, factor, learning_rate, id, runs, stuck, median, bits_per_episode: of the best.
        untuned: the step size that the cell has by itself.
        default: the same of the candidate that is the cell as the package has it, on the runs that it had;
            None if there is none, or it diverged.
        candidates: how many there were, with those that diverged.
        rounds: how many.
        taken_from: the N where learner and group size were chosen; None if here.
        widened: how many factors were added to those of the best one's learner.
        at_edge: whether the best has the least or the greatest of them, so that a better one may lie beyond.
        decided: whether any candidate did better than any other.
        scores: of all that did not diverge, on all the runs that each had.
    """

    condition: str
    N: int
    settings: Json
    learner: str
    group_size: int | None
    factor: float
    learning_rate: float
    id: str
    runs: int
    stuck: float
    median: float | None
    bits_per_episode: float | None
    untuned: float
    default: Json | None
    candidates: int
    rounds: int
    taken_from: int | None
    widened: int
    at_edge: bool
    decided: bool
    scores: list[Json]


@dataclass
class Race:
    """A contest as far as it has come.

    Attributes:
        began: the factors that every learner begins with, ascending.
        asked: the cells of all candidates so far, complete or not.
        wanted: the cells to run next; none where it is over, or waits for another contest.
        why: it cannot be decided, if so.
        best: the name of the one that won, if it is over.
        tried: all candidates, by name.
        standings: of those that did not diverge, on all the runs that each had.
    """

    began: Sequence[float] = ()
    asked: list[GridCell] = field(default_factory=list)
    wanted: list[GridCell] = field(default_factory=list)
    why: str | None = None
    best: str | None = None
    tried: dict[str, Entrance] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)

    def enter(self, entrants: Iterable[Entrance]) -> list[str]:
        """Adds candidates and returns their names."""
        new = {one.name: one for one in entrants}
        self.tried |= new
        return [*new]

    def factors(self, arm: GridCell) -> list[float]:
        """Those that were tried of a learner and group size, ascending."""
        return sorted(one.factor for one in self.tried.values() if one.arm.id == arm.id)

    def beyond(self, one: Entrance) -> float | None:
        """The factor after a candidate's where it is at the edge; None if not, or widened enough."""
        factors, first = self.factors(one.arm), self.began
        if one.factor == factors[-1]:
            ratio, added = first[-1] / first[-2], sum(other > first[-1] for other in factors)
        elif one.factor == factors[0]:
            ratio, added = first[0] / first[1], sum(other < first[0] for other in factors)
        else:
            return None
        beyond = rounded(one.factor * ratio)  # of factors that nearly agree it may be one of them
        return beyond if added < MOST_BEYOND and beyond not in factors else None

    def at_edge(self, one: Entrance) -> bool:
        """Whether a candidate has the least or the greatest factor that was tried of its learner."""
        factors = self.factors(one.arm)
        return one.factor in (factors[0], factors[-1])

    def wider(self, order: Sequence[str], keep: int) -> list[Entrance]:
        """The next factor beyond for each that stays, is the best of its learner's, and lies at their edge.

        Where all of a learner's did the same, or none memorised, there is no direction to go.
        """
        found, seen = list[Entrance](), set[str]()
        for name in order[:keep]:
            one, mine = self.tried[name], self.standings[name]
            others = [other for other in order if self.tried[other].arm.id == one.arm.id and other != name]
            told = not others or any(self.standings[other].result != mine.result for other in others)
            beyond = None if one.arm.id in seen else self.beyond(one)
            if beyond is not None and told and mine.stuck < 1:
                found.append(Entrance(one.arm, beyond))
            seen.add(one.arm.id)
        return found


def standing_of(one: Entrance, name: str, times: MemorisationTimes) -> Standing:
    """How a candidate did.

    Args:
        one: the candidate.
        name: the id of its first cell.
        times: of all its runs.
    """
    return Standing(
        learner=one.arm.learner,
        group_size=one.arm.values.get("group_size"),
        factor=one.factor,
        learning_rate=one.rate,
        id=name,
        runs=len(times.episodes),
        stuck=1 - float(times.memorised.mean()),
        median=median_episodes(times).value,
        bits_per_episode=bits_per_episode(times, one.arm.experiment.bits).value,
    )


def rounded(factor: float) -> float:
    """A factor as it is shown."""
    return float(f"{factor:.3g}")
