"""No two curves of a chart look alike, to the colour-blind neither."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from reporting_helpers import luminance

from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.reporting.charts import FIGURES
from memory_rl.reporting.drawing import chunks, color_scale, live
from memory_rl.reporting.study import MOST, make_study
from memory_rl.reporting.themes import DASHES, GROUND, PALETTE, SHAPES, symbol_of, vega_config

LEAST = 14.0
"""CIEDE2000; 2.3 is a just noticeable difference, eight colours can hardly be further apart."""

# Machado, Oliveira and Fernandes (2009), A physiologically-based model for simulation of color vision
# deficiency, table 1, severity 1.0; of linear RGB.
VISION = {
    "trichromat": np.eye(3),
    "deuteranope": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanope": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def lab_of(color: str, vision: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of what is seen of an sRGB colour."""
    channels = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = _XYZ @ np.clip(vision @ linear, 0, 1) / _XYZ.sum(axis=1)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(one: np.ndarray, other: np.ndarray) -> float:
    """Sharma, Wu and Dalal (2005), equations 2 to 22."""
    (L1, a1, b1), (L2, a2, b2) = one, other
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    more = 1 + 0.5 * (1 - np.sqrt(mean**7 / (mean**7 + 25**7)))
    C1, C2 = np.hypot(more * a1, b1), np.hypot(more * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, more * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    apart = (h2 - h1 + 180) % 360 - 180 if C1 * C2 else 0.0
    middle = h1 + h2 if not C1 * C2 else (h1 + apart / 2) % 360
    L, C, dH = (L1 + L2) / 2, (C1 + C2) / 2, 2 * np.sqrt(C1 * C2) * np.sin(np.radians(apart / 2))
    cos = [np.cos(np.radians(k * middle - shift)) for k, shift in ((1, 30), (2, 0), (3, -6), (4, 63))]
    T = 1 + np.dot([-0.17, 0.24, 0.32, -0.20], cos)
    SL = 1 + 0.015 * (L - 50) ** 2 / np.sqrt(20 + (L - 50) ** 2)
    light, chroma, hue = (L2 - L1) / SL, (C2 - C1) / (1 + 0.045 * C), dH / (1 + 0.015 * C * T)
    turn = np.radians(60 * np.exp(-(((middle - 275) / 25) ** 2)))
    return float(
        np.sqrt(
            light**2 + chroma**2 + hue**2 - 2 * np.sqrt(C**7 / (C**7 + 25**7)) * np.sin(turn) * chroma * hue
        )
    )


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.49, -0.001), (50.0, -2.49, 0.0011), 7.2195),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_is_that_of_the_published_test_data(one, other, difference):
    """Sharma, Wu and Dalal (2005), table 1."""
    assert ciede2000(np.array(one), np.array(other)) == pytest.approx(difference, abs=1e-4)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", PALETTE)
def test_any_two_colours_are_far_apart(theme, vision):
    """The colour of the text, of reference lines, is one of them."""
    text = vega_config(theme, [])["style"]["reference"]["color"]
    seen = {color: lab_of(color, VISION[vision]) for color in (*PALETTE[theme], text)}
    assert min(ciede2000(seen[one], seen[other]) for one, other in combinations(seen, 2)) >= LEAST


@pytest.mark.parametrize("theme", PALETTE)
def test_every_colour_stands_out_from_its_ground(theme):
    for color in PALETTE[theme]:
        low, high = sorted((luminance(color), luminance(GROUND[theme])))
        assert (high + 0.05) / (low + 0.05) >= 3


def test_colours_dashes_and_shapes_go_together():
    assert {len(colors) for colors in PALETTE.values()} == {MOST} == {len(SHAPES)} == {len(set(SHAPES))}
    assert MOST % len(DASHES) == 0
    assert len({symbol_of(SimpleNamespace(color=place)) for place in range(MOST)}) == MOST


@pytest.mark.parametrize(("names", "sizes"), [(1, [1]), (8, [8]), (9, [5, 4]), (17, [6, 6, 5])])
def test_more_names_than_colours_are_several_charts(names, sizes):
    parts = chunks([str(place) for place in range(names)])
    assert [len(part) for part in parts] == sizes
    scale = color_scale("size", [str(place) for place in range(names)])["scale"]
    for part in parts:  # Vega repeats the range
        assert len({scale["domain"].index(name) % MOST for name in part}) == len(part)


def labelled(cell: Cell, **values: list[object]):
    """A study of cells like this one, which differ in a key."""
    ((key, settings),) = values.items()
    configs = [{**cell.config, key: value} for value in settings]
    return make_study([Cell(cell.path, {**cell.manifest, "config": one}, cell.summary) for one in configs])


@pytest.fixture(scope="module")
def cell(sweep):
    return next(cell for cell in find_cells([sweep]) if cell.path.name == "binary-16")


def test_four_algorithms_have_four_colours(cell):
    labels = labelled(cell, algorithm=["reinforce", "grpo", "rloo", "ppo"]).labels
    assert len({label.color for label in labels}) == 4


@pytest.mark.parametrize("many", [7, 8, 9, 19, 41])
def test_no_chart_uses_a_colour_twice(cell, many):
    """Nineteen conditions are three charts for each N, of at most eight curves each."""
    study = labelled(cell, learning_rate=[0.1 * place for place in range(1, many + 1)])
    colors = {label.name: label.color for label in study.labels}
    assert len(colors) == many
    for make in FIGURES:
        panels = [panel for panel in make(study).panels if panel.choice is None]
        for panel in panels:
            assert len({colors[name] for name in panel.series}) == len(panel.series) <= MOST
    assert len(FIGURES[0](study).panels) == -(-many // MOST)


@pytest.mark.parametrize(
    ("conditions", "sizes"),
    [
        ("abcdefghi", [5, 4]),
        ("aaaaaaaaab", [5, 5]),
        ("abbbccccccccd", [4, 8, 1]),
        ("a" * 19, [7, 7, 5]),
        ("abc", [3]),
    ],
)
def test_groups_are_as_few_and_as_even_as_conditions_that_stay_together_allow(cell, conditions, sizes):
    """Nine are not eight and one, which would stand alone in its chart."""
    cells = [
        Cell(
            cell.path,
            {**cell.manifest, "condition": name, "config": {**cell.config, "learning_rate": 1 + place}},
            cell.summary,
        )
        for place, name in enumerate(conditions)
    ]
    labels = make_study(cells).labels
    assert [sum(label.group == group for label in labels) for group in range(labels[-1].group + 1)] == sizes


def test_bands_of_many_curves_are_pale_but_for_the_one_that_is_pointed_at(cell):
    for many, pale in ((3, False), (4, True)):
        study = labelled(cell, learning_rate=[0.1 * place for place in range(1, many + 1)])
        (panel,) = FIGURES[0](study).panels
        (area,) = [layer for layer in live(panel, study, "")["layer"] if layer["mark"]["type"] == "area"]
        assert ("fillOpacity" in area["encoding"]) == pale
