"""What a notebook shows of a run directory, of ceilings and of a sweep: sentence, table and figure."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.summary import about_prior
from memory_rl.reporting.headline import headline, unit_of
from memory_rl.reporting.lettering import drawn
from memory_rl.reporting.values import MEDIAN, MINDS, RATE, STEPS, counted, in_words, measured, rounded, short
from memory_rl.training.ceilings import Ceilings

if TYPE_CHECKING:
    import polars as pl

_LEFT = "text-align:left"
_MOST_ROWS = 60


def result_html(cell: Cell) -> str:
    """The answer of a run directory, its numbers and its curve; the figure is part of the text.

    Args:
        cell: as it is on disk, finished or not.
    """
    parts = [f"<p>{escape(headline(cell))}</p>"]
    if cell.summary:
        prior = about_prior(cell.summary)
        parts += [_table(_result_rows(cell)), f"<p>{escape(prior)}</p>" if prior else ""]
    if len(cell.metrics):
        from memory_rl.reporting.pictures import plot_run

        parts.append(_picture(plot_run(cell).to_dict(), f"bits known of {cell.condition} against episodes"))
    return "\n".join(filter(None, parts))


def _result_rows(cell: Cell) -> list[tuple[str, str]]:
    summary, row, unit = cell.summary, measured(cell.summary), unit_of(cell)
    rows = [
        ("condition", f"{cell.condition}, N = {cell.N}"),
        ("runs that memorised", f"{row['memorised']} of {row['runs']}"),
        (f"median {unit}s [95 %]", in_words(row, MEDIAN)),
        (f"bits per {unit} [95 %]", in_words(row, RATE)),
    ]
    for mind, rate in summary.get("rates", {}).items():
        if mind != "policy":
            rows.append((f"bits per {unit}, {MINDS[mind]}", rounded(rate["estimate"])))
    losses = summary.get("losses", {})
    lost = [f"{step} {short(losses[step])}x" for step in STEPS if losses.get(step)]
    return [*rows, ("lost on the way", ", ".join(lost))] if lost else rows


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
            "naive capacity": self.capacity,
            "Shannon capacity": self.shannon_capacity,
            "first episode, best answer": self.first_episode.best,
            "first episode, mean answer": self.first_episode.mean,
            f"ideal questioner ({self.method})": self._rate or None,
        }
        known = {what: value for what, value in bits.items() if value is not None}
        rows = [(what, f"{counted(value, 'bit', 4)} an episode") for what, value in known.items()]
        if self.ideal_questioner:
            for aim, name in (("knows S", "to_know"), ("answers S", "to_hit")):
                episodes = counted(getattr(self.ideal_questioner, name), "episode", 4)
                rows.append((f"the ideal questioner {aim} after", episodes))
        picture = _picture(_bars(known), f"ceilings of {self.condition} in bits per episode")
        return f"<p>{escape(self.sentence)}</p>\n{_table(rows)}\n{picture}"


_NAMES = ("condition", "N", "memorised_at")


def frame_html(sentence: str, frame: pl.DataFrame) -> str:
    """A sentence and a frame as a table of words, of many rows only the first."""
    shown = frame.head(_MOST_ROWS)
    rows = [
        [rounded(v) if isinstance(v, float) else "" if v is None else str(v) for v in row]
        for row in shown.rows()
    ]
    more = (
        f"<p>{len(frame) - len(shown)} more rows are in <code>.frame</code>.</p>"
        if len(frame) > len(shown)
        else ""
    )
    return f"<p>{escape(sentence)}</p>\n{_table(rows, *frame.columns[1:], first=frame.columns[0])}{more}"


def _table(rows: Iterable[Sequence[str]], *headings: str, first: str = "") -> str:
    head = "".join(f'<th style="{_LEFT}">{escape(name)}</th>' for name in (first, *headings))
    lines = [f"<tr>{head}</tr>"] if headings else []
    for row in rows:
        cells = "".join(f'<td style="{_LEFT}">{escape(word)}</td>' for word in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _picture(spec: dict[str, Any], about: str) -> str:
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
