"""A plan from pass rates: which groups carry a signal, bits a rollout and a dollar, and the first hit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.analysis.digits import short
from memory_rl.errors import ConfigError
from memory_rl.information.first_hits import rollouts_to_hit, steps_to_hit
from memory_rl.information.reward_laws import (
    advantage_bits,
    equal_chance,
    expected_entropy,
    signal_bits,
)
from memory_rl.limits import SIZES as GROUP_SIZES
from memory_rl.reporting.group_plan import (
    SIZES,
    GroupPlan,
    Pricing,
    against_size,
    money,
    percent,
    sizes_up_to,
    write_plan,
)
from memory_rl.reporting.sheets import Sheet
from memory_rl.reporting.values import counted
from memory_rl.rollouts.pass_rates import RateLaw, law_in, law_of_audit, law_of_prompts, one_rate

if TYPE_CHECKING:
    from memory_rl.reporting.audit import Audit
    from memory_rl.reporting.settings import RatePlanConfig

_USUAL_SIZE = 8
_ENOUGH = 0.95
"""The best G is the smallest with this share of the bits that any G brings: no G brings the most."""
_WIDEST = 256


@dataclass(frozen=True)
class SizePlan:
    """What groups of one size bring, on average over prompts.

    Attributes:
        group_size: G.
        signal_chance: that not all rewards of a group are equal, 1 - p^G - (1 - p)^G.
        all_wrong, all_right: the chances of the other groups.
        advantage_bits_per_rollout: that the advantages carry, silent groups counted as an outcome.
        signal_bits_per_rollout: that they carry in groups with a signal, which alone move anything.
        share_of_most: of signal_bits_per_rollout in what a rollout tells.
        bits_per_1000_tokens, bits_per_dollar: of signal_bits_per_rollout; None if unknown.
        rollouts_to_first_hit: on average.
    """

    group_size: int
    signal_chance: float
    all_wrong: float
    all_right: float
    advantage_bits_per_rollout: float
    signal_bits_per_rollout: float
    share_of_most: float
    bits_per_1000_tokens: float | None
    bits_per_dollar: float | None
    rollouts_to_first_hit: float


def plan_rates(given: float | str | Path | Sequence[Any] | Audit | None, config: RatePlanConfig) -> GroupPlan:
    """Plans from one pass rate, several, a file of them or an audit, and writes it where `out` says.

    Raises:
        DataError: one sentence about the pass rates.
        ConfigError: if there is a price without tokens.
        RunDirectoryError: if the folder for the plan holds something else, or cannot be written.
    """
    plan = plan_law(_law(given), config)
    if config.out:
        write_plan(plan, Path(config.out))
    return plan


def _law(given: float | str | Path | Sequence[Any] | Audit | None) -> RateLaw:
    if isinstance(given, float):
        return one_rate(given)
    if isinstance(given, str | Path):
        return law_in(Path(given))
    if isinstance(given, Sequence):
        return law_of_prompts(given, "p")
    if given is None:
        raise ConfigError("p=None is no pass rate: give one, such as p=0.18.")
    return law_of_audit(given.as_dict(), given.path)


def plan_law(law: RateLaw, config: RatePlanConfig) -> GroupPlan:
    """Plans from a law of pass rates."""
    costs = Pricing(law.tokens if config.tokens is None else config.tokens, config.price)
    size, best = config.group_size or law.group_size or _USUAL_SIZE, best_size(law)
    here = plan_size(law, size, costs)
    shown = sorted({*SIZES, size, *([best] if best else [])})
    rows = [plan_size(law, one, costs) for one in shown]
    told = float(expected_entropy(law.points, law.weights))
    first, step = _first_hit(law, here, costs, config.groups), _step(here, costs, config.groups)
    numbers = {
        "picture": "plan_bits",
        "mean_pass_rate": law.mean,
        "groups": config.groups,
        "tokens": costs.tokens,
        "price": costs.price,
        "delivered_bits_per_rollout": told,
        **asdict(here),
        "best_group_size": best,
        "first_hit": first,
        "step": step,
    }
    sentences = [*_sentences(law, here, told, best, costs), *_about_step(config.groups, first, step)]
    return GroupPlan(
        law.words,
        sentences,
        numbers,
        [*map(asdict, rows)],
        _sheet(rows, size, best, told, law),
        _picture(law, costs, size, best, told),
        law.notes,
    )


def plan_size(law: RateLaw, size: int, costs: Pricing) -> SizePlan:
    """What groups of a size bring."""
    points, weights = law.points, law.weights
    right, wrong = (float(equal_chance(rates, weights, size)) for rates in (points, 1 - points))
    bits = float(signal_bits(points, weights, size))
    spent = costs.of(1.0)
    return SizePlan(
        size,
        1 - right - wrong,
        wrong,
        right,
        float(advantage_bits(points, weights, size)),
        bits,
        bits / float(expected_entropy(points, weights)),
        1000 * bits / spent["tokens"] if spent["tokens"] else None,
        bits / spent["dollars"] if spent["dollars"] else None,
        rollouts_to_hit(points, weights, size),
    )


def best_size(law: RateLaw) -> int | None:
    """The smallest G with nearly all bits that any brings; None beyond the largest that is allowed."""
    enough = _ENOUGH * float(expected_entropy(law.points, law.weights))

    def brings(size: int) -> bool:
        return float(signal_bits(law.points, law.weights, size)) >= enough

    most = GROUP_SIZES[1]
    return bisect_left(range(most + 1), True, lo=2, key=brings) if brings(most) else None


def _first_hit(law: RateLaw, here: SizePlan, costs: Pricing, groups: int | None) -> dict[str, float | None]:
    steps = None if groups is None else steps_to_hit(law.points, law.weights, here.group_size, groups)
    rollouts = here.rollouts_to_first_hit
    return {"rollouts": rollouts, **costs.of(rollouts), "steps": steps}


def _step(here: SizePlan, costs: Pricing, groups: int | None) -> dict[str, float | None] | None:
    if groups is None:
        return None
    rollouts = groups * here.group_size
    return {
        "rollouts": rollouts,
        **costs.of(rollouts),
        "groups_with_a_signal": groups * here.signal_chance,
        "bits": rollouts * here.signal_bits_per_rollout,
    }


def _sentences(law: RateLaw, here: SizePlan, told: float, best: int | None, costs: Pricing) -> Iterator[str]:
    size, mean = here.group_size, f", {short(law.mean)} on average," if len(law.points) > 1 else ""
    yield (
        f"At {law.words}{mean} a group of {size:,} carries a signal with a chance of "
        f"{percent(here.signal_chance)}; all its rollouts are wrong with {percent(here.all_wrong)}, all "
        f"right with {percent(here.all_right)}."
    )
    yield (
        f"A rollout tells at most {counted(told, 'bit')}; with G = {size:,} the advantages carry "
        f"{short(here.advantage_bits_per_rollout)}, of which {short(here.signal_bits_per_rollout)} in groups "
        f"with a signal{_rates(here)}."
    )
    yield _about_best(here, best)
    rollouts = here.rollouts_to_first_hit
    yield f"The first hit takes {counted(rollouts, 'rollout')} on average{costs.words(rollouts)}."


def _rates(here: SizePlan) -> str:
    if here.bits_per_1000_tokens is None:
        return ""
    dollar = "" if here.bits_per_dollar is None else f", {short(here.bits_per_dollar)} a dollar"
    return f": {short(here.bits_per_1000_tokens)} per 1,000 tokens{dollar}"


def _about_best(here: SizePlan, best: int | None) -> str:
    more = "Bits a token only grow with G, and ever more slowly"
    share = f"G = {here.group_size:,} brings {percent(here.share_of_most)} of the most that any does"
    if best is None:
        return f"{more}: {share}, and {percent(_ENOUGH)} need more than {GROUP_SIZES[1]:,}."
    return f"{more}: {share}, and G = {best:,} is the smallest with {percent(_ENOUGH)}."


def _about_step(groups: int | None, first: dict[str, Any], step: dict[str, Any] | None) -> Iterator[str]:
    if groups is None or step is None:
        return
    tokens = "" if step["tokens"] is None else f", {short(step['tokens'])} tokens"
    dollars = "" if step["dollars"] is None else f", {money(step['dollars'])}"
    yield (
        f"A step of {counted(groups, 'group')} is {step['rollouts']:,} rollouts{tokens}{dollars}: "
        f"{short(step['groups_with_a_signal'])} groups with a signal and {counted(step['bits'], 'bit')} on "
        f"average; the first hit takes {counted(first['steps'], 'step')}."
    )


def _sheet(rows: Sequence[SizePlan], size: int, best: int | None, told: float, law: RateLaw) -> Sheet:
    named = _named(size, best)
    cells = [{"G": f"{one.group_size:,}{named.get(one.group_size, '')}", **_cells(one)} for one in rows]
    shown = [name for name in cells[0] if any(row[name] for row in cells)]
    shown = [name for name in shown if len(law.points) > 1 or name != _TO_HIT]
    spare = (
        _TO_HIT,
        "all\nright",
        "of the\nmost",
        "bits that\nadvantages\ncarry",
        "all\nwrong",
        "per 1,000\ntokens",
    )
    caption = (
        f"bits that advantages carry: a rollout, of {short(told)} that it tells at most, as in an audit.\n"
        "bits in groups with a signal: those of them that move anything; the columns after it are of these.\n"
        f"best: the smallest G with {percent(_ENOUGH)} of what any G brings."
    )
    return Sheet(
        shown,
        [[row[name] for name in shown] for row in cells],
        keys=["G"],
        spare=[name for name in spare if name in shown],
        caption=caption,
    )


_TO_HIT = "rollouts to\nfirst hit"


def _cells(one: SizePlan) -> dict[str, str]:
    tokens, dollar = one.bits_per_1000_tokens, one.bits_per_dollar
    return {
        "groups with\na signal": percent(one.signal_chance),
        "all\nwrong": percent(one.all_wrong),
        "all\nright": percent(one.all_right),
        "bits that\nadvantages\ncarry": short(one.advantage_bits_per_rollout),
        "bits in\ngroups with\na signal": short(one.signal_bits_per_rollout),
        "of the\nmost": percent(one.share_of_most),
        "per 1,000\ntokens": "" if tokens is None else short(tokens),
        "a dollar": "" if dollar is None else short(dollar),
        _TO_HIT: short(one.rollouts_to_first_hit),
    }


def _picture(law: RateLaw, costs: Pricing, size: int, best: int | None, told: float) -> dict[str, Any]:
    per = 1.0 if costs.tokens is None else 1000 / costs.tokens
    title = "bits a rollout" if costs.tokens is None else "bits per 1,000 tokens"
    words = {one: f"G = {one:,}{word}" for one, word in _named(size, best).items()}
    words = {one: word for one, word in words.items() if one == size or one <= _WIDEST}
    sizes = sorted({*sizes_up_to(max(SIZES[-1], *words)), *words})
    curve = [(one, per * float(signal_bits(law.points, law.weights, one))) for one in sizes]
    return against_size(curve, words, f"{title}, in groups with a signal", top=per * told)


def _named(size: int, best: int | None) -> dict[int, str]:
    """What is said of the sizes that are no round ones."""
    if size == best:
        return {size: " (planned, best)"}
    return {size: " (planned)"} | ({best: " (best)"} if best else {})
