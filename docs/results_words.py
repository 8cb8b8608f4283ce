"""What the template of the results may ask: the numbers of the study as words, with 95 % intervals.

Words that depend on a number are chosen here or in the template by that number, so that no sentence can
contradict the files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

from memory_rl.analysis.bottleneck import PARTS, Split, closed, gap
from memory_rl.analysis.findings import ENOUGH_RUNS, join
from memory_rl.analysis.hypotheses import Hypothesis
from memory_rl.analysis.protocol import Protocol
from memory_rl.analysis.samples import CannotJudgeError, Sample
from memory_rl.analysis.statistics import Estimate
from memory_rl.analysis.study_numbers import BEST, DEFAULT, RANK, TINY, Place, StudyNumbers, loss_of, recipe_of
from memory_rl.analysis.survival import Normal, contrast, slope
from memory_rl.analysis.verdicts import Verdict, judge
from memory_rl.files import Json
from memory_rl.reporting.values import number

TITLES = {
    "sft": "the answer itself (SFT)",
    "told": "a teacher, told whole",
    "sampled": "a teacher, sampled",
    "per_bit": "a reward for each bit",
    "summed": "the bits' rewards summed",
    "binary": "hit or miss",
    "bins8": "distance in 8 levels",
    "log_distance": "log-distance",
    "noisy": "hit or miss, 5 % noise",
}
"""The signals, from what tells most on, and what they are called."""

SCALAR = ("summed", "binary", "noisy", "bins8", "log_distance")
"""Those that are one number an episode."""

UNKNOWN = "not measured"
STUCK_MUCH = 0.1
_WORDS = {"supported": "supported", "refuted": "**refuted**", "inconclusive": "inconclusive"}


def title_of(signal: str) -> str:
    """What a signal is called."""
    return TITLES.get(signal, signal.replace("bins", "distance in ") + " levels")


def two(estimate: Estimate) -> str:
    """A number to two digits with its interval; only the number where there is none."""
    if estimate.value is None:
        return UNKNOWN
    ends = f" [{number(estimate.low, 2)}, {number(estimate.high, 2)}]"
    return number(estimate.value, 2) + (ends if None not in (estimate.low, estimate.high) else "")


def percent(estimate: Estimate) -> str:
    """The same of a share in percent."""
    hundred = (None if part is None else 100 * part for part in vars(estimate).values())
    value, *ends = Estimate(*hundred).value, estimate.low, estimate.high
    if value is None:
        return UNKNOWN
    said = f"{number(value, 2)} %"
    return said if None in ends else f"{said} [{', '.join(number(100 * end, 2) for end in ends)}]"


@dataclass(frozen=True)
class Words:
    """The numbers of a study, for a template.

    Attributes:
        numbers: of its samples.
        protocol: whose hypotheses are judged.
        choices: what its contests chose.
    """

    numbers: StudyNumbers
    protocol: Protocol
    choices: Sequence[Json]

    def functions(self) -> Json:
        """All that a template may call, by name."""
        public = (name for name in dir(type(self)) if not name.startswith("_") and name != "functions")
        named: Json = {name: getattr(self, name) for name in public}
        return {**named, "title_of": title_of, "join": join, "titles": TITLES, "SCALAR": SCALAR}

    # Which samples there are

    def sample(
        self, signal: str, N: int, role: str = DEFAULT, recipe: str = TINY, rank: int = RANK
    ) -> Sample | None:
        """The sample of a place."""
        return self.numbers.get(Place(signal, N, role, recipe, rank))

    def has(self, signal: str, N: int, role: str = DEFAULT, recipe: str = TINY) -> bool:
        """Whether enough of its runs memorised to tell a rate."""
        sample = self.sample(signal, N, role, recipe)
        return sample is not None and sample.of_memorised is not None

    def signals(self, N: int | None = None, recipe: str = TINY) -> list[str]:
        """The signals of `TITLES` that were measured, in their order."""
        there = {place.signal for place in self.numbers.samples if place.recipe == recipe}
        at = {place.signal for place in self.numbers.samples if (place.recipe, place.N) == (recipe, N)}
        return [signal for signal in TITLES if signal in (there if N is None else at)]

    def levels(self, N: int) -> list[int]:
        """The numbers of levels that were measured at this N, ascending."""
        names = {place.signal for place in self.numbers.samples if place.N == N and place.recipe == TINY}
        return sorted(int(name.removeprefix("bins")) for name in names if name.startswith("bins"))

    def ranks(self, signal: str, N: int) -> list[int]:
        """The ranks of the adapters that were measured by default, ascending."""
        places = self.numbers.samples
        return sorted(one.rank for one in places if one[:4] == (signal, N, DEFAULT, TINY))

    @property
    def sizes(self) -> list[int]:
        """The N of the built-in base."""
        return self.numbers.sizes()

    @property
    def recipes(self) -> list[str]:
        """The recipes of base."""
        return self.numbers.recipes

    def sizes_of(self, recipe: str) -> list[int]:
        """The N of a recipe."""
        return self.numbers.sizes(recipe)

    # How much was measured

    @property
    def runs(self) -> str:
        """How many runs there are in all."""
        return f"{sum(sample.runs for sample in self.numbers.samples.values()):,}"

    @property
    def experiments(self) -> str:
        """How many experiments these are."""
        return f"{len(self.numbers.cells):,}"

    def bases(self, recipe: str = TINY) -> int:
        """The most bases that a sample of a recipe has."""
        return max(len(sample.bases) for place, sample in self.numbers.samples.items() if place.recipe == recipe)

    def runs_a_side(self, recipe: str = TINY) -> str:
        """The runs of a sample of a recipe."""
        found = sorted({sample.runs for place, sample in self.numbers.samples.items() if place.recipe == recipe})
        return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"

    @property
    def lacking(self) -> str:
        """A sentence where the study is smaller than its protocol asks for; else empty."""
        planned = sum(math.prod(len(each) for each in entry.values() if isinstance(each, list)) for entry in self.protocol.grid)
        there = sum(recipe_of(cell) == TINY and cell.config.get("role", DEFAULT) == DEFAULT for cell in self.numbers.cells)
        if there >= planned:
            return ""
        return (
            f"So far {there} of the {planned} experiments of the protocol are in the study's files with the "
            "default learner: these numbers are of a part of it."
        )

    # Numbers of one sample

    def _said(self, of: Callable[[Sample], Estimate], *place: Any, as_percent: bool = False, **more: Any) -> str:
        sample = self.sample(*place, **more)
        return UNKNOWN if sample is None else (percent if as_percent else two)(of(sample))

    def rate(self, *place: Any, **more: Any) -> str:
        """Bits an episode of the runs that memorised."""
        return self._said(lambda one: one.of_memorised.exp() if one.of_memorised else Estimate(None), *place, **more)

    def over_all(self, *place: Any, **more: Any) -> str:
        """Bits an episode over all runs, which the budget sets where some are stuck."""
        return self._said(lambda one: one.rate, *place, **more)

    def loss(self, of: str, *place: Any, **more: Any) -> str:
        """The factor lost in exploration or absorption."""
        return self._said(lambda one: loss_of(one, of), *place, **more)

    def ceiling(self, *place: Any, **more: Any) -> str:
        """The capacity of the channel, in bits an episode."""
        return self._said(lambda one: Estimate(one.ceilings["capacity"]), *place, **more)

    def asker(self, *place: Any, **more: Any) -> str:
        """The rate of the ideal questioner, in bits an episode."""
        return self._said(lambda one: Estimate(one.ceilings.get("ideal questioner")), *place, **more)

    def stuck(self, *place: Any, **more: Any) -> str:
        """The share of runs that is stuck; where none is, what so many runs could not have seen."""
        sample = self.sample(*place, **more)
        if sample is None:
            return UNKNOWN
        if sample.budget is None:
            return f"none of {sample.runs}, so under {number(100 * (sample.stuck.high or 0), 2)} %"
        return f"{percent(sample.stuck)} by {sample.budget:,} episodes"

    def gets_stuck(self, *place: Any, **more: Any) -> bool:
        """Whether more than a tenth of the runs is stuck."""
        sample = self.sample(*place, **more)
        return sample is not None and (sample.stuck.value or 0) > STUCK_MUCH

    def learner(self, *place: Any, **more: Any) -> str:
        """The learner, group size and step size of a sample."""
        sample = self.sample(*place, **more)
        if sample is None:
            return UNKNOWN
        keys = sample.first.settings
        group = f"groups of {keys['group_size']}" if keys.get("group_size") and keys.get("algorithm") else ""
        step = f"step {number(keys.get('learning_rate'), 2)}"
        return ", ".join(filter(None, (keys.get("algorithm"), group, step)))

    # Two samples

    def _rates(self, signals: Sequence[str], N: int, role: str, recipe: str) -> list[Normal] | None:
        found = [self.sample(signal, N, role, recipe) for signal in signals]
        rates = [sample.of_memorised for sample in found if sample is not None]
        return None if len(rates) < len(signals) or None in rates else rates  # type: ignore[return-value]

    def factor(self, fast: str, slow: str, N: int, role: str = DEFAULT, recipe: str = TINY) -> Estimate:
        """How many times as fast one signal is as another."""
        rates = self._rates((fast, slow), N, role, recipe)
        return Estimate(None) if rates is None else contrast(rates, [1, -1]).exp()

    def ratio(self, *of: Any, **more: Any) -> str:
        """The same, as words."""
        return two(self.factor(*of, **more))

    def word(self, factor: Estimate, above: str, below: str, between: str, at: float = 1.0) -> str:
        """One of three words: the interval lies above a number, below it, or holds it."""
        if factor.low is None or factor.high is None:
            return between
        return above if factor.low > at else below if factor.high < at else between

    def gain(self, signal: str, N: int, recipe: str = TINY) -> Estimate:
        """How many times as fast the best learner is as the default one."""
        both = (self.sample(signal, N, role, recipe) for role in (BEST, DEFAULT))
        rates = [sample.of_memorised for sample in both if sample and sample.of_memorised]
        return contrast(rates, [1, -1]).exp() if len(rates) == 2 else Estimate(None)

    def power(self, signal: str, role: str = DEFAULT, recipe: str = TINY) -> Estimate:
        """The exponent x of episodes ~ N^x of the runs that memorised, over all N of a recipe."""
        sizes = [N for N in self.sizes_of(recipe) if self.has(signal, N, role, recipe)]
        if len(sizes) < 2:
            return Estimate(None)
        rates = [rate for N in sizes if (rate := self.sample(signal, N, role, recipe).of_memorised)]  # type: ignore[union-attr]
        growth = contrast(rates, -slope(_logs(sizes))).plus(float(slope(_logs(sizes)) @ _logs(_logs(sizes))))
        return Estimate(growth.value, *growth.interval())

    def power_of(self, *of: Any, **more: Any) -> str:
        """The same, as words."""
        return two(self.power(*of, **more))

    # Gaps

    def split(self, slow: str, N: int, role: str = DEFAULT, recipe: str = TINY) -> Split | None:
        """The gap between SFT and a signal, in parts."""
        samples = [self.sample(signal, N, role, recipe) for signal in ("sft", slow)]
        try:
            return None if None in samples else gap(*samples)  # type: ignore[arg-type]
        except CannotJudgeError:
            return None

    def part(self, part: str, *of: Any, **more: Any) -> str:
        """The factor that a part makes of the gap between SFT and a signal."""
        return two(self.part_factor(part, *of, **more))

    def part_factor(self, part: str, *of: Any, **more: Any) -> Estimate:
        """The same, as a number; the channel's is computed, and has no interval."""
        split = self.split(*of, **more)
        if split is None:
            return Estimate(None)
        value = split.value(part)
        return Estimate(math.exp(value.value)) if part == "channel" else value.exp()

    def share(self, part: str, *of: Any, **more: Any) -> str:
        """The share of the gap's logarithm."""
        split = self.split(*of, **more)
        return UNKNOWN if split is None else percent(split.share(part))

    def main_part(self, *of: Any, **more: Any) -> str:
        """The part of a gap that is larger than both others beyond chance; "none" if there is none."""
        split = self.split(*of, **more)
        if split is None:
            return "none"
        first = max(PARTS, key=lambda part: split.value(part).value)
        others = (split.parts[first].minus(1, split.parts[one]).of(split.rates) for one in PARTS if one != first)
        return first if all(one.interval()[0] > 0 for one in others) else "none"

    def closes(self, signal: str, N: int, recipe: str = TINY) -> Estimate:
        """The share of the absorption loss, in logarithms, that the best learner closes."""
        samples = [self.sample(signal, N, role, recipe) for role in (DEFAULT, BEST)]
        try:
            return Estimate(None) if None in samples else closed(*samples).share("closed")  # type: ignore[arg-type]
        except CannotJudgeError:
            return Estimate(None)

    def closes_said(self, *of: Any, **more: Any) -> str:
        """The same, as words."""
        return percent(self.closes(*of, **more))

    # Verdicts

    @cached_property
    def _judged(self) -> Mapping[str, Mapping[str, Verdict]]:
        return {recipe: self._judge(recipe) for recipe in self.recipes}

    def _judge(self, recipe: str) -> Mapping[str, Verdict]:
        cells = [cell for cell in self.numbers.cells if recipe_of(cell) == recipe]
        hypotheses = [for_recipe(one, recipe, self.sizes_of(recipe)) for one in self.protocol.hypotheses]
        found = judge(replace(self.protocol, hypotheses=hypotheses), cells)
        return {verdict.id: verdict for verdict in found}

    def verdicts(self, starting: str = "", recipe: str = TINY) -> list[Verdict]:
        """Those of the hypotheses whose names start so, in the protocol's order."""
        of = rf"{starting}(?!\d)" if starting else ""
        return [one for name, one in self._judged[recipe].items() if re.match(of, name)]

    def verdict(self, name: str, recipe: str = TINY) -> str:
        """The verdict of one hypothesis."""
        return self._judged[recipe][name].verdict

    def said(self, verdict: Verdict) -> str:
        """The verdict as a table shows it; of what could not be judged, that it was not."""
        return "not judged" if verdict.p_holm is None else _WORDS[verdict.verdict]

    def measured(self, verdict: Verdict) -> str:
        """The sentence of its reason that compares the claim with what was measured, without the claim."""
        sentences = re.split(r"(?<=[.%\d\])]\.) (?=[A-Z])|(?<=[a-z]\.) (?=[A-Z])", verdict.reason)
        chosen = next((one for one in sentences if "; the claim" in one), sentences[0])
        return chosen.split("; the claim")[0].split("; a factor of")[0].rstrip(".")


def _logs(values: Sequence[float]) -> Any:
    import numpy as np

    return np.log(values)


def for_recipe(hypothesis: Hypothesis, recipe: str, sizes: Sequence[int]) -> Hypothesis:
    """The same test on another recipe of base, at those N that were measured on it."""
    if recipe == TINY:
        return hypothesis
    changed = {name: _moved(value, recipe, sizes) for name, value in vars(hypothesis).items()}
    if "N" in changed:
        changed["N"] = _left(changed["N"], sizes)
    return replace(hypothesis, **changed)


def _moved(value: Any, recipe: str, sizes: Sequence[int]) -> Any:
    if isinstance(value, list):
        return [_moved(one, recipe, sizes) for one in value]
    if not isinstance(value, dict):
        return value
    named = {"model_name": recipe} if "model_name" in value else {}
    listed = {"N": _left(value["N"], sizes)} if isinstance(value.get("N"), list) else {}
    return {**value, **named, **listed}


def _left(wanted: Sequence[int], sizes: Sequence[int]) -> list[int]:
    return [N for N in wanted if N in sizes] or [*wanted]
