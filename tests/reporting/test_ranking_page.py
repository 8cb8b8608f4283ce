"""The ranking on top of the report: its numbers against the run directories, its words, and how it sorts."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from reporting_helpers import EVIL, change, luminance, wait_until_drawn

import memory_rl
from memory_rl.analysis import shipped
from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.analysis.entrants import runs_of
from memory_rl.analysis.protocol import load_protocol
from memory_rl.analysis.ranking import RankedCell, RankedLearner, RankedPair, RankedTask, Ranking
from memory_rl.analysis.statistics import Estimate
from memory_rl.reporting.charts import film
from memory_rl.reporting.ranking import LearnerRanking, make_ranking, percent
from memory_rl.reporting.ranking_chart import profile, profile_frame
from memory_rl.reporting.report import write_report
from memory_rl.reporting.settings import ReportConfig
from memory_rl.reporting.study import MOST, make_study
from memory_rl.reporting.wording import asset

BUDGET, RUNS = 160, 8
TASKS = {"hit": {}, "noise": {"reward_noise": 0.05}, "graded": {"reward_type": "log_distance"}}
LEARNERS = {
    "reinforce": {},
    "ppo": {"algorithm": "ppo"},
    "entropy": {"entropy_bonus": 0.01},
    "posterior": {"algorithm": "posterior"},
}
NAMES = {"reinforce", "ppo", "reinforce entropy_bonus=0.01", "posterior"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four learners; one of them has no runs on one of the tasks, and so is not ranked. One task's name is
    evil."""
    folder = tmp_path_factory.mktemp("learners")
    for learner, how in LEARNERS.items():
        for task, what in TASKS.items():
            if (learner, task) != ("posterior", "noise"):
                path = folder / f"{learner}-{task}"
                common = {"N": 8, "backend": "tabular", "num_runs": RUNS, "max_episodes": BUDGET}
                memory_rl.train(**common, **how, **what, log_path=str(path))
                if task == "noise":
                    change(path, condition=EVIL)
    return folder


@pytest.fixture(scope="module")
def ranked(folder) -> LearnerRanking:
    return make_ranking(find_cells([folder]), [])


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    return write_report(ReportConfig(runs=str(folder), out=str(tmp_path_factory.mktemp("made") / "report")))


@pytest.fixture
def open_ranking(chromium, made):
    contexts = []

    def open_it(**settings):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings}))
        page = contexts[-1].new_page()
        page.goto(made.as_uri())
        wait_until_drawn(page)
        return page

    yield open_it
    for context in contexts:
        context.close()


def column(page, place: int) -> list[str]:
    """The first lines of a column, from above."""
    entries = page.locator(f"table.ranking tbody tr > :nth-child({place})").all()
    return [entry.inner_text().split("\n")[0] for entry in entries]


def test_each_entry_is_the_rate_of_its_cell_over_its_ceiling(ranked, folder):
    """Against summary.json: bits per episode over those of the questioner, and the loss of absorption."""
    rows = {row[1].words: row for row in ranked.rows()}
    assert set(rows) == NAMES
    entries = {
        (name, task.name.split(" N=")[0]): entry
        for name, row in rows.items()
        for task, entry in zip(ranked.tasks, row[4:], strict=True)
    }
    seen = 0
    for cell in find_cells([folder]):
        name = cell.path.name.rpartition("-")[0].replace("entropy", "reinforce entropy_bonus=0.01")
        entry, summary = entries[name, cell.condition], cell.summary
        rate, ceiling = summary["bits_per_episode"], summary["rates"]["questioner"]["estimate"]
        assert entry.sort == pytest.approx(rate["estimate"] / ceiling)
        low, high = (float(end) / 100 for end in entry.more[0].strip("[]").split(", "))
        assert [low, high] == pytest.approx([end / ceiling for end in rate["ci95"]], rel=6e-3)
        assert entry.more[2] == f"{100 * summary['censored'] / RUNS:.0f} % stuck"
        lost = summary["losses"]["absorption"]
        told = entry.more[1].removeprefix("absorption ")
        number = float(told.split(" ")[0][1:])
        assert (number if told[0] == "÷" else 1 / number) == pytest.approx(lost, rel=6e-3)
        seen += 1
    assert seen == 11
    missing = entries["posterior", EVIL]
    assert (missing.words, missing.sort, missing.level) == ("-", None, None)


def test_the_colour_deepens_with_the_logarithm_of_the_share(ranked):
    entries = [entry for row in ranked.rows() for entry in row[4:] if entry.sort]
    shares, levels = zip(*sorted((entry.sort, entry.level) for entry in entries), strict=True)
    assert list(levels) == sorted(levels)
    assert 0 < levels[0] < levels[-1] <= 100
    low = math.log2(shares[0]) - 1
    assert levels[3] == round(100 * min(1, 1 - math.log2(shares[3]) / low))


def test_the_sentence_names_who_is_best_and_who_cannot_be_told_apart_from_it():
    ranking = by_hand(best_of=[None, False, True, False])
    assert LearnerRanking(ranking, frozenset(), []).sentences() == [
        "Of 4 learners on 2 tasks, the best is a with 50 % [40, 60] of the ceiling.",
        "It cannot be told apart from b (25 % [20, 30]) and d (6.25 % [5, 7.5]).",
        "It can be told apart from c (12.5 % [10, 15]).",
    ]
    bounded = LearnerRanking(by_hand(best_of=[None, True], bounded=True), frozenset(), [])
    assert bounded.sentences() == [
        "Of 2 learners on 2 tasks, the best is a with at most 50 % [40, 60] of the ceiling.",
        "It can be told apart from all others: b (at most 25 % [20, 30]).",
    ]
    assert [row[2].words for row in bounded.rows()] == ["at most 50 %", "at most 25 %"]
    alone = LearnerRanking(by_hand(best_of=[None, True]), frozenset(), []).sentences()
    assert alone[1:] == ["It can be told apart from all others: b (25 % [20, 30])."]
    many = LearnerRanking(by_hand(best_of=[None] + [False] * 8), frozenset(), []).sentences()
    assert many[1].endswith("(0.781 % [0.625, 0.938]) and 2 more.")


def by_hand(best_of: list[bool | None], bounded: bool = False) -> Ranking:
    """Learners a, b, ... with half the share each of the one before, on two tasks."""
    names = [chr(ord("a") + place) for place in range(len(best_of))]
    shares = [Estimate(*(0.5**place * part for part in (0.5, 0.4, 0.6))) for place in range(len(names))]
    learners = [
        RankedLearner(
            json.dumps({"algorithm": name}), name, share, share, bounded, 0.0, ([0.5] * 2,) * 3, apart
        )
        for name, share, apart in zip(names, shares, best_of, strict=True)
    ]
    tasks = [RankedTask(name, name, 1.0, True, True) for name in ("x", "y")]
    cells = [
        RankedCell(one.name, task.name, 4, one.share, -1.0, None, Estimate(0.0, 0.0, 0.5), (0.1,))
        for one in learners
        for task in tasks
    ]
    pairs = [
        RankedPair(one, other, Estimate(0.75, 0.6, 0.85), 0.01, 0.2 if apart is False else 0.02)
        for place, one in enumerate(names)
        for other, apart in zip(names[place + 1 :], best_of[place + 1 :], strict=True)
    ]
    return Ranking(learners, tasks, cells, pairs, [-1.0, 0.0], [])


def test_the_matrix_is_its_own_mirror(ranked):
    matrix = dict(LearnerRanking(by_hand([None, True, False]), frozenset(), []).matrix())
    assert [(entry.words, entry.kind) for entry in matrix["a"]] == [
        ("", ""),
        ("> 75 %", "better"),
        ("\u2248 75 %", "open"),
    ]
    assert (matrix["b"][0].words, matrix["b"][0].kind) == ("< 25 %", "worse")
    assert "with probability 25 % [15, 40]; they can be told apart, p = 0.02" in matrix["b"][0].tip
    (pair,) = by_hand([None, True]).pairs
    untested = replace(by_hand([None, True]), pairs=[replace(pair, p=None, adjusted=None)])
    page = LearnerRanking(untested, frozenset(), [])
    assert [(row[1].kind, row[1].tip.split("; ")[1]) for _, row in page.matrix()[:1]] == [
        ("open", "not tested")
    ]
    assert page.word_tables()[1].rows == [["a", "b", "75 % [60, 85]", "-", "-", "no"]]
    names = [one.name for one in ranked.ranking.learners]
    for row, (name, entries) in enumerate(ranked.matrix()):
        for place, other in enumerate(names):
            if place > row:
                pair = ranked.ranking.pair(name, other)
                assert entries[place].words[2:] == percent(pair.improvement, interval=False)
                assert (entries[place].kind != "open") == (pair.adjusted < 0.05)


def test_the_profile_is_the_share_of_runs_above_each_share_of_the_ceiling(ranked, folder):
    """Counted from the episodes of each run; a run without its secret counts with all of its budget."""
    frame = profile_frame(ranked.ranking)
    scores = {}
    for cell in find_cells([folder]):
        learner = cell.path.name.rpartition("-")[0].replace("entropy", "reinforce entropy_bonus=0.01")
        rate = 3 / cell.times.episodes.clip(1) / cell.summary["rates"]["questioner"]["estimate"]
        scores.setdefault(learner, []).append(rate)
    assert set(frame["learner"]) == NAMES - {"posterior"}
    for row in frame.rows(named=True):
        above = np.mean(np.concatenate(scores[row["learner"]]) > row["share"] * (1 + 1e-12))
        assert row["above"] == pytest.approx(above, abs=1e-9)
        assert row["low"] <= row["above"] <= row["high"]


def test_more_learners_than_colours_are_several_charts():
    few, many = (profile(by_hand([None] + [True] * others)).panels for others in (3, MOST + 3))
    assert [len(set(panel.frame["learner"])) for panel in few] == [4]
    assert [len(set(panel.frame["learner"])) for panel in many] == [6, 6]
    assert [panel.title for panel in many] == ["learners from place 1", "learners from place 7"]


def test_the_files_hold_the_numbers_of_the_page(ranked, made):
    learners, cells, pairs = (
        pl.read_csv(made.parent / f"ranking{name}.csv") for name in ("", "_cells", "_pairs")
    )
    assert learners["learner"].to_list() == [one.name for one in ranked.ranking.learners]
    assert learners["iqm_share"].to_list() == [one.share.value for one in ranked.ranking.learners]
    assert cells["share"].to_list() == [cell.share.value for cell in ranked.ranking.cells]
    assert cells["stuck_high"].to_list() == [cell.stuck.high for cell in ranked.ranking.cells]
    assert pairs["holm_p"].to_list() == [pair.adjusted for pair in ranked.ranking.pairs]
    assert not learners["shipped"].any()
    text = (made.parent / "summary.md").read_text()
    assert "## Which learner absorbs the bits" in text
    assert f"the best is {ranked.ranking.best.name}" in text.replace("\\", "")
    assert "](figures/profile.svg)" in text
    assert EVIL not in text.partition("## Commands")[0]
    assert (made.parent / "figures/profile.svg").is_file()


def test_there_is_no_ranking_where_no_algorithm_varies(report, folder, tmp_path):
    assert 'id="ranking"' not in report.read_text()
    assert not list(report.parent.glob("ranking*"))
    common = {"N": 8, "backend": "tabular", "num_runs": 2, "max_episodes": 40}
    for rate in (0.1, 0.3):
        memory_rl.train(**common, learning_rate=rate, log_path=str(tmp_path / str(rate)))
    assert make_ranking(find_cells([tmp_path]), []) is None
    one = [cell for cell in find_cells([folder]) if "algorithm" in cell.config][:1]
    assert make_ranking(one, []) is None


def test_what_comes_with_the_package_is_ranked_beside_an_own_learner_and_marked(
    folder, tmp_path, monkeypatch
):
    """In a sweep that replaced the learners of its protocol, and in no other."""
    for task in ("hit", "graded"):
        shutil.copytree(folder / f"ppo-{task}", tmp_path / "sweep" / task)
    protocol = "name: mine\ndescription: On the built-in transformer.\n"
    protocol += "grid: [{command: train, N: [8], backend: tabular}]\nlearners: [{algorithm: ppo}]\n"
    protocol += "hypotheses: []\n"
    (tmp_path / "sweep" / "protocol.yaml").write_text(protocol)
    there = runs_of(
        cell for cell in find_cells([folder]) if cell.path.name in ("reinforce-hit", "reinforce-graded")
    )
    loaded = load_protocol(tmp_path / "sweep" / "protocol.yaml")
    about = {"protocol": "mine", "sha256": loaded.sha256, "backend": "tabular", "at_edge": False}
    table = there.with_columns(**{name: pl.lit(value) for name, value in about.items()})
    table = table.with_columns(at_edge=pl.col("task").str.contains("binary"))
    table.select(*shipped.SHIPPED).write_parquet(tmp_path / "table.parquet")
    monkeypatch.setattr(shipped, "table", lambda: tmp_path / "table.parquet")

    def reported(words: str):
        sweep = {"protocol": {"name": "mine", "sha256": loaded.sha256}, "command": f"memory-rl sweep {words}"}
        (tmp_path / "sweep" / "sweep.json").write_text(json.dumps(sweep))
        out = tmp_path / "report"
        return write_report(ReportConfig(runs=str(tmp_path / "sweep"), out=str(out))).read_text()

    page = reported("protocol=mine.yaml learners=ppo")
    edge = "The best rate was the least or the greatest candidate in 1 of 2 tunings, so that a better one may"
    assert f"{edge} lie beyond: reinforce on binary N=8." in page
    learners = pl.read_csv(tmp_path / "report" / "ranking.csv")
    assert dict(learners.select("learner", "shipped").rows()) == {"ppo": False, "reinforce": True}
    cells = pl.read_csv(tmp_path / "report" / "ranking_cells.csv")
    assert set(cells.filter("shipped")["learner"]) == {"reinforce"}
    assert cells["shipped"].sum() == 2
    assert page.count('<small class="shipped">shipped</small>') == 3
    assert "comes with memory-rl, measured by the same protocol" in page
    summary = (tmp_path / "report" / "summary.md").read_text()
    for text in (page, summary):  # it has no hypotheses, and what it says of the backend need not hold here
        assert "Verdicts</a>" not in text
        assert 'id="verdicts"' not in text
        assert "## Verdicts" not in text
        assert "<p>On the built-in transformer" not in text
        assert loaded.sha256 in text
    assert 'id="ranking"' not in reported("protocol=mine.yaml")


def test_it_stands_below_the_answer_and_the_results(open_ranking):
    page = open_ranking()
    sections = [section.get_attribute("id") for section in page.locator("main > section").all()]
    assert sections[:3] == ["answer", "results", "ranking"]
    assert page.locator("nav a").nth(1).get_attribute("href") == "#ranking"
    assert page.locator("#ranking .chart svg.marks").count() == 1
    assert page.evaluate("() => window.injected") is None
    assert page.locator("table.ranking thead").get_by_text(EVIL).count() == 1


def test_a_column_head_sorts_by_pointer_and_keyboard(open_ranking):
    page = open_ranking()
    assert column(page, 1) == ["1", "2", "3", "-"]
    heads = page.locator("table.ranking thead button")
    heads.nth(4).click()  # a task: the greatest share first
    shares = [float(words.split(" ")[0]) for words in column(page, 5) if words != "-"]
    assert shares == sorted(shares, reverse=True)
    assert page.locator("table.ranking thead th").nth(4).get_attribute("aria-sort") == "descending"
    assert page.locator("[aria-sort]").count() == 1
    heads.nth(4).click()
    assert [float(words.split(" ")[0]) for words in column(page, 5) if words != "-"] == shares[::-1]
    heads.nth(1).focus()
    page.keyboard.press("Enter")
    assert column(page, 2) == sorted(NAMES)
    page.keyboard.press("Space")
    assert column(page, 2) == sorted(NAMES, reverse=True)
    for _ in range(2):  # what has no rank stands last either way
        heads.nth(0).click()
        assert column(page, 1)[-1] == "-"


@pytest.mark.parametrize("width", [800, 390])
def test_wide_tables_scroll_inside_the_page(open_ranking, width):
    page = open_ranking(viewport={"width": width, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    for place in page.locator("#ranking .scroll:visible").all():
        assert place.bounding_box()["width"] < width
    region = page.get_by_role("region", name="Table: Which learner absorbs the bits")
    wider = "(place) => place.scrollWidth - place.clientWidth"
    assert region.evaluate(wider) > 0
    name = page.locator("table.ranking tbody th").first
    before = name.bounding_box()["x"]
    region.evaluate("(place) => place.scrollTo(1000, 0)")
    assert 0 <= name.bounding_box()["x"] <= before  # the learner stays in sight
    head = page.locator("table.ranking thead th").nth(1)
    assert head.bounding_box()["x"] == name.bounding_box()["x"]  # and its heading above it


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_deepest_colour(open_ranking, scheme):
    """4.5 : 1, WCAG 2.2, 1.4.3."""
    page = open_ranking(color_scheme=scheme)
    heat, text = (
        page.evaluate(f"() => getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
        for name in ("heat", "text")
    )
    light, dark = sorted((luminance(heat), luminance(text)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 4.5
    assert f"--heat: {heat}" in asset("page.css")


def test_a_page_of_many_labels_shows_the_first_of_each_condition_and_a_few_films(folder):
    """With 40 labels all are shown at first, with 41 one; 16 of the films are there."""
    (cell,) = (cell for cell in find_cells([folder]) if cell.path.name == "reinforce-hit")

    def study(labels: int):
        config = [{**cell.config, "learning_rate": 0.1 * (1 + place)} for place in range(labels)]
        return make_study([Cell(cell.path, {**cell.manifest, "config": one}, cell.summary) for one in config])

    assert not study(40).hidden
    crowded = study(41)
    assert len(crowded.hidden) == 40
    assert crowded.labels[0].name not in crowded.hidden
    figure = film(crowded)
    assert len(figure.panels) == 2 * 16
    assert figure.notes[1:] == [
        "In print the first 3, with theme=paper the first.",
        "Of 41 conditions with a film, the first 16.",
    ]
    assert [len(film(study(many)).notes) for many in (1, 2, 16)] == [1, 2, 2]
