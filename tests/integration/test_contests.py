"""Protocols with a contest, on the tabular learner: the same choice wherever it runs and whenever it was
stopped, and what is reported of it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.samples import fits
from memory_rl.analysis.study_table import from_table, to_table
from memory_rl.cli import main
from memory_rl.errors import ConfigError
from memory_rl.experiments import sweeping
from memory_rl.experiments.executors import execute
from memory_rl.experiments.sweep import make_plan
from memory_rl.training.recompute import draw_secrets

sys.path.insert(0, str(Path(__file__).parents[2] / "studies"))
import ship_answer

TASK = {
    "command": "train",
    "backend": "tabular",
    "N": [4, 8],
    "num_runs": 4,
    "max_episodes": 200,
    "ledger": False,
}
SMALL = {
    "name": "small",
    "grid": [
        {**TASK, "reward_type": "binary", "seed": [0, 1]},
        {"command": "sft", "backend": "tabular", "N": 4, "num_runs": 4, "ledger": False, "figures": False},
        {**TASK, "N": 4, "reward_type": "binary", "group_size": 2, "tune": False},
    ],
    "tune": {
        "learners": [{"algorithm": "reinforce"}, {"algorithm": "ppo"}],
        "group_size": [2, 4],
        "factors": [1, 3],
        "widen": True,
        "rounds": [{"num_runs": 4, "keep": 2}, {"num_runs": 12}],
        "learner_on": [{"N": 4}],
        "step_runs": 8,
    },
    "beside": "default",
    "seeds": "independent",
}


def write(content: dict = SMALL, name: str = "small.yaml") -> str:
    Path(name).write_text(yaml.safe_dump(content))
    return f"protocol={name}"


def run(log_path: str, *words: str) -> int:
    return main(["sweep", write(), f"log_path={log_path}", "quiet=True", *words])


def summary(log_path: str) -> dict:
    return json.loads(Path(log_path, "summary.json").read_text())


def measured(path: str) -> dict[str, bytes]:
    """The tables of the cells; what a kill cut short while it was written is in `discarded` and run again."""
    found = {str(file.relative_to(path)): file for file in Path(path).rglob("*.parquet")}
    return {
        name: file.read_bytes()
        for name, file in found.items()
        if file.name != "timing.parquet" and not name.startswith("discarded/")
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reference")
    before = Path.cwd()
    os.chdir(path)
    try:
        assert run("sweep") == 0
    finally:
        os.chdir(before)
    return path / "sweep"


def test_what_is_reported_is_what_was_chosen_and_the_default_beside_it(reference):
    found = summary(reference)
    assert found["status"] == "completed"
    cells = {cell.path.name: cell for cell in find_cells([reference])}
    best, default = (
        [cell for cell in cells.values() if fits(cell.settings, {"role": role})]
        for role in ("best", "default")
    )
    assert (len(best), len(default), len(cells)) == (5, 6, 11)
    choices = {(one["condition"], one["N"]): one for one in found["tuning"]}
    assert {key: one["taken_from"] for key, one in choices.items()} == {
        ("binary", 4): None,
        ("binary", 8): 4,
        ("sft", 4): None,
    }
    for cell in best:
        choice = choices[cell.condition, cell.N]
        assert cell.config["learning_rate"] == choice["learning_rate"]
        assert cell.config.get("group_size") == choice["group_size"]
        assert cell.config.get("algorithm", "") == choice["learner"]
    for cell in default:
        assert cell.experiment.step_size == 0.3
        assert cell.config.get("algorithm", "reinforce") == "reinforce"
    assert sorted(cell.config.get("group_size", 0) for cell in default) == [0, 2, 4, 4, 4, 4]
    for one, other in (("binary", 4), ("binary", 8)), (("binary", 4), ("binary", 4)):
        assert choices[one]["learner"] == choices[other]["learner"]
    rows = {row["id"]: row for row in found["cells"]}
    assert {name: row["role"] for name, row in rows.items()} == {
        name: cell.settings["role"] for name, cell in cells.items()
    }


def test_a_choice_says_how_it_came_about(reference):
    for choice in summary(reference)["tuning"]:
        assert choice["runs"] == (8 if choice["taken_from"] else 12)
        assert choice["candidates"] == len(choice["scores"]) >= 3
        mine = next(one for one in choice["scores"] if one["id"] == choice["id"])
        assert mine == {name: choice[name] for name in mine}
        # the median once more, from the files
        record = json.loads(Path(reference, "sweep.json").read_text())["tuning_cells"]
        same = {"learning_rate": choice["learning_rate"], "N": choice["N"]}
        same |= (
            {"algorithm": choice["learner"], "group_size": choice["group_size"]} if choice["learner"] else {}
        )
        signal = "reward" if choice["learner"] else "example"
        pooled = [
            cell
            for entry in record
            if fits(entry["config"], {**same, "signal": signal})
            for cell in find_cells([reference / "tuning" / entry["id"]])
        ]
        episodes = np.concatenate([cell.times.episodes for cell in pooled])
        assert len(episodes) == choice["runs"]
        assert np.concatenate([cell.times.memorised for cell in pooled]).all()
        assert choice["median"] == np.sort(episodes)[len(episodes) // 2 - 1]
        assert choice["stuck"] == 0


def test_no_two_reported_cells_share_secrets_and_none_those_of_the_tuning(reference):
    record = json.loads(Path(reference, "sweep.json").read_text())
    seeds = [entry["config"]["seed"] for entry in record["cells"]]
    assert len(set(seeds)) == len(seeds) == 11
    tuned = {entry["config"]["seed"] for entry in record["tuning_cells"]}
    assert tuned == {1_000_000, 1_000_001}
    assert tuned.isdisjoint(seeds)
    cells = [cell for cell in find_cells([reference]) if cell.N == 4]
    assert len({draw_secrets(cell.experiment).tobytes() for cell in cells}) > 1


@pytest.mark.slow
def test_local_processes_choose_the_same(reference):
    assert run("processes", "executor=processes", "workers=2") == 0
    assert summary("processes")["tuning"] == summary(reference)["tuning"]
    assert measured("processes") == measured(reference)


def test_local_processes_choose_the_same_in_a_short_contest():
    tune = {"learners": SMALL["tune"]["learners"], "factors": [0.3, 1], "rounds": [{"num_runs": 4}]}
    short = write({"name": "short", "grid": [{**TASK, "N": 4}], "tune": tune}, "short.yaml")
    for where, *words in ("inline",), ("processes", "executor=processes", "workers=2"):
        assert main(["sweep", short, f"log_path={where}", "quiet=True", *words]) == 0
    assert summary("processes")["tuning"] == summary("inline")["tuning"]
    assert measured("processes") == measured("inline")


def test_a_store_without_a_disk_chooses_the_same(reference):
    from memory_rl.experiments.store import SweepDirectory

    assert run("memory://contests/one") == 0
    found = SweepDirectory("memory://contests/one").read_json("summary.json")
    assert found["tuning"] == summary(reference)["tuning"]


def test_a_second_start_asks_the_same_questions_and_runs_nothing(reference, capsys):
    def files() -> dict:
        every = {str(file): file.read_bytes() for file in reference.rglob("*") if file.is_file()}
        record = json.loads(every.pop(str(reference / "sweep.json")))
        return {**every, "record": {name: value for name, value in record.items() if name != "command"}}

    before = files()
    assert main(["sweep", write(), f"log_path={reference}"]) == 0
    assert files() == before
    output = " ".join(capsys.readouterr().out.split())
    assert "11 of 11 are complete already" in output
    assert "chosen on the tuning secrets and bases" in output


@pytest.fixture
def tables(reference) -> dict[str, list]:
    """Tables of the runs that compete, and of those that are reported by default and as the best."""
    reported = find_cells([reference])
    cells = {role: [cell for cell in reported if cell.config["role"] == role] for role in ("default", "best")}
    cells["tuning"] = find_cells([reference / "tuning"])
    for name, found in cells.items():
        to_table(found).write_parquet(f"{name}.parquet")
    return cells


def test_cells_of_a_table_are_not_run_again(reference, tables):
    assert run("rest", "known=default.parquet,tuning.parquet") == 0
    assert summary("rest")["tuning"] == summary(reference)["tuning"]
    ran = {name.split("/")[1] for name in measured("rest")}
    assert ran == {cell.path.name for cell in tables["best"]}
    assert measured("rest").items() <= measured(reference).items()
    assert {row["id"] for row in summary("rest")["cells"]} == ran


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_contest_goes_on_from_the_part_of_it_that_a_table_has(share, reference, tables):
    known = tables["tuning"][: int(share * len(tables["tuning"]))]
    to_table(known).write_parquet("part.parquet")
    assert run("rest", "known=part.parquet") == 0
    assert summary("rest")["tuning"] == summary(reference)["tuning"]
    away = {f"tuning/{cell.path.name}" for cell in known}
    assert measured("rest") == {
        name: content for name, content in measured(reference).items() if name.rpartition("/")[0] not in away
    }


def test_what_is_known_costs_nothing_in_a_dry_run(tables, capsys):
    assert main(["sweep", write(), "dry_run=True", "known=default.parquet"]) == 0
    assert f"at most {8 + 2 + 2 + 2 + 3 + 5} cells" in " ".join(capsys.readouterr().out.split())
    rounds = make_plan([write(), "known=default.parquet,tuning.parquet"]).estimated()["cells"]
    assert sum(cell["part"] == "tuning" for cell in rounds) < 17


def test_a_sweep_of_which_all_is_known_ends_with_its_choices_however_often(reference, tables, capsys):
    tables_of_all = "known=default.parquet,best.parquet, tuning.parquet"
    for _ in range(2):
        assert main(["sweep", write(), "log_path=nothing", tables_of_all]) == 0
        assert summary("nothing")["tuning"] == summary(reference)["tuning"]
        assert summary("nothing")["cells"] == []
    assert measured("nothing") == {}
    output = " ".join(capsys.readouterr().out.split())
    assert f"since {tables_of_all} has them: 6" in output
    assert "tuned cells left out, since known has them: 5" in output


def test_a_tuning_without_rounds_runs_its_own_candidates():
    words = ["conditions=sft,binary", "backend=tabular", "N=4", "num_runs=2", "ledger=False", "figures=False"]
    tune = ["tune=True", "tune_runs=2", "tune_rates=0.1,0.3", "quiet=True"]
    assert main(["sweep", *words, *tune, "log_path=one"]) == 0
    to_table(find_cells(["one/tuning"])).write_parquet("tuning.parquet")
    assert main(["sweep", *words, *tune, "log_path=two", "known=tuning.parquet"]) == 0
    assert measured("two") == measured("one")
    estimated = make_plan([*words, *tune, "known=tuning.parquet"]).estimated()["cells"]
    assert sum(cell["part"] == "tuning" for cell in estimated) == 4


def test_choices_are_played_again_from_the_table(reference, tables, monkeypatch, tmp_path):
    to_table(tables["tuning"]).write_parquet(tmp_path / ship_answer.TUNING_TABLE)
    monkeypatch.setattr(ship_answer, "PROTOCOLS", (write().removeprefix("protocol="),))
    chosen = ship_answer.choices(tmp_path)
    names = {name for one in chosen for name in one}
    assert {"condition", "N", "learner", "learning_rate", "median"} <= names <= {*ship_answer.OF_CHOICE}
    assert chosen == [{name: one[name] for name in names} for one in summary(reference)["tuning"]]
    half = tables["tuning"][::2]
    to_table(half).write_parquet(tmp_path / ship_answer.TUNING_TABLE)
    assert ship_answer.choices(tmp_path) == []


WHOLE = pl.DataFrame({
    "cell": ["a", "a"],
    "manifest": ['{"status": "completed"}'] * 2,
    "summary": ['{"runs": 2}'] * 2,
    "run": [0, 1],
    "episodes": [7, 9],
    "memorised": [True, False],
    "observer_episodes": [None, None],
    "observer_knew": [None, None],
})  # fmt: skip
NO_TABLE, NOT_WHOLE = "is no table of measured cells: give one", "does not have all runs of a: give a table"
DAMAGED = {
    "missing": (None, NO_TABLE),
    "empty": (b"", NO_TABLE),
    "text": (b"no table", NO_TABLE),
    "folder": ("folder", NO_TABLE),
    "columns": (WHOLE.select("cell", "run"), NO_TABLE),
    **{
        f"without {name}": (WHOLE.with_columns(pl.lit(None).alias(name)), NO_TABLE)
        for name in ("cell", "manifest", "summary", "run", "episodes", "memorised")
    },
    "words": (WHOLE.with_columns(pl.lit("some").alias("episodes")), NO_TABLE),
    "twice": (pl.concat([WHOLE, WHOLE]), NO_TABLE),
    "no JSON": (WHOLE.with_columns(pl.lit("{").alias("manifest")), NO_TABLE),
    "no runs": (WHOLE.with_columns(pl.lit("{}").alias("summary")), NOT_WHOLE),
    "cut off": (WHOLE.head(1), NOT_WHOLE),
    "failed": (WHOLE.with_columns(pl.lit('{"status": "failed"}').alias("manifest")), NOT_WHOLE),
}


@pytest.mark.parametrize(("content", "why"), DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_no_table_of_cells_is_refused(content, why):
    path = Path("known.parquet")
    if isinstance(content, pl.DataFrame):
        content.write_parquet(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        path.mkdir()
    with pytest.raises(ConfigError, match=f"known=known.parquet {why}"):
        make_plan([write(), "known=known.parquet"])


def test_tables_that_contradict_each_other_are_refused():
    WHOLE.write_parquet("one.parquet")
    WHOLE.with_columns(pl.Series("episodes", [7, 8])).write_parquet("two.parquet")
    assert make_plan([write(), "known=one.parquet,one.parquet"])
    with pytest.raises(ConfigError, match="has two measurements of a: give one of them"):
        make_plan([write(), "known=one.parquet,two.parquet"])
    with pytest.raises(ConfigError, match="known=~nosuchuser/x is no table"):
        make_plan([write(), "known=~nosuchuser/x"])
    with pytest.raises(ConfigError, match="has no meaning where learners are ranked"):
        make_plan(["protocol=learners-quick", "known=one.parquet"])


def test_a_cell_of_other_code_is_not_known():
    own = "def mine(answer, secret, N):\n    return float(answer == secret)\n"
    Path("mine.py").write_text(own)
    words = [
        "reward_type=mine.py:mine",
        "backend=tabular",
        "N=4",
        "num_runs=2",
        "ledger=False",
        "figures=False",
    ]
    assert main(["sweep", *words, "log_path=one", "quiet=True"]) == 0
    to_table(find_cells(["one"])).write_parquet("one.parquet")
    assert len(make_plan([*words, "seed=0,1", "known=one.parquet"]).cells) == 1
    Path("mine.py").write_text(own.replace("float(", "2 * float("))
    with pytest.raises(ConfigError, match=r"known has the cell mine\S+, and mine.py .* has changed since"):
        make_plan([*words, "seed=0,1", "known=one.parquet"])


def test_a_grid_of_which_all_or_nothing_is_known_is_refused():
    words = ["conditions=sft,binary", "backend=tabular", "N=4", "num_runs=2", "ledger=False", "figures=False"]
    assert main(["sweep", *words, "log_path=one", "quiet=True"]) == 0
    to_table(find_cells(["one"])).write_parquet("one.parquet")
    with pytest.raises(ConfigError, match="known has every cell of this sweep already"):
        make_plan([*words, "known=one.parquet"])
    with pytest.raises(ConfigError, match="known has no cell of this sweep: leave it out"):
        make_plan([*words, "known=one.parquet", "seed=1"])
    plan = make_plan([*words[1:], "conditions=sft,multi_step", "known=one.parquet"])
    assert [cell.experiment.condition for cell in plan.cells] == ["multi_step"]
    assert len(from_table(pl.read_parquet("one.parquet"))) == 2


def round_of(config: dict) -> str:
    """When a cell is run: in which round, or where the step size alone is chosen."""
    if config["seed"] < 1_000_000 or config["seed"] > 1_000_001:
        return "reported"
    if config["N"] == 8:
        return "steps"
    return "first" if config["seed"] == 1_000_000 else "second"


class Killed(BaseException):
    """Nothing of a sweep catches it, so that all that is left is what was on disk."""


@pytest.mark.parametrize("when", ["first", "second", "steps", "reported"])
def test_one_that_was_killed_goes_on_where_it_was(when, reference, monkeypatch):
    met = []

    def execute_or_die(tasks, settings, running):
        for task in tasks:
            met.append(round_of(task.cell.values))
            if met.count(when) == 2:
                raise Killed
            yield from execute([task], settings, running)

    with monkeypatch.context() as patched:
        patched.setattr(sweeping, "execute", execute_or_die)
        with pytest.raises(Killed):
            run("killed")
    before = measured("killed")
    assert 0 < len(before) < len(measured(reference))
    assert not Path("killed/summary.json").exists()
    assert run("killed") == 0
    assert measured("killed") == measured(reference)
    assert summary("killed")["tuning"] == summary(reference)["tuning"]
    assert before.items() <= measured("killed").items()


def test_a_dry_run_counts_what_may_be_run_at_most(capsys):
    assert main(["sweep", write(), "dry_run=True"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    # round 1: 2 learners x 2 groups x 2 factors and 2 of SFT; round 2: the 2 that stay, twice; 3 steps at N=8
    assert f"at most {8 + 2 + 2 + 2 + 3 + 11} cells" in output
    assert "comes on top" in output
    assert [path.name for path in Path().iterdir()] == ["small.yaml"]


def test_a_sweep_of_learners_or_rates_alone_has_no_roles():
    plan = make_plan(["conditions=sft,binary", "backend=tabular", "tune=True"])
    assert all("role" not in cell.values for cell in plan.cells)
    assert [cell.values["seed"] for cell in plan.cells] == [0, 0]


def changed(**more) -> dict:
    return {**SMALL, **more}


LOCAL = {"command": "train", "N": 16, "num_runs": 4}
BASES = {**SMALL["tune"], "bases": [3, 4], "learner_on": None}
REPLAY = {**SMALL["tune"], "learners": [{"algorithm": "replay"}]}
TINY = {**TASK, "N": 4}
REFUSED = {
    "beside nothing": (changed(tune=None, grid=SMALL["grid"][:2]), ["beside=default", "without tune"]),
    "beside the same secrets": (changed(seeds=None), ["beside=default", "seeds: independent"]),
    "beside another": (changed(beside="worst"), ["beside=worst", "default"]),
    "other seeds": (changed(seeds="equal"), ["seeds=equal", "independent"]),
    "an entry out of no contest": (
        {"name": "x", "grid": [{**LOCAL, "tune": False}]},
        ["tune: false", "without tuning"],
    ),
    "an entry that is perhaps tuned": (
        changed(grid=[{**LOCAL, "tune": "maybe"}]),
        ["entry 1", "tune: maybe"],
    ),
    "a base of the tuning": (
        changed(tune=BASES, grid=[{**LOCAL, "base_seed": [2, 3]}]),
        ["base_seed=3 of binary-N16", "bases of the tuning"],
    ),
    "a base of the tuning, untuned": (
        changed(tune=BASES, grid=[{**LOCAL, "base_seed": 4, "tune": False}]),
        ["base_seed=4 of binary-N16"],
    ),
    "a seed of the tuning": (
        changed(seeds=None, beside=None, grid=[{**TINY, "seed": 1_000_001}]),
        ["seed=1000001", "seed of the tuning"],
    ),
    "a step size": (changed(grid=[{**TINY, "learning_rate": 0.1}]), ["learning_rate=0.1", "to tune"]),
    "a learner": (changed(grid=[{**TINY, "algorithm": "grpo"}]), ["algorithm=grpo", "tune: false"]),
    "a group size": (changed(grid=[{**TINY, "group_size": 8}]), ["group_size=8", "tune: false"]),
    "no place for the learner": (
        changed(grid=[{**TASK, "N": [8, 16]}]),
        ["learner_on=[{N: 4}]", "fits no cell"],
    ),
    "a role": (changed(grid=[{**TINY, "role": "best"}]), ["role", "the sweep sets itself"]),
    "a learner that cannot be run there": (
        changed(grid=[{**LOCAL, "N": 4, "backend": "tinker"}], tune=REPLAY),
        ["replay", "tinker"],
    ),
}


@pytest.mark.parametrize(("content", "parts"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_protocols_are_refused_in_one_sentence(content, parts):
    content = {key: value for key, value in content.items() if value is not None}
    with pytest.raises(ConfigError) as caught:
        make_plan([write(content)])
    assert all(part in str(caught.value) for part in parts), caught.value
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="role"):
        make_plan(["conditions=sft", "role=best"])
