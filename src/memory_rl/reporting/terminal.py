"""What the terminal shows of a run and of a condition, on standard output: the answer, and the ceilings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.samples import Sample
from memory_rl.analysis.summary import about_prior
from memory_rl.reporting.claims import over_what, percent, stuck_of, unseen
from memory_rl.reporting.headline import headline, unit_of
from memory_rl.reporting.sheets import Sheet, say, show
from memory_rl.reporting.values import (
    MINDS,
    STEPS,
    counted,
    in_words,
    loss_interval,
    loss_words,
    number,
    spread,
)

_LOST, _SHANNON = "against the\nline above", "Shannon capacity"
_SAME = 0.005
"""Of two rates: they round to the same three digits."""


def show_answer(cell: Cell, notes: Iterable[str] = ()) -> None:
    """Prints what came out of a run directory: in a sentence, where the bits went, and what limits it."""
    say(headline(cell))
    if cell.summary:
        show(answer_sheet(cell))
    for note in notes:
        say(f"note: {note}")
    say(f"run directory: {cell.path}")


def answer_sheet(cell: Cell) -> Sheet:
    """Bits per episode from what a signal can carry to what the policy learned, one line for each.

    What is not known, as without a ledger, has no line.
    """
    rows, above, most = [], "", None
    for mind, name, rate in _lines(cell):
        value = rate["estimate"]
        lost = _lost(cell.summary, (above, mind), most, value)
        rows.append([name, in_words(_columns(rate), spread("rate")), lost])
        above, most = mind, value
    title = f"{cell.condition}, N = {cell.N}: {counted(cell.bits_to_learn, 'bit')} to learn"
    headings = ("", f"bits per {unit_of(cell)}", _LOST)
    words, whole = ("", _LOST), (_LOST,)
    caption = "\n".join(_remarks(cell))
    return Sheet(headings, rows, keys=whole, words=words, title=title, caption=caption)


def _columns(rate: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(spread("rate"), (rate["estimate"], *(rate["ci95"] or (None, None))), strict=True))


def _lines(cell: Cell) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Whose it is, as in `MINDS`, its name, and its rate as in summary.json, line by line."""
    summary, ceilings = cell.summary, cell.summary["ceilings"]
    yield "capacity", MINDS["capacity"], _known(ceilings["capacity"])
    if (told := ceilings["shannon_capacity"]) is not None and told < ceilings["capacity"] * (1 - _SAME):
        yield "", _SHANNON, _known(told)
    rates = summary.get("rates", {"policy": summary["bits_per_episode"]})
    both, memorised = _has_both_kinds(cell), summary["memorised"]
    for mind in [mind for mind in MINDS if mind in rates and mind != "capacity"]:
        name = f"{MINDS[mind]}, all {summary['runs']} runs" if both and mind == "policy" else MINDS[mind]
        yield mind, name, rates[mind]
    if both and "of_memorised" in summary:
        name = f"{MINDS['policy']}, {memorised} that memorised"
        yield _OTHERS, name, summary["of_memorised"]["bits_per_episode"]


_OTHERS = "others"
"""The line of those that memorised where some are stuck, which has no place among the losses."""


def _has_both_kinds(cell: Cell) -> bool:
    return 0 < cell.summary["memorised"] < cell.summary["runs"]


def _known(bits: float) -> dict[str, Any]:
    return {"estimate": bits, "ci95": None}


def _of_one(cell: Cell) -> str:
    if cell.kind == "sft":
        return "an example"
    if cell.config.get("signal") == "teacher":
        return "a teacher's word"
    return "one episode" if cell.config["env_type"] == "multi_step" else "a reward"


def _lost(summary: Mapping[str, Any], lines: tuple[str, str], most: float | None, value: float | None) -> str:
    """The factor between two lines, with the name that the report has for it, if it has one."""
    if not most or value is None or _OTHERS in lines:
        return ""
    step = next((step for step, ends in STEPS.items() if ends == lines), "")
    return loss_words(step, most / value if value else None, most, loss_interval(summary, step)).strip(": ")


def _remarks(cell: Cell) -> Iterator[str]:
    summary = cell.summary
    yield from _reading(cell, {name for _, name, _ in _lines(cell)})
    if "checks" in summary:
        yield _self_check(summary["checks"])
    if prior := about_prior(summary):
        yield prior


def _reading(cell: Cell, names: set[str]) -> Iterator[str]:
    """What the names of the lines and of the losses mean."""
    meanings = {
        MINDS["capacity"]: f"log2 of the number of signals that {_of_one(cell)} can bring",
        _SHANNON: "noise and ties counted",
        MINDS["questioner"]: "asks what tells most",
        MINDS["observer"]: f"knows all that these {unit_of(cell)}s told",
    }
    yield " ".join(f"{_capital(name)}: {words}." for name, words in meanings.items() if name in names)
    if MINDS["observer"] in names:
        yield (
            "Lost: what the signals cannot say (alphabet), what was not asked well (exploration), what was "
            "told and not learned (absorption)."
        )
    if cell.summary["runs"] > 1:
        yield " ".join(filter(None, [f"In brackets: 95 %, {over_what([Sample((cell,))])}.", _of_stuck(cell)]))


def _of_stuck(cell: Cell) -> str:
    """The budget of the rates over all runs, or what so few runs cannot show."""
    found = stuck_of(cell)
    if found is None:
        return ""
    if not found.some:
        return unseen([found.runs], alone=True)
    by = f", each up to {found.budget:,} {unit_of(cell)}s" if found.budget else ""
    whose = "Observer and policy are" if "rates" in cell.summary else "The policy is"
    alone = ", but for the last line" if _has_both_kinds(cell) and "of_memorised" in cell.summary else ""
    stuck = f"{found.count}, {percent(found.share)}, {'is' if found.count == 1 else 'are'} stuck there"
    return f"{whose} over all runs{by}{alone}; {stuck}."


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]


def _self_check(checks: Mapping[str, Any]) -> str:
    """Whether the measurement keeps the laws of information theory, in a sentence."""
    found = {check["status"]: check for check in checks.values()}
    if "breached" in found:
        return f"Self-check: breached ({found['breached']['law']}); there is a bug, or the secret leaks."
    if "skipped" in found:
        return f"Self-check: skipped, since {found['skipped']['why']}."
    return "Self-check: the measurement keeps the laws of information theory."


def ceilings_sheet(condition: str, N: int, memorised_at: float, ceilings: Mapping[str, Any]) -> Sheet:
    """What a condition can teach at most, before anything is trained.

    Args:
        condition: its name.
        N: the size of the secret space.
        memorised_at: the probability at which S counts as memorised.
        ceilings: as in summary.json.
    """
    first, asker = ceilings["first_episode"], ceilings["ideal_questioner"]
    rows = [
        ("naive capacity, log2 of the levels", ceilings["capacity"], "bits per episode"),
        ("Shannon capacity, the most an answer can tell", ceilings["shannon_capacity"], "bits per episode"),
        ("first episode, best answer", first["best"], "bits"),
        ("first episode, mean answer", first["mean"], "bits"),
    ]
    if asker is not None:
        aims = {"to_reach": f"P(S) >= {memorised_at:g}", "to_know": "knows S", "to_hit": "answers S"}
        rows += [
            (f"ideal questioner ({asker['method']}): {aim}", asker[name], "episodes")
            for name, aim in aims.items()
        ]
    rows.append(("optimal questioner: knows S", ceilings["optimal_to_know"], "episodes"))
    return Sheet(
        ["ceiling", "at most" if asker is None else "value", "unit"],
        [_with_unit(what, value, unit) for what, value, unit in rows if value is not None],
        words=["ceiling", "unit"],
        title=f"{condition}, N = {N}: ceilings",
    )


def _with_unit(what: str, value: float, unit: str) -> list[str]:
    words = number(value, 4)
    return [what, words, re.sub(r"s\b", "", unit, count=1) if words == "1" else unit]
