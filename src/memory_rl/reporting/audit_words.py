"""What an audit says in plain sentences: what is amiss, what was delivered, and what would cost less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from memory_rl.analysis.digits import short
from memory_rl.analysis.statistics import Estimate
from memory_rl.reporting.values import counted, in_brackets, number
from memory_rl.rollouts.account import Account, OtherSize, RunAccount, Unvarying

_MANY_SILENT, _MANY_FIXED = 0.5, 0.1
_MUCH_LESS = 0.6
"""A larger group is proposed if this share of the silent groups would be left, or less."""

_ESTIMATORS = {
    "plug_in": "plug-in",
    "miller_madow": "Miller-Madow",
    "grassberger": "Grassberger",
    "beta": "beta-binomial",
}
_ERRORS = ((3, 0.03), (4, 0.02))
"""Up to so many rewards a group, so many bits of error may be left, whatever the number of prompts."""


def sentences_of(run: RunAccount, *, graded: bool, countable: bool = True) -> list[str]:
    """The audit in sentences, what is amiss first."""
    found = (_amiss(run), _delivered(run.whole, countable), _silent(run.whole), _about_sizes(run))
    return [sentence for part in found for sentence in part] + [
        *_about_rates(run, graded),
        *_about_kl(run.whole),
    ]


def _amiss(run: RunAccount) -> Iterator[str]:
    """What keeps a run from learning, if anything does."""
    whole, fixed = run.whole, run.unvarying
    if whole.silent.value == 1:
        yield f"No group had two different rewards ({_which(whole)}), so that nothing could be learned."
        return
    if (whole.silent.value or 0) >= _MANY_SILENT:
        yield (
            f"With G = {run.usual_size}, {percent(whole.silent)} of the groups were silent, at a mean reward "
            f"of {number(whole.reward.value)}: {_remedy(run)}."
        )
    if fixed and (fixed.share.value or 0) >= _MANY_FIXED:
        yield (
            f"The reward never varied on {fixed.prompts:,} of {whole.prompts:,} prompts, "
            f"{percent(fixed.share)}{_which_fixed(fixed)}: look at their reward and at how hard they are."
        )


def _which(whole: Account) -> str:
    parts = {"all right": whole.right, "all wrong": whole.wrong, "all the same in between": whole.between}
    return ", ".join(
        f"{short(100 * share.value, 2)} % {name}" for name, share in parts.items() if share.value
    )


def _which_fixed(fixed: Unvarying) -> str:
    rest = fixed.prompts - fixed.right - fixed.wrong
    parts = {"always wrong": fixed.wrong, "always right": fixed.right, "always the same in between": rest}
    return f" ({', '.join(f'{count:,} {name}' for name, count in parts.items() if count)})"


def _remedy(run: RunAccount) -> str:
    """The smallest larger group that would help, or why none would."""
    larger = [one for one in run.others if one.size > run.usual_size]
    enough = _MUCH_LESS * (run.whole.silent.value or 0)
    helps = next((one for one in larger if (one.silent.value or 0) <= enough), None)
    if helps:
        return f"with G = {helps.size} it would have been {percent(helps.silent)}"
    last = larger[-1]
    which = "easy" if (run.whole.right.value or 0) > (run.whole.wrong.value or 0) else "hard"
    return (
        f"even with G = {last.size} it would have been {percent(last.silent)}, so the prompts are too {which}"
    )


def _delivered(whole: Account, countable: bool) -> Iterator[str]:
    if not countable:
        yield (
            "How many bits a rollout were delivered cannot be told, since most rewards of a group are the "
            f"only ones of their level: {number(whole.bits.value)} is a guess at the most they could teach."
        )
        return
    a_token = whole.bits_per_1000_tokens
    told = "" if a_token is None else f", {bits(a_token)} per 1,000 sampled tokens"
    yield (
        f"At most {bits(whole.bits)} bits a rollout were delivered{told}: a ceiling on what these "
        "rewards could teach, not what was learned."
    )


def _silent(whole: Account) -> Iterator[str]:
    if not whole.silent.value:
        yield "No group was silent."
        return
    tokens = "" if whole.silent_tokens is None else f" and {whole.silent_tokens:,.0f} tokens"
    yield (
        f"{percent(whole.silent)} of the groups were silent, so that they move nothing under a group "
        f"baseline: {_which(whole)}; they took {whole.silent_rollouts:,} rollouts{tokens}."
    )


def _about_sizes(run: RunAccount) -> Iterator[str]:
    """What the advantages carry, at this size of groups and at others."""
    here, near = run.usual_size, [one for one in run.others if _is_near(one, run.usual_size)]
    carried = run.whole.advantage_bits
    if carried is not None:
        yield (
            f"With G = {here} the advantages carry at most {bits(carried)} bits a rollout"
            f"{''.join(f', with {one.size} {number(_value(one.advantage_bits))}' for one in near)}."
        )
    if near:
        would = ", ".join(f"{percent(one.silent)} with G = {one.size}" for one in near)
        yield f"In groups of another size so many would have been silent: {would}."


def _is_near(one: OtherSize, size: int) -> bool:
    return one.size != size and size / 2 <= one.size


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def _about_rates(run: RunAccount, graded: bool) -> Iterator[str]:
    rates, fixed, whole = run.rates, run.unvarying, run.whole
    if rates:
        of = "chances of the highest reward" if graded else "pass rates"
        yield (
            f"The {of} follow Beta({in_brackets(rates.a)}, {in_brackets(rates.b)}), with a mean of "
            f"{in_brackets(rates.mean)}: {percent(rates.hard)} of groups are below 5 %, "
            f"{percent(rates.easy)} above 95 %."
        )
    if fixed and fixed.prompts < whole.prompts:
        tokens = "" if fixed.tokens is None else f" and {fixed.tokens:,.0f} tokens"
        yield (
            f"The {counted(fixed.prompts, 'prompt')} that never varied, each in {number(fixed.rewards)} "
            f"rewards (median), took {fixed.rollouts:,} rollouts{tokens}, "
            f"{short(100 * fixed.rollouts / whole.rollouts, 2)} %; left out from now on, one of them would "
            f"have varied in its next group with a chance of {_chance(fixed.chance)}."
        )


def _chance(chance: float) -> str:
    return "less than 0.1 %" if chance < 0.001 else f"{short(100 * chance, 2)} %"


def _about_kl(whole: Account) -> Iterator[str]:
    if whole.kl is not None:
        yield (
            f"At the end the policy was {number(whole.kl)} nats a token from its start, as the trainer logs "
            f"it, after {short((whole.bits.value or 0) * whole.rollouts)} bits at most were delivered."
        )


def notes_on(run: RunAccount, *, graded: bool) -> Iterator[str]:
    """What limits the numbers, beside what the log lacks."""
    for size, error in _ERRORS:
        if run.usual_size <= size:
            yield (
                f"From {run.usual_size} rewards a group bits delivered are known to about {error} bits at "
                "best, however many prompts there are."
            )
            break
    yield (
        f"What is said of groups of more than {2 * run.usual_size} rests on the shape of the fitted law, "
        f"which {run.usual_size} rewards a group do not show."
    )
    if graded:
        yield (
            "The reward is graded: all right and all wrong are groups at the highest and the lowest reward "
            "of this run, and advantages carry at most what the rewards tell."
        )
    if run.whole.prompts < 20:
        yield f"Intervals are over {counted(run.whole.prompts, 'prompt')} alone, and say nothing of others."


def estimators_in_words(estimators: Mapping[str, float]) -> str:
    """The estimates that are not quoted."""
    others = ", ".join(f"{name} {number(estimators[key])}" for key, name in _ESTIMATORS.items())
    return f"Quoted is the fitted law's, with the least bias; others over all: {others}."


def bits(estimate: Estimate) -> str:
    """Bits with their interval, to a ten-thousandth."""
    ends = (None if end is None else round(end, 4) for end in (estimate.value, estimate.low, estimate.high))
    return in_brackets(Estimate(*ends))


def percent(share: Estimate) -> str:
    """A share with its interval, as in 33 % [28, 39], to a hundredth of a percent."""
    ends = (share.value, share.low, share.high)
    value, low, high = (None if end is None else short(round(100 * end, 2), 2) for end in ends)
    return f"{value} %" if low is None or high is None else f"{value} % [{low}, {high}]"
