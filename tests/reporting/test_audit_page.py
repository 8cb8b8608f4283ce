"""The page of an audit says what the terminal says, runs no script, loads nothing, and fits any screen."""

import re

import numpy as np
import pytest
from audit_helpers import drawn, pass_or_fail

import memory_rl


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The audit of a run with prompts of many kinds, and its page."""
    folder = tmp_path_factory.mktemp("audit")
    rates = np.random.default_rng(0).beta(0.5, 0.8, 40)
    drawn(pass_or_fail(rates), 8, 12, np.random.default_rng(1)).write_csv(folder / "run <1>.csv")
    return memory_rl.audit(folder / "run <1>.csv", out=str(folder / "out")), folder / "out" / "index.html"


def test_it_says_what_the_terminal_says(made):
    found, page = made
    text = page.read_text(encoding="utf-8")
    for sentence in (*found.sentences, *found.notes):
        assert sentence in text
    assert "<h1>run &lt;1&gt;.csv</h1>" in text
    assert text.count("<tr>") == 1 + 11 + 1 + len(found.account.others)  # stretches and all; other sizes


def test_it_runs_and_loads_nothing(made):
    text = made[1].read_text(encoding="utf-8")
    assert "<script" not in text
    assert "default-src 'none'" in text
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', text)
    assert len(sources) == 8  # four figures, each for light and for dark
    assert {source[:26] for source in sources} == {"data:image/svg+xml;base64,"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_it_fits_the_screen_with_all_its_figures(made, chromium, width, scheme):
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(made[1].as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.evaluate("[...document.images].map(one => [one.naturalWidth, one.clientWidth])")
    assert len(shown) == 4
    assert all(natural > 300 and 250 < client <= width for natural, client in shown)
    overlaps = """[...document.querySelectorAll("figure")].filter(figure => {
        const [words, image] = [figure.querySelector("p"), figure.querySelector("img")];
        return words.getBoundingClientRect().bottom > image.getBoundingClientRect().top;
    }).length"""
    assert page.evaluate(overlaps) == 0
    assert complaints == []
    page.close()
