"""Output that nobody reads to its end, as head does not: what is measured is measured all the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = ["N=8", "backend=tabular", "num_runs=2", "max_episodes=40"]


def run_unread(*words: str, errors: bool = False) -> subprocess.CompletedProcess[bytes]:
    """A command whose output goes to a pipe that is closed at its other end; `errors`: those, too."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "memory_rl", *words]
    try:
        if errors:
            return subprocess.run(command, stdout=writer, stderr=writer, timeout=120, check=False)
        return subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=120, check=False)
    finally:
        os.close(writer)


@pytest.mark.parametrize("errors", [False, True])
def test_a_run_is_complete(errors):
    done = run_unread("train", *SMALL, "log_path=run", errors=errors)
    assert done.returncode == 0
    assert json.loads(Path("run/manifest.json").read_text())["status"] == "completed"
    assert not done.stderr


def test_a_sweep_is_complete():
    done = run_unread(
        "sweep", "conditions=sft,binary", *SMALL, "log_path=sweep", "figures=False", errors=True
    )
    assert done.returncode == 0
    summary = json.loads(Path("sweep/summary.json").read_text())
    assert summary["status"] == "completed"
    assert [row["status"] for row in summary["cells"]] == ["completed"] * 2


@pytest.mark.parametrize("words", [["--help"], ["bounds", "N=8"]])
def test_a_question_ends_without_a_word(words):
    done = run_unread(*words)
    assert done.returncode in (0, 128 + 13)
    assert done.stderr == b""
