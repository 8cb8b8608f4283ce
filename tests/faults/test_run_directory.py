"""What was measured is never overwritten or lost, and the manifest is true."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers import complaint

import memory_rl
from memory_rl.cli import main
from memory_rl.errors import DamageWarning

SMALL = {"N": 8, "num_runs": 2, "max_episodes": 40}


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_completed_run_is_never_overwritten(capsys):
    memory_rl.train(**SMALL, log_path="kept")
    before = snapshot(Path("kept"))
    assert main(["train", "N=8", "log_path=kept"]) == 2
    message = capsys.readouterr().err
    assert "log_path=kept already holds a run (completed)" in message
    assert snapshot(Path("kept")) == before


def test_a_folder_with_other_files_is_left_alone():
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    with pytest.raises(memory_rl.RunDirectoryError, match=r"notes\.txt"):
        memory_rl.train(**SMALL, log_path="mine")
    assert snapshot(Path("mine")) == {"notes.txt": b"mine"}


def test_a_path_that_is_a_file_is_refused():
    Path("file").write_text("mine")
    with pytest.raises(memory_rl.RunDirectoryError, match="log_path=file"):
        memory_rl.train(**SMALL, log_path="file")
    assert Path("file").read_text() == "mine"


def test_two_runs_of_the_same_second_get_directories_of_their_own():
    paths = {memory_rl.train(**SMALL).path for _ in range(3)}
    assert len(paths) == 3


def test_an_interruption_keeps_what_was_measured(monkeypatch, capsys):
    from memory_rl.training.meter import Meter

    evaluate = Meter._evaluate

    def interrupt_at_20(self, policy, runs, episode, *more):
        if np.max(episode) == 20:
            raise KeyboardInterrupt
        return evaluate(self, policy, runs, episode, *more)

    monkeypatch.setattr(Meter, "_evaluate", interrupt_at_20)
    assert main(["train", "N=64", "num_runs=2", "skip_ahead=False", "log_path=stopped", "quiet=True"]) == 130
    assert "interrupted" in capsys.readouterr().err
    result = memory_rl.load("stopped")
    assert result.outcome is memory_rl.Outcome.INTERRUPTED
    assert result.metrics["episode"].max() == 16
    assert result.episodes["episode"].max() == 16
    assert result.summary == {}


def test_a_full_disk_is_reported_and_noted(monkeypatch, capsys):
    replace = os.replace

    def full(source, target):
        if str(target).endswith("summary.json"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert main(["train", "N=8", "num_runs=2", "max_episodes=40", "log_path=full", "quiet=True"]) == 2
    message = capsys.readouterr().err
    assert "summary.json cannot be written" in message
    assert "No space left" in message
    manifest = json.loads(Path("full/manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "No space left" in manifest["why"]
    assert pl.read_parquet("full/metrics.parquet").height > 0
    assert not list(Path("full").rglob("*.part"))


def test_loading_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(memory_rl.RunDirectoryError, match=r"manifest\.json cannot be read"):
        memory_rl.load(tmp_path)
    result = memory_rl.train(**SMALL)
    (result.path / "metrics.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(memory_rl.RunDirectoryError, match=r"metrics\.parquet cannot be read"):
        _ = memory_rl.load(result.path).metrics
    (result.path / "manifest.json").write_text('{"schema": 99}')
    with pytest.raises(memory_rl.RunDirectoryError, match="schema 99"):
        memory_rl.load(result.path)


def test_no_secret_of_the_environment_is_written(monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", "tml-very-secret")
    monkeypatch.setenv("HF_TOKEN", "hf-very-secret")
    result = memory_rl.train(**SMALL)
    for content in snapshot(result.path).values():
        assert b"very-secret" not in content


@pytest.mark.parametrize("content", ["[" * 100_000, '{"schema": ' + "9" * 5000 + "}", '{"a":' * 50_000])
def test_json_that_python_cannot_read_is_said_in_one_sentence(content, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    for words in (f"runs={folder}", f"runs={tmp_path}"):
        assert "manifest.json cannot be read" in complaint("report", words, capsys)
    assert "manifest.json cannot be read" in complaint("train", f"log_path={folder} resume=True", capsys)
    memory_rl.train(backend="tabular", N=4, num_runs=1, max_episodes=4, log_path=str(tmp_path / "s" / "cell"))
    (tmp_path / "s" / "protocol.yaml").write_text("{name: a, grid: [{command: train}]}")
    (tmp_path / "s" / "sweep.json").write_text(content)
    with pytest.warns(DamageWarning, match=r"sweep\.json is damaged and left out"):
        memory_rl.report(runs=str(tmp_path / "s"), out="report", quiet=True)
    assert "sweep.json cannot be read" in Path("report/summary.md").read_text()


def test_a_nested_example_is_said_in_one_sentence(capsys):
    folder = memory_rl.generate_sft_data(N=8, fixed_secret=3, num_train=1, num_test=1)
    (folder / "train.jsonl").write_text("[" * 100_000)
    sentence = complaint("sft-train", "N=8 fixed_secret=3", capsys)
    assert "train.jsonl, line 1: this is not a JSON object" in sentence
