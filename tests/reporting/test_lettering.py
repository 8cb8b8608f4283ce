"""Figures look the same wherever they are opened: their text is outlines, as wide as it was laid out."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
import vl_convert
from reporting_helpers import is_named

from memory_rl.analysis.collect import find_cells
from memory_rl.reporting.charts import FIGURES, absorption, bits_known
from memory_rl.reporting.drawing import Figure, Panel
from memory_rl.reporting.lettering import FONT, outlined, width_of
from memory_rl.reporting.pictures import draw, draw_run
from memory_rl.reporting.printing import key, printed, sheet
from memory_rl.reporting.study import make_study
from memory_rl.reporting.themes import vega_config

COLUMN = 3.4 * 96  # CSS pixels of a column of two, 8.5 cm
POINT = 96 / 72


def laid_out(text: str, size: int, weight: str) -> float:
    """The width that vl-convert gives a text: that of an SVG around it, without padding."""
    mark = {"type": "text", "text": text, "fontSize": size, "fontWeight": weight, "align": "left", "x": 0}
    spec = {"data": {"values": [{}]}, "mark": mark, "width": 1, "height": 1, "padding": 0}
    drawing = vl_convert.vegalite_to_svg({**spec, "config": {"font": FONT, "view": {"stroke": None}}})
    return float(re.search(r'width="([\d.]+)"', drawing)[1])


@pytest.mark.parametrize("weight", ["normal", "bold"])
@pytest.mark.parametrize("text", ["binned_log_distance B=8", "log2 N = 6 bits", "exploration ÷4,480 – 95 %"])
def test_outlines_are_as_wide_as_the_layout_measured(text, weight):
    assert width_of(text, 40, weight) == pytest.approx(laid_out(text, 40, weight), abs=2)


def test_a_text_is_drawn_where_it_stood():
    """A and B are both 667 thousandths of the size wide, as in Arial; the text ends at its anchor."""
    text = '<text text-anchor="end" transform="translate(5,6)" font-size="20px" fill="red">AB</text>'
    svg = f'<svg a="b">{text}</svg>'
    drawing = outlined(svg)
    assert "<text" not in drawing
    assert 'aria-label="AB" transform="translate(5,6)" fill="red"' in drawing
    assert f"translate({-20 * 2 * 0.667:.2f},0) scale(0.02,-0.02)" in drawing
    places = re.findall(r'<use xlink:href="#n(\d+)" x="([\d.]+)"/>', drawing)
    assert [int(code) for code, _ in places] == [65, 66]
    assert float(places[1][1]) == pytest.approx(667, abs=1)


def test_lines_of_a_text_are_below_each_other_and_what_is_unknown_stays_text():
    two = '<svg ><text font-size="10px"><tspan>a</tspan><tspan x="0" dy="15">b &lt;</tspan></text></svg>'
    drawing = outlined(two)
    assert [float(down) for down in re.findall(r"translate\(0\.00,([\d.]+)\)", drawing)] == [0, 15]
    assert 'aria-label="a b &lt;"' in drawing
    foreign = '<svg ><text font-size="10px">秘密</text></svg>'
    assert "<text" in outlined(foreign)


@pytest.fixture(scope="module")
def study(sweep):
    return make_study(find_cells([sweep])).plain()


def test_no_figure_asks_for_a_font(sweep, study):
    (cell,) = find_cells([sweep / "cells" / "binary-16"])
    drawn = [*draw_run(cell), *(file for make in FIGURES for file in draw(make(study), study))]
    assert [name for name, _ in drawn][:2] == ["bits_known.svg", "ledger.svg"]
    assert len(drawn) == 2 + len(FIGURES)
    for _, content in drawn:
        ElementTree.fromstring(content)  # noqa: S314  # our own
        assert b"<text" not in content
        assert b"font-family" not in content


def test_no_figure_of_the_docs_asks_for_a_font():
    figures = [*(Path(__file__).parents[2] / "docs" / "figures").iterdir()]
    assert len(figures) > 5
    for path in figures:
        drawing = path.read_text(encoding="utf-8")
        assert (path.name, "<text" in drawing, "font-family" in drawing) == (path.name, False, False)
        assert "aria-label" in drawing


@pytest.mark.parametrize("in_column", [False, True])
def test_every_line_of_a_saved_figure_is_in_its_legend_or_its_key_or_has_its_name_beside_it(study, in_column):
    theme, words = ("paper" if in_column else "light"), {}
    for make in FIGURES:
        figure = make(study)
        for panel in figure.panels:
            unnamed = [
                layer.mark for place, layer in enumerate(panel.layers) if not is_named(panel.layers, place)
            ]
            assert (figure.name, [mark for mark in unnamed if mark["type"] != "rect"]) == (figure.name, [])
        ((_, drawing),) = draw(figure, study, theme)
        labels = re.findall(r'aria-label="([^"]*)"', drawing.decode())
        words[figure.name] = " ".join(map(unescape, labels))
        for layer in figure.panels[0].layers:
            drawn_rows = figure.panels[0].frame if layer.frame is None else layer.frame
            assert layer.says in words[figure.name] or drawn_rows.is_empty()
    assert "h(p): what a yes or no can tell; -log2 p: what is left to know" in words["absorption"]
    ((_, drawing),) = draw(absorption(study), study, theme)
    for name in ("h(p)", "-log2 p"):  # beside each curve
        assert drawing.decode().count(f'aria-label="{name}"') == len(absorption(study).panels)
    assert "dotted: the ceiling of a condition" in words["bits_known"]
    assert "P(answer)" in words["film"]  # of the rectangles, in their own legend


@pytest.mark.parametrize(
    ("titles", "columns"),
    [
        (["N = 16"], 1),
        (["N = 16", "N = 64"], 2),
        (["N = 4", "N = 8", "N = 16", "N = 32"], 3),
        (["N = 16: a", "N = 16: b", "N = 64: a", "N = 64: b"], 2),
        (["N = 16: a", "N = 16: b", "N = 16: c", "N = 64: a"], 3),
        ([], 0),
    ],
)
def test_the_panels_of_one_N_are_a_row(titles, columns):
    figure = Figure("survival", [Panel(pl.DataFrame(), {}, [], title=title) for title in titles])
    assert figure.columns == columns


def test_a_key_names_only_what_is_drawn(study):
    (panel, *_) = absorption(study).panels
    bare = replace(panel, layers=[replace(layer, frame=panel.frame.clear()) for layer in panel.layers])
    assert key([panel]) == key([panel, panel, bare]) != ""
    assert key([bare]) == ""


def test_legends_have_as_many_columns_as_fit(study):
    """Of names of 4 letters three fit into a panel, of 30 letters one."""
    panels = bits_known(study).panels
    for letters, columns in ((4, 3), (15, 2), (30, 1)):
        names = {label.name: label.name[:1].ljust(letters, "m") for label in study.labels}
        labels = [replace(label, name=names[label.name]) for label in study.labels]
        frame = panels[0].frame.with_columns(pl.col("series").replace(names))
        spec = printed(replace(panels[0], frame=frame), replace(study, labels=labels))
        legends = [
            layer["encoding"]["color"]["legend"] for layer in spec["layer"] if "color" in layer["encoding"]
        ]
        assert {legend["columns"] for legend in legends} == {columns}


def test_a_png_is_drawn_where_it_is_asked_for(study):
    (svg, png) = draw(FIGURES[3](study), study, png=True)
    assert (svg[0], png[0], png[1][1:4]) == ("scaling.svg", "scaling.png", b"PNG")


@pytest.mark.parametrize("make", [make for make in FIGURES if make.__name__ != "film"])
def test_on_paper_type_is_at_least_8_points_at_the_width_of_a_column(make, study):
    spec = {
        **sheet(make(study), study, in_column=True),
        "config": vega_config("paper", study.labels, ground="#ffffff"),
    }
    drawing = vl_convert.vegalite_to_svg(spec)
    width = float(re.search(r'width="([\d.]+)"', drawing)[1])
    least = min(map(float, re.findall(r'font-size="([\d.]+)px"', drawing)))
    assert least * min(1, COLUMN / width) >= 8 * POINT


_OUTSIDE = """() => {
    const whole = document.querySelector("svg").getBoundingClientRect();
    const leaves = (box) => box.left < whole.left - 1 || box.right > whole.right + 1
        || box.top < whole.top - 1 || box.bottom > whole.bottom + 1;
    const words = document.querySelectorAll("svg g[aria-label]:has(> g > use), svg text");
    if (words.length < 4 || whole.width > 3000) return ["no figure"];
    return Array.from(words).filter((text) => leaves(text.getBoundingClientRect()))
        .map((text) => text.getAttribute("aria-label") || text.textContent);
}"""


def test_no_text_leaves_its_box_with_another_font(chromium, sweep, study):
    """As Chromium draws it, where sans-serif is a wide font: all text is within the SVG."""
    (cell,) = find_cells([sweep / "cells" / "binary-16"])
    page = chromium.new_page()
    drawn = [*draw_run(cell), *(file for make in FIGURES for file in draw(make(study), study))]
    for name, content in drawn:
        page.set_content(f"<style>* {{ font-family: 'DejaVu Serif' !important; }}</style>{content.decode()}")
        outside = page.evaluate(_OUTSIDE)
        assert (name, outside) == (name, [])
    page.close()
