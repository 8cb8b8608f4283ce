"""What came out of a run directory, in one sentence: what terminal, report page and notebook show first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.digits import rounded, short
from memory_rl.reporting.claims import percent, stuck_of
from memory_rl.reporting.values import counted
from memory_rl.runs.store import RunDirectory

_LEAST_SHARE = 1e-4
_FITS = 1.25
"""Two rates that differ by less than this factor look alike to a reader."""


def headline(cell: Cell) -> str:
    """The answer of a run directory in a sentence; of one that has none yet, how it stands.

    For example: 16 of 16 runs memorised the secret after a median of 116 episodes [68, 144]: 0.049 bits an
    episode, 5 % of the 1-bit ceiling. An interval is a 95 % one. Where some runs are stuck their share is
    told and the rate of the others, or, of an older run directory, that of all by the budget.
    """
    if not cell.summary:
        return _without_answer(cell)
    if not cell.measured:
        return _of_observer(cell)
    if "secrets_memorised" in cell.summary:
        return _of_several(cell)
    if 0 < cell.summary["memorised"] < cell.summary["runs"]:
        return _of_both_kinds(cell)
    return f"{_how_many(cell)}{_when(cell)}{_how_fast(cell)}."


def ceiling(summary: Mapping[str, Any]) -> float:
    """The most bits that an episode can carry: the least of the known ceilings, since noise lowers it."""
    known = (summary["ceilings"][name] for name in ("capacity", "shannon_capacity"))
    return float(min(bits for bits in known if bits is not None))


def share_of_ceiling(summary: Mapping[str, Any], of: Mapping[str, Any] | None = None) -> str | None:
    """Bits per episode as a share of the ceiling, such as "5 %"; None if either is unknown or 0.

    Args:
        summary: with the rate of all runs and the ceilings.
        of: another rate as in a summary.
    """
    rate, most = (of or summary["bits_per_episode"])["estimate"], ceiling(summary)
    if rate is None or not most:
        return None
    share = rate / most
    if 0 < share < _LEAST_SHARE:
        return f"less than {100 * _LEAST_SHARE:g} %"
    return f"{rounded(100 * share, 1 if share < 0.1 else 2)} %"


def unit_of(cell: Cell) -> str:
    """What a run spends: an "episode", or in supervised learning an "example"."""
    return "example" if cell.kind == "sft" else "episode"


_NO_ANSWER = {
    "running": "the experiment is still running",
    "killed": "the experiment was killed, and what it had measured by its last checkpoint is kept",
    "interrupted": "the experiment was interrupted, and what it had measured is kept",
}


def _without_answer(cell: Cell) -> str:
    status = RunDirectory(cell.path).status(cell.manifest)
    if status in _NO_ANSWER:
        return f"There is no answer yet: {_NO_ANSWER[status]}."
    return f"There is no answer, since the experiment {cell.ended}."


def _of_observer(cell: Cell) -> str:
    """What the episodes told, where the policy could not be asked what it knows."""
    summary, unit = cell.summary, unit_of(cell)
    told = (
        ""
        if "ledger" not in summary
        else (
            f"; what its {counted(summary['episodes'], unit)} told is "
            f"{rounded(summary['ledger']['observer']['estimate'])} of {counted(cell.bits_to_learn, 'bit')}"
        )
    )
    return f"What the agent knows was not measured, since it gave no probabilities{told}."


def _of_several(cell: Cell) -> str:
    """What a recorded run has learned about several secrets, most of which it may not have memorised."""
    summary, unit, secrets = cell.summary, unit_of(cell), cell.num_secrets
    gained = summary["relative_to_prior"]["gained_bits"]["estimate"]
    spent = max(1, summary["episodes"])
    return (
        f"{counted(spent, unit)} about {secrets} secrets stored {rounded(gained, 3)} of "
        f"{counted(cell.bits_to_learn, 'bit')}, {counted(gained / spent, 'bit', 2)} an {unit}; "
        f"{summary['secrets_memorised']} of {secrets} secrets are memorised."
    )


def _how_many(cell: Cell) -> str:
    runs, memorised = cell.summary["runs"], cell.summary["memorised"]
    if runs == 1:
        return f"The run {'memorised' if memorised else 'did not memorise'} {_what(cell)}"
    return f"{memorised or 'None'} of {runs} runs memorised {_what(cell)}"


def _what(cell: Cell) -> str:
    secrets, fixed = cell.num_secrets, cell.config.get("fixed_secret")
    if secrets > 1:
        wanted = cell.secrets_to_memorise
        return f"all {secrets} secrets" if wanted == secrets else f"at least {wanted} of {secrets} secrets"
    return "the secret" if fixed is None else f"the one secret {fixed}"


def _of_both_kinds(cell: Cell) -> str:
    """The share that is stuck, and the numbers of the others."""
    summary, of = cell.summary, cell.summary.get("of_memorised")
    share = stuck_of(cell)
    late = f"{summary['censored']}{f', {percent(share.share)},' if share else ''}"
    late += f" {'was' if summary['censored'] == 1 else 'were'} stuck {_at(cell)}"
    if of is None:
        median = _after(cell, summary["episodes_to_memorise"])
        half = f", and half had memorised{median.replace('a median of ', '')}" if median else ""
        return f"{_how_many(cell)}; {late}. Over all runs by then{_how_fast(cell, cell.summary)}{half}."
    median = _after(cell, of.get("episodes_to_memorise", {"median": None}))
    found = f"{_how_many(cell)}{f',{median}' if median else ''}; {late}"
    if of["bits_per_episode"]["estimate"] is None:
        return f"{found}{_how_fast(cell, of)}."
    who = "The one that memorised" if summary["memorised"] == 1 else "Those that memorised"
    return f"{found}. {who}{_how_fast(cell, of)}."


def _at(cell: Cell) -> str:
    return "when max_tokens_total was spent" if cell.summary.get("stopped") else f"at {_budget(cell):,}"


def _when(cell: Cell) -> str:
    """After how many episodes all runs memorised, or within how many none did."""
    if cell.summary["memorised"]:
        return _after(cell, cell.summary["episodes_to_memorise"])
    share = stuck_of(cell) if cell.summary["runs"] > 1 else None
    return f" {_within(cell)}{f' (stuck: {percent(share.share)})' if share else ''}"


def _after(cell: Cell, episodes: Mapping[str, Any]) -> str:
    median, unit = episodes["median"], unit_of(cell)
    if median is None:
        return ""
    if not median:
        return f" before the first {unit}"
    typical = "" if 1 in (cell.summary["runs"], cell.summary["memorised"]) else "a median of "
    return f" after {typical}{counted(median, unit)}{_interval(episodes)}"


def _within(cell: Cell) -> str:
    if cell.summary.get("stopped"):
        return "before max_tokens_total was spent"
    return f"within {counted(_budget(cell), unit_of(cell))}"


def _budget(cell: Cell) -> int:
    return int(cell.summary.get("episodes") or cell.settings["max_episodes"])  # a recorded run has its own


def _interval(value: Mapping[str, Any]) -> str:
    low, high = value["ci95"]
    if low is None and high is None:
        return ""
    if not low and high is None:
        return " (too few runs for an interval)"
    return f" [{rounded(low)}, {'beyond' if high is None else rounded(high)}]"


def _how_fast(cell: Cell, of: Mapping[str, Any] | None = None) -> str:
    """Bits an episode, and what share of the ceiling they are; nothing where no episode was needed.

    Args:
        cell: a run directory.
        of: the numbers of those that memorised, if others are stuck; None: those of all.
    """
    rate, most = (of or cell.summary)["bits_per_episode"], ceiling(cell.summary)
    if rate["estimate"] is None:
        return ", so that there is nothing to measure"
    ends = "" if of is None else _interval_of_rate(rate)
    bits = f": {counted(rate['estimate'], 'bit', 2)} an {unit_of(cell)}{ends}{'' if of else _over_what(cell)}"
    if not rate["estimate"] and rate["ci95"][1] is not None:
        bits += f", at most {rounded(rate['ci95'][1], 2)} (95 %)"
    share = share_of_ceiling(cell.summary, rate)
    if share is None:
        return f"{bits}, and no reward of this kind tells anything"
    return f"{bits}, {share} of the {short(most)}-bit ceiling"


def _interval_of_rate(rate: Mapping[str, Any]) -> str:
    low, high = rate["ci95"]
    return "" if low is None else f" [{rounded(low, 2)}, {rounded(high, 2)}]"


def _over_what(cell: Cell) -> str:
    """What the rate is of, where a reader would compute another one from the median."""
    median, rate = (
        cell.summary["episodes_to_memorise"]["median"],
        cell.summary["bits_per_episode"]["estimate"],
    )
    if cell.summary["runs"] == 1 or not (median and rate):
        return ""
    factor = cell.information / median / rate
    if 1 / _FITS < factor < _FITS:
        return ""
    return f" (over all {unit_of(cell)}s of all runs, the slow ones too)"
