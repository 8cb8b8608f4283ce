"""A plan of how to sample: sentences, one table and one picture, for terminal, notebook and browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.analysis.digits import short
from memory_rl.errors import ConfigError
from memory_rl.files import Json
from memory_rl.reporting.sheets import Sheet, plain

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

GENERATOR = "memory-rl plan"
SIZES = (2, 4, 8, 16, 32, 64)
"""The sizes of groups in tables."""
_STEPS_A_DOUBLING = 8
_WIDTH, _HEIGHT = 460, 260
_LEAST, _NEARLY_ALL = 1e-4, 0.9995


@dataclass(frozen=True)
class Pricing:
    """What a rollout costs.

    Attributes:
        tokens: of it; None if unknown.
        price: dollars for a million of them; None if unknown.
    """

    tokens: float | None
    price: float | None

    def __post_init__(self) -> None:
        if self.price is not None and self.tokens is None:
            raise ConfigError(
                f"price={self.price:g} needs the tokens of a rollout: add for example tokens=500."
            )

    def of(self, rollouts: float) -> dict[str, float | None]:
        """Tokens and dollars of so many rollouts."""
        tokens = None if self.tokens is None else rollouts * self.tokens
        dollars = None if tokens is None or self.price is None else tokens * self.price / 1e6
        return {"tokens": tokens, "dollars": dollars}

    def words(self, rollouts: float) -> str:
        """The same in words, as in ": 2,780 tokens, $0.0011"; empty if unknown."""
        found = self.of(rollouts)
        parts = [] if found["tokens"] is None else [f"{short(found['tokens'])} tokens"]
        parts += [] if found["dollars"] is None else [money(found["dollars"])]
        return f": {', '.join(parts)}" if parts else ""


def money(dollars: float) -> str:
    """As in $0.0512."""
    return f"${short(dollars)}"


def percent(share: float) -> str:
    """As in 79.6 %; what rounds to none or to all, and is not, says so."""
    if 0 < share < _LEAST:
        return f"< {short(100 * _LEAST)} %"
    if _NEARLY_ALL < share < 1:
        return "> 99.9 %"
    return f"{short(100 * share)} %"


@dataclass(frozen=True, repr=False)
class GroupPlan:
    """What sampling in groups brings and costs, before any of it is done; `print` shows all of it.

    Attributes:
        title: of what.
        sentences: the answer.
        numbers: in these sentences, and others, for JSON.
        rows: of `frame`.
        table: the same for the terminal.
        picture: in Vega-Lite, without its size and colours; None where there is none.
        notes: a sentence on each thing that limits it.
    """

    title: str
    sentences: Sequence[str]
    numbers: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    table: Sheet
    picture: Mapping[str, Any] | None
    notes: Sequence[str] = ()

    @property
    def sentence(self) -> str:
        """The first of the sentences."""
        return self.sentences[0]

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows of the table, in polars: unrounded."""
        import polars as pl

        return pl.DataFrame(self.rows, infer_schema_length=None)

    def as_dict(self) -> Json:
        """The same as in plan.json."""
        told = {"sentences": [*self.sentences], "notes": [*self.notes]}
        return {"plan": self.title, **told, **self.numbers, "rows": [dict(row) for row in self.rows]}

    def sheet(self) -> Sheet:
        """For the terminal."""
        return self.table

    def plot(self) -> alt.LayerChart:
        """The picture, as an Altair chart that needs no network.

        Raises:
            ConfigError: if there is nothing to draw.
        """
        from memory_rl.reporting.offline import OfflineLayers

        if self.picture is None:
            raise ConfigError(f"of {self.title} there is nothing to draw: it has no groups.")
        return OfflineLayers.from_dict(self.drawing())

    def drawing(self) -> dict[str, Any]:
        """The picture with its title on white, as in a file."""
        from memory_rl.reporting.themes import GROUND, PALETTE, vega_config
        from memory_rl.reporting.wording import wording

        config = vega_config("light", [], ground=GROUND["light"])
        config |= {kind: {"color": PALETTE["light"][0]} for kind in ("mark", "rule")}
        title = {"text": wording("figures", self.numbers["picture"])["title"], "subtitle": self.title}
        return {"width": _WIDTH, "height": _HEIGHT, "title": title, **(self.picture or {}), "config": config}

    def __repr__(self) -> str:
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([*self.sentences, plain(self.table), self.table.caption, *notes])

    def _repr_html_(self) -> str:
        from memory_rl.reporting.notebook import answer_html, figure_html

        parts = [answer_html(" ".join(self.sentences), [self.table], self.notes)]
        if self.picture is not None:
            parts.append(figure_html(self.drawing(), f"{self.title}, against G"))
        return "\n".join(parts)


def sizes_up_to(most: int) -> list[int]:
    """Sizes of groups from 2 on, evenly on a logarithmic scale, for a curve."""
    found, place = {2}, 0
    while max(found) < most:
        place += 1
        found.add(min(most, round(2 ** (1 + place / _STEPS_A_DOUBLING))))
    return sorted(found)


def against_size(
    curve: Sequence[tuple[int, float]],
    marks: Mapping[int, str],
    y_title: str,
    y_format: str = "",
    top: float = 0,
) -> dict[str, Any]:
    """A quantity against G.

    Args:
        curve: from G to it.
        marks: the sizes at which there are points, which the curve must have, with what is written there.
        y_title: of its axis.
        y_format: of the axis' numbers.
        top: where a dashed line says that no G brings more; 0 for none.
    """
    ticks = [2**power for power in range(1, 21) if 2**power <= max(size for size, _ in curve)]
    x: dict[str, Any] = {"field": "size", "type": "quantitative", "title": "rollouts a group, G"}
    x |= {"scale": {"type": "log", "base": 2}, "axis": {"values": ticks, "grid": False}}
    y = {"field": "value", "type": "quantitative", "title": y_title, "scale": {"domainMin": 0}}
    y |= {"axis": {"format": y_format}} if y_format else {}
    rows = [{"size": size, "value": value, "word": marks.get(size, "")} for size, value in curve]
    marked = [row for row in rows if row["size"] in marks]
    places = {"x": x, "y": y}
    layers = [
        {"mark": {"type": "line"}, "encoding": places},
        {
            "data": {"values": marked},
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1},
            "encoding": places,
        },
        *(
            {**_name(row, 14 + 20 * place), "encoding": {**places, "text": {"field": "word"}}}
            for place, row in enumerate(reversed(marked))  # of a rising curve: no name is on another
        ),
    ]
    if top:
        rule = {"type": "rule", "strokeDash": [3, 3]}
        layers.append({"data": {"values": [{"value": top}]}, "mark": rule, "encoding": {"y": y}})
    return {"data": {"values": rows}, "layer": layers}


def _name(row: Mapping[str, Any], below: int) -> dict[str, Any]:
    """What is written at a point, so many pixels below it."""
    return {"data": {"values": [row]}, "mark": {"type": "text", "align": "left", "dx": 6, "dy": below}}


def write_plan(plan: GroupPlan, out: Path) -> None:
    """Writes the page, the picture and plan.json; raises RunDirectoryError, see `refuse_foreign`."""
    from memory_rl.files import to_json
    from memory_rl.reporting.lettering import drawn
    from memory_rl.reporting.report import PAGE, refuse_foreign, write_files

    refuse_foreign(out, GENERATOR)
    files = {PAGE: _page(plan)}
    if plan.picture is not None:
        files["plan.svg"] = drawn(plan.drawing())
    write_files(out, {**files, "plan.json": to_json(plan.as_dict(), indent=2) + "\n"})


def _page(plan: GroupPlan) -> str:
    """The page, which runs no script and loads nothing."""
    from memory_rl.reporting.page import templates
    from memory_rl.reporting.wording import asset

    content = {
        "plan": plan,
        "generator": GENERATOR,
        "style": asset("page.css"),
        "headings": [heading.replace("\n", " ") for heading in plan.table.headings],
        "reading": plan.table.caption.split("\n"),
        "pictures": list(_pictures(plan)),
    }
    return templates().get_template("plan.html").render(content)


def _pictures(plan: GroupPlan) -> Iterator[Any]:
    from memory_rl.reporting.audit_page import picture

    if plan.picture is not None:
        yield picture(str(plan.numbers["picture"]), dict(plan.picture))
