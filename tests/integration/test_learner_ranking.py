"""Protocols of learners: every learner on every task, one's own in their place, the ranking at the end."""

import csv
import hashlib
import importlib.util
import json
import re
from pathlib import Path

import polars as pl
import pytest
import yaml

import memory_rl
from memory_rl.analysis import shipped
from memory_rl.analysis.collect import find_cells
from memory_rl.analysis.entrants import RUNS, learner_of, names_of_learners, names_of_tasks, runs_of, task_of
from memory_rl.analysis.protocol import load_protocol
from memory_rl.analysis.ranking import rank, rank_cells
from memory_rl.analysis.remarks import remarks, without_runs
from memory_rl.cli import main
from memory_rl.errors import ConfigError
from memory_rl.experiments import grid
from memory_rl.experiments.executors import execute
from memory_rl.experiments.sweep import make_plan, sweep
from memory_rl.experiments.worker import CellOutcome
from memory_rl.reporting.ranking import make_ranking
from tests.helpers import complaint

TASK = {"command": "train", "N": 4, "num_runs": 4, "max_episodes": 80}
SMALL = {
    "name": "small",
    "grid": [
        {**TASK, "reward_type": "binary", "base_seed": 0, "seed": 1},
        {**TASK, "reward_type": "binary", "base_seed": 1, "seed": 2},
        {**TASK, "reward_type": "binary", "adapter": "full", "base_seed": 0, "seed": 1},
        {**TASK, "reward_type": "log_distance", "base_seed": 0, "seed": 1},
    ],
    "learners": [{"algorithm": "reinforce"}, {"algorithm": "ppo", "ppo_clip": [0.1, 0.2]}],
    "tune": {"factors": [1, 3], "num_runs": 3, "together": ["base_seed"]},
}
OWN = """
from memory_rl import Learner

class Mine(Learner):
    def advantages(self, returns):
        return returns - returns.mean(axis=2, keepdims=True)
"""


@pytest.fixture
def protocol() -> str:
    Path("small.yaml").write_text(yaml.safe_dump(SMALL))
    return "small.yaml"


def ranked(path: str) -> list[dict]:
    return list(csv.DictReader(Path(path, "ranking.csv").read_text().splitlines()))


def test_every_learner_runs_on_every_task_with_one_rate_for_all_bases(protocol):
    plan = make_plan([f"protocol={protocol}"])
    assert len(plan.cells) == 4 * 3
    assert len(plan.contests) == 3 * 3
    assert sorted(len(contest.reported) for contest in plan.contests) == [1] * 6 + [2] * 3
    on_tabular = make_plan([f"protocol={protocol}", "backend=tabular"])
    assert {cell.values["backend"] for cell in on_tabular.cells} == {"tabular"}
    assert len(on_tabular.cells) == 3 * 3  # adapter has no meaning there, so that task is the first again
    assert on_tabular.notes == [
        "cells left out as the same as others, without the keys that have no meaning with backend=tabular: 3"
    ]
    own = make_plan([f"protocol={protocol}", "learners=grpo, rloo"])
    assert {cell.values["algorithm"] for cell in own.cells} == {"grpo", "rloo"}
    assert len(own.cells) == 4 * 2


def test_a_sweep_ends_with_the_ranking_and_one_s_own_learner_joins_it(protocol, capsys, monkeypatch):
    words = [f"protocol={protocol}", "backend=tabular", "log_path=sweep"]
    assert main(["sweep", *words]) == 0
    rows, output = ranked("sweep"), capsys.readouterr().out
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert {row["learner"] for row in rows} == {"reinforce", "ppo", "ppo ppo_clip=0.1"}
    assert "binary N=4" in rows[0]
    assert all(row["learner"] in output for row in rows)
    assert "learners over 2 tasks" in output
    tuning = json.loads(Path("sweep/summary.json").read_text())["tuning"]
    assert {choice["settings"].get("ppo_clip") for choice in tuning} == {None, 0.1, 0.2}
    assert {choice["untuned"] for choice in tuning} == {0.3}
    assert not list(Path("sweep").rglob("*.png"))  # of hundreds of cells nobody looks at them

    Path("mine.py").write_text(OWN)
    found = ship(Path("sweep"), monkeypatch)
    assert main(["sweep", *words[:2], "log_path=own", "learners=mine.py:Mine"]) == 0
    assert {row["learner"] for row in ranked("own")} == {"reinforce", "ppo", "ppo ppo_clip=0.1", "Mine"}
    assert len(list(Path("own/cells").iterdir())) == 3  # the new row alone
    decided = {"binary": 0, "log_distance": 0}  # of two rates each is at an edge
    for choice in tuning:
        decided[choice["condition"]] += choice["decided"]
    assert found["at_edge"].sum() == 4 * (2 * decided["binary"] + decided["log_distance"])
    assert found["at_edge"].any()
    notes = json.loads(Path("own/summary.json").read_text())["ranking_notes"]
    own = json.loads(Path("own/summary.json").read_text())["tuning"]
    edges, tunings = sum(decided.values()) + sum(choice["decided"] for choice in own), len(tuning) + len(own)
    assert f"the least or the greatest candidate in {edges} of {tunings} tunings" in notes[-1]
    mine = [cell for cell in find_cells(["own"]) if "Mine" in cell.settings["algorithm"]]
    together = rank_cells([*find_cells(["sweep"]), *mine])
    assert ranked("own")[0]["iqm_share"] == str(together.best.share.value)

    Path(protocol).write_text(Path(protocol).read_text() + "# changed\n")
    assert main(["sweep", *words[:2], "log_path=changed", "learners=mine.py:Mine"]) == 0
    assert "another version of it" in capsys.readouterr().out
    assert not Path("changed/ranking.csv").exists()


def test_the_cells_of_a_protocol_are_made_once(protocol, monkeypatch):
    made = []
    entries = grid._cells_of_entry
    monkeypatch.setattr(grid, "_cells_of_entry", lambda *words: made.append(words) or entries(*words))
    plan = make_plan([f"protocol={protocol}", "backend=tabular"])
    assert len(made) == 4 * 2  # entries and learners; ppo_clip is an axis
    assert len(plan.cells) == 3 * 3


def test_no_cell_is_read_where_learners_do_not_differ(monkeypatch):
    """Neither a learning rate nor a seed is a learner, and reading hundreds of cells takes seconds."""
    monkeypatch.setattr("memory_rl.experiments.found.read_cell", None)
    common = {"N": 4, "backend": "tabular", "figures": False, "max_episodes": 40, "num_runs": 2}
    sweep(**common, learning_rate=[0.1, 0.3], seed=[1, 2], log_path="rates")
    assert not Path("rates/ranking.csv").exists()


def test_one_learner_s_second_rate_is_no_key_of_the_others():
    keys = {"N": 4, "backend": "tabular", "num_runs": 2, "max_episodes": 40, "figures": False}
    for name, rate in (("reinforce", 0.1), ("reinforce", 0.3), ("grpo", 0.1), ("ppo", 0.3)):
        memory_rl.train(**keys, algorithm=name, learning_rate=rate, log_path=f"{name}-{rate}")
    found = rank_cells(find_cells(["."]))
    assert {one.name for one in found.learners} == {
        "grpo",
        "ppo",
        "reinforce learning_rate=0.1",
        "reinforce learning_rate=0.3",
    }
    assert found.notes == [
        "reinforce ran at learning_rate=0.1, 0.3 on the same secrets: each is ranked as a learner."
    ]


def test_a_class_by_two_paths_is_one_learner_and_two_versions_go_by_their_hashes():
    keys = {"N": 4, "backend": "tabular", "num_runs": 2, "max_episodes": 40, "figures": False}
    digests = {}
    for folder, text in (("one", OWN), ("two", OWN + "# another\n")):
        Path(folder).mkdir()
        Path(folder, "mine.py").write_text(text)
        memory_rl.train(**keys, algorithm=f"{folder}/mine.py:Mine", log_path=f"runs/{folder}")
        digests[folder] = hashlib.sha256(text.encode()).hexdigest()[:7]
    memory_rl.train(**keys, algorithm="./one/../one/mine.py:Mine", log_path="runs/again")
    assert rank_cells(find_cells(["runs/one", "runs/again"])) is None
    found = rank_cells(find_cells(["runs"]))
    assert {one.name for one in found.learners} == {f"mine.py:Mine ({digest})" for digest in digests.values()}
    assert {cell.runs for cell in found.cells} == {2}


def test_a_learner_without_a_finished_cell_is_named():
    keys = {"N": 4, "backend": "tabular", "num_runs": 2, "max_episodes": 40, "figures": False}
    for name in ("reinforce", "grpo", "ppo"):
        memory_rl.train(**keys, algorithm=name, log_path=name)
    place = Path("ppo/manifest.json")
    place.write_text(json.dumps(json.loads(place.read_text()) | {"status": "interrupted"}))
    assert without_runs(find_cells(["."])) == {
        "ppo": "ppo is not ranked, since none of its cells is complete."
    }
    lacking = {
        "grpo": "grpo has no runs on sums, since all candidate rates diverged.",
        "reinforce": "reinforce is not ranked, since none of its cells is complete.",  # in another sweep
    }
    assert remarks(rank_cells(find_cells(["."])), lacking, []) == [lacking["grpo"]]
    assert make_ranking(find_cells(["."]), []).notes == [
        "ppo is not ranked, since none of its cells is complete."
    ]


def ship(folder: Path, monkeypatch) -> pl.DataFrame:
    """Makes this sweep the shipped one."""
    place = Path(__file__).parents[2] / "studies/ship_learners.py"
    spec = importlib.util.spec_from_file_location("ship_learners", place)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    table = Path("learners.parquet")
    rows = script.ship([folder], table)
    assert script.ship([folder], table).equals(rows)  # replaced, not added
    monkeypatch.setattr(shipped, "table", lambda: table)
    return rows


def test_without_measured_learners_a_sentence_says_so(protocol, monkeypatch):
    monkeypatch.setattr(shipped, "table", lambda: Path("none.parquet"))
    assert shipped.shipped_runs(load_protocol(protocol), "tabular") == (None, None)  # nobody expects any
    found = shipped.shipped_runs(load_protocol("learners"), "tabular")
    assert found == (None, "No measured learners come with this version.")


def test_one_learner_alone_is_told_to_name_another(protocol, capsys):
    words = ["sweep", f"protocol={protocol}", "backend=tabular", "log_path=sweep"]
    assert main([*words, "learners=grpo"]) == 0
    output = capsys.readouterr().out
    assert "One learner cannot be ranked: name another, such as learners=reinforce,mine.py:Mine." in output
    assert "measured learners" not in output
    assert re.search(r"binary N=4 algorithm=grpo seed=\d+ learning_rate=0\.3: ", output)  # while it runs
    tuned = {name: json.loads(Path("sweep", name).read_text()) for name in ("summary.json", "sweep.json")}
    (choice, *_) = tuned["summary.json"]["tuning"]
    assert choice["settings"]["algorithm"] == "grpo"
    assert main([*words, "learners=rloo"]) == 0
    output = capsys.readouterr().out
    assert "The best rate was the least or the greatest candidate in" in output
    assert "rloo on 2 tasks" in output
    summary, record = (json.loads(Path("sweep", name).read_text()) for name in tuned)
    assert [one["settings"]["algorithm"] for one in summary["tuning"]] == ["grpo"] * 2 + ["rloo"] * 2
    assert summary["tuning"][:2] == tuned["summary.json"]["tuning"]
    assert record["tuning_cells"][:4] == tuned["sweep.json"]["tuning_cells"]
    assert any("a better one may lie beyond" in note for note in summary["ranking_notes"])


def test_one_that_diverges_at_all_rates_says_so(protocol, monkeypatch):
    monkeypatch.setattr("memory_rl.experiments.sweeping.execute", diverge)
    assert main(["sweep", f"protocol={protocol}", "backend=tabular", "log_path=sweep", "learners=grpo"]) == 1
    rows = json.loads(Path("sweep/summary.json").read_text())["cells"]
    assert {row["status"] for row in rows} == {"failed"}
    assert all(
        row["why"].startswith("all candidate rates diverged (of binary") or "log" in row["why"]
        for row in rows
    )
    assert not any("not complete" in row["why"] for row in rows)


def test_one_that_diverges_at_all_rates_beside_others_is_named_with_the_ranking(protocol, monkeypatch):
    """In the terminal and on the page, which finds no cell of it."""

    def some_diverge(tasks, settings, running):
        bad = [task for task in tasks if task.cell.values["algorithm"] == "grpo"]
        others = [task for task in tasks if task not in bad]
        return [*diverge(bad, settings, running), *execute(others, settings, running)]

    monkeypatch.setattr("memory_rl.experiments.sweeping.execute", some_diverge)
    words = [f"protocol={protocol}", "backend=tabular", "log_path=sweep", "learners=reinforce,rloo,grpo"]
    assert main(["sweep", *words]) == 1
    sentence = "grpo has no runs on binary N=4, log_distance N=4, since all candidate rates diverged."
    assert {row["learner"] for row in ranked("sweep")} == {"reinforce", "rloo"}
    notes = json.loads(Path("sweep/summary.json").read_text())["ranking_notes"]
    assert sentence in notes
    page = make_ranking(find_cells(["sweep"]), []).notes
    assert sentence in page
    assert page[-1] == notes[-1]
    assert "the least or the greatest candidate" in page[-1]


def diverge(tasks, settings, running):
    why = "run 0 diverged at its update 3 (episode 12), where its gradients are not finite: use less."
    return [CellOutcome(task.cell.id, "failed", why, diverged=True) for task in tasks]


def test_a_dry_run_names_the_learner(protocol, capsys):
    assert main(["sweep", f"protocol={protocol}", "backend=tabular", "dry_run=True"]) == 0
    rows = capsys.readouterr().out
    assert "ppo ppo_clip=0.1" in rows
    assert "reinforce" in rows


REFUSED = {
    "learners=mine.py:Mine": "mine.py:Mine has no meaning without a protocol: add protocol=learners",
    "learners=mine.py protocol=learners": "mine.py names no class: add its name, as in learners=mine.py:",
    "learners=ppo,,grpo protocol=learners": "has an empty value: type for example learners=ppo,grpo",
    "learners=grpo N=4": "learners=grpo has no meaning without a protocol: add protocol=learners",
    "learners=grpo protocol=quick": "protocol=quick, which lists none: add protocol=learners",
    "learners=grop protocol=learners": "learners=grop is not a choice: did you mean grpo?",
    "learners=none.py:Mine protocol=learners": "none.py:Mine names no file",
    "protocol=learners N=4": "N=4 cannot be added to protocol=learners",
    "protocol=quick backend=tabular": "backend=tabular cannot be added to protocol=quick",
    "protocol=learners backend=tabluar": "backend=tabluar is not a choice",
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED.items(), ids=REFUSED.keys())
def test_what_cannot_be_run_is_said_in_one_sentence(words, sentence, capsys):
    assert sentence in complaint("sweep", words, capsys)
    assert list(Path().iterdir()) == []


def test_a_key_that_an_entry_and_its_learners_have_is_refused(tmp_path):
    twice = {**SMALL, "grid": [{**TASK, "algorithm": "grpo"}]}
    (tmp_path / "twice.yaml").write_text(yaml.safe_dump(twice))
    with pytest.raises(ConfigError, match="entry 1 of the grid has algorithm, which its learners have, too"):
        make_plan([f"protocol={tmp_path / 'twice.yaml'}"])


def test_the_shipped_protocols_give_every_learner_64_runs_or_32_on_each_task():
    for name, runs, tasks in (("learners", 64, 12), ("learners-quick", 32, 4)):
        plan = make_plan([f"protocol={name}"])
        of_task: dict[tuple, int] = {}
        for cell in plan.cells:
            values = {k: v for k, v in cell.experiment.resolved().items() if k not in ("base_seed", "seed")}
            key = tuple(map(str, (values.items())))
            of_task[key] = of_task.get(key, 0) + cell.values["num_runs"]
        assert set(of_task.values()) == {runs}
        assert len(of_task) == len(plan.contests) == tasks * len(load_protocol(name).learners)


def test_any_sweep_in_which_the_algorithm_varies_is_ranked():
    common = {"conditions": ["binary", "log_distance"], "N": 4, "backend": "tabular", "figures": False}
    sweep(**common, algorithm=["reinforce", "grpo"], max_episodes=80, log_path="plain")
    assert {row["learner"] for row in ranked("plain")} == {"reinforce", "grpo"}
    sweep(**{**common, "conditions": ["sft", "binary"]}, max_episodes=80, log_path="one")
    assert not Path("one/ranking.csv").exists()


def test_learner_and_task_are_told_by_what_differs_from_the_defaults():
    keys = {"N": 4, "backend": "tabular", "num_runs": 2, "max_episodes": 40, "figures": False}
    one = memory_rl.train(**keys, seed=3, learning_rate=0.1, log_path="a", skip_ahead=True)
    memory_rl.train(**keys, algorithm="ppo", ppo_clip=0.3, log_path="b", entropy_bonus=0.01, group_size=2)
    first, second = find_cells(["a", "b"])
    assert json.loads(learner_of(first)) == {"algorithm": "reinforce"}
    task = {"N": 4, "backend": "tabular", "condition": "binary", "kind": "train", "max_episodes": 40}
    assert json.loads(task_of(first)) == task | {
        "reward_type": "binary",
        "wording": "terse",
        "evaluate_every": 1,
    }
    assert json.loads(learner_of(second)) == {"algorithm": "ppo", "entropy_bonus": 0.01, "ppo_clip": 0.3}
    assert json.loads(task_of(second))["group_size"] == 2
    names = names_of_tasks([task_of(first), task_of(second)])
    assert list(names.values()) == ["binary N=4", "binary N=4 group_size=2"]
    own = [json.dumps({"algorithm": f"{place}.py:Mine"}) for place in "xy"]
    assert list(names_of_learners([*own, learner_of(second)]).values()) == [
        *("x.py:Mine", "y.py:Mine"),
        "ppo entropy_bonus=0.01 ppo_clip=0.3",
    ]
    runs = runs_of([first])
    assert runs.schema == RUNS
    assert runs["episodes"].to_list() == first.times.episodes.tolist()
    assert runs["observer"].unique().to_list() == [one.summary["binary"]["rates"]["observer"]["estimate"]]


def test_a_learner_that_diverged_is_stuck_and_one_that_lacks_a_task_is_not_ranked():
    keys = {"N": 4, "backend": "tabular", "num_runs": 2, "max_episodes": 40, "figures": False}
    for name in ("reinforce", "grpo"):
        for reward in ("binary", "log_distance"):
            memory_rl.train(**keys, algorithm=name, reward_type=reward, log_path=f"{name}-{reward}")
    memory_rl.train(**keys, algorithm="rloo", log_path="rloo")
    place = Path("grpo-binary/manifest.json")
    why = "run 0 diverged at its update 3 (episode 12), where its gradients are not finite: use less."
    place.write_text(json.dumps(json.loads(place.read_text()) | {"status": "failed", "why": why}))
    found = rank_cells(find_cells(["."]))
    cell = found.cell("grpo", "binary N=4")
    assert (cell.stuck.value, cell.share.value, cell.score) == (
        1,
        0,
        pytest.approx(found.cell("reinforce", "binary N=4").score, abs=10),
    )
    assert found.notes == [
        "rloo is not ranked, since it has no runs on log_distance N=4.",
        "grpo diverged on binary N=4: all runs of such a cell count as stuck, and as one observation, so "
        "that what they are part of has no interval and no test.",
    ]
    assert (cell.stuck.interval, cell.share.interval) == ([None, None], [None, None])
    assert rank(runs_of(find_cells(["rloo"]))) is None
