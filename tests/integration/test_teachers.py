"""Whole experiments with a teacher: what they keep, what the policies of another run teach, what resume
accepts, and where the third signal must be known."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import complaint, measured, secrets_of, stopped_at
from safetensors.numpy import load_file, save_file

import memory_rl
from memory_rl.analysis.collect import find_cells
from memory_rl.cli import main
from memory_rl.experiment import make_experiment
from memory_rl.experiments.grid import cells_of_axes
from memory_rl.learning.imitation import FLOOR
from memory_rl.lessons import lessons_of
from memory_rl.reporting import pictures
from memory_rl.reporting.provenance import command_of

SMALL = {"N": 16, "num_runs": 3, "signal": "teacher", "learning_rate": 1e-3}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    """Drawing takes most of a small run's time."""
    monkeypatch.setattr(pictures, "draw_run", lambda _: [])


def logged(**keys):
    return memory_rl.train(**SMALL, **keys)


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A run that kept its policies."""
    folder = tmp_path_factory.mktemp("first") / "run"
    memory_rl.train(**SMALL, log_path=str(folder), save_adapters=True)
    return folder


@pytest.fixture
def teacher(first) -> str:
    shutil.copytree(first, "teacher")
    return "teacher"


def test_the_log_probability_of_an_answer_stands_in_place_of_its_reward():
    result = logged(log_path="run", told="sampled", max_episodes=80)
    secrets = dict(enumerate(secrets_of(N=16, num_runs=3)[:, 0]))
    for row in result.episodes.iter_rows(named=True):
        right = row["answer"] == secrets[row["run"]]
        expected = np.log(FLOOR) if row["answer"] is None else np.log(0.99 if right else 0.01 / 15)
        assert row["reward"] == pytest.approx(expected)
    assert result.metrics["zero_advantage_fraction"].null_count() == result.metrics.height
    assert result.metrics["reward_mean"].drop_nulls().max() <= np.log(0.99) + 1e-9


def test_rewards_stay_rewards_where_an_observer_teaches():
    result = logged(log_path="run", teacher="observer", max_episodes=80)
    assert set(result.episodes["reward"].unique()) <= {0.0, 1.0}
    summary = result.summary["teacher=observer binary"]
    assert summary["ceilings"]["capacity"] == 1.0


@pytest.mark.parametrize(
    "keys", [{"told": "sampled"}, {"told": "whole"}, {"env_type": "multi_step"}], ids=str
)
def test_the_ledger_of_the_transformer_is_recomputed_and_its_laws_hold(keys):
    result = logged(log_path="run", max_episodes=120, **keys)
    (summary,) = result.summary.values()
    assert {check["status"] for check in summary["checks"].values()} == {"holds"}
    last = result.metrics.sort("episode").group_by("run", maintain_order=True).last().sort("run")
    again = (
        memory_rl.ledger_from_episodes(result.path).group_by("run", maintain_order=True).last().sort("run")
    )
    for column in ("observer_bits", "asked_bits"):
        assert again[column].to_numpy() == pytest.approx(last[column].to_numpy())


# The policies of another run


@pytest.mark.parametrize(
    "adapter",
    [{}, {"adapter": "shared", "adapter_parameters": 64, "env_type": "multi_step"}, {"adapter": "full"}],
)
def test_they_say_what_they_learned(adapter, monkeypatch):
    """Of each run what its policy gave to every answer when it ended."""
    kept = []
    from memory_rl import execution

    save = execution._save_adapters

    def watched(learners, directory, only=None):
        runs = np.arange(2)
        kept.append(np.exp(learners.policy.log_probs(runs, np.zeros((2, 1), dtype=np.int64))))
        save(learners, directory, only)

    monkeypatch.setattr(execution, "_save_adapters", watched)
    keys = {"N": 8, "num_runs": 2, "max_episodes": 24, "signal": "teacher", "seed": 4, **adapter}
    memory_rl.train(**keys, log_path="teacher", save_adapters=True)
    env_type = keys.get("env_type", "single_step")
    taught = {
        "signal": "teacher",
        "teacher": "teacher",
        "N": 8,
        "num_runs": 2,
        "seed": 4,
        "env_type": env_type,
    }
    found = lessons_of(make_experiment(taught))
    expected = kept[-1] / kept[-1].sum(axis=2, keepdims=True)
    assert found == pytest.approx(expected, abs=1e-6)
    assert np.ptp(expected) > 0.1


def test_a_policy_learns_from_them_and_a_table_does_too(teacher):
    local = logged(teacher=teacher, log_path="local", max_episodes=400)
    table = memory_rl.train(
        **{**SMALL, "learning_rate": 0.3}, backend="tabular", teacher=teacher, log_path="table"
    )
    for result in (local, table):
        summary = result.summary["teacher=run"]
        assert summary["memorised"] == 3
        assert summary["ceilings"]["capacity"] == 4.0
        assert {check["status"] for check in summary["checks"].values()} == {"holds"}


@pytest.mark.parametrize(
    "keys",
    [{"teacher": "observer"}, {"told": "sampled", "scoring": "paths"}, {"teacher": "teacher"}],
    ids=str,
)
def test_resuming_gives_the_same_bytes(keys, teacher):
    keys = {**SMALL, "learning_rate": 2e-4, "max_episodes": 60, **keys}
    with stopped_at(24):
        memory_rl.train(**keys, log_path="started", checkpoint_every=0)
    memory_rl.train(**keys, log_path="started", resume=True)
    memory_rl.train(**keys, log_path="whole")
    assert measured("started") == measured("whole")


def test_a_run_is_not_resumed_with_another_teacher(teacher, capsys):
    words = "N=16 num_runs=3 signal=teacher teacher=teacher max_episodes=40 learning_rate=2e-4 quiet=True"
    with stopped_at(12):
        main(["train", *words.split(), "log_path=started", "checkpoint_every=0"])
    shutil.copy("teacher/adapters/run-1/adapter_model.safetensors", "teacher/adapters/run-0/")
    capsys.readouterr()
    said = complaint("train", f"{words} log_path=started resume=True", capsys)
    assert "adapters/run-0/adapter_model.safetensors (policy of teacher) has changed" in said


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("N=32", ["another N", "use N=16"]),
        ("N=16 env_type=multi_step", ["another env_type", "use env_type=single_step"]),
        ("N=16 num_secrets=2", ["another num_secrets", "use num_secrets=1"]),
        ("N=16 num_runs=4", ["3 teachers", "use num_runs=3"]),
        ("N=16 num_runs=3 seed=1", ["other secrets", "use seed=0"]),
        ("N=16 num_runs=3 fixed_secret=1", ["other secrets", "no fixed_secret"]),
    ],
)
def test_a_teacher_of_other_secrets_is_refused(words, parts, teacher, capsys):
    said = complaint("train", f"signal=teacher teacher=teacher {words}", capsys)
    assert all(part in said for part in ["teacher=teacher", *parts]), said


def test_one_who_is_no_longer_what_it_was_is_refused(teacher, capsys):
    words = f"N=16 num_runs=3 signal=teacher teacher={teacher}"
    base = json.loads(Path("teacher/adapters/base.json").read_text())
    Path("teacher/adapters/base.json").write_text(json.dumps({**base, "sha256": "0" * 64}))
    assert "another base model than model_name=tiny" in complaint("train", words, capsys)
    Path("teacher/adapters/base.json").write_text(json.dumps(base))
    file = Path("teacher/adapters/run-2/adapter_model.safetensors")
    whole, tensors = file.read_bytes(), load_file(file)
    name, tensor = next(iter(tensors.items()))
    others = {
        f"it has no {name}": {other: values for other, values in tensors.items() if other != name},
        f"it has no {name} of shape": {**tensors, name: tensor[:, :1].copy()},
        "not finite": {**tensors, name: np.full_like(tensor, np.nan)},
    }
    for why, damaged in others.items():
        save_file(damaged, file)
        said = complaint("train", words, capsys)
        assert said.startswith("memory-rl: teacher=teacher has damaged adapters (")
        assert why in said
    file.write_bytes(whole[:500])
    assert "has lost teacher/adapters/run-2" in complaint("train", words, capsys)
    file.unlink()
    assert "has lost teacher/adapters/run-2" in complaint("train", words, capsys)
    shutil.rmtree("teacher/adapters")
    assert "kept no adapters" in complaint("train", words, capsys)


# Where signals are listed


def test_a_sweep_has_it_as_a_condition_and_as_axes():
    cells = cells_of_axes("sft,teacher,teacher_multi_step", {"N": "16", "told": "sampled,whole"})
    assert [cell.experiment.condition for cell in cells] == [
        "sft",
        "teacher told=sampled",
        "teacher",
        "teacher multi_step told=sampled",
        "teacher multi_step",
    ]
    axes = {
        "signal": "reward,teacher",
        "teacher": "observer",
        "reward_type": "binary,log_distance",
        "N": "16",
    }
    assert [cell.experiment.condition for cell in cells_of_axes(None, axes)] == [
        "binary",
        "log_distance",
        "teacher=observer binary",
        "teacher=observer log_distance",
    ]


def test_a_report_names_it_and_says_how_to_run_it_again():
    keys = {"backend": "tabular", "told": "sampled", "teacher_error": 0.05, "max_episodes": 40}
    logged(**keys, log_path="runs/taught")
    memory_rl.report(runs="runs", out="report")
    page = Path("report/index.html").read_text()
    assert "teacher told=sampled" in page
    [cell] = find_cells(["runs"])
    command = command_of(cell)
    assert command.startswith("memory-rl train ")
    assert {"signal=teacher", "told=sampled", "teacher_error=0.05"} <= {*command.split()}
    again = make_experiment({**SMALL, **keys})
    assert cell.experiment.resolved() == again.resolved()


def test_bounds_knows_it(capsys):
    assert main(["bounds", "N=64", "signal=teacher", "told=sampled"]) == 0
    assert "teacher told=sampled" in capsys.readouterr().out
    assert memory_rl.bounds(N=64, signal="teacher").capacity == 6.0
    assert memory_rl.bounds(N=100_000, signal="teacher").capacity == pytest.approx(np.log2(100_000))
    assert "N=2000000 is too large" in complaint("bounds", "N=2000000 signal=teacher told=sampled", capsys)


def test_the_film_of_a_taught_policy_is_kept():
    result = logged(log_path="run", max_episodes=40)
    film = pl.read_parquet(result.path / "film.parquet")
    assert film.height
