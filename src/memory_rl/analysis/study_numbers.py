"""The numbers of the study that answers the question: a sample per signal, N, role and recipe of base."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

from memory_rl.analysis.bottleneck import loss
from memory_rl.analysis.collect import Cell
from memory_rl.analysis.samples import CannotJudgeError, Sample, gather
from memory_rl.analysis.statistics import Estimate
from memory_rl.analysis.survival import Normal, median_episodes
from memory_rl.catalogue import learner_name
from memory_rl.config.policy import TINY
from memory_rl.errors import ConfigError
from memory_rl.files import Json

_SIGNALS = {
    "sft": "sft",
    "teacher divergence=forward": "told",
    "teacher told=sampled": "sampled",
    "multi_step": "per_bit",
    "multi_step credit=episode": "summed",
    "binary": "binary",
    "log_distance": "log_distance",
}
"""Short names of conditions; those with levels or noise are made from their numbers, see `signal_of`."""

DEFAULT, BEST = "default", "best"
RANK = 8
"""Of the adapters, where nothing else is said."""


class Place(NamedTuple):
    """Where a sample stands in the study.

    Attributes:
        signal: the short name of what is told, such as binary or bins8.
        N: the size of the secret space.
        role: "default" or "best".
        recipe: of the base model: its name.
        rank: of its adapters.
    """

    signal: str
    N: int
    role: str = DEFAULT
    recipe: str = TINY
    rank: int = RANK


def signal_of(condition: str) -> str:
    """The short name of a condition: bins8 for eight levels, noisy for noise; others as they are."""
    if levels := re.fullmatch(r"binned_log_distance B=(\d+)", condition):
        return f"bins{levels[1]}"
    if condition.startswith("binary noise="):
        return "noisy"
    return _SIGNALS.get(condition, condition)


def recipe_of(cell: Cell) -> str:
    """The name of the base model's recipe: the last part of a path or of a name on the hub."""
    name = str(cell.settings.get("model_name", TINY))
    in_cache = re.search(r"models--[^/]+--([^/]+)/snapshots/", name)
    return in_cache[1] if in_cache else PurePath(name).name


def place_of(cell: Cell) -> Place:
    """Where a cell stands."""
    keys = cell.settings
    role, rank = keys.get("role", DEFAULT), keys.get("lora_rank", RANK)
    return Place(signal_of(cell.condition), cell.N, str(role), recipe_of(cell), int(rank))


@dataclass(frozen=True)
class StudyNumbers:
    """The samples of a study by place.

    Attributes:
        cells: all of them, such as `memory_rl.analysis.study_table.from_table` gives.
        samples: those of completed cells.
    """

    cells: list[Cell]
    samples: Mapping[Place, Sample] = field(repr=False)

    @classmethod
    def of(cls, cells: Iterable[Cell]) -> StudyNumbers:
        """The numbers of these cells.

        Raises:
            ConfigError: if two samples stand at one place, and so differ in what the study does not vary.
        """
        used = [cell for cell in cells if cell.completed]
        samples: dict[Place, Sample] = {}
        for sample in gather(used):
            place = place_of(sample.first)
            if place in samples:
                one, other = (str(each.first.path) for each in (samples[place], sample))
                raise ConfigError(
                    f"{one} and {other} are both {' '.join(map(str, place))}, with different settings: give "
                    "one study alone, or leave one of them out."
                )
            samples[place] = sample
        return cls(used, dict(sorted(samples.items())))

    @property
    def recipes(self) -> list[str]:
        """The recipes of base, the built-in ones first."""
        names = {place.recipe for place in self.samples}
        return sorted(names, key=lambda name: (not name.startswith(TINY), name))

    def sizes(self, recipe: str = TINY) -> list[int]:
        """The N of a recipe, ascending."""
        return sorted({place.N for place in self.samples if place.recipe == recipe})

    def get(self, place: Place) -> Sample | None:
        """The sample that stands there; None if there is none."""
        return self.samples.get(place)

    def rows(self) -> list[Json]:
        """One row per sample, with all its numbers."""
        return [{**place._asdict(), **row_of(sample)} for place, sample in self.samples.items()]


def row_of(sample: Sample) -> Json:
    """The numbers of a sample, with 95 % intervals as NAME_low and NAME_high.

    bits_per_episode is over all runs, and so set by the budget where some are stuck; bits_of_memorised,
    bits_of_observer and the losses are of those that memorised. The alphabet loss is computed, and has no
    interval. The median is over all runs (Kaplan-Meier).
    """
    keys, ceilings = sample.first.settings, sample.ceilings
    capacity, asker = ceilings["capacity"], ceilings.get("ideal questioner")
    return {
        "condition": sample.first.condition,
        "learner": learner_name(keys) or None,
        "group_size": keys.get("group_size"),
        "learning_rate": keys.get("learning_rate"),
        "runs": sample.runs,
        "bases": len(sample.bases),
        "budget": sample.budget,
        **_with_ends("stuck", sample.stuck),
        **_with_ends("bits_per_episode", sample.rate),
        **_with_ends("bits_of_memorised", _exp(sample.of_memorised)),
        "median_episodes": median_episodes(sample.times).value,
        **_with_ends("bits_of_observer", _exp(sample.observed)),
        "capacity": capacity,
        "ideal_questioner": asker,
        "alphabet": None if asker is None else capacity / asker,
        **_with_ends("exploration", loss_of(sample, "exploration")),
        **_with_ends("absorption", loss_of(sample, "absorption")),
        "laws": ", ".join(sorted(set(sample.laws))) or None,
    }


def _exp(rate: Normal | None) -> Estimate:
    return Estimate(None) if rate is None else rate.exp()


def _with_ends(name: str, estimate: Estimate) -> Json:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def loss_of(sample: Sample, of: str) -> Estimate:
    """The factor lost in exploration or absorption; empty where it cannot be told."""
    try:
        return loss(sample, of)
    except CannotJudgeError:
        return Estimate(None)
