"""Which of the three plans is asked for: from a pilot, from pass rates, or for a condition of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.catalogue import bounds_keys
from memory_rl.errors import ConfigError, suggest
from memory_rl.files import as_path
from memory_rl.key_files import FILE_KEYS
from memory_rl.keys import Key, fill, keys_of, read, shown
from memory_rl.reporting.settings import GroupPlanConfig, PlanConfig, RatePlanConfig

if TYPE_CHECKING:
    from memory_rl.reporting.audit import Audit
    from memory_rl.reporting.group_plan import GroupPlan
    from memory_rl.reporting.planning import RunPlan


def plan_keys() -> dict[str, Key]:
    """The keys of `plan`, by part."""
    return {**keys_of(PlanConfig, "pilot"), **keys_of(RatePlanConfig, "rates"), **bounds_keys(), **FILE_KEYS}


def make_plan(runs: Sequence[Any], given: Mapping[str, Any], *, typed: bool) -> RunPlan | GroupPlan:
    """The plan for a condition, for pass rates or from a pilot, whichever is given.

    Args:
        runs: paths, cells, or an audit.
        given: by key.
        typed: whether texts are only ever texts, as from Python.

    Raises:
        MemoryRLError: about the first key that does not go with the others, or as `memory_rl.plan`.
    """
    number = next((one for one in runs if isinstance(one, int | float)), None)
    if number is not None:
        raise ConfigError(f"{number} is no run: give a pass rate as p={number}.")
    named = next((word for word in given if word in _of_condition()), None)
    audit = _audit_among(runs)
    if named is not None:
        return _plan_of_condition(runs, given, named, typed=typed)
    if "p" in given or audit is not None:
        return _plan_of_rates(runs, given, audit, typed=typed)
    return _plan_of_pilot(runs, given, typed=typed)


def _of_condition() -> dict[str, Key]:
    return {**bounds_keys(), **FILE_KEYS}


def _plan_of_condition(
    runs: Sequence[Any], given: Mapping[str, Any], named: str, *, typed: bool
) -> GroupPlan:
    own = keys_of(GroupPlanConfig)
    _refuse_beside(given, {**_of_condition(), **own}, f"a condition ({named}=)", runs)
    config = fill(GroupPlanConfig, read(own, _among(given, own), typed=typed))
    from memory_rl.condition import condition_of
    from memory_rl.condition_plan import plan_condition

    return plan_condition(condition_of(_among(given, _of_condition()), typed=typed), config)


def _plan_of_rates(
    runs: Sequence[Any], given: Mapping[str, Any], audit: Path | Audit | None, *, typed: bool
) -> GroupPlan:
    keys, p = keys_of(RatePlanConfig), given.get("p")
    _refuse_beside(given, keys, "pass rates", runs if "p" in given else ())
    several: Any = getattr(p, "tolist", lambda: p)()  # an array, or one of NumPy's numbers
    listed = isinstance(several, list | tuple)
    rest = {word: value for word, value in given.items() if not (listed and word == "p")}
    config = fill(RatePlanConfig, read(keys, rest, typed=typed))
    from memory_rl.reporting.rate_plan import plan_rates

    return plan_rates(several if listed else config.p if audit is None else audit, config)


def _plan_of_pilot(runs: Sequence[Any], given: Mapping[str, Any], *, typed: bool) -> RunPlan:
    word = next(iter(_among(given, keys_of(RatePlanConfig))), None)
    if word and not runs:
        raise ConfigError(
            f"{word}={shown(given[word])} needs pass rates or a condition: add for example p=0.18, or N=64."
        )
    _refuse_beside(given, keys_of(PlanConfig), "a pilot", ())
    config = fill(PlanConfig, read(keys_of(PlanConfig), given, typed=typed))
    from memory_rl.reporting.planning import plan_paths

    return plan_paths(runs, config.demand, config.width)


def _among(given: Mapping[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
    return {word: value for word, value in given.items() if word in keys}


def _refuse_beside(given: Mapping[str, Any], keys: Mapping[str, Key], what: str, runs: Sequence[Any]) -> None:
    """Refuses keys of another plan, unknown ones, and paths where they mean nothing."""
    for word, value in given.items():
        if word not in keys:
            if word in plan_keys():
                raise ConfigError(f"{word}={shown(value)} does not go with {what}: leave {word} out.")
            raise ConfigError(f"{word}={shown(value)} is not a known key: {suggest(word, plan_keys())}")
    if runs:
        first = runs[0] if isinstance(runs[0], str | Path) else runs[0].path
        raise ConfigError(f"{first} does not go with {what}: leave one of them out.")


def _audit_among(runs: Sequence[Any]) -> Path | Audit | None:
    """The audit, if that is what is given: itself, its folder, or its audit.json."""
    from memory_rl.rollouts.pass_rates import is_audit

    given = [as_path(one) if isinstance(one, str) else one for one in runs]
    found = [one for one in given if (is_audit(one) if isinstance(one, Path) else hasattr(one, "account"))]
    if found and len(runs) > 1:
        raise ConfigError(f"plan takes one audit alone, and {len(runs)} paths are given: give one of them.")
    return next(iter(found), None)
