"""What a notebook shows of an answer: its sentence, its tables as in the terminal, and a figure."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.digits import short
from memory_rl.reporting.headline import headline
from memory_rl.reporting.lettering import drawn
from memory_rl.reporting.sheets import Sheet
from memory_rl.reporting.values import MINDS, counted
from memory_rl.training.ceilings import Ceilings

_MOST_ROWS = 60
_WORDS, _NUMBERS = ' style="text-align:left"', ' style="text-align:right;white-space:nowrap"'
_SMALL = ' style="opacity:0.7"'
_WIDEST = 160
"""Letters of a table that fit beside each other in a notebook."""


def result_html(cell: Cell) -> str:
    """The answer of a run directory, where the bits went as in the terminal, and its curve, in the text.

    Args:
        cell: as it is on disk, finished or not.
    """
    from memory_rl.reporting.terminal import answer_sheet

    parts = [answer_html(headline(cell), [answer_sheet(cell)] if cell.summary else [])]
    if len(cell.metrics):
        from memory_rl.reporting.pictures import plot_run

        parts.append(
            figure_html(plot_run(cell).to_dict(), f"bits known of {cell.condition} against episodes")
        )
    return "\n".join(parts)


def answer_html(sentence: str, sheets: Sequence[Sheet], notes: Sequence[str] = ()) -> str:
    """A sentence, tables, of which each has at most its first rows, and what limits the answer.

    Args:
        sentence: what came out.
        sheets: tables as for a terminal; those without rows are left out.
        notes: a sentence each.
    """
    parts = [_paragraph(sentence), *(_sheet_html(sheet) for sheet in sheets if sheet.rows)]
    return "\n".join([*parts, *(_paragraph(f"note: {note}") for note in notes)])


def _sheet_html(sheet: Sheet) -> str:
    form = sheet.fitted(_WIDEST)
    left_out = len(form.rows) - _MOST_ROWS
    more = f"{left_out} more rows are not shown.\n" if left_out > 0 else ""
    return f"{_paragraph(sheet.title)}{_table(form)}{_paragraph(more + form.caption, _SMALL)}"


def _paragraph(text: str, style: str = "") -> str:
    return f"<p{style}>{_lines(text)}</p>" if text else ""


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


@dataclass(frozen=True, repr=False)
class NamedCeilings(Ceilings):
    """Ceilings, with the condition that they are of.

    Attributes:
        condition: its name.
        N: the size of the secret space.
        memorised_at: the probability at which S counts as memorised.
    """

    condition: str
    N: int
    memorised_at: float

    def as_dict(self) -> dict[str, Any]:
        """As in summary.json."""
        found = super().as_dict()
        return {name: value for name, value in found.items() if name not in _NAMES}

    @property
    def sentence(self) -> str:
        """What an episode of the condition can teach."""
        most = min(bits for bits in (self.capacity, self.shannon_capacity) if bits is not None)
        first = f"the first tells at most {counted(self.first_episode.best, 'bit')}"
        told = f"{self.condition}, N = {self.N}: an episode carries at most {counted(most, 'bit')}; {first}"
        return f"{told}, and {self._asker()}." if self.ideal_questioner else f"{told}."

    def _asker(self) -> str:
        episodes, rate = counted(self._to_reach, "episode"), counted(self._rate, "bit")
        aim = f"S has a probability of {self.memorised_at:g}"
        return f"an ideal questioner needs {episodes} until {aim}: {rate} an episode"

    @property
    def _to_reach(self) -> float:
        return 0.0 if self.ideal_questioner is None else self.ideal_questioner.to_reach

    @property
    def _rate(self) -> float:
        return math.log2(self.N) / self._to_reach if self._to_reach else 0.0

    def __repr__(self) -> str:
        return f"Ceilings of {self.sentence}"

    def _repr_html_(self) -> str:
        bits = {
            MINDS["capacity"]: self.capacity,
            "Shannon capacity": self.shannon_capacity,
            "first episode, best answer": self.first_episode.best,
            "first episode, mean answer": self.first_episode.mean,
            f"ideal questioner ({self.method})": self._rate or None,
        }
        known = {what: value for what, value in bits.items() if value is not None}
        rows = [
            (what, counted(value, "bit", 4), _CEILINGS.get(what, _ASKER)) for what, value in known.items()
        ]
        if self.ideal_questioner:
            for aim, name in (("knows S", "to_know"), ("answers S", "to_hit")):
                episodes = counted(getattr(self.ideal_questioner, name), "episode", 4)
                rows.append((f"the ideal questioner {aim} after", episodes, "the mean over secrets"))
        sheet = Sheet(("ceiling", "at most", "of what"), rows, words=("ceiling", "of what"))
        picture = figure_html(_bars(known), f"ceilings of {self.condition} in bits per episode")
        return f"{answer_html(self.sentence, [sheet])}\n{picture}"


_CEILINGS = {
    "naive capacity": "an episode: log2 of the levels that a reward has",
    "Shannon capacity": "an episode: the most that an answer can tell, whatever is known already",
    "first episode, best answer": "of the one that tells most while nothing is known",
    "first episode, mean answer": "of one drawn at random",
}
_ASKER = "an episode, of one who draws every conclusion and asks what tells most"

_NAMES = ("condition", "N", "memorised_at")


def _table(sheet: Sheet) -> str:
    """At most the first rows of a sheet; numbers are on the right, and never broken."""
    looks = [_WORDS if heading in sheet.words else _NUMBERS for heading in sheet.headings]
    rows = [("th", sheet.headings), *(("td", row) for row in sheet.rows[:_MOST_ROWS])]
    lines = (
        "".join(f"<{tag}{look}>{_lines(word)}</{tag}>" for word, look in zip(row, looks, strict=True))
        for tag, row in rows
    )
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def figure_html(spec: dict[str, Any], about: str) -> str:
    """A figure inside the text; as an image, so that figures of several outputs share no names."""
    drawing = base64.b64encode(drawn(spec).encode()).decode()
    return f'<img alt="{escape(about)}" style="max-width:100%" src="data:image/svg+xml;base64,{drawing}">'


def _bars(bits: dict[str, float]) -> dict[str, Any]:
    """Bars with their values beside them, on a linear scale."""
    from memory_rl.reporting.themes import GROUND, PALETTE, vega_config

    values = [{"what": what, "bits": value, "word": short(value)} for what, value in bits.items()]
    y = {"field": "what", "type": "nominal", "sort": None, "title": None}
    x = {"field": "bits", "type": "quantitative", "title": "bits per episode"}
    color = PALETTE["light"][0]
    return {
        "data": {"values": values},
        "width": 320,
        "padding": {"left": 24, "top": 5, "right": 24, "bottom": 5},  # for a font wider than the one laid out
        "height": {"step": 26},
        "encoding": {"y": y, "x": x},
        "layer": [
            {"mark": {"type": "bar", "color": color, "height": 14}},
            {"mark": {"type": "text", "align": "left", "dx": 4}, "encoding": {"text": {"field": "word"}}},
        ],
        "config": vega_config("light", [], ground=GROUND["light"]),
    }
