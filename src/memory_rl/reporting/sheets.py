"""Tables for the terminal that stay whole at any width: what tells rows apart is never left out or cut."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from itertools import product
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typing_extensions import override

from memory_rl.analysis.digits import UNKNOWN

_GAP, _FOLDED = 2, (24, 16)
"""Spaces between two columns, and the widths to which a column of words is folded, one after the other."""
_NO_LIMIT = 100_000
_NO_BREAK = "\N{NO-BREAK SPACE}"
WHOLE = r"N = \d+|[\d.,]*\d( (%|s|min|h|bits?)(?=\W|$)| \[[^\[\]]{1,40}\]( %)?)"
"""Of a sentence, what is not broken."""
_NOTEBOOK = 110
"""Columns of a notebook's page on a common screen."""


@dataclass(frozen=True)
class Sheet:
    """A table in words, before it is known how wide it may be.

    Where it is too wide for the terminal it loses columns of `spare`, one after the other. If that does not
    suffice rows have two lines: with intervals below values, then with one column of keys instead, then with
    both; at last each row is a paragraph. Numbers are never broken.

    Attributes:
        headings: of its columns.
        rows: in words.
        keys: the headings of what tells rows apart.
        spare: the headings of what may be left out, in this order.
        words: the headings of words, which are set to the left, and which may be broken between words.
        title: above it.
        caption: below it, line by line.
        folded: the least width to which a column of words is folded.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    keys: Sequence[str] = ()
    spare: Sequence[str] = ()
    words: Sequence[str] = ()
    title: str = ""
    caption: str = ""
    folded: int = _FOLDED[0]

    @property
    def width(self) -> int:
        """The columns of the terminal that it needs."""
        return sum(map(self._width_of, range(len(self.headings)))) + _GAP * (len(self.headings) - 1)

    def fitted(self, width: int) -> Sheet:
        """The same as it fits into this width."""
        fitting = (form for form in self._forms() if form.width <= width)
        return next(fitting, None) or self._paragraphs(width)

    def _forms(self) -> Iterator[Sheet]:
        """Ever narrower forms, without what is the same in all rows if that may be left out."""
        whole = self._without_repeated()
        for folded, laid_out in product(
            _FOLDED,
            (
                lambda form: form,
                Sheet._intervals_below_values,
                Sheet._keys_in_one_column,
                lambda form: form._intervals_below_values()._keys_in_one_column(),
            ),
        ):
            form, left_out = replace(whole, folded=folded), list[str]()
            yield laid_out(form)
            for heading in [one for one in self.spare if one in whole.headings]:
                form = form._without(heading)
                left_out.append(_flat(heading))
                there = f"a terminal of {whole.width} columns or a pipe shows all"
                yield laid_out(form._with_note(f"no room for: {', '.join(left_out)}; {there}"))

    def _paragraphs(self, width: int) -> Sheet:
        """One column: of each row what it is of, and below it the other cells with their headings."""
        first = next((heading for heading in self.headings if heading not in self.spare), self.headings[0])
        place, headings = self.headings.index(first), [*map(_flat, self.headings)]
        rows = []
        for row in self.rows:
            cells = [f"{heading} {cell}".strip() for heading, cell in zip(headings, row, strict=True) if cell]
            named = headings[place] + " " + row[place]
            others = [cell for cell in cells if cell != named.strip()]
            rows.append(["\n".join([row[place], *_filled(others, width - _GAP)])])
        return replace(self, headings=[first], rows=rows, keys=(), spare=(), words=[first], folded=width)

    def _without_repeated(self) -> Sheet:
        form, same = self, list[str]()
        for heading in self.spare if len(self.rows) > 1 else ():
            values = {row[self.headings.index(heading)] for row in self.rows}
            if len(values) == 1:
                same.append(f"{_flat(heading)} {min(values)}")
                form = form._without(heading)
        return form._with_note(f"the same in all rows: {', '.join(same)}") if same else form

    def _without(self, heading: str) -> Sheet:
        place = self.headings.index(heading)
        rows = [[*row[:place], *row[place + 1 :]] for row in self.rows]
        return replace(self, headings=[*self.headings[:place], *self.headings[place + 1 :]], rows=rows)

    def _with_note(self, note: str) -> Sheet:
        return replace(self, caption="\n".join(filter(None, [note, self.caption])))

    def _keys_in_one_column(self) -> Sheet:
        """One column of keys: the first as it is, and below it the others as key=value."""
        if len(self.keys) < 2:
            return self
        first, *others = (self.headings.index(key) for key in self.keys)
        rest = [place for place in range(len(self.headings)) if place not in (first, *others)]
        width = max(self.folded, *(_width(row[first]) for row in self.rows))
        rows = [
            [self._named(row, first, others, width), *(row[place] for place in rest)] for row in self.rows
        ]
        name = self.headings[first]
        headings = [name, *(self.headings[place] for place in rest)]
        return replace(self, headings=headings, rows=rows, keys=[name], words=[name, *self.words])

    def _named(self, row: Sequence[str], first: int, others: Sequence[int], width: int) -> str:
        lines = [row[first], ""]
        for word in [f" {self.headings[place]}={row[place]}" for place in others if row[place] != UNKNOWN]:
            if cell_len(lines[-1] + word) > width and lines[-1]:
                lines.append("")
            lines[-1] += word
        return "\n".join(lines)

    def _intervals_below_values(self) -> Sheet:
        return replace(self, rows=[[cell.replace(" [", "\n[") for cell in row] for row in self.rows])

    def _width_of(self, place: int) -> int:
        longest = max(map(_width, (self.headings[place], *(row[place] for row in self.rows))))
        return min(longest, self.folded) if self._may_break(self.headings[place]) else longest

    def _may_break(self, heading: str) -> bool:
        return heading in self.words and heading not in self.keys

    def as_table(self) -> Table:
        """For rich."""
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in self.headings:
            table.add_column(
                escape(heading),
                justify="left" if heading in self.words else "right",
                no_wrap=not self._may_break(heading),
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*map(escape, row))
        return table


def _filled(words: Sequence[str], width: int) -> Iterator[str]:
    """Words in indented lines; the interval of one that fits into none has a line of its own."""
    line, indent = "", " " * _GAP
    for word in words:
        if line and cell_len(f"{line}, {word},") > width:
            yield f"{indent}{line},"
            line = ""
        line = f"{line}, {word}" if line else word
        if cell_len(line) >= width:
            line = line.replace(" [", f"\n{indent}[")
    if line:
        yield indent + line


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def _flat(heading: str) -> str:
    return " ".join(heading.split())


class _Output(Console):
    """Prints a name such as `fire.py:Fire` as it is, without a picture of a fire."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, force_jupyter=False, **options)

    @override
    def on_broken_pipe(self) -> None:
        """Whoever read the output, such as head, has seen enough; what is at work goes on in silence."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def console_for(*, stderr: bool = False) -> Console:
    """Where to print; in a notebook, no terminal, as plain text, since rich cuts long lines there."""
    return _Output(stderr=stderr, force_terminal=False if in_notebook() else None)


def in_notebook() -> bool:
    """Whether what is printed becomes the output of a notebook's cell."""
    return Console().is_jupyter


def plain(sheet: Sheet) -> str:
    """A table of any width as text."""
    console = _Output(file=StringIO(), width=_NO_LIMIT, force_terminal=False)
    with console.capture() as captured:
        console.print(sheet.as_table())
    return "\n".join(line.rstrip() for line in captured.get().rstrip().split("\n"))


def show(sheet: Sheet, console: Console | None = None) -> None:
    """Prints a table that has rows; where output is not a terminal, nothing is folded or left out."""
    if not sheet.rows:
        return
    console = console or console_for()
    if in_notebook():
        sheet = sheet.fitted(_NOTEBOOK)
    elif console.is_terminal:
        sheet = sheet.fitted(console.width)
    if not console.is_terminal:
        console.width = _NO_LIMIT
    if sheet.title:
        say(sheet.title, console, style="italic")
    with console.capture() as drawn:
        console.print(sheet.as_table())
    for line in drawn.get().splitlines():  # without the blanks that fill up its columns
        console.out(line.rstrip(), highlight=False)
    for line in filter(None, sheet.caption.split("\n")):
        say(line, console, style="dim")


def say(sentence: str, console: Console | None = None, *, style: str = "") -> None:
    """Prints a sentence, broken between words where output is a terminal; a path at its end stays whole."""
    console = console or console_for()
    path = sentence.rpartition(": ")[2]
    if console.is_terminal and not ("/" in path and " " not in path):
        sentence = _broken(sentence, console.width)
    console.print(sentence, style=style, markup=False, highlight=False, soft_wrap=True)


def _broken(sentence: str, width: int) -> str:
    """In lines of this width, with no blank at their ends; a number, its unit and its interval are whole."""
    kept = re.sub(WHOLE, lambda found: found[0].replace(" ", _NO_BREAK), sentence)
    lines = textwrap.wrap(kept, max(width, 2), break_on_hyphens=False)
    return "\n".join(lines).replace(_NO_BREAK, " ")
