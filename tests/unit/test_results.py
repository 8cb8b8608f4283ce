"""docs/results.md and the README's answer: no result is typed; what is committed is what the files give."""

import json
import math
import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jinja2
import numpy as np
import polars as pl
import pytest

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.protocol import load_protocol
from memory_rl.analysis.statistics import Estimate
from memory_rl.analysis.study_numbers import Place, StudyNumbers, recipe_of, signal_of
from memory_rl.analysis.study_table import to_table
from memory_rl.analysis.survival import MemorisationTimes
from memory_rl.analysis.verdicts import judge
from memory_rl.errors import ConfigError
from memory_rl.files import to_csv

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "studies")]

import answer_again  # noqa: E402
import make_results  # noqa: E402
import ship_answer  # noqa: E402
from results_figures import figures, fingerprint, svg  # noqa: E402
from results_verdicts import Verdicts  # noqa: E402
from results_words import Words, two  # noqa: E402

TEMPLATES = sorted((ROOT / "docs").glob("*.md.j2"))
BASES, RUNS = 4, 16

PACE = {  # at N = 64 by default: episodes, those of the observer, and the bits an episode that could be asked
    "sft": (60.0, 10.0, 6.0),
    "multi_step": (240.0, 10.0, 6.0),
    "multi_step credit=episode": (600.0, 46.0, 2.8),
    "binary": (1200.0, 400.0, 0.2),
    "binned_log_distance B=8": (2400.0, 40.0, 2.5),
}
PROTOCOL = """
name: made
minimum_runs: 64
grid:
  - {command: sft, N: [16, 64], base_seed: [0, 1, 2, 3], num_runs: 16}
hypotheses:
  - id: H2-default
    claim: With the default learner, hit or miss is log2 N times slower than SFT.
    test: rate_ratio
    of: {condition: sft, role: default, lora_rank: 8}
    to: {condition: binary, role: default}
    N: [16, 64]
    expected: log2_N
    margin: 1.25
  - id: H2-best
    claim: With the best learner that was found, hit or miss is log2 N times slower than SFT.
    test: rate_ratio
    of: {condition: sft, role: best, lora_rank: 8}
    to: {condition: binary, role: best}
    N: [16, 64]
    expected: log2_N
    margin: 1.25
  - id: H3
    claim: The best learner closes at least half of what hit or miss loses in absorption.
    test: loss_closed
    of: {condition: binary, role: default}
    by: {condition: binary, role: best}
    N: [16, 64]
    at_least: 0.5
  - id: H5
    claim: The rate does not depend on the rank of the adapters.
    test: same_along
    cells: [{condition: sft, N: 64, role: default}]
    along: {lora_rank: [1, 8]}
    margin: 2
"""


def made(condition, N, role, base, recipe="tiny", stuck=0, **more):
    """A cell of 16 runs; the best learner is twice as fast, and exactly as its observer for hit or miss."""
    random = np.random.default_rng([base, N, len(condition), role == "best"])
    episodes, observer, asked = PACE[condition]
    pace = math.log2(N) / 6 * (1 if condition != "binary" else N / 64) / (2 if role == "best" else 1)
    memorised = np.arange(RUNS) >= stuck
    times = np.ceil(pace * episodes * random.gamma(16, 1 / 16, RUNS))
    keys = {
        "N": N,
        "seed": 7 * base + (role == "best"),
        "num_runs": RUNS,
        "base_seed": base,
        "model_name": recipe,
        "lora_rank": 8,
        "learning_rate": 0.0005 if role == "default" else 0.002,
        "algorithm": None if condition == "sft" else "reinforce" if role == "default" else "ppo",
        "group_size": None if condition == "sft" else 4,
        "ppo_clip_high": None if condition == "sft" or role == "default" else 0.28,
        **more,
    }
    config = {**keys, "role": role, "log_path": "/elsewhere/runs", "memorised_at": 0.5}
    manifest = {
        "kind": "sft" if condition == "sft" else "train",
        "condition": condition,
        "status": "completed",
        "config": config,
        "resolved": keys,
    }
    ceilings = {"capacity": 1.0 if condition == "binary" else 6.0}
    ceilings["ideal_questioner"] = {"to_reach": math.log2(N) / asked}
    rank = keys["lora_rank"]
    name = f"{condition}-{N}-{role}-{base}-{Path(recipe).name}-{rank}"
    cell = Cell(Path(name), manifest, {"ceilings": ceilings, "checks": {"law": {"status": "holds"}}})
    cell.__dict__["times"] = MemorisationTimes(np.where(memorised, times, 20_000.0), memorised)
    cell.__dict__["observer"] = MemorisationTimes(
        np.ceil(pace * observer * random.gamma(16, 1 / 16, RUNS)), np.ones(RUNS, bool)
    )
    return cell


@pytest.fixture(scope="module")
def cells():
    return [
        *(
            made(condition, N, role, base)
            for condition in PACE
            for N in (16, 64)
            for role in ("default", "best")
            for base in range(BASES)
            if condition != "binned_log_distance B=8"
        ),
        *(made("binned_log_distance B=8", 64, "default", base, stuck=3) for base in range(BASES)),
        *(made("sft", 64, "default", base, lora_rank=1) for base in range(BASES)),
        *(
            made(condition, N, "default", base, "tiny-text")
            for condition in ("sft", "binary")
            for N in (16, 64)
            for base in range(BASES)
        ),
        *(
            made(condition, 64, "default", 0, "/models/SmolLM2-135M-Instruct")
            for condition in ("sft", "binary")
        ),
    ]


@pytest.fixture(scope="module")
def root(cells, tmp_path_factory):
    """A checkout with the study's files, the README around the answer, and nothing made yet."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("docs/figures", "studies"):
        (root / folder).mkdir(parents=True)
    ship_answer.without_places(to_table(cells)).write_parquet(root / "studies/answer.parquet")
    choice = {"condition": "binary", "N": 64, "learner": "ppo", "at_edge": True, "more": 1}
    (root / "studies/answer_choices.json").write_text(json.dumps([choice]))
    (root / "README.md").write_text(f"# before\n{make_results.START}old\n{make_results.END}after\n")
    (root / "docs/results.md").write_text("old\n")
    return root


@pytest.fixture(scope="module")
def protocol(tmp_path_factory):
    path = tmp_path_factory.mktemp("protocol") / "made.yaml"
    path.write_text(PROTOCOL)
    return load_protocol(path)


@pytest.fixture(scope="module")
def words(root, protocol):
    return make_results.words_of(root, protocol)


@pytest.fixture(scope="module")
def page(words, root):
    return make_results.texts(words, root)["docs/results.md"]


# What is committed


@pytest.fixture(scope="module")
def committed():
    return make_results.words_of()


def test_page_readme_and_figures_are_what_the_files_of_this_checkout_give(committed):
    assert make_results.stale(committed) == []


def test_every_verdict_of_the_readme_is_the_one_that_its_protocol_gives():
    numbers = StudyNumbers.of(make_results.from_table(pl.read_parquet(ROOT / "studies/answer.parquet")))
    own = [cell for cell in numbers.cells if cell.settings["model_name"] == "tiny"]
    _check_rows((ROOT / "README.md").read_text(), judge(load_protocol("answer"), own))


def test_every_heading_of_the_page_begins_a_line():
    page = (ROOT / "docs/results.md").read_text()
    assert re.findall(r"[^\n#]##+ [A-Z]", page) == []
    assert "\n### Again, on other bases and secrets\n" in page


def test_the_second_study_has_a_seed_for_each_cell_and_both_roles_on_every_base():
    cells = make_results.from_table(pl.read_parquet(ROOT / "studies/answer_again.parquet"))
    assert len({cell.config["seed"] for cell in cells}) == len(cells) == 384
    assert [answer_again.with_role(cell).config["role"] for cell in cells] == [
        cell.config["role"] for cell in cells
    ]
    places = Counter((cell.condition, cell.N, cell.config["role"]) for cell in cells)
    assert len(places) == 24
    assert {*places.values()} == {len(answer_again.BASES)}
    planned = (ROOT / "studies/answer-again.yaml").read_text()
    assert planned == answer_again.plan()


def test_the_summary_table_is_what_the_files_of_this_checkout_give(committed):
    assert (ROOT / "studies/answer.csv").read_text() == to_csv(ship_answer.as_frame(committed.numbers))


def test_what_the_contests_chose_follows_from_their_runs_in_this_checkout():
    chosen = json.loads((ROOT / "studies/answer_choices.json").read_text())
    assert ship_answer.choices() == chosen


@pytest.mark.parametrize("table", ["answer.parquet", "answer_tuning.parquet"])
def test_the_tables_of_this_checkout_name_no_folder(table):
    for name in ("answer.csv", "answer_choices.json"):
        assert not re.search(r"/(tmp|home|work|root|Users)/", (ROOT / "studies" / name).read_text())
    manifests = pl.read_parquet(ROOT / "studies" / table)["manifest"].unique()
    assert [text for text in manifests if re.search(r'"(log_path|/[^"]*)"', text)] == []


def _check_rows(text, verdicts):
    """Each verdict stands in the row of its hypothesis, and no row says more."""
    rows = dict(re.findall(r"^\| (H\S+) \| [^|]+ \| ([^|]+) \|", text, flags=re.M))
    expected = {}
    for one in verdicts:
        role = next((role for role in ("default", "best") if one.id.endswith(f"-{role}")), "")
        word = "not judged" if one.p_holm is None else one.verdict
        expected.setdefault(one.id.removesuffix(f"-{role}"), {})[role] = word
    assert rows.keys() == expected.keys()
    for name, by_role in expected.items():
        said = rows[name].replace("*", "")
        found = re.findall(r"(default|best): ([\w ]+)", said) or [
            (role, said.split(",")[0]) for role in by_role
        ]
        assert {role: word.strip() for role, word in found} == by_role


# No number is typed

ALLOWED = (
    r"\bN = 64\b",
    r"\bH\d\b",
    r"\b95 %",
    r"\blog2\b",
    r"\b64 answers\b",  # the N of the first paragraph, which its expressions name
    r"\b8 levels\b",  # a condition
    r"\b8 billion parameters\b",  # of a model on another page
    r"\[0, N\)",  # where secrets lie
)
"""What digits a template may have outside of expressions and code: names of conditions and N, no results."""


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_result_is_typed_into_a_template(template):
    assert _typed(template.read_text()) == []


def _typed(text):
    """Digits in prose, and in the prose that expressions choose between."""
    prose = re.sub(r"(?s)```.*?```|`[^`]*`|<!--.*?-->|\]\([^)]*\)", "", text)
    chosen = [
        words
        for tag in re.findall(r"(?s)\{[{%].*?[%}]\}", prose)
        for words in re.findall(r'"([^"]*)"', tag)
        if " " in words
    ]
    prose = re.sub(r"(?s)\{[{%].*?[%}]\}", "", prose)
    for allowed in ALLOWED:
        prose, chosen = re.sub(allowed, "", prose), [re.sub(allowed, "", words) for words in chosen]
    return re.findall(r"\S*\d\S*", " ".join([prose, *chosen]))


def test_a_typed_result_is_found():
    assert _typed("it is 22 [17, 29] times {{ word(x, 'a', \"by 3.7 times\") }} at N = 64, `N=16`") == [
        *("22", "[17,", "29]", "3.7"),
    ]


# What is said


def test_rates_ratios_and_factors_are_those_of_the_cells(words, cells):
    def of(condition, base=None, role="default"):
        return [
            c
            for c in cells
            if (c.condition, c.N, c.config["role"]) == (condition, 64, role)
            and c.config["model_name"] == "tiny"
            and c.config["lora_rank"] == 8
            and base in (None, c.config["base_seed"])
        ]

    def rate(condition, **more):
        found = of(condition, **more)
        return 6 * RUNS * len(found) / sum(cell.times.episodes.sum() for cell in found)

    assert words.rate("binary", 64).startswith(two(Estimate(rate("binary"))))
    assert words.factor("sft", "binary", 64).value == pytest.approx(rate("sft") / rate("binary"))
    parts = [words.part_factor(part, "binary", 64).value for part in ("channel", "exploration", "absorption")]
    assert math.prod(parts) == pytest.approx(rate("sft") / rate("binary"))
    assert parts[0] == pytest.approx(6.0 / 0.2)
    left = [math.log(rate("sft", base=base) / rate("binary", base=base)) for base in range(BASES)]
    whole = words.factor("sft", "binary", 64)
    assert math.log(whole.high / whole.low) == pytest.approx(
        2 * 3.182446 * np.std(left, ddof=1) / math.sqrt(BASES), rel=0.1
    )


def test_bits_an_update_are_bits_an_episode_times_the_episodes_of_an_update(words):
    whole = words.factor("sft", "binary", 64)
    assert (words.an_update("sft", 64), words.an_update("binary", 64)) == (1, 4)
    quarter = Estimate(whole.value / 4, whole.low / 4, whole.high / 4)
    assert words.ratio_an_update("sft", "binary", 64) == two(quarter)


def test_growth_is_the_slope_of_two_points(words):
    small, large = (words.sample("binary", N).of_memorised.exp().value / math.log2(N) for N in (16, 64))
    assert words.power("binary").value == pytest.approx(math.log(small / large) / math.log(4))
    grown = [words.factor("sft", "binary", N).value for N in (16, 64)]
    slope = math.log(grown[1] / grown[0]) / math.log(4)
    assert words.power_of_ratio("sft", "binary").startswith(two(Estimate(slope)))


def test_stuck_runs_are_told_beside_the_rate(words, page):
    assert words.stuck("binned_log_distance", 64) == "not measured"
    assert words.stuck("bins8", 64).startswith("19 % [")
    assert words.stuck("bins8", 64).endswith("by 20,000 episodes")
    assert words.stuck("sft", 64) == "none of 64, so under 5.6 %"
    assert "in: distance in 8 levels." in " ".join(page.split())


def test_a_word_follows_its_interval(words):
    choose = ("more", "less", "as much")
    assert words.word(Estimate(2.0, 1.1, 3.0), *choose) == "more"
    assert words.word(Estimate(0.5, 0.1, 0.9), *choose) == "less"
    assert words.word(Estimate(0.5, 0.1, 1.2), *choose) == "as much"
    assert words.word(Estimate(0.5), *choose) == "as much"


@pytest.mark.parametrize(
    ("slow", "quick", "said", "not_said"),
    [
        (1.0, 1.0, "is still slower than SFT", "is faster than SFT"),
        (1.0, 8.0, "is faster than SFT", "slower"),
    ],
)
def test_the_answer_turns_with_the_data(cells, root, protocol, slow, quick, said, not_said):
    """The same text from dense runs that are eight times as fast says the opposite."""
    changed = [
        made(cell.condition, cell.N, cell.config["role"], cell.config["base_seed"])
        for cell in cells
        if cell.condition in ("sft", "binary", "multi_step") and cell.N == 64
    ]
    for cell in changed:
        by = quick if cell.condition == "multi_step" else slow
        cell.__dict__["times"] = MemorisationTimes(cell.times.episodes / by, cell.times.memorised)
    numbers = StudyNumbers.of(changed)
    text = make_results.texts(Words(numbers, Verdicts(numbers, protocol)), root)["README.md"]
    answer = " ".join(text.split())
    assert f"With a reward for each bit RL {said}:" in answer
    assert not re.search(f"With a reward for each bit RL [^:]*{not_said}", answer)


def test_the_part_that_leads_is_named_only_beyond_chance(words):
    assert words.main_part("binary", 64) == "channel"
    assert words.main_part("summed", 64) == "none"
    assert words.main_part("log_distance", 64) == "none"


# Verdicts


def test_verdicts_of_page_and_readme_are_those_of_judge(words, root, protocol):
    own = [cell for cell in words.numbers.cells if cell.settings["model_name"] == "tiny"]
    judged = judge(protocol, own)
    assert {one.verdict for one in judged} >= {"refuted", "supported"}
    texts = make_results.texts(words, root)
    _check_rows(texts["README.md"], judged)
    _check_rows(texts["docs/results.md"].split("## The question")[0], judged)
    for one in judged:
        assert f"**{one.id}: {one.verdict}.** {one.claim}" in " ".join(texts["docs/results.md"].split())


def test_on_another_recipe_the_same_tests_are_made_at_its_N(words):
    verdicts = words.verdicts
    assert [one.id for one in verdicts.verdicts("H2")] == ["H2-default", "H2-best"]
    assert verdicts.verdict_of("H2-default", "tiny-text") == verdicts.verdict_of("H2-default")
    assert verdicts.alike("H2-default") == "yes"
    assert verdicts.verdict_of("H2-best", "tiny-text") == "not judged"
    assert verdicts.alike("H5") == "judged on one only"
    assert verdicts.alike_or_not["yes"] == ["H2-default"]
    assert words.recipes == ["tiny", "tiny-text", "SmolLM2-135M-Instruct"]


def test_a_recipe_is_judged_by_its_own_protocol_if_it_has_one(words, tmp_path):
    own = PROTOCOL.replace("command: sft,", "command: sft, model_name: tiny-text,").replace("log2_N", "20")
    (tmp_path / "own.yaml").write_text(own)
    changed = Verdicts(words.numbers, words.verdicts.protocol, [load_protocol(tmp_path / "own.yaml")])
    before, after = (one.verdicts("H2-default", "tiny-text")[0].reason for one in (words.verdicts, changed))
    assert "the claim is 4 and 6" in before
    assert "the claim is 20 and 20" in after
    assert changed.verdicts("H2-default")[0].reason == words.verdicts.verdicts("H2-default")[0].reason


def test_a_learner_is_named_with_the_settings_that_set_it_apart(words):
    assert words.learner("binary", 64) == "reinforce, groups of 4, step 0.0005"
    assert words.learner("binary", 64, "best") == "ppo ppo_clip_high=0.28, groups of 4, step 0.002"
    assert words.learner("sft", 64, "best") == "step 0.002"


def test_a_study_that_lacks_cells_says_so(words, protocol, cells, tmp_path):
    assert Verdicts(words.numbers, protocol).lacking == ""
    plain = StudyNumbers.of([cell for cell in cells if cell.config["role"] == "default"])
    fixed = "{command: sft, N: 64, lora_rank: 1, tune: false, base_seed: [0, 1]}"
    path = tmp_path / "fixed.yaml"
    path.write_text(PROTOCOL.replace("hypotheses:", f"  - {fixed}\nhypotheses:", 1))
    both = replace(load_protocol(path), beside="default")
    assert Verdicts(words.numbers, both).lacking == ""  # what is not tuned has no best learner
    best = next(cell for cell in cells if cell.config["role"] == "best")
    lacking = Verdicts(StudyNumbers.of([*plain.cells, best]), both).lacking
    assert lacking == "Of the experiments of the best learners so far there are 1 of 8 on `tiny`."
    assert Verdicts(plain, both).lacking.startswith("The best learners are not measured yet")
    few = StudyNumbers.of([cell for cell in cells if cell.config["base_seed"] == 0][:3])
    assert Verdicts(few, protocol).lacking.startswith("So far the study's files hold ")


def test_verdicts_that_decide_are_judged_again_on_other_bases(words, protocol):
    again = [
        made(condition, N, "default", base)
        for condition in ("sft", "binary")
        for N in (16, 64)
        for base in range(8, 24)
    ]
    decide = replace(protocol, hypotheses=protocol.hypotheses[:1])
    found = Verdicts(words.numbers, decide, [], again)
    assert [*found.repeated] == ["bases 8 to 15", "bases 16 to 23"]
    first = judge(decide, [cell for cell in again if cell.config["base_seed"] < 16])
    assert found.repeated["bases 8 to 15"] == first
    assert [one.verdict for one in (*first, *found.verdicts())] == ["refuted", "refuted"]
    assert found.not_repeated == []
    few = [cell for cell in again if cell.config["base_seed"] < 18]
    assert Verdicts(words.numbers, decide, [], few).not_repeated == ["H2-default"]


def test_a_recipe_with_one_n_is_judged_at_that_n(words, cells, protocol):
    one = [
        made(condition, 64, "default", base, "elsewhere/big")
        for condition in ("sft", "binary")
        for base in range(8)
    ]
    numbers = StudyNumbers.of([*cells, *one])
    (found,) = Verdicts(numbers, protocol).verdicts("H2-default", "big")
    assert [row["N"] for row in found.numbers] == [64]


# Files


def test_pages_are_stale_until_made_and_made_the_same_again(words, root, tmp_path):
    here = tmp_path / "checkout"
    shutil.copytree(root, here)
    assert {"docs/results.md", "README.md"} < {*make_results.stale(words, here)}
    make_results.write(words, here)
    assert make_results.stale(words, here) == []
    again = svg(dict(figures(words))["answer_growth"])
    assert again == (here / "docs/figures/answer_growth.svg").read_text()
    readme = (here / "README.md").read_text()
    assert readme.startswith("# before\n")
    assert readme.endswith(f"{make_results.END}after\n")
    (here / "README.md").write_text(readme.replace("puts **", "puts **9", 1))
    figure = here / "docs/figures/answer_rates.svg"
    figure.write_text(figure.read_text().replace("sha256 ", "sha256 0"))
    assert make_results.stale(words, here) == ["README.md", "docs/figures/answer_rates.svg"]


def test_five_figures_with_outlined_text_show_the_numbers(words):
    made_of = dict(figures(words))
    assert len(made_of) == 5
    drawing = svg(made_of["answer_rates"])
    assert "<text" not in drawing
    assert fingerprint(made_of["answer_rates"]) in drawing
    (row,) = (
        row
        for row in made_of["answer_rates"]["data"]["values"]
        if (row["signal"], row["role"]) == ("hit or miss", "default learner")
    )
    assert row["value"] == pytest.approx(words.sample("binary", 64).of_memorised.exp().value, rel=1e-5)
    assert row["capacity"] == 1.0
    steps = [
        row
        for panel in made_of["answer_ladder"]["hconcat"]
        for row in panel["data"]["values"]
        if row["signal"] == "hit or miss"
    ]
    for first, second, third in (steps[:3], steps[3:]):
        assert (first["from"], first["to"], second["to"]) == (1.0, second["from"], third["from"])
        assert third["to"] == pytest.approx(third["whole"], rel=1e-5)


def test_lines_are_wrapped_and_none_begins_as_an_item():
    words = " ".join(["word"] * 21)
    text = make_results.wrapped(
        f"{words} of 16. And {words} - a dash\n\n\n| a | b |\n|---|---|\n| {words * 3} | |\n"
    )
    lines = text.splitlines()
    assert max(len(line) for line in lines if not line.startswith("|")) <= make_results.WIDTH
    assert not any(re.match(r"(\d+[.)]|[-+*]) ", line) for line in lines)
    assert " ".join(text.split()).startswith(f"{words} of 16. And {words} - a dash | a | b |")


def test_nothing_is_shipped_of_which_no_numbers_follow(tmp_path, cells, monkeypatch):
    monkeypatch.setattr(ship_answer, "PROTOCOLS", ())
    monkeypatch.setattr(ship_answer, "find_cells", lambda places: cells)
    ship_answer.ship([tmp_path], tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    other = made("sft", 64, "default", 9, memorised_at=0.9)
    monkeypatch.setattr(ship_answer, "find_cells", lambda places: [other])
    with pytest.raises(ConfigError, match="with different settings"):
        ship_answer.ship([tmp_path], tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_readme_without_the_marks_of_the_answer_is_left_alone(words, tmp_path):
    for mark in (make_results.START, make_results.END):
        (tmp_path / "README.md").write_text(f"before\n{mark}after\n")
        with pytest.raises(ConfigError, match=r"README.md lacks the line"):
            make_results.texts(words, tmp_path)


def test_the_shipped_files_hold_the_runs_and_their_summary(tmp_path, cells, monkeypatch):
    monkeypatch.setattr(ship_answer, "find_cells", lambda places: cells)
    monkeypatch.setattr(ship_answer, "PROTOCOLS", ())
    ship_answer.ship([tmp_path], tmp_path)
    table = pl.read_parquet(tmp_path / "answer.parquet")
    assert table.height == RUNS * len(cells)
    assert not table["manifest"].str.contains("/models/|elsewhere").any()
    assert pl.read_parquet(tmp_path / "answer_tuning.parquet").is_empty()
    assert json.loads((tmp_path / "answer_choices.json").read_text()) == []
    rows = pl.read_csv(tmp_path / "answer.csv")
    assert rows.height == len(StudyNumbers.of(cells).samples)
    (row,) = rows.filter(signal="bins8").to_dicts()
    assert (row["runs"], row["bases"], row["budget"], row["learner"]) == (64, 4, 20_000, "reinforce")
    assert row["stuck"] == pytest.approx(12 / 64)
    assert row["alphabet"] == pytest.approx(6 / 2.5)
    assert row["bits_of_memorised"] > row["bits_per_episode"]


def test_what_is_shipped_is_added_to_and_stays(tmp_path, cells, monkeypatch):
    monkeypatch.setattr(ship_answer, "PROTOCOLS", ())

    def shipped(found: list) -> bytes:
        monkeypatch.setattr(ship_answer, "find_cells", lambda places: found)
        ship_answer.ship([tmp_path], tmp_path)
        return (tmp_path / "answer.parquet").read_bytes()

    whole = shipped(cells)
    assert shipped(cells[:3]) == shipped(cells[::-1]) == whole
    (tmp_path / "answer.parquet").unlink()
    assert shipped(cells[:5]) != whole
    assert shipped(cells[5:]) == whole


def test_places_of_the_study():
    assert list(map(signal_of, ["sft", "binary noise=0.05", "binned_log_distance B=16", "multi_step"])) == [
        *("sft", "noisy", "bins16", "per_bit"),
    ]
    models = ["tiny", "hub/Some-135M", "/data/Some-135M", "/cache/models--hub--Some-135M/snapshots/0abc"]
    assert [recipe_of(made("sft", 64, "default", 0, model)) for model in models] == [
        "tiny",
        *["Some-135M"] * 3,
    ]
    twice = [made("sft", 64, "default", 0), made("sft", 64, "default", 1, max_episodes=5)]
    with pytest.raises(ConfigError, match="are both sft 64 default tiny 8, with different settings"):
        StudyNumbers.of(twice)
    roles = StudyNumbers.of([made("sft", 64, role, 0, learning_rate=0.1) for role in ("default", "best")])
    assert [*roles.samples] == [Place("sft", 64, "best"), Place("sft", 64, "default")]


def test_an_unknown_word_in_a_template_stops(words):
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    with pytest.raises(jinja2.UndefinedError):
        environment.from_string("{{ ratee('sft', 64) }}").render(words.functions())
