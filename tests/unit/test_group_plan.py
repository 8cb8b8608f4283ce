"""Plans from pass rates and for conditions: words, tables at 80 columns, files, Python, and bad input."""

import io
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import memory_rl
from memory_rl.cli import main
from memory_rl.information.closed_forms import binary_episodes
from memory_rl.reporting.sheets import show

RATES = [0.0, 0.18, 0.18, 0.7]


def test_one_rate_in_words_and_numbers():
    plan = memory_rl.plan(p=0.18, group_size=8, groups=32, tokens=500, price=0.4)
    told = -(0.18 * math.log2(0.18) + 0.82 * math.log2(0.82))
    silent = 0.18**8 + 0.82**8
    assert plan.sentences[0] == (
        "At a pass rate of 0.18 a group of 8 carries a signal with a chance of 79.6 %; all its rollouts are "
        "wrong with 20.4 %, all right with < 0.01 %."
    )
    assert plan.sentences[1] == (
        "A rollout tells at most 0.68 bits; with G = 8 the advantages carry 0.68, of which 0.589 in groups "
        "with a signal: 1.18 per 1,000 tokens, 2,940 a dollar."
    )
    assert plan.sentences[2].endswith(
        "G = 8 brings 86.6 % of the most that any does, and G = 13 is the smallest with 95 %."
    )
    assert plan.sentences[3] == "The first hit takes 5.56 rollouts on average: 2,780 tokens, $0.00111."
    assert plan.sentences[4] == (
        "A step of 32 groups is 256 rollouts, 128,000 tokens, $0.0512: 25.5 groups with a signal and 151 "
        "bits on average; the first hit takes 1 step."
    )
    found = plan.as_dict()
    assert found["signal_chance"] == pytest.approx(1 - silent)
    assert found["delivered_bits_per_rollout"] == pytest.approx(told)
    assert found["first_hit"] == pytest.approx(
        {"rollouts": 1 / 0.18, "tokens": 500 / 0.18, "dollars": 500 / 0.18 * 0.4e-6, "steps": 1.0}
    )
    assert found["step"]["groups_with_a_signal"] == pytest.approx(32 * (1 - silent))
    assert found["best_group_size"] == 13
    assert plan.frame["group_size"].to_list() == [2, 4, 8, 13, 16, 32, 64]
    assert plan.frame["signal_chance"][0] == pytest.approx(2 * 0.18 * 0.82)  # silent: 70 % at G = 2
    assert not plan.notes


def written(form: str) -> Path:
    frame = pl.DataFrame({"prompt": ["a", "b", "c", "d"], "p": RATES})
    path = Path(f"rates.{form.split()[0]}")
    if form == "csv":
        frame.write_csv(path)
    elif form == "parquet":
        frame.rename({"p": "pass_rate"}).write_parquet(path)
    else:
        kinds = {
            "json list": RATES,
            "json rows": frame.to_dicts(),
            "json object": dict(zip("abcd", RATES, strict=True)),
        }
        path.write_text(json.dumps(kinds[form]))
    return path


@pytest.mark.parametrize("form", ["csv", "parquet", "json list", "json rows", "json object"])
def test_a_file_of_rates_is_the_same_in_every_format(form):
    path = written(form)
    plan, listed = memory_rl.plan(p=path, group_size=3), memory_rl.plan(p=RATES, group_size=3)
    assert plan.frame.equals(listed.frame)
    assert plan.frame.equals(memory_rl.plan(p=np.array(RATES), group_size=3).frame)
    mean = np.mean([1 - p**3 - (1 - p) ** 3 for p in RATES])
    assert plan.as_dict()["signal_chance"] == pytest.approx(mean)
    assert plan.sentence.startswith(f"At the 4 pass rates of {path}, 0.265 on average, a group of 3 carries")
    assert [note.split(":")[0] for note in plan.notes] == [f"The numbers in {path} are taken as they are"]


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """An audit of groups of 4 by prompts of three pass rates."""
    random = np.random.default_rng(0)
    rows = [
        {
            "step": step,
            "prompt": prompt,
            "reward": int(random.random() < (0.1, 0.3, 0.9)[prompt % 3]),
            "tokens": 50,
        }
        for step in range(6)
        for prompt in range(step % 2 * 15, step % 2 * 15 + 15)
        for _ in range(4)
    ]
    folder = tmp_path_factory.mktemp("audited")
    pl.DataFrame(rows).write_csv(folder / "rollouts.csv")
    return memory_rl.audit(folder / "rollouts.csv", out=str(folder / "audit"))


def test_an_audit_is_planned_with_its_own_law_size_and_tokens(audited):
    path = audited.path.parent / "audit"
    plan = memory_rl.plan(path, price=2.0)
    found, audit = plan.as_dict(), audited.as_dict()
    assert (found["group_size"], found["tokens"]) == (4, 50.0)
    assert found["mean_pass_rate"] == pytest.approx(audit["mean_reward"]["estimate"], abs=0.02)
    assert found["delivered_bits_per_rollout"] == pytest.approx(
        audit["delivered_bits_per_rollout"]["estimate"], abs=0.02
    )
    by_size = {row["group_size"]: row for row in found["rows"]}
    for other in audit["other_group_sizes"]:
        row = by_size[other["size"]]
        assert 1 - row["signal_chance"] == pytest.approx(other["silent"]["estimate"])
        assert row["advantage_bits_per_rollout"] == pytest.approx(other["advantage_bits"]["estimate"])
    for same in (memory_rl.plan(audited, price=2.0), memory_rl.plan(p=path / "audit.json", price=2.0)):
        assert same.frame.equals(plan.frame)
    assert memory_rl.plan(str(path), tokens=100).as_dict()["tokens"] == 100
    assert plan.notes[0].startswith("These numbers have no intervals")


def test_of_graded_rewards_the_highest_is_a_pass(audited):
    read = json.loads((audited.path.parent / "audit" / "audit.json").read_text())
    Path("graded.json").write_text(json.dumps(read | {"graded": True}))
    assert memory_rl.plan(p="graded.json").notes[1].startswith("Rewards of the audit are graded")


def test_a_binary_condition_in_words_and_numbers():
    plan = memory_rl.plan(N=64, reward_type="binary", tokens=20, price=1.0)
    assert plan.sentences == [
        "binary, N = 64: an episode carries at most 1 bit of the 6 to learn, the first of a uniform policy "
        "0.116 bits.",
        "Before anything is learned a group of 4 carries a signal with a chance of 6.11 %, 11.8 % with 8, "
        "22.3 % with 16, 39.6 % with 32, 63.5 % with 64.",
        "Uniform answers hit S after 64 episodes on average: 1,280 tokens, $0.00128.",
        "Until P(S) >= 0.5 the ideal questioner needs 32.5 episodes, exact policy gradient 105 episodes.",
    ]
    found = {row["name"]: row["episodes"] for row in plan.as_dict()["rows"]}
    ceilings = memory_rl.bounds(N=64)
    signal = 1 - (63 / 64) ** 4 - (1 / 64) ** 4
    assert found == pytest.approx(
        {
            "first_signal": 4 / signal,
            "first_hit": 64,
            "first_hit_95": 191,
            "ceiling": 6,
            "questioner": ceilings.ideal_questioner.to_reach,
            "policy_gradient": binary_episodes(64, 1.0, 0.5),
        }
    )
    assert 1 - (63 / 64) ** 191 >= 0.95 > 1 - (63 / 64) ** 190
    assert plan.frame["dollars"].to_list() == pytest.approx([20e-6 * one for one in found.values()])


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (
            {"reward_type": "log_distance"},
            ["first_signal", "first_hit", "first_hit_95", "ceiling", "questioner"],
        ),
        (
            {"env_type": "multi_step", "credit": "episode"},
            ["first_signal", "first_hit", "first_hit_95", "ceiling", "questioner"],
        ),
        ({"signal": "teacher"}, ["first_hit", "first_hit_95", "ceiling", "questioner"]),
        ({"signal": "example"}, ["ceiling", "questioner"]),
    ],
)
def test_each_condition_has_the_milestones_that_it_can_have(keys, names):
    plan = memory_rl.plan(N=16, **keys)
    assert plan.frame["name"].to_list() == names
    assert (plan.picture is None) == ("first_signal" not in names)
    assert plan.as_dict()["bits_per_episode_at_most"] == pytest.approx(
        min(memory_rl.bounds(N=16, **keys).capacity, memory_rl.bounds(N=16, **keys).shannon_capacity)
    )


def test_bits_of_turns_are_hit_as_often_as_all_strings_of_bits():
    assert memory_rl.plan(N=5, env_type="multi_step").frame["episodes"][1] == 8


@pytest.mark.parametrize("words", [["p=0.18", "tokens=500"], ["N=16"]])
def test_out_has_page_picture_and_json_and_is_replaced(words, capsys):
    for _ in range(2):
        assert main(["plan", *words, "out=made"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "wrote made/index.html: open it in a browser"
    assert {path.name for path in Path("made").iterdir()} == {"index.html", "plan.svg", "plan.json"}
    page, picture = (Path("made", name).read_text() for name in ("index.html", "plan.svg"))
    read = json.loads(Path("made/plan.json").read_text())
    assert all(sentence.replace(">", "&gt;").replace("<", "&lt;") in page for sentence in read["sentences"])
    assert page.count("data:image/svg+xml") == 2
    assert "<script" not in page
    assert picture.startswith("<svg")
    assert 'aria-label="rollouts a group, G"' in picture
    Path("made/index.html").write_text("mine")
    assert main(["plan", *words, "out=made"]) == 2
    assert "out=made holds files that are no plan" in capsys.readouterr().err


def test_the_picture_marks_what_is_planned_and_what_is_best():
    plan = memory_rl.plan(p=0.18, tokens=500)
    _, points, *names, top = plan.picture["layer"]
    assert [row["size"] for row in points["data"]["values"]] == [8, 13]
    assert [name["data"]["values"][0]["word"] for name in names] == ["G = 13 (best)", "G = 8 (planned)"]
    assert points["data"]["values"][1]["value"] == pytest.approx(plan.frame["bits_per_1000_tokens"][3])
    assert top["data"]["values"][0]["value"] == pytest.approx(2 * plan.numbers["delivered_bits_per_rollout"])
    assert plan.plot()._repr_mimebundle_()["image/svg+xml"].startswith("<svg")
    (_, one, *_) = memory_rl.plan(p=0.18, group_size=13).picture["layer"]
    assert [row["word"] for row in one["data"]["values"]] == ["G = 13 (planned, best)"]


def test_a_notebook_shows_sentences_the_table_and_the_picture():
    plan = memory_rl.plan(p=RATES)
    html = plan._repr_html_()
    assert html.index("carries a signal") < html.index("<table>") < html.index("data:image/svg+xml")
    assert plan.sentences[-1] in repr(plan)
    assert "13 (best)" not in repr(plan).split("\n")[0]
    assert isinstance(plan, memory_rl.GroupPlan)
    with pytest.raises(memory_rl.ConfigError, match="of sft, N = 16 there is nothing to draw"):
        memory_rl.plan(N=16, signal="example").plot()


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize(
    "keys", [{"p": RATES, "price": 2.0}, {"N": 64, "price": 2.0}], ids=["rates", "condition"]
)
def test_tables_fit_the_terminal(keys, width):
    plan = memory_rl.plan(**keys, tokens=500)
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    show(plan.sheet(), console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any("a dollar" in line or "dollars" in line for line in lines)


def test_what_is_nearly_all_or_nothing_is_not_said_to_be_it():
    words = repr(memory_rl.plan(p=0.18, group_size=64))
    assert "> 99.9 %" in words
    assert "< 0.01 %" in words
    assert " 100 %" not in words


BAD = {
    "p=1.2": "p=1.2 is not in (0, 1)",
    "p=0": "p=0 is not in (0, 1)",
    "p=1": "p=1 is not in (0, 1)",
    "p=nowhere.csv": "p=nowhere.csv is neither a number nor a file: give a pass rate such as p=0.18",
    "p=.": "p=. is no audit and no file of pass rates",
    "p=0.18 group_size=1": "group_size=1 is too small: use group_size=2",
    "p=0.18 groups=0": "groups=0 is too small: use groups=1",
    "p=0.18 price=3": "price=3 needs the tokens of a rollout: add for example tokens=500.",
    "N=64 price=3": "price=3 needs the tokens",
    "p=0.18 tokens=0": "tokens=0 is not in (0, 1e+09]",
    "p=0.18 price=-1 tokens=5": "price=-1 is not in (0, 1e+06]",
    "group_size=8": "group_size=8 needs pass rates or a condition: add for example p=0.18, or N=64.",
    "N=64 p=0.18": "p=0.18 does not go with a condition (N=): leave p out.",
    "reward_type=binary groups=3": "groups=3 does not go with a condition (reward_type=): leave groups out.",
    "p=0.18 ratio=2": "ratio=2 does not go with pass rates: leave ratio out.",
    "runs/pilot tokens=2": "tokens=2 does not go with a pilot: leave tokens out.",
    "runs/pilot N=64": "runs/pilot does not go with a condition (N=): leave one of them out.",
    "runs/pilot p=0.2": "runs/pilot does not go with pass rates: leave one of them out.",
    "p=0.1 tokns=3": "tokns=3 is not a known key: did you mean tokens?",
    "N=64 signal=example group_size=4": "group_size=4 belongs to signal=reward",
    "N=1": "N=1 is too small",
    "N=64 num_runs=4": "num_runs=4 is not a known key",
    "width=1 runs/pilot": "width=1 is not in (1, 1000]: use for example width=1.5.",
}


@pytest.mark.parametrize(("words", "part"), BAD.items(), ids=BAD)
def test_bad_input_is_one_sentence(words, part, capsys):
    assert main(["plan", *words.split()]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert part in said.err


FILES = {
    "empty.csv": ("", "empty.csv holds no pass rate"),
    "head.csv": ("p\n", "head.csv holds no pass rate"),
    "two.csv": ("a,b\n1,2\n", "two.csv has no column p, only a and b: name the one of pass rates p."),
    "both.csv": ("p,pass_rate\n0.1,0.2\n", "both.csv has no column p, only p and pass_rate"),
    "high.csv": ("p\n0.5\n1.5\n", "pass rate 2 in high.csv is 1.5: give numbers from 0 to 1."),
    "text.csv": ("p\nmany\n", "pass rate 1 in text.csv is 'many': give numbers from 0 to 1."),
    "word.csv": ("p\n0.5\nmany\n", "pass rate 2 in word.csv is 'many': give numbers from 0 to 1."),
    "gap.csv": ("q,p\n1,0.5\n2,\n", "pass rate 2 in gap.csv is None: give numbers from 0 to 1."),
    "sure.csv": (
        "p\n0\n1\n",
        "all pass rates in sure.csv are 0 or 1, so that no group ever carries a signal",
    ),
    "cut.json": ("[0.1, 0.", "p=cut.json cannot be read as JSON"),
    "word.json": ('"a"', "word.json holds no pass rates: give a list such as [0.1, 0.25]."),
    "cut.parquet": ("PAR1", "p=cut.parquet cannot be read: give a file that is whole."),
    "rates.txt": ("0.1", "p=rates.txt is no audit and no file of pass rates: give one that ends in .csv"),
    "audit.json": ("{}", "audit.json holds no whole audit: make it again with memory-rl audit."),
    "levels/audit.json": (
        '{"pass_rates": null}',
        "the rewards of levels have too many levels for a pass rate",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_one_sentence(name, capsys):
    content, part = FILES[name]
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    given = str(path.parent) if path.parent != Path() else name
    assert main(["plan", f"p={given}"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert part in said.err


def test_several_audits_are_refused(audited, capsys):
    assert main(["plan", str(audited.path.parent / "audit"), "elsewhere"]) == 2
    assert "plan takes one audit alone, and 2 paths are given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"runs": 0.18}, "0.18 is no run: give a pass rate as p=0.18."),
        ({"p": []}, "p holds no pass rate"),
        ({"p": None}, "p=None is no pass rate"),
        ({"p": [0.5, "a"]}, "pass rate 2 in p is 'a'"),
    ],
)
def test_bad_values_from_python_are_one_sentence(given, part):
    with pytest.raises(memory_rl.MemoryRLError) as caught:
        memory_rl.plan(**given)
    assert part in str(caught.value)
