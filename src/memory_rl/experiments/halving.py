"""The keys of a contest: which learners and step sizes compete, and in which rounds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from memory_rl.analysis.entries import Holds, a_selection, list_of, or_none, read, within
from memory_rl.analysis.protocol import a_learner
from memory_rl.catalogue import learner_keys
from memory_rl.errors import ConfigError, suggest
from memory_rl.experiments.settings import TUNING_SEED, Tuning, cell_keys, read_tuning
from memory_rl.files import Json
from memory_rl.keys import Key, accept, read_selection, shown
from memory_rl.limits import FACTORS, RUNS, SEEDS, SIZES

MIN_RUNS_OF_A_BASE = 8
"""A round uses as many bases as give each at least so many runs."""


class Round(NamedTuple):
    """How many runs each of its candidates has in all, and how many of these stay."""

    num_runs: int
    keep: int = 1


class Share(NamedTuple):
    """The runs that a round adds on one base; base_seed is None where there is nothing to seed."""

    base_seed: int | None
    seed: int
    num_runs: int


_RUNS = within(*RUNS, int)
_EXAMPLE = "[{num_runs: 16, keep: 3}, {num_runs: 64}]"
_ROUNDS = (
    f"rounds with more and more runs, of which all but the last keep fewer and fewer, such as {_EXAMPLE}"
)


def _a_round(value: Any) -> Round:
    if not isinstance(value, dict) or not {"num_runs"} <= value.keys() <= {"num_runs", "keep"}:
        raise ValueError
    return Round(_RUNS(value["num_runs"]), int(within(1, SIZES[1], int)(value.get("keep", 1))))


def _the_rounds(value: Any) -> list[Round]:
    rounds: list[Round] = list_of(_a_round)(value)
    grows = all(one.num_runs < other.num_runs for one, other in itertools.pairwise(rounds))
    shrinks = all(one.keep > other.keep for one, other in itertools.pairwise(rounds))
    if not (grows and shrinks and rounds[-1].keep == 1 and all("keep" in one for one in value[:-1])):
        raise ValueError
    return rounds


def _different(reader: Any, least: int = 1) -> Any:
    """A reader of a list of different values, ascending."""

    def read_all(value: Any) -> list[Any]:
        found = list_of(reader, least)(value)
        if len(set(found)) < len(found):
            raise ValueError
        return sorted(found)

    return read_all


def _a_truth(value: Any) -> bool:
    return bool(accept(Key("widen", "", bool, False, ""), value))


_Selections = Annotated[
    list[Json] | None, Holds(or_none(list_of(a_selection)), "a list of selections, such as [{N: 64}]")
]


@dataclass(frozen=True, kw_only=True)
class Halving:
    """How learner, group size and step size are chosen by successive halving.

    Attributes:
        rounds: of more and more runs and fewer and fewer candidates.
        factors: of the step size that a candidate has by itself, ascending.
        learners: keys of each; None where each cell keeps its own.
        group_size: None where each cell keeps its own.
        widen: whether the best candidate at the edge of its factors brings the next one beyond.
        bases: values of base_seed over which the runs are spread; None leaves each cell its own.
        learner_on: selections: where learner and group size are chosen, for all cells that differ in N alone.
        step_runs: of each candidate where the step size alone is chosen; None for those of the last round.
        seed: the first of the tuning seeds.
        together: keys: cells that differ in them alone share one choice.
    """

    rounds: Annotated[list[Round], Holds(_the_rounds, _ROUNDS)]
    factors: Annotated[
        list[float],
        Holds(_different(within(*FACTORS), 2), "two or more different factors, such as [0.3, 1, 3, 10]"),
    ] = field(default_factory=lambda: [0.3, 1.0, 3.0, 10.0])
    learners: Annotated[
        list[Json] | None,
        Holds(or_none(list_of(a_learner)), "a list of learners, such as [{algorithm: ppo}]"),
    ] = None
    group_size: Annotated[
        list[int] | None, Holds(or_none(_different(within(*SIZES, int))), "group sizes, such as [4, 16]")
    ] = None
    widen: Annotated[bool, Holds(_a_truth, "true or false")] = False
    bases: Annotated[
        list[int] | None,
        Holds(or_none(_different(within(*SEEDS, int))), "different values of base_seed, such as [100, 101]"),
    ] = None
    learner_on: _Selections = None
    step_runs: Annotated[int | None, Holds(or_none(_RUNS), "a number of runs, such as 64")] = None
    seed: Annotated[int, Holds(within(*SEEDS, int), f"a seed, such as {TUNING_SEED}")] = TUNING_SEED
    together: Annotated[
        list[str] | None, Holds(or_none(list_of(str)), "a list of keys, such as [credit]")
    ] = None

    def every_learner(self) -> list[Json]:
        """The learners, each list of values taken one by one."""
        return [
            dict(zip(learner, values, strict=True))
            for learner in self.learners or []
            for values in itertools.product(
                *(value if isinstance(value, list) else [value] for value in learner.values())
            )
        ]

    @property
    def seeds(self) -> range:
        """The tuning seeds: one for each round and base, so that no two share their secrets."""
        return range(self.seed, self.seed + len(self.rounds) * len(self.bases or [None]))

    @property
    def round_of_steps(self) -> list[Round]:
        """The one round in which the step size alone is chosen."""
        return [Round(self.step_runs or self.rounds[-1].num_runs)]


def read_tune(values: Mapping[str, Any]) -> Tuning | Halving:
    """The tuning of a protocol or a grid file: in rounds if it has some.

    Raises:
        ConfigError: one sentence about the first key that is unknown or bad.
    """
    if "rounds" in values:
        return read_halving(values)
    refuse_keys_of_rounds(values)
    return read_tuning(dict(values))


def read_halving(values: Mapping[str, Any]) -> Halving:
    """The keys of a contest.

    Raises:
        ConfigError: one sentence about the first that is unknown, missing or bad.
    """
    halving = read(Halving, dict(values), "tune")
    for words, known, things in (
        ([word for learner in halving.learners or [] for word in learner], learner_keys(), "learners"),
        ([word for selection in halving.learner_on or [] for word in selection], cell_keys(), "learner_on"),
        (halving.together or [], cell_keys(), "together"),
    ):
        for word in words:
            if word not in known:
                raise ConfigError(f"tune: {things} has {word}, which is no key there: {suggest(word, known)}")
    if halving.seeds[-1] > SEEDS[1]:
        raise ConfigError(f"tune: seed={halving.seed} leaves no seeds for all rounds: give a smaller one.")
    try:
        selections = [read_selection(cell_keys(), one) for one in halving.learner_on or []]
    except ConfigError as error:
        raise ConfigError(f"tune: learner_on: {error}") from None
    object.__setattr__(halving, "learner_on", selections or None)
    return halving


def refuse_keys_of_rounds(values: Mapping[str, Any]) -> None:
    """Raises a ConfigError about the first key that has a meaning in rounds alone."""
    for word in ("learners", "group_size", "widen", "bases", "learner_on", "step_runs"):
        if word in values:
            raise ConfigError(
                f"tune: {word}={shown(values[word])} belongs to a tuning in rounds: add rounds, such as "
                f"{_EXAMPLE}, or leave {word} out."
            )


def spread(rounds: Sequence[Round], bases: Sequence[int] | None, seed: int) -> list[list[Share]]:
    """What each round adds, so that the runs so far are spread over its bases as evenly as can be.

    Args:
        rounds: with the runs of each in all.
        bases: or None, where one share has all runs.
        seed: the first; each share has its own.
    """
    places: Sequence[int | None] = bases or [None]
    have, shares = [0] * len(places), list[list[Share]]()
    for number, one in enumerate(rounds):
        used = range(max(1, min(len(places), one.num_runs // MIN_RUNS_OF_A_BASE)))
        before = [*have]
        for _ in range(one.num_runs - sum(have)):
            have[min(used, key=have.__getitem__)] += 1
        first = seed + number * len(places)
        shares.append(
            [Share(places[at], first + at, have[at] - before[at]) for at in used if have[at] > before[at]]
        )
    return shares
