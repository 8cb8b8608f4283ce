"""A plan for a condition of our own: what `bounds` knows of it as episodes, tokens and dollars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from memory_rl.analysis.digits import short
from memory_rl.condition import Condition, channel_notes
from memory_rl.errors import ConfigError
from memory_rl.information.closed_forms import binary_episodes
from memory_rl.information.first_hits import episodes_to_hit
from memory_rl.reporting.group_plan import (
    SIZES,
    GroupPlan,
    Pricing,
    against_size,
    percent,
    sizes_up_to,
    write_plan,
)
from memory_rl.reporting.settings import GroupPlanConfig
from memory_rl.reporting.sheets import Sheet
from memory_rl.reporting.values import counted
from memory_rl.training.first_groups import LevelShares, level_shares

_USUAL_SIZE = 4
_SURELY = 0.95


@dataclass(frozen=True)
class Milestone:
    """Something that takes episodes.

    Attributes:
        name: for programs: first_signal, first_hit, first_hit_95, ceiling, questioner or policy_gradient.
        what: happens.
        episodes: until then, on average unless `what` says otherwise.
        tokens, dollars: of them; None if unknown.
    """

    name: str
    what: str
    episodes: float
    tokens: float | None
    dollars: float | None


def plan_condition(condition: Condition, config: GroupPlanConfig) -> GroupPlan:
    """Plans for a condition, and writes the plan where `out` says.

    Raises:
        ConfigError: if there is a price without tokens, or a size of groups where nothing is rewarded.
        RunDirectoryError: if the folder for the plan holds something else, or cannot be written.
    """
    costs, size, rewarded = Pricing(config.tokens, config.price), config.group_size, _is_rewarded(condition)
    if size is not None and not rewarded:
        raise ConfigError(
            f"group_size={size} belongs to signal=reward, whose groups may be silent: leave group_size out."
        )
    size = size or _USUAL_SIZE
    shares = level_shares(condition.environment, condition.signal.credit) if rewarded else None
    signal = None if shares is None else shares.chance_of_signal(size)
    marks = [*_milestones(condition, size, signal, costs)]
    chances = {one: shares.chance_of_signal(one) for one in sorted({*SIZES, size})} if shares else {}
    world, name = condition.world, condition.signal.condition(condition.world)
    title = f"{name}, N = {world.N:,}"
    numbers = {
        "picture": "plan_signal",
        "condition": name,
        "N": world.N,
        "memorised_at": condition.memorised_at,
        "bits_to_learn": math.log2(world.N),
        "bits_per_episode_at_most": _most(condition),
        "bits_of_first_episode": condition.ceilings.first_episode.mean,
        "group_size": size if rewarded else None,
        "signal_chance": signal,
        "signal_chances": {str(one): chance for one, chance in chances.items()},
        "tokens": costs.tokens,
        "price": costs.price,
    }
    plan = GroupPlan(
        title,
        [*_sentences(condition, title, size, chances), *_about_episodes(marks, costs)],
        numbers,
        [*map(asdict, marks)],
        _sheet(marks),
        None if shares is None else _picture(shares, size),
        [*channel_notes(condition), *_notes(condition, rewarded, signal)],
    )
    if config.out:
        write_plan(plan, Path(config.out))
    return plan


def _is_rewarded(condition: Condition) -> bool:
    return condition.signal.signal == "reward"


def _most(condition: Condition) -> float:
    """The least of the ceilings that are known."""
    found = condition.ceilings
    return min(bits for bits in (found.capacity, found.shannon_capacity) if bits is not None)


def _milestones(condition: Condition, size: int, signal: float | None, costs: Pricing) -> Iterator[Milestone]:
    def after(name: str, what: str, episodes: float) -> Milestone:
        return Milestone(name, what, float(episodes), **costs.of(episodes))

    aim, N, table = f"P(S) >= {condition.memorised_at:g}", condition.world.N, condition.table
    asker, forms = condition.ceilings.ideal_questioner, condition.environment.num_forms
    if signal:
        yield after("first_signal", f"first group of {size:,} with a signal", size / signal)
    if not condition.signal.shows_answer:
        yield after("first_hit", "first hit of uniform answers", forms)
        surely = episodes_to_hit(1 / forms, _SURELY)
        yield after("first_hit_95", f"the same with a chance of {percent(_SURELY)}", surely)
    yield after("ceiling", "all bits, at the ceiling at least", math.log2(N) / _most(condition))
    if asker is not None:
        found = f"ideal questioner ({condition.ceilings.method})"
        yield after("questioner", f"{found}: {aim}", asker.to_reach)
    if _is_rewarded(condition) and table.kind == "hit" and table.certain:
        episodes = binary_episodes(N, 1.0, condition.memorised_at)
        yield after("policy_gradient", f"exact policy gradient: {aim}", episodes)


def _sentences(condition: Condition, title: str, size: int, chances: Mapping[int, float]) -> Iterator[str]:
    first = counted(condition.ceilings.first_episode.mean, "bit")
    yield (
        f"{title}: an episode carries at most {counted(_most(condition), 'bit')} of the "
        f"{short(math.log2(condition.world.N))} to learn, the first of a uniform policy {first}."
    )
    if chances:
        others = [f", {percent(chance)} with {one:,}" for one, chance in chances.items() if one > size]
        yield (
            f"Before anything is learned a group of {size:,} carries a signal with a chance of "
            f"{percent(chances[size])}{''.join(others)}."
        )


def _about_episodes(marks: Sequence[Milestone], costs: Pricing) -> Iterator[str]:
    """The first hit, and what memorising takes."""
    named = {one.name: one for one in marks}
    if hit := named.get("first_hit"):
        yield (
            f"Uniform answers hit S after {counted(hit.episodes, 'episode')} on average"
            f"{costs.words(hit.episodes)}."
        )
    if asker := named.get("questioner"):
        aim = asker.what.partition(": ")[2]
        learner = named.get("policy_gradient")
        more = f", exact policy gradient {counted(learner.episodes, 'episode')}" if learner else ""
        yield f"Until {aim} the ideal questioner needs {counted(asker.episodes, 'episode')}{more}."


def _sheet(marks: Sequence[Milestone]) -> Sheet:
    rows = [
        {
            "until": one.what,
            "episodes": short(one.episodes),
            "tokens": "" if one.tokens is None else short(one.tokens),
            "dollars": "" if one.dollars is None else short(one.dollars),
        }
        for one in marks
    ]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    caption = "\n".join(_reading({one.name for one in marks}))
    return Sheet(shown, [[row[name] for name in shown] for row in rows], words=["until"], caption=caption)


def _reading(names: set[str]) -> Iterator[str]:
    """What the lines of the table say."""
    if "first_hit" in names:
        yield "uniform answers: of a policy that knows nothing, all valid; on average, unless it says so."
    if "policy_gradient" in names:
        yield (
            "exact policy gradient: plain steps of size 1 on a table of answers, one episode an update, "
            "without a baseline."
        )


def _picture(shares: LevelShares, size: int) -> dict[str, object]:
    sizes = sorted({*sizes_up_to(max(SIZES[-1], size)), size})
    curve = [(one, shares.chance_of_signal(one)) for one in sizes]
    return against_size(curve, {size: f"G = {size:,}"}, "groups with a signal", "%")


def _notes(condition: Condition, rewarded: bool, signal: float | None) -> Iterator[str]:
    if rewarded and signal is None:
        yield (
            f"How often groups carry a signal is not computed at N={condition.world.N}, whose answers and "
            "secrets are too many to count."
        )
    if condition.ceilings.ideal_questioner is None:
        yield f"The ideal questioner is left out: {condition.ceilings.method}."
