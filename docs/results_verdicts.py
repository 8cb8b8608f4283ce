"""The verdicts of the study's protocols on each recipe of base, as the template of the results shows them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath
from typing import Any, NamedTuple

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.findings import join
from memory_rl.analysis.hypotheses import Hypothesis
from memory_rl.analysis.protocol import Protocol
from memory_rl.analysis.study_numbers import BEST, DEFAULT, RANK, TINY, StudyNumbers, recipe_of
from memory_rl.analysis.verdicts import Verdict, judge
from memory_rl.experiments.grid import cells_of_entries
from memory_rl.files import Json
from memory_rl.reporting.values import counted

_WORDS = {"supported": "supported", "refuted": "**refuted**", "inconclusive": "inconclusive"}

_ROLES = {DEFAULT: "With the default learner, ", BEST: "With the best learner that was found, "}
"""How claims at a role begin, by the end of their names."""


DECIDING = ("H2-default", "H3-step-default", "H2-best", "H3-step-best")
"""The hypotheses that are judged again, on each `BASES_AGAIN` bases that follow those of the study."""
BASES_AGAIN = 8


class Claim(NamedTuple):
    """A claim, and its verdict or those at both roles."""

    id: str
    claim: str
    verdicts: dict[str, Verdict]


@dataclass(frozen=True)
class Verdicts:
    """What the protocols' hypotheses came to.

    Attributes:
        numbers: of the study.
        protocol: of the built-in recipe of base.
        others: of other recipes; on one without its own the same tests are made.
        again: cells of other bases and secrets, for `DECIDING`.
    """

    numbers: StudyNumbers
    protocol: Protocol
    others: Sequence[Protocol] = ()
    again: Sequence[Cell] = ()

    @cached_property
    def lacking(self) -> str:
        """A sentence where the study is smaller than its protocols ask for; else empty."""
        begun = [one for one in self.others if _recipes_in(one) <= {*self.numbers.recipes}]
        protocols = (self.protocol, *begun)
        planned = sum(len(cells_of_entries(protocol.grid, {})) for protocol in protocols)
        there = sum(_role(cell) == DEFAULT for cell in self.numbers.cells)
        if there < planned:
            return (
                f"So far the study's files hold {there} of the {planned} experiments planned, as counted "
                "with the default learner: these numbers are of a part of it."
            )
        left = {", ".join(_recipes_in(one)): self._best(one) for one in protocols if one.beside}
        left = {name: counts for name, counts in left.items() if counts[0] < counts[1]}
        if left and all(there == 0 for there, _ in left.values()) and len(left) == len(protocols):
            return "The best learners are not measured yet: these numbers are of the default ones."
        none = [f"`{name}`" for name, (there, _) in left.items() if there == 0]
        some = [f"{there} of {all_} on `{name}`" for name, (there, all_) in left.items() if there]
        words = [f"Of the experiments of the best learners so far there are {join(some)}."] if some else []
        return " ".join([*words, *([f"The best learners are not measured on {join(none)}."] if none else [])])

    def _best(self, protocol: Protocol) -> tuple[int, int]:
        """How many experiments of the best learners there are, and are to be."""
        recipes = _recipes_in(protocol)
        cells = [cell for cell in self.numbers.cells if _role(cell) == BEST and recipe_of(cell) in recipes]
        return len(cells), sum(cell.tuned for cell in cells_of_entries(protocol.grid, {}))

    @cached_property
    def _judged(self) -> Mapping[str, Mapping[str, Verdict]]:
        return {recipe: self._judge(recipe) for recipe in self.numbers.recipes}

    def _judge(self, recipe: str) -> Mapping[str, Verdict]:
        """The verdicts on one recipe: of its own protocol, or else of the same tests at its N."""
        cells = [cell for cell in self.numbers.cells if recipe_of(cell) == recipe]
        own = [one for one in (self.protocol, *self.others) if _recipes_in(one) == {recipe}]
        protocol = own[0] if own else on_others(self.protocol, self.numbers.sizes(recipe))
        return {verdict.id: verdict for verdict in judge(protocol, cells)}

    def verdicts(self, starting: str = "", recipe: str = TINY) -> list[Verdict]:
        """Those of the hypotheses whose names start so, in the protocol's order."""
        of = rf"{starting}(?!\d)" if starting else ""
        return [one for name, one in self._judged[recipe].items() if re.match(of, name)]

    def verdict_of(self, name: str, recipe: str = TINY) -> str:
        """That of one hypothesis on a recipe, as a table shows it."""
        found = self._judged[recipe].get(name)
        return "not asked" if found is None else self.said(found)

    def alike(self, name: str) -> str:
        """Whether a verdict is the same on all recipes on which it could be judged."""
        found = [one[name] for one in self._judged.values() if name in one and one[name].p_holm is not None]
        judged = {one.verdict for one in found}
        if len(found) < 2:
            return "judged on one only" if judged else "not judged"
        if "inconclusive" in judged:
            return "undecided"
        return "yes" if len(judged) == 1 else "**no**"

    def said(self, verdict: Verdict) -> str:
        """The verdict as a table shows it; of what could not be judged, that it was not."""
        return "not judged" if verdict.p_holm is None else _WORDS[verdict.verdict]

    @cached_property
    def repeated(self) -> dict[str, list[Verdict]]:
        """By what other bases they are, the verdicts of `DECIDING` on them; empty if there are none."""
        decide = [one for one in self.protocol.hypotheses if one.id in DECIDING]
        groups: dict[int, list[Cell]] = {}
        for cell in self.again:
            groups.setdefault(int(cell.config["base_seed"]) // BASES_AGAIN, []).append(cell)
        return {
            f"bases {BASES_AGAIN * group} to {BASES_AGAIN * (group + 1) - 1}": judge(
                replace(self.protocol, hypotheses=decide), cells
            )
            for group, cells in sorted(groups.items())
        }

    @property
    def not_repeated(self) -> list[str]:
        """The names of `DECIDING` whose verdict is another somewhere."""
        here = self._judged[TINY]
        verdicts = [one for found in self.repeated.values() for one in found]
        return [
            one.id
            for one in here.values()
            if one.id in DECIDING
            and any(other.verdict != one.verdict for other in verdicts if other.id == one.id)
        ]

    @property
    def alike_or_not(self) -> dict[str, list[str]]:
        """By what `alike` says, the hypotheses of which it does."""
        found: dict[str, list[str]] = {}
        for one in self.verdicts():
            found.setdefault(self.alike(one.id).strip("*"), []).append(one.id)
        return found

    def measured(self, verdict: Verdict) -> str:
        """The sentence of its reason that compares the claim with what was measured, without the claim."""
        sentences = re.split(r"(?<=\.) (?=[A-Z])", self.reason(verdict))
        chosen = next((one for one in sentences if "; the claim" in one), sentences[0])
        return re.split("; the claim|; a factor of", chosen)[0].rstrip(".")

    def reason(self, verdict: Verdict) -> str:
        """Its reason without what is said of all samples here; of cells that lack runs, the first."""
        said = re.sub(rf",? (?:lora_rank={RANK}|model_name={TINY})(?![\w-])", "", verdict.reason)
        said = re.sub(r" (?:Intervals are for|Intervals are over|\d+ runs a side)[^.]*\.", "", said)
        lacking = said.count(f" of {self.protocol.minimum_runs} runs")
        if verdict.p_holm is None and lacking:
            return f"Not measured yet: {counted(lacking, 'condition')} that it needs."
        return said

    @property
    def claims(self) -> list[Claim]:
        """The hypotheses for a table: those at the default and at the best learner together."""
        found: dict[str, Claim] = {}
        for one in self.verdicts():
            name, role = one.id, ""
            for word in _ROLES:
                if one.id.endswith(f"-{word}"):
                    name, role = one.id.removesuffix(f"-{word}"), word
            claim = one.claim.removeprefix(_ROLES.get(role, "")).rstrip(".")
            entry = found.setdefault(name, Claim(name, claim[0].upper() + claim[1:], {}))
            entry.verdicts[role] = one
        return [*found.values()]

    def said_of(self, claim: Claim) -> str:
        """Its verdicts, by role where they differ."""
        words = {role: self.said(one) for role, one in claim.verdicts.items()}
        if len(words) == 1:
            return next(iter(words.values()))
        if len({*words.values()}) == 1:
            return f"{next(iter(words.values()))}, {' and '.join(words)}"
        return "; ".join(f"{role}: {word}" for role, word in words.items())

    def measured_of(self, claim: Claim) -> str:
        """What was measured, by role."""
        return "; ".join(
            f"{role}: {self.measured(one)}" if role else self.measured(one)
            for role, one in claim.verdicts.items()
        )


def _role(cell: Cell) -> str:
    return str(cell.settings.get("role", DEFAULT))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _recipes_in(protocol: Protocol) -> set[str]:
    names = [name for entry in protocol.grid for name in _listed(entry.get("model_name", TINY))]
    return {PurePath(str(name)).name for name in names}


_SELECTIONS = ("of", "to", "by", "cells")
"""The fields of hypotheses that select cells."""


def on_others(protocol: Protocol, sizes: Sequence[int]) -> Protocol:
    """The same tests for the cells of one other recipe, at those N that were measured on it."""

    def moved(selection: Json) -> Json:
        listed = {"N": _left(selection["N"], sizes)} if isinstance(selection.get("N"), list) else {}
        return {name: value for name, value in {**selection, **listed}.items() if name != "model_name"}

    return replace(protocol, hypotheses=[_selecting(one, moved, sizes) for one in protocol.hypotheses])


def _selecting(hypothesis: Hypothesis, change: Callable[[Json], Json], sizes: Sequence[int]) -> Hypothesis:
    changed: Json = {
        name: [*map(change, value)] if isinstance(value, list) else change(value)
        for name, value in vars(hypothesis).items()
        if name in _SELECTIONS
    }
    left = _left(getattr(hypothesis, "N", []), sizes)
    own = {"N": left} if left else {}
    return replace(hypothesis, **changed, **own)


def _left(wanted: Sequence[int], sizes: Sequence[int]) -> list[int]:
    return [N for N in wanted if N in sizes] or [*wanted]
