"""All keys of an experiment, part by part, and the keys that change nothing in what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memory_rl.config import LEARNERS, Keep, PolicySettings, Secrets, Signal, Stop, Threshold, Updates, World
from memory_rl.keys import Key, keys_of, name_of

PARTS: dict[str, type[Any]] = {
    "world": Secrets,
    "signal": Signal,
    "policy": PolicySettings,
    "updates": Updates,
    "stop": Stop,
    "keep": Keep,
}
"""The parts of an `Experiment` by the names of its attributes. A learner's settings are `settings`."""

KEEP = frozenset(keys_of(Keep))
"""The keys that change nothing in what is measured."""

OF_ONE_RUN = ("log_path", "quiet", "resume", "role")
"""Those of them that belong to one run, and not to the same experiment run again."""


def experiment_keys() -> dict[str, Key]:
    """All keys of an experiment by their words, part by part."""
    settings: dict[str, Key] = {}
    for name, kind in LEARNERS.items():
        for word, one in settings_of(kind).items():
            names = (
                f"{settings[word].needs},{name}" if word in settings else f"signal=reward algorithm={name}"
            )
            settings[word] = replace(one, needs=names)
    found: dict[str, Key] = {}
    for part, kind in PARTS.items():
        found |= keys_of(kind, part) | (settings if part == "updates" else {})
    return found


def bounds_keys() -> dict[str, Key]:
    """The keys of `bounds`, by part."""
    return {**keys_of(World, "world"), **keys_of(Signal, "signal"), **keys_of(Threshold, "stop")}


def learner_keys() -> dict[str, Key]:
    """The keys that say which learner it is: the algorithm, its settings, and the terms that any may have."""
    any_learner = ("algorithm", "entropy_bonus", "kl_to_base")
    found = experiment_keys().items()
    return {word: one for word, one in found if one.part == "settings" or word in any_learner}


def learner_name(values: Mapping[str, Any], *, short: bool = False) -> str:
    """The algorithm as typed, with those of its settings that differ from their defaults; "" without.

    Args:
        values: of keys; those that say nothing of the learner do not matter.
        short: a user's own goes by the name of its class, without its file.
    """
    keys = learner_keys()
    given = {word: values[word] for word in keys if values.get(word) is not None}
    name = name_of(given.pop("algorithm")) if "algorithm" in given else ""
    rest = {word: value for word, value in given.items() if value != keys[word].default}
    more = (
        f"{word}={value:g}" if isinstance(value, float) else f"{word}={value}" for word, value in rest.items()
    )
    return " ".join([name.rpartition(":")[2] if short else name, *more])


def settings_of(learner: type[Any]) -> dict[str, Key]:
    """The keys of a built-in learner."""
    return keys_of(learner, "settings") if hasattr(learner, "__dataclass_fields__") else {}
