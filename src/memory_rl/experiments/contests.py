"""A fair contest: learners and step sizes compete in rounds on tuning secrets and bases.

Each round measures what is left of the candidates on more runs and keeps the best of them (successive
halving; Jamieson and Talwalkar 2016). What is next follows from what is on disk alone: whoever starts the
same sweep again asks the same questions, and finds the answers there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

from memory_rl.analysis.samples import fits
from memory_rl.catalogue import KEEP, learner_keys
from memory_rl.config import BUILT_IN
from memory_rl.errors import ConfigError
from memory_rl.experiments.found import Found
from memory_rl.experiments.grid import GridCell, check_count, make_cell, merge
from memory_rl.experiments.halving import Halving, Round, Share, spread
from memory_rl.experiments.races import (
    Entrance,
    Race,
    Standing,
    Winner,
    behind,
    in_order,
    rounded,
    standing_of,
)
from memory_rl.experiments.settings import Tuning, cell_keys
from memory_rl.experiments.tuning import Contest, Settled, check_secrets, make_contests, why_incomplete
from memory_rl.files import Json
from memory_rl.keys import shown

_NOT_APART = KEEP | {"seed", "base_seed", "learning_rate", "num_runs"}
_OF_SIZE = {"N", "max_episodes", "evaluate_every", "scoring", "skip_ahead"}
"""Keys in which cells may differ whose learner is chosen on one of them."""


@dataclass(frozen=True)
class Halved:
    """A contest of learners and step sizes in rounds.

    Attributes:
        reported: the cells that will be reported with what it chooses.
        tuning: how.
        leader: the contest that chooses learner and group size for this one; None if it does so itself.
    """

    reported: list[GridCell]
    tuning: Halving
    leader: Halved | None = None
    _made: dict[tuple[str, int], list[GridCell]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def own(self) -> GridCell:
        """The cell that is tuned on, as the package has it."""
        return self.reported[len(self.reported) // 2].without("role")

    @cached_property
    def arms(self) -> list[GridCell]:
        """That cell with each learner and group size that has a meaning in it."""
        rewarded, grouped = self.own.experiment.signal.signal == "reward", "group_size" in self.own.values
        learners: list[Json | None] = [*(self.tuning.every_learner() if rewarded else ())] or [None]
        sizes: list[int | None] = [*((self.tuning.group_size if grouped else None) or ())] or [None]
        return merge(_with_learner(self.own, learner, size) for learner in learners for size in sizes)

    @property
    def rounds(self) -> list[Round]:
        """Those of the tuning, or the one of step sizes alone."""
        return self.tuning.rounds if self.leader is None else self.tuning.round_of_steps

    @cached_property
    def shares(self) -> list[list[Share]]:
        """What runs each round adds; a model that is not made from a seed is one base."""
        seeded = "base_seed" in self.own.values and self.own.experiment.policy.model_name in BUILT_IN
        return spread(self.rounds, self.tuning.bases if seeded else None, self.tuning.seed)

    @property
    def _all(self) -> list[Entrance]:
        factors = self.tuning.factors if self.leader is None else _around(1.0)
        return [Entrance(arm, factor) for arm in self.arms for factor in factors]

    @property
    def opening(self) -> list[GridCell]:
        """The cells that it wants first, as long as nothing is known."""
        known = self._all if self.leader is None else []
        return merge(one.cells(self.shares[0])[0] for one in known)

    def at_most(self, cost: Callable[[GridCell], float], known: Container[str] = ()) -> list[GridCell]:
        """All cells that it takes at most if none is added at an edge, but for those that are known.

        Whoever stays, each round has no more to run than if those stayed that cost most in it.
        """
        costs = {one.name: cost(one.cells(self.shares[0])[0]) for one in self._all}
        left = len(self._all) if self.leader is None else len(_around(1.0))
        cells = list[GridCell]()
        for one, shares in zip(self.rounds, self.shares, strict=True):
            wanted = {
                entrant.name: [cell for cell in entrant.cells(shares) if not known or cell.id not in known]
                for entrant in self._all
            }
            order = sorted(wanted, key=lambda name: -costs[name] * sum(_runs(cell) for cell in wanted[name]))
            cells += [cell for name in order[:left] for cell in wanted[name]]
            left = one.keep
        return cells

    def race(self, found: Found) -> Race:
        """Plays it again from what is known, as far as that goes."""
        entrants = self._all
        if self.leader is not None:
            led = self.leader.race(found)
            if led.best is None:
                at = self.leader.own.values["N"]
                return Race(why=led.why and f"its learner was to be chosen at N={at}: {led.why}")
            one = led.tried[led.best]
            entrants = [Entrance(taught(self.own, one.arm), factor) for factor in _around(one.factor)]
        race = Race(began=sorted({one.factor for one in entrants}))
        left = race.enter(entrants)
        for number, this in enumerate(self.rounds, start=1):
            left = self._round(race, left, number, this.keep, found)
            if not left:
                return race
        race.best = left[0]
        return race

    def _cells(self, one: Entrance, number: int) -> list[GridCell]:
        """A candidate's cells up to a round, made once, since it takes longest to work out their ids."""
        if (one.name, number) not in self._made:
            shares = [share for shares in self.shares[:number] for share in shares]
            self._made[one.name, number] = one.cells(shares)
        return self._made[one.name, number]

    def _round(self, race: Race, left: list[str], number: int, keep: int, found: Found) -> list[str]:
        """Who stays; nobody where cells are wanted, or none can be chosen."""
        while True:
            cells = {name: self._cells(race.tried[name], number) for name in left}
            fit = {
                name: of for name, of in cells.items() if found.diverged.isdisjoint(cell.id for cell in of)
            }
            race.why = why_incomplete([cell.id for of in (fit or cells).values() for cell in of], found)
            race.wanted = [] if race.why else merge(next_of_round(fit, keep, found))
            ended = [
                cell
                for of in cells.values()
                for cell in of
                if cell.id in found.whys or found.times(cell) is not None
            ]
            race.asked += [*ended, *race.wanted]
            if race.why or race.wanted:
                return []
            now = {
                name: standing_of(race.tried[name], of[0].id, found.pooled(of)) for name, of in fit.items()
            }
            race.standings |= now
            order = in_order(now)
            wider = race.wider(order, keep) if self.tuning.widen else []
            if not wider:
                return order[:keep]
            left += race.enter(wider)

    def asked(self, found: Found) -> list[GridCell]:
        """All its cells so far, complete or not."""
        return self.race(found).asked

    def wanted(self, found: Found) -> list[GridCell]:
        """The cells to run next; none once it is over, or as long as another has to be."""
        return self.race(found).wanted

    def settle(self, found: Found, apart: Sequence[str]) -> Settled:
        """What came out, once no contest wants a cell."""
        race = self.race(found)
        if race.best is None:
            return Settled(self.reported, why=race.why or "its tuning is not complete")
        best = race.tried[race.best]
        cells = [taught(cell, best.arm).with_values(learning_rate=best.rate) for cell in self.reported]
        return Settled(cells, self._winner(race, best, race.standings[race.best], apart))

    def _winner(self, race: Race, best: Entrance, mine: Standing, apart: Sequence[str]) -> Winner:
        """What is said of it."""
        default = race.standings.get(Entrance(self.own, 1.0).name)
        values = self.reported[0].values
        return Winner(
            condition=self.own.experiment.condition,
            N=self.own.experiment.world.N,
            settings={key: values[key] for key in apart if key in values},
            **asdict(mine),
            untuned=self.own.experiment.own_step_size,
            default=None if default is None else asdict(default),
            candidates=len(race.tried),
            rounds=len(self.rounds),
            taken_from=None if self.leader is None else self.leader.own.values["N"],
            widened=len(race.factors(best.arm)) - len(race.began),
            at_edge=race.at_edge(best),
            decided=len({one.result for one in race.standings.values()}) > 1,
            scores=[asdict(one) for one in race.standings.values()],
        )


def next_of_round(candidates: Mapping[str, Sequence[GridCell]], keep: int, found: Found) -> list[GridCell]:
    """The cells of a round that are to be run next; none once it is certain which candidates stay.

    Each candidate gets one first; those with the fewest runs stuck get all of theirs. One of which so many
    are stuck that it could not stay if all its other runs memorised is not run on: who stays is the same as
    if it were.

    Args:
        candidates: the cells of each, up to this round.
        keep: how many of them stay.
        found: what is known of the cells.
    """
    left = {name: [cell for cell in of if found.times(cell) is None] for name, of in candidates.items()}
    unseen = [of[0] for name, of in candidates.items() if len(left[name]) == len(of)]
    if unseen:
        return unseen
    stuck = {name: _stuck_at_least(of, found) for name, of in candidates.items()}
    ended = [stuck[name] for name, cells in left.items() if not cells]
    best = min(ended, default=math.inf)

    def may_stay(share: float) -> bool:
        return not behind(share, best) or sum(one < share for one in ended) < keep

    open_ = {name: stuck[name] for name, cells in left.items() if cells and may_stay(stuck[name])}
    least = min(open_.values(), default=0.0)
    return [cell for name, share in open_.items() if not behind(share, least) for cell in left[name]]


def _stuck_at_least(cells: Sequence[GridCell], found: Found) -> float:
    """The share of all runs of a candidate that is stuck if those that are not known memorise."""
    stuck = int((~found.pooled(cells).memorised).sum())
    return stuck / sum(map(_runs, cells))


def _runs(cell: GridCell) -> int:
    return cell.experiment.stop.num_runs


def _around(factor: float) -> list[float]:
    """The factors that are tried where only the step size is chosen, about the one of the learner."""
    return [rounded(factor / 3), factor, rounded(factor * 3)]


def taught(cell: GridCell, arm: GridCell) -> GridCell:
    """A cell with the learner and group size of another."""
    words = {*learner_keys(), "group_size"}
    given = {word: value for word, value in arm.values.items() if word in words}
    return cell.without(*words).with_values(**given)


def _with_learner(cell: GridCell, learner: Json | None, size: int | None) -> GridCell:
    """A cell with another learner, where one is given, and another group size.

    Raises:
        ConfigError: if the learner cannot be run there.
    """
    words = {} if size is None else {"group_size": size}
    if learner is None:
        return cell.with_values(**words)
    values = {**cell.without(*learner_keys()).values, **learner, **words}
    return make_cell({word: str(value) for word, value in values.items() if value is not None})


def wanted_next(contests: Sequence[Contest | Halved], ran: Container[str], found: Found) -> list[GridCell]:
    """The cells of all contests that are to be run next, each once; none once every contest is over.

    Args:
        contests: of a sweep.
        ran: the ids of what this process ran, whatever came of it.
        found: what is known.
    """
    wanted = merge(cell for contest in contests for cell in contest.wanted(found))
    return [cell for cell in wanted if cell.id not in ran]


def make_all(cells: Sequence[GridCell], tuning: Tuning | Halving) -> list[Contest] | list[Halved]:
    """The contests among the cells that are tuned.

    Raises:
        ConfigError: one sentence about the first cell that cannot be tuned so.
    """
    tuned = [cell for cell in cells if cell.tuned]
    if isinstance(tuning, Tuning):
        return make_contests(tuned, tuning)
    check_reported(cells, tuning)
    return make_halved(tuned, tuning)


def make_halved(cells: Sequence[GridCell], tuning: Halving) -> list[Halved]:
    """A contest for each set of cells that differ in seeds, bases, runs and what is tuned together alone.

    Raises:
        ConfigError: if a cell brings what is to be chosen, its secrets or base would be those of the tuning,
            or there is no place where its learner is chosen.
    """
    groups: dict[str, list[GridCell]] = {}
    for cell in cells:
        _check(cell, tuning)
        groups.setdefault(_apart(cell, _NOT_APART.union(tuning.together or ())), []).append(cell)
    contests = [Halved(group, tuning) for group in groups.values()]
    if tuning.learner_on:
        contests = _led(contests, tuning)
    check_count(sum(len(contest.at_most(lambda _: 0.0)) for contest in contests))
    return contests


def _apart(cell: GridCell, but: Iterable[str]) -> str:
    keys = cell_keys().items()
    return json.dumps({word: cell.values.get(word, one.default) for word, one in keys if word not in but})


def _led(contests: Sequence[Halved], tuning: Halving) -> list[Halved]:
    families: dict[str, list[Halved]] = {}
    for contest in contests:
        but = _NOT_APART.union(_OF_SIZE, tuning.together or ())
        families.setdefault(_apart(contest.own, but), []).append(contest)
    leaders = {id(one): _leader(family, tuning) for family in families.values() for one in family}
    return [
        one if leaders[id(one)] is one else Halved(one.reported, tuning, leaders[id(one)]) for one in contests
    ]


def _leader(family: Sequence[Halved], tuning: Halving) -> Halved:
    for selection in tuning.learner_on or ():
        for contest in family:
            if any(fits(cell.values, selection) for cell in contest.reported):
                return contest
    raise ConfigError(
        f"tune: learner_on={shown(tuning.learner_on)} fits no cell like {family[0].own.id}: add such a "
        "cell, give another selection, or set tune: false in that entry."
    )


def _check(cell: GridCell, tuning: Halving) -> None:
    check_secrets(cell, tuning.seeds)
    keys, chosen = learner_keys(), ["group_size"] if tuning.group_size else []
    for word in [*(keys if tuning.learners else ()), *chosen]:
        default = cell_keys()[word].default
        if cell.values.get(word, default) != default:
            raise ConfigError(
                f"{word}={shown(cell.values[word])} of {cell.id} is what the tuning is to choose: leave it "
                "out, or set tune: false in that entry."
            )


def check_reported(cells: Iterable[GridCell], tuning: Halving) -> None:
    """Raises a ConfigError if a cell is reported on a base or a seed of the tuning, whether tuned or not."""
    for cell in cells:
        check_secrets(cell, tuning.seeds, rated=True)
        base = cell.values.get("base_seed")
        if base in (tuning.bases or ()):
            raise ConfigError(
                f"base_seed={base} of {cell.id} is one of the bases of the tuning, which must be others: "
                "give another base_seed, or other bases."
            )
