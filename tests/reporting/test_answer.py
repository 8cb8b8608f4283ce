"""The first screen: what it says, and where it draws it."""

import json
import math
import re
import shutil
from dataclasses import replace

import jinja2
import pytest
from reporting_helpers import EVIL, change

from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.analysis.samples import gather
from memory_rl.analysis.survival import contrast, log_rank
from memory_rl.reporting.answer import Answer, Axis, Chart, Row, against, make_answer
from memory_rl.reporting.headline import headline
from memory_rl.reporting.study import Entry, Label, make_study


@pytest.fixture(scope="module")
def study(sweep):
    return make_study(find_cells([sweep]))


@pytest.fixture(scope="module")
def answer(study):
    return make_answer(study)


def test_a_logarithmic_axis_has_its_places_in_proportion_to_the_logarithm():
    axis = Axis(0.001, 10.0)
    assert [axis.place(bits) for bits in (0.001, 0.01, 10.0, 0.1, 0.0, None)] == [0, 25, 100, 50, None, None]
    # There is no room for the names of five decades beside another chart.
    assert axis.ticks() == [(0, "0.001"), (25, ""), (50, "0.1"), (75, ""), (100, "10")]
    assert Axis(0.01, 10.0).ticks() == [(0, "0.01"), (33.33, "0.1"), (66.67, "1"), (100, "10")]


def test_a_linear_axis_starts_at_0():
    axis = Axis(0.0, 5.0)
    assert [axis.place(bits) for bits in (0.0, 2.5, 5.0)] == [0, 50, 100]
    assert axis.ticks() == [(0, "0"), (20, "1"), (40, "2"), (60, "3"), (80, "4"), (100, "5")]


def test_rates_that_are_near_each_other_are_on_a_linear_axis(sweep):
    near, far = (
        make_answer(make_study([cell for cell in find_cells([sweep]) if cell.path.name in names])).axis
        for names in (("sft-16", "multi-16"), ("sft-16", "binary-16"))
    )
    assert (near.is_log, far.is_log) == (False, True)


def test_conditions_are_ranked_with_the_share_of_their_ceilings(study, answer):
    assert [chart.N for chart in answer.charts] == [8, 16]
    for chart in answer.charts:
        entries = {entry.label: entry.summary for entry in study.at(chart.N)}
        rates = [entries[row.label.name]["bits_per_episode"]["estimate"] for row in chart.rows]
        assert rates == sorted(rates, reverse=True)
        assert {row.label.name for row in chart.rows} == set(entries)
        for row, rate in zip(chart.rows, rates, strict=True):
            most = entries[row.label.name]["ceilings"]["capacity"]
            percent, bits = re.fullmatch(r"(\S+) % of (\S+) bits?", row.share).groups()
            assert float(percent) == pytest.approx(100 * rate / most, rel=0.35)  # one digit below 10 %
            assert float(bits) == pytest.approx(most, rel=0.01)
            ends = answer.axis.low, answer.axis.high
            place = 100 * math.log(rate / ends[0]) / math.log(ends[1] / ends[0])
            assert row.rate == pytest.approx(place, abs=0.01)
            assert row.low <= row.rate <= row.high <= 100
            assert row.ceiling >= row.rate


def test_a_report_of_one_cell_says_what_its_run_said(sweep):
    (cell,) = find_cells([sweep / "cells" / "sft-16"])
    found = make_answer(make_study([cell]))
    assert found.sentences == [headline(cell)]
    assert (len(found.charts), found.charts[0].sentence) == (1, "")


def test_several_cells_are_told_from_least_to_most(answer, study):
    first, second, third = answer.sentences
    rates = {entry.label: entry.summary["bits_per_episode"]["estimate"] for entry in study.at(16)}
    assert first.startswith("At N = 16, an episode put between ")
    assert first.index(f"({min(rates, key=rates.get)},") < first.index(f"({max(rates, key=rates.get)},")
    assert second.startswith("Of 4 conditions sft is the fastest")  # copies are the same runs
    rates = {entry.label: entry.summary["bits_per_episode"]["estimate"] for entry in study.at(8)}
    least, most = (
        f"{rates[name]:.3g} bits ({name})" for name in sorted(rates, key=rates.get)[:: len(rates) - 1]
    )
    assert third == f"At N = 8 it was between {least} and {most}."


def test_the_answer_is_about_the_N_of_most_conditions_and_names_the_others(study):
    """One condition alone at the greatest N is not what a sweep is about; of many N the ends are told."""

    def at(N: int, entry: Entry) -> Entry:
        manifest = {**entry.cell.manifest, "config": {**entry.cell.config, "N": N}}
        return replace(entry, cell=Cell(entry.cell.path, manifest, entry.summary))

    far = [at(N, entry) for N in (32, 64, 128, 256) for entry in study.at(16)[:1]]
    found = make_answer(replace(study, entries=[*study.at(16), *far]))
    first, _, *others = found.sentences
    assert first.startswith("At N = 16, ")
    rate = far[0].summary["bits_per_episode"]["estimate"]
    assert others == [
        f"At N = 32 it was {rate:.3g} bits (sft).",
        f"At N = 256 it was {rate:.3g} bits (sft).",
        "The charts below show N = 64 and 128, too.",
    ]


def test_a_note_says_at_which_N_unless_it_is_so_at_all():
    charts = [
        Chart(N, [], "", notes, {}) for N, notes in ((4, ["a", "b"]), (8, ["a", "b"]), (16, ["a", "c"]))
    ]
    assert Answer([], charts, Axis(0.0, 1.0)).notes == ["a", "At N = 4 and 8: b", "At N = 16: c"]


@pytest.mark.parametrize(
    ("places", "coloured"), [([0, 1, 2], True), ([0, 1, 0], False), ([*range(8), 0], False)]
)
def test_a_ranked_chart_uses_no_colour_twice(places, coloured):
    """Of two groups of labels, both of which begin with the first colour, a chart may show a few of each."""
    rows = [
        Row(Label(str(place), color, 0, starts_hidden=False), "", "", 1.0, None, None, None)
        for place, color in enumerate(places)
    ]
    assert Chart(16, rows, "", [], {}).coloured == coloured


@pytest.mark.parametrize(
    ("many", "shown", "folded"), [(0, 0, 0), (1, 0, 0), (4, 4, 0), (5, 3, 2), (26, 3, 23)]
)
def test_many_notes_are_one_box_and_folded_beyond_a_few(many, shown, folded):
    """A single one is a paragraph, with nothing around it."""
    templates = jinja2.Environment(loader=jinja2.PackageLoader("memory_rl.reporting"), autoescape=True)
    noted = templates.from_string('{% from "notes.html" import noted %}{{ noted(notes) }}')
    box = noted.render(notes=[f"note {place}" for place in range(many)])
    assert box.count('class="warning"') == min(many, 1)
    before, _, after = box.partition("<details>")
    assert (before.count("<li>"), after.count("<li>")) == (shown, folded)
    assert all(f"note {place}<" in box for place in range(many))
    assert (f"<summary>{folded} more</summary>" in box) == bool(folded)


def test_ratios_and_tests_are_against_the_fastest_of_the_same_N(sweep, study, answer):
    found = against(answer)
    one, best = (gather(find_cells([sweep / "cells" / name]))[0] for name in ("multi-16", "sft-16"))
    ratio = contrast([one.log_rate, best.log_rate], [1, -1])
    row = found[str(sweep / "cells" / "multi-16")]
    assert row["ratio"] == pytest.approx(math.exp(ratio.value))
    assert [row["ratio_low"], row["ratio_high"]] == pytest.approx([math.exp(end) for end in ratio.interval()])
    assert row["p"] >= log_rank(one.times, best.times)  # after Holm
    assert found[str(sweep / "cells" / "sft-16")] == {
        "ratio": 1.0,
        "ratio_low": None,
        "ratio_high": None,
        "p": None,
    }


def test_runs_of_one_fixed_secret_are_not_mixed_silently_with_others(sweep, tmp_path):
    for name in ("sft-16", "binary-16"):
        shutil.copytree(sweep / "cells" / name, tmp_path / name)
    assert make_answer(make_study(find_cells([tmp_path]))).notes == []
    change(tmp_path / "binary-16", fixed_secret=3)
    manifest = json.loads((tmp_path / "binary-16" / "manifest.json").read_text())
    manifest["resolved"]["fixed_secret"] = 3
    (tmp_path / "binary-16" / "manifest.json").write_text(json.dumps(manifest))
    (note,) = make_answer(make_study(find_cells([tmp_path]))).notes
    assert note.startswith("fixed_secret differs: all runs of binary")


def test_the_first_screen_of_the_page(open_page, answer):
    page = open_page()
    screen = page.locator("#answer")
    assert screen.bounding_box()["y"] < 300
    words = screen.inner_text()
    assert answer.sentences[0] in words
    assert "Hypotheses, fixed before the first run: " in words
    assert "Nothing is judged" not in page.locator("body").inner_text()
    for chart, drawn in zip(answer.charts, page.locator(".rate-chart").all(), strict=True):
        assert drawn.locator(".rate-name").all_inner_texts() == [row.label.name for row in chart.rows]
        for row, track in zip(chart.rows, drawn.locator("li .track").all(), strict=True):
            box, dot = (part.bounding_box() for part in (track, track.locator(".dot")))
            middle = 100 * (dot["x"] + dot["width"] / 2 - box["x"]) / box["width"]
            assert middle == pytest.approx(row.rate, abs=0.6)
    assert EVIL in words


@pytest.mark.parametrize("width", [1280, 390])
def test_no_words_of_the_ranked_chart_are_cut_or_overlap(open_page, width):
    page = open_page(viewport={"width": width, "height": 844})
    long = "binned_log_distance B=16 algorithm=reinforce group_size=16"
    for name in page.locator(".rate-name").all():
        name.evaluate("(name, text) => { name.textContent = text; }", long)
    boxes = [
        [row.locator(part).bounding_box() for part in (".rate-name", ".rate-words")]
        for row in page.locator("li.rate").all()
    ]
    for name, words in boxes:
        assert min(name["x"], words["x"]) >= 0
        assert max(name["x"] + name["width"], words["x"] + words["width"]) <= width
        assert name["x"] + name["width"] <= words["x"] + 1
    assert page.evaluate("() => document.documentElement.scrollWidth") == width


def test_results_come_second_and_can_be_sorted_and_read_on_a_phone(open_page, study):
    page = open_page(viewport={"width": 390, "height": 844})
    assert [section.get_attribute("id") for section in page.locator("main > section").all()][:2] == [
        "answer",
        "results",
    ]
    heads = page.locator("#results thead button")
    assert heads.all_inner_texts()[:4] == ["condition", "N", "bits per episode [95 %]", "of ceiling"]
    heads.nth(2).click()
    cells = page.locator("#results tbody tr td:nth-child(3)").all_inner_texts()
    rates = [float(words.split(" ")[0]) for words in cells]
    assert rates == sorted(
        (float(f"{entry.summary['bits_per_episode']['estimate']:.3g}") for entry in study.entries),
        reverse=True,
    )
    region = page.locator("#results .scroll").first
    name = page.locator("#results tbody th").first
    before = name.bounding_box()["x"]
    region.evaluate("(place) => place.scrollTo(1000, 0)")
    assert name.bounding_box()["x"] == pytest.approx(before, abs=1)
    assert region.evaluate("(place) => place.scrollLeft") > 0
