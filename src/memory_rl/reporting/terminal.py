"""What the terminal shows of a run and of a condition, on standard output: the answer, and the ceilings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.summary import about_prior
from memory_rl.reporting.headline import headline, unit_of
from memory_rl.reporting.sheets import Sheet, say, show
from memory_rl.reporting.values import counted, in_words, number, spread

_RATE, _LOST = "bits per {unit}", "against the\nline above"
_FILE_WIDTH = 140
_SAME = 0.005
"""Of two rates: they round to the same three digits."""


def show_answer(cell: Cell) -> None:
    """Prints what came out of a run directory: the answer in a sentence, and where the bits went."""
    say(headline(cell))
    if cell.summary:
        show(answer_sheet(cell))
    say(f"run directory: {cell.path}")


def answer_sheet(cell: Cell) -> Sheet:
    """Bits per episode from what a signal can carry to what the policy learned, one line for each.

    What is not known, as without a ledger, has no line.
    """
    unit, rows, above = unit_of(cell), [], None
    for name, rate in _lines(cell):
        value = rate["estimate"]
        rows.append([name, in_words(_columns(rate), spread("rate")), _against(above, value)])
        above = value
    title = f"{cell.condition}, N = {cell.N}: {counted(cell.bits_to_learn, 'bit')} to learn"
    headings = ("", _RATE.format(unit=unit), _LOST)
    return Sheet(headings, rows, words=("", _LOST), title=title, caption="\n".join(_remarks(cell)))


def _columns(rate: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(spread("rate"), (rate["estimate"], *(rate["ci95"] or (None, None))), strict=True))


def _lines(cell: Cell) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each line's name, and its rate as in summary.json."""
    summary, ceilings, one = cell.summary, cell.summary["ceilings"], _of_one(cell)
    yield f"ceiling: what {one} can carry", _known(ceilings["capacity"])
    if (told := ceilings["shannon_capacity"]) is not None and told < ceilings["capacity"] * (1 - _SAME):
        yield "ceiling, noise and ties counted", _known(told)
    rates = summary.get("rates", {"policy": summary["bits_per_episode"]})
    if "questioner" in rates:
        yield "the best possible questions", rates["questioner"]
    if "observer" in rates:
        yield f"told by these {unit_of(cell)}s", rates["observer"]
    yield "learned by the policy", rates["policy"]


def _known(bits: float) -> dict[str, Any]:
    return {"estimate": bits, "ci95": None}


def _of_one(cell: Cell) -> str:
    if cell.kind == "sft":
        return "an example"
    if cell.config.get("signal") == "teacher":
        return "a teacher's word"
    return "one episode" if cell.config["env_type"] == "multi_step" else "a reward"


def _against(above: float | None, value: float | None) -> str:
    """How much less a rate is than the one above it: 5.41 times less, or 2.95 times more."""
    if not above or value is None:
        return ""
    if not value:
        return "none memorised"
    if abs(value / above - 1) < _SAME:
        return "the same"
    return f"{number(above / value)} times less" if value < above else f"{number(value / above)} times more"


def _remarks(cell: Cell) -> Iterator[str]:
    summary = cell.summary
    if "rates" in summary:
        unit = unit_of(cell)
        yield (
            f"Best questions: of a player who asks what tells most. Told: to an ideal observer of the same "
            f"{unit}s.{' Intervals: 95 %, over runs.' if summary['runs'] > 1 else ''}"
        )
    if "checks" in summary:
        yield _self_check(summary["checks"])
    if prior := about_prior(summary):
        yield prior


def _self_check(checks: Mapping[str, Any]) -> str:
    """Whether the measurement keeps the laws of information theory, in a sentence."""
    found = {check["status"]: check for check in checks.values()}
    if "breached" in found:
        return f"Self-check: breached ({found['breached']['law']}); there is a bug, or the secret leaks."
    if "skipped" in found:
        return f"Self-check: skipped, since {found['skipped']['why']}."
    return "Self-check: the measurement keeps the laws of information theory."


def ceilings_table(condition: str, N: int, memorised_at: float, ceilings: Mapping[str, Any]) -> Table:
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
    table = Table(title=escape(f"{condition}, N = {N}: ceilings"), title_justify="left")
    for heading in ("what", "at most" if asker is None else "value", "unit"):
        is_number = heading in ("at most", "value")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=is_number)
    for what, value, unit in rows:
        if value is not None:
            words = number(value, 4)
            one = words == "1"
            table.add_row(what, words, re.sub(r"s\b", "", unit, count=1) if one else unit)
    return table


def show_table(table: Table) -> None:
    """Prints a table; where output is not a terminal, a row stays one line."""
    console = Console()
    if not console.is_terminal:
        console.width = max(_FILE_WIDTH, console.measure(table).maximum)
    console.print(table)
