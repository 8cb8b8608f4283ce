"""What came out of a run directory, in one sentence: what terminal, report page and notebook show first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memory_rl.analysis.collect import Cell
from memory_rl.reporting.values import counted, rounded, short
from memory_rl.runs.store import RunDirectory

_LEAST_SHARE = 1e-4
_FITS = 1.25
"""Two rates that differ by less than this factor look alike to a reader."""


def headline(cell: Cell) -> str:
    """The answer of a run directory in a sentence; of one that has none yet, how it stands.

    For example: 16 of 16 runs memorised the secret after a median of 116 episodes [68, 144]: 0.049 bits an
    episode, 5 % of the 1-bit ceiling. An interval is a 95 % one.
    """
    if not cell.summary:
        return _without_answer(cell)
    return f"{_how_many(cell)}{_when(cell)}{_how_fast(cell)}."


def ceiling(summary: Mapping[str, Any]) -> float:
    """The most bits that an episode can carry: the least of the known ceilings, since noise lowers it."""
    known = (summary["ceilings"][name] for name in ("capacity", "shannon_capacity"))
    return float(min(bits for bits in known if bits is not None))


def share_of_ceiling(summary: Mapping[str, Any]) -> str | None:
    """Bits per episode as a share of the ceiling, such as "5 %"; None if either is unknown or 0."""
    rate, most = summary["bits_per_episode"]["estimate"], ceiling(summary)
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


def _when(cell: Cell) -> str:
    """After how many episodes; where some runs did not, that too, since the median counts them as later."""
    summary, unit = cell.summary, unit_of(cell)
    median = summary["episodes_to_memorise"]["median"]
    late = "" if summary["memorised"] == summary["runs"] else _within(cell)
    if median is None:
        return f" {late}"
    typical = "" if summary["runs"] == 1 else "a median of "
    found = f" after {typical}{counted(median, unit)}{_interval(summary['episodes_to_memorise'])}"
    found = found if median else f" before the first {unit}"
    return f"{found}, and the others not {late}" if late else found


def _within(cell: Cell) -> str:
    if cell.summary.get("stopped"):
        return "before max_tokens_total was spent"
    return f"within {counted(cell.settings['max_episodes'], unit_of(cell))}"


def _interval(value: Mapping[str, Any]) -> str:
    low, high = value["ci95"]
    if low is None and high is None:
        return ""
    if not low and high is None:
        return " (too few runs for an interval)"
    return f" [{rounded(low)}, {'beyond' if high is None else rounded(high)}]"


def _how_fast(cell: Cell) -> str:
    """Bits an episode, and what share of the ceiling they are; nothing where no episode was needed."""
    rate, most = cell.summary["bits_per_episode"], ceiling(cell.summary)
    if rate["estimate"] is None:
        return ", so that there is nothing to measure"
    bits = f": {counted(rate['estimate'], 'bit', 2)} an {unit_of(cell)}{_over_what(cell)}"
    if not rate["estimate"] and rate["ci95"][1] is not None:
        bits += f", at most {rounded(rate['ci95'][1], 2)} (95 %)"
    share = share_of_ceiling(cell.summary)
    if share is None:
        return f"{bits}, and no reward of this kind tells anything"
    return f"{bits}, {share} of the {short(most)}-bit ceiling"


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
