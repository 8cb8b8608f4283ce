"""What the template of the results may ask: the numbers of the study as words, with 95 % intervals.

Words that depend on a number are chosen here or in the template by that number, so that no sentence can
contradict the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from results_verdicts import DECIDING, Verdicts

from memory_rl.analysis.bottleneck import PARTS, Split, closed, gap
from memory_rl.analysis.findings import join
from memory_rl.analysis.samples import CannotJudgeError, Sample
from memory_rl.analysis.statistics import Estimate
from memory_rl.analysis.study_numbers import BEST, DEFAULT, RANK, TINY, Place, StudyNumbers, loss_of
from memory_rl.analysis.survival import Normal, contrast, exponent, slope
from memory_rl.catalogue import learner_name
from memory_rl.files import Json
from memory_rl.reporting.values import counted, number

TITLES = {
    "sft": "the answer itself (SFT)",
    "told": "a teacher, told whole",
    "sampled": "a teacher, sampled",
    "per_bit": "a reward for each bit",
    "summed": "the bits' rewards summed",
    "binary": "hit or miss",
    "noisy": "hit or miss, 5 % noise",
    "bins8": "distance in 8 levels",
    "log_distance": "log-distance",
}
"""The signals, from what tells most on, and what they are called."""

TELLS = {
    "sft": "the answer itself",
    "told": "the answer is the model's own; a teacher gives the whole distribution of each token",
    "sampled": "the same, but the teacher says only how likely the model's own tokens were",
    "per_bit": "one bit a turn, each rewarded for itself (`env_type=multi_step`)",
    "summed": "the same, with the rewards summed into one (`credit=episode`)",
    "binary": "whether the answer is S (`reward_type=binary`)",
    "noisy": "hit or miss, replaced at random now and then (`reward_noise=0.05`)",
    "bins8": "the log-distance to S in levels (`reward_type=binned_log_distance`)",
    "log_distance": "the log-distance to S (`reward_type=log_distance`)",
}
"""What an episode shows."""

RECIPES = {
    "tiny": "`tiny` is the package's own, made to answer in the form that is asked, and nothing else.",
    "tiny-text": "`tiny-text` is as small, but plainly pretrained on synthetic text before that.",
}
"""What the recipes of base are, but for models that have a name."""

SCALAR = ("summed", "binary", "noisy", "bins8", "log_distance")
"""Those that are one number an episode."""

UNKNOWN = "not measured"
STUCK_MUCH = 0.1
_NEXT_TO_NONE = 0.05
"""Percent."""


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
    value, *ends = ("0" if part and 0 < part < _NEXT_TO_NONE else number(part, 2) for part in hundred)
    if estimate.value is None:
        return UNKNOWN
    return f"{value} %" if None in (estimate.low, estimate.high) else f"{value} % [{', '.join(ends)}]"


@dataclass(frozen=True)
class Words:
    """The numbers of a study, for a template.

    Attributes:
        numbers: of its samples.
        verdicts: on them.
        choices: what the contests chose.
    """

    numbers: StudyNumbers
    verdicts: Verdicts
    choices: Sequence[Json] = ()

    def functions(self) -> Json:
        """All that a template may call, by name: what this has, and what the verdicts have."""
        named: Json = {
            name: getattr(one, name)
            for one in (self, self.verdicts)
            for name in dir(type(one))
            if not name.startswith("_") and name != "functions"
        }
        fixed = {
            "title_of": title_of,
            "join": join,
            "listed": "; ".join,
            "counted": counted,
            "tells": TELLS,
            "SCALAR": SCALAR,
            "DECIDING": DECIDING,
        }
        return {**named, **fixed, "choices": self.choices}

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

    def mostly_stuck(self, signal: str, N: int, role: str = DEFAULT, recipe: str = TINY) -> bool:
        """Whether more than half of its runs are stuck, so that the others are a selection."""
        sample = self.sample(signal, N, role, recipe)
        return sample is not None and sample.memorised < sample.runs / 2

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

    def best_or_default(self, signal: str, N: int) -> str:
        """The best learner's role where it was measured and memorised, or else the default's."""
        return BEST if self.has(signal, N, BEST) else DEFAULT

    # How much was measured

    def bits(self, N: int) -> str:
        """log2 N."""
        return number(math.log2(N))

    @property
    def recipe_words(self) -> str:
        """What the recipes are, a sentence each."""
        return " ".join(said for recipe, said in RECIPES.items() if recipe in self.recipes)

    @property
    def edges(self) -> int:
        """How many contests chose a step size beyond which a better one may lie."""
        return sum(bool(one.get("at_edge")) for one in self.choices)

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
        return max(
            len(sample.bases) for place, sample in self.numbers.samples.items() if place.recipe == recipe
        )

    def reach(self, recipe: str = TINY) -> str:
        """What its intervals are about."""
        most = self.bases(recipe)
        return "for one base model alone" if most == 1 else f"over {most} base models"

    def runs_a_side(self, recipe: str = TINY) -> str:
        """The runs of a sample of a recipe."""
        found = sorted(
            {sample.runs for place, sample in self.numbers.samples.items() if place.recipe == recipe}
        )
        return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"

    # Numbers of one sample

    def _said(
        self, of: Callable[[Sample], Estimate], *place: Any, as_percent: bool = False, **more: Any
    ) -> str:
        sample = self.sample(*place, **more)
        return UNKNOWN if sample is None else (percent if as_percent else two)(of(sample))

    def rate(self, *place: Any, **more: Any) -> str:
        """Bits an episode of the runs that memorised."""
        return self._said(
            lambda one: one.of_memorised.exp() if one.of_memorised else Estimate(None), *place, **more
        )

    def loss(self, of: str, *place: Any, **more: Any) -> str:
        """The factor lost in exploration or absorption."""
        return self._said(lambda one: loss_of(one, of), *place, **more)

    def ceiling(self, *place: Any, **more: Any) -> str:
        """The capacity of the channel, in bits an episode."""
        sample = self.sample(*place, **more)
        return UNKNOWN if sample is None else counted(sample.ceilings["capacity"], "bit", 2)

    def share_of_ceiling(self, *place: Any, **more: Any) -> Estimate:
        """The rate over the channel's capacity."""
        sample = self.sample(*place, **more)
        if sample is None or sample.of_memorised is None:
            return Estimate(None)
        return sample.of_memorised.exp().divided_by(sample.ceilings["capacity"])

    def loss_factor(self, of: str, *place: Any, **more: Any) -> Estimate:
        """The factor lost in exploration or absorption, as a number."""
        sample = self.sample(*place, **more)
        return Estimate(None) if sample is None else loss_of(sample, of)

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
        learner = learner_name(keys)
        group = f"groups of {keys['group_size']}" if learner else ""
        return ", ".join(filter(None, (learner, group, f"step {number(keys.get('learning_rate'), 2)}")))

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

    def an_update(self, *place: Any, **more: Any) -> int:
        """Episodes an update; 1 where nothing was measured."""
        sample = self.sample(*place, **more)
        return 1 if sample is None else sample.first.experiment.episodes_an_update

    def ratio_an_update(self, fast: str, slow: str, N: int, role: str = DEFAULT) -> str:
        """How many times as many bits an update one signal brings as another."""
        fewer = self.an_update(slow, N, role) / self.an_update(fast, N, role)
        return two(self.factor(fast, slow, N, role).divided_by(fewer))

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

    def gain_said(self, *of: Any, **more: Any) -> str:
        """The same, as words."""
        return two(self.gain(*of, **more))

    def sizes_at(self, signals: Sequence[str], role: str = DEFAULT, recipe: str = TINY) -> list[int]:
        """The N at which all of these signals have a rate."""
        return [N for N in self.sizes_of(recipe) if self._rates(signals, N, role, recipe)]

    def power(self, signal: str, role: str = DEFAULT, sizes: Sequence[int] | None = None) -> Estimate:
        """The exponent x of episodes ~ N^x of the runs that memorised, over these N of the built-in base."""
        samples = {N: self.sample(signal, N, role) for N in (self.sizes if sizes is None else sizes)}
        found = {N: one.times.of_memorised for N, one in samples.items() if one and one.of_memorised}
        return exponent(found)

    def power_of(self, *of: Any, **more: Any) -> str:
        """The same, as words."""
        return two(self.power(*of, **more))

    def power_of_ratio(self, fast: str, slow: str, role: str = DEFAULT, recipe: str = TINY) -> str:
        """The exponent x of how many times as fast one signal is as another, which grows as N^x."""
        sizes = self.sizes_at((fast, slow), role, recipe)
        if len(sizes) < 2:
            return UNKNOWN
        rates = [
            rate for at in (fast, slow) for N in sizes for rate in self._rates((at,), N, role, recipe) or ()
        ]
        weights = slope(np.log(sizes))
        growth = contrast(rates, [*weights, *-weights])
        return two(Estimate(growth.value, *growth.interval()))

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

    def main_part(self, *of: Any, **more: Any) -> str:
        """The part of a gap that is larger than both others beyond chance; "none" if there is none."""
        split = self.split(*of, **more)
        if split is None:
            return "none"
        first = max(PARTS, key=lambda part: split.value(part).value)
        others = (
            split.parts[first].minus(1, split.parts[one]).of(split.rates) for one in PARTS if one != first
        )
        return first if all(one.interval()[0] > 0 for one in others) else "none"

    def parts_that_lead(self, N: int) -> dict[str, list[str]]:
        """By part of the gap, and "none", the scalar signals in which it is the largest beyond chance."""
        found: dict[str, list[str]] = {}
        for signal in SCALAR:
            role = self.best_or_default(signal, N)
            if self.split(signal, N, role):
                found.setdefault(self.main_part(signal, N, role), []).append(title_of(signal))
        return found

    def stuck_ones(self, N: int) -> list[str]:
        """The signals of which more than a tenth of the runs is stuck by default."""
        bins = (f"bins{count}" for count in self.levels(N))
        return [title_of(one) for one in dict.fromkeys([*self.signals(N), *bins]) if self.gets_stuck(one, N)]

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
