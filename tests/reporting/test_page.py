"""The report as a reader meets it: opened from a file in Chromium, with pointer and keyboard, on a desk and
on a phone."""

from __future__ import annotations

import re

import pytest
from reporting_helpers import EVIL, wait_until_drawn

from memory_rl.analysis.collect import find_cells
from memory_rl.reporting import curves
from memory_rl.reporting.charts import FIGURES
from memory_rl.reporting.study import make_study
from memory_rl.reporting.themes import color_of

LABELS = ["sft", "multi_step", "binary", "binary backend=local", EVIL, "binary backend=local lora_rank=1"]


def drawn(page, panel: str, mark: str) -> int:
    """Marks of a kind in a panel."""
    return page.locator(f"#{panel} svg .mark-{mark}.role-mark path").count()


def wait_for_marks(page, panel: str, mark: str, count: int) -> None:
    count_them = "([which, count]) => document.querySelectorAll(which).length === count"
    page.wait_for_function(count_them, arg=[f"#{panel} svg .mark-{mark}.role-mark path", count])


def tick_labels(page, panel: str) -> list[str]:
    return page.locator(f"#{panel} svg .role-axis-label text").all_text_contents()


def tooltip(page) -> dict[str, str]:
    """What is told at the pointer, by its heading."""
    rows = page.locator("#vg-tooltip-element tr")
    return {row.locator("td.key").inner_text(): row.locator("td.value").inner_text() for row in rows.all()}


def test_it_opens_from_a_file_and_asks_nothing_of_any_network(open_page, report, heard):
    open_page()
    assert heard == [f"request: {report.as_uri()}"]  # and nothing on the console, no error and no dialog
    outside_scripts = re.sub(r"<script>.*?</script>", "", report.read_text(), flags=re.DOTALL)
    assert re.findall(r"<(?:script|link|img|iframe|object)\b[^>]*(?:src|href|data)=", outside_scripts) == []


def test_the_browser_is_forbidden_to_run_or_load_anything_else(open_page, heard):
    page = open_page()
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.injected = 1";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "https://example.org/pixel.png";
            document.body.append(image);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("() => [window.injected, document.querySelector('img').naturalWidth]") == [None, 0]
    forbidden = [line for line in heard if "Content Security Policy" in line]
    assert (len(forbidden), "inline script" in forbidden[0], "example.org" in forbidden[1]) == (2, True, True)


def test_every_figure_is_drawn(open_page):
    page = open_page()
    names = [make.__name__ for make in FIGURES]
    assert [element.get_attribute("id") for element in page.locator("section.figure").all()] == [
        f"figure-{name}" for name in names
    ]
    for name in names:
        charts = page.locator(f"#figure-{name} .panel:not([hidden]) .chart")
        assert charts.count() >= 1
        for chart in charts.all():
            assert chart.locator("svg.marks, canvas.marks").count() == 1
            assert chart.bounding_box()["width"] > 200
    shown, evil = LABELS[:4], 1
    assert drawn(page, "bits_known-1", "line") == 2 * (len(shown) + evil)  # of each the mean and its ceiling
    assert drawn(page, "survival-1", "line") == len(shown) + evil


def test_hovering_tells_the_values_that_were_measured(open_page, sweep):
    page = open_page()
    page.locator("#bits_known-1").scroll_into_view_if_needed()
    box = page.locator("#bits_known-1 svg").bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.4 * box["height"])
    page.wait_for_selector("#vg-tooltip-element.visible")
    told = tooltip(page)
    frame = curves.bits_known(make_study(find_cells([sweep])).at(16))
    (row,) = frame.filter(
        (frame["series"] == told["condition"]) & (frame["episode"] == int(told["episode"].replace(",", "")))
    ).rows(named=True)
    for heading, column in {
        "bits known, mean": "mean",
        "95 % from": "low",
        "to": "high",
        "ceiling, bits": "ceiling",
    }.items():
        assert float(told[heading].replace("\N{MINUS SIGN}", "-")) == pytest.approx(row[column], abs=6e-4)


def test_hovering_over_a_bar_tells_the_loss(open_page, sweep):
    page = open_page()
    bar = page.locator("#waterfall-1 svg .mark-rect.role-mark path").last
    bar.scroll_into_view_if_needed()
    bar.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    told = tooltip(page)
    factors = {entry.label: entry.summary["losses"] for entry in make_study(find_cells([sweep])).at(16)}
    assert float(told["factor lost"]) == pytest.approx(factors[told["condition"]][told["loss"]], rel=1e-3)


@pytest.mark.parametrize(
    ("panel", "mark", "share"),
    [("bits_known-0", "line", 2), ("survival-0", "line", 1), ("absorption-1", "line", 1)],
)
def test_a_click_on_the_legend_hides_a_condition_everywhere(open_page, panel, mark, share):
    page = open_page()
    before = drawn(page, panel, mark)
    page.locator(".legend label", has_text="multi_step").click()
    wait_for_marks(page, panel, mark, before - share)
    page.locator(".legend label", has_text="multi_step").click()
    wait_for_marks(page, panel, mark, before)


def test_rows_of_a_hidden_condition_give_back_their_height(open_page):
    page = open_page()
    height = page.locator("#waterfall-0 svg").bounding_box()["height"]
    page.locator(".legend label", has_text="sft").click()
    page.wait_for_function(
        "(limit) => document.querySelector('#waterfall-0 svg').getBoundingClientRect().height < limit",
        arg=height - 60,
    )
    assert page.locator("#waterfall-0 svg").get_by_text("sft:").count() == 0


def test_variants_in_rank_start_hidden_and_can_be_switched_on(open_page):
    page = open_page()
    boxes = page.locator(".legend input")
    assert [box.get_attribute("value") for box in boxes.all()] == LABELS
    assert [box.is_checked() for box in boxes.all()] == [name != LABELS[5] for name in LABELS]
    panel = page.locator('.panel[data-panel="survival-2"]')  # of those that start hidden
    assert not panel.is_visible()
    boxes.nth(5).check()
    wait_for_marks(page, "survival-2", "line", 1)
    assert panel.is_visible()


def test_all_none_and_only_this_one(open_page):
    page = open_page()
    boxes = page.locator(".legend input")

    def on() -> list[str]:
        return [box.get_attribute("value") for box in boxes.all() if box.is_checked()]

    page.locator(".legend").get_by_role("button", name="only sft", exact=True).click()
    wait_for_marks(page, "survival-1", "line", 1)
    assert on() == ["sft"]
    page.locator(".legend").get_by_role("button", name="none", exact=True).click()
    assert on() == []
    page.wait_for_function("() => document.querySelector('.panel[data-panel=survival-1]').hidden")
    page.locator(".legend").get_by_role("button", name="all", exact=True).click()
    wait_for_marks(page, "survival-1", "line", 5)
    assert on() == LABELS


def test_names_of_users_are_shown_and_never_run(open_page):
    page = open_page()
    page.locator(".legend label", has_text="onerror").click()
    page.mouse.move(0, 0)
    assert page.evaluate("() => window.injected") is None
    assert page.locator("img").count() == 0
    assert EVIL in page.locator("h1").inner_text()
    assert EVIL in page.locator("#verdicts").inner_text()
    assert page.locator("#results").get_by_text(EVIL, exact=True).count() == 2
    assert EVIL in page.locator("#provenance").inner_text()


def test_names_of_users_are_harmless_in_a_tooltip(open_page):
    page = open_page()
    for name in ("sft", "multi_step", "binary", "binary backend=local"):
        page.get_by_label(name, exact=True).uncheck()
    chart = page.locator("#survival-1")
    chart.scroll_into_view_if_needed()
    box = chart.locator("svg").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert tooltip(page)["condition"] == EVIL
    assert page.locator("#vg-tooltip-element img").count() == 0
    assert page.evaluate("() => window.injected") is None


def test_the_theme_follows_the_system_and_the_button(open_page, sweep):
    (label, *_) = make_study(find_cells([sweep])).labels

    def look(page):
        strokes = page.locator("#survival-0 svg .mark-line.role-mark path").evaluate_all(
            "(paths) => paths.map((path) => path.getAttribute('stroke'))"
        )
        ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        return ground, color_of(label, "light") in strokes, color_of(label, "dark") in strokes

    page = open_page(color_scheme="dark")
    button = page.locator("#theme")
    assert look(page) == ("rgb(14, 17, 22)", False, True)
    assert button.inner_text() == "Light theme"
    button.click()
    wait_until_drawn(page)
    page.wait_for_function(
        "() => ['drawn', 'theme'].map((key) => document.documentElement.dataset[key]).join() === 'yes,light'"
    )
    assert look(page) == ("rgb(246, 247, 249)", True, False)
    assert (button.inner_text(), button.get_attribute("aria-pressed")) == ("Dark theme", "false")


def test_the_keyboard_reaches_everything(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "theme"
    page.keyboard.press("Space")
    page.wait_for_selector("html[data-theme=dark][data-drawn=yes]", state="attached", timeout=60_000)
    met = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        met.add(
            page.evaluate(
                "() => (({value, id, dataset}) => value || id || dataset.zoom || '')(document.activeElement)"
            )
        )
    assert {*LABELS, "bits_known-0", "absorption-1", "in", "out", "reset"} <= met


def test_keys_hide_conditions_and_zoom_figures(open_page):
    page = open_page()
    before = drawn(page, "bits_known-0", "line")
    page.get_by_label("sft", exact=True).focus()
    page.keyboard.press("Space")
    wait_for_marks(page, "bits_known-0", "line", before - 2)
    whole = tick_labels(page, "bits_known-1")
    page.locator("#bits_known-1").focus()
    starts_at_zero = """(wanted) => {
        const ticks = document.querySelectorAll("#bits_known-1 svg .role-axis-label text");
        return Array.from(ticks, (text) => text.textContent).includes("0") === wanted;
    }"""
    page.keyboard.press("+")
    page.wait_for_function(starts_at_zero, arg=False)
    page.keyboard.press("0")
    page.wait_for_function(starts_at_zero, arg=True)
    assert tick_labels(page, "bits_known-1") == whole


def test_dragging_moves_a_figure_and_the_wheel_scrolls_the_page(open_page):
    page = open_page()
    chart = page.locator("#bits_known-1")
    chart.scroll_into_view_if_needed()
    box, whole, top = (
        chart.locator("svg").bounding_box(),
        tick_labels(page, "bits_known-1"),
        page.evaluate("() => window.scrollY"),
    )
    x, y = box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"]
    page.mouse.move(x, y)
    page.mouse.wheel(0, 200)
    page.wait_for_function("(top) => window.scrollY > top + 100", arg=top)
    assert tick_labels(page, "bits_known-1") == whole
    page.mouse.wheel(0, -200)
    page.wait_for_function("(top) => window.scrollY < top + 10", arg=top)
    page.mouse.down()
    page.mouse.move(x - 0.3 * box["width"], y, steps=4)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert "0" not in tick_labels(page, "bits_known-1")[:2]


def test_a_verdict_leads_to_its_figure(open_page):
    page = open_page()
    link = page.locator(".verdict a").first
    target = link.get_attribute("href")
    link.click()
    near_the_top = (
        "(target) => Math.abs(document.querySelector(target).getBoundingClientRect().top - 150) <= 150"
    )
    page.wait_for_function(near_the_top, arg=target)


def test_the_film_shows_one_condition_at_a_time(open_page):
    page = open_page()
    assert page.locator("#figure-film select option").all_inner_texts() == ["binary, N = 16"]
    assert page.locator("#figure-film .panel:visible").count() == 2
    canvas = page.locator("#film-1 canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for x, y, possible in ((0.5, 290, True), (0.9, 30, False)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y)
        is_zero = """(wanted) => {
            const last = document.querySelector("#vg-tooltip-element.visible tr:last-child td.value");
            return (last?.innerText === "0") === wanted;
        }"""
        page.wait_for_function(is_zero, arg=not possible)
        told = tooltip(page)
        episode = int(told["from episode"])
        assert (int(told["answer"]) >= episode) == possible  # the observer was told no to 0, 1, 2, ...
        assert float(told["P(answer)"]) == pytest.approx(1 / (16 - episode) if possible else 0, rel=0.05)


def test_nineteen_conditions_are_all_to_be_seen_above_the_figures(open_page):
    page = open_page(viewport={"width": 1280, "height": 800})
    hidden = page.evaluate(
        """() => {
            const box = document.querySelector(".legend fieldset");
            const [chip] = box.querySelectorAll(".chip");
            for (const old of box.querySelectorAll(".chip, .break")) old.remove();
            for (let place = 0; place < 19; place += 1) {
                const copy = chip.cloneNode(true);
                copy.querySelector("label > span").textContent = "binned_log_distance B=16";
                box.append(copy);
            }
            return box.scrollHeight - box.clientHeight;
        }"""
    )
    assert hidden <= 1
    assert page.locator(".legend .chip").count() == 19


@pytest.mark.parametrize(("width", "beside"), [(1280, True), (390, False)])
def test_charts_beside_each_other_are_level_whatever_their_names(open_page, width, beside):
    page = open_page(viewport={"width": width, "height": 800})
    panels = page.locator("#figure-survival .panel:not([hidden])")
    name = "N = 16: binned_log_distance B=8 algorithm=reinforce to binned_log_distance B=32 algorithm=grpo"
    panels.first.locator("figcaption span").first.evaluate(
        "(place, name) => { place.textContent = name; }", name
    )
    first, second = (panel.locator(".chart").bounding_box() for panel in panels.all())
    assert (abs(first["y"] - second["y"]) < 1) == beside
    caption = panels.first.locator("figcaption").bounding_box()
    assert caption["y"] + caption["height"] <= first["y"]


def test_what_leaves_its_box_on_the_right_is_shaded_there(open_page):
    """The shade is under what stands there, and is covered when the table is at its end."""
    page = open_page(viewport={"width": 390, "height": 844})
    region = page.locator("#results .scroll").first
    region.evaluate("(place) => { place.querySelector('table').style.visibility = 'hidden'; }")

    def strip(from_right: int) -> bytes:
        box = region.bounding_box()
        place = {"x": box["x"] + box["width"] - from_right, "y": box["y"] + 40, "width": 3, "height": 60}
        return page.screenshot(clip=place)

    region.scroll_into_view_if_needed()
    plain, shaded = strip(100), strip(4)
    assert shaded != plain
    region.evaluate("(place) => place.scrollTo(10000, 0)")
    assert strip(4) == plain


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_a_phone(open_page, width):
    page = open_page(viewport={"width": width, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    for chart in page.locator(".panel:not([hidden]) .chart").all():
        box = chart.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    box = page.locator(".legend label").first.bounding_box()
    assert box["height"] >= 24  # a finger's target, WCAG 2.2, 2.5.8
