"""The recorder, whoever trains: what an experiment of our own measured, told to it again, gives the same
tables; and what was measured is never lost."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import memory_rl
from memory_rl.dosimeter.recorder import RecordedEpisodes, RecordedTrainer, Recorder, RecordingWarning
from memory_rl.errors import ConfigError, RunDirectoryError
from memory_rl.policies.base import Assessment

TRAINER = RecordedTrainer("memory-rl", "Loop", {"temperature": 1.0}, {"learning_rate": 0.3, "group_size": 4})
WORLDS = {
    "one secret": {"N": 8, "reward_type": "log_distance"},
    "noise": {"N": 8, "reward_noise": 0.1},
    "several": {"N": 8, "num_secrets": 3, "evaluate_every": 1},
    "bit by bit": {"N": 8, "env_type": "multi_step"},
}


def assessment_of(row: dict, secrets: pl.DataFrame | None) -> Assessment:
    """What a policy would say that knows so many bits (in nats, (1, M))."""
    bits = [row["bits_known"]] if secrets is None else secrets["bits_known"].to_list()
    of_form = (np.array([bits]) - 3) * np.log(2)  # N = 8
    valid = np.full(of_form.shape, row["format_bits"] * np.log(2) / of_form.size)
    return Assessment(of_form, valid, np.full(of_form.shape, np.log(row["confidence"])))


def replay(result: memory_rl.Result, log_path: str = "again", **keys) -> memory_rl.Result:
    """Tells a recorder what a run of one learner measured."""
    rows = result.metrics.sort("episode").rows(named=True)
    by_episode = result.cell.of_secrets if keys.get("num_secrets", 1) > 1 else None
    steps, now = result.episodes["step"].max() + 1, {}
    recorder = Recorder(log_path, figures=False, **keys)
    for row in rows:
        told = None if by_episode is None else by_episode.filter(pl.col("episode") == row["episode"])
        now["is"] = assessment_of(row, told)
        if row["episode"] == 0:
            recorder.start(TRAINER, lambda: now["is"])
            continue
        part = result.episodes.filter(pl.col("episode").is_between(recorder.episodes + 1, row["episode"]))
        shape = (-1, steps)
        prompts = part["prompt"].to_numpy() if "prompt" in part.columns else np.zeros(len(part), int)
        recorder.take(
            RecordedEpisodes(
                prompts.reshape(shape)[:, 0],
                part["answer"].fill_null(-1).to_numpy().reshape(shape),
                part["reward"].to_numpy().reshape(shape),
                row["zero_advantage_fraction"],
            ),
            part["update"][0],
        )
        recorder.evaluate(row["update"])
    return recorder.finish(rows[-1]["update"])


@pytest.mark.parametrize("keys", WORLDS.values(), ids=WORLDS)
def test_an_experiment_told_again_gives_the_same_tables_and_the_same_summary(keys):
    own = memory_rl.train(
        **keys,
        backend="tabular",
        num_runs=1,
        max_episodes=120,
        stop_at=0.9,
        seed=3,
        quiet=True,
        figures=False,
    )
    again = replay(own, **keys, seed=3, stop_at=0.9)
    assert_frame_equal(again.metrics, own.metrics, abs_tol=1e-9)
    assert_frame_equal(again.episodes, own.episodes)
    assert_frame_equal(again.ledger, own.ledger, abs_tol=1e-9)
    for name in ("memorised", "ceilings", "rates", "checks", "ledger"):
        theirs, ours = ({**result.summary[own.cell.condition]}[name] for result in (again, own))
        assert theirs == pytest.approx(ours) if isinstance(ours, int) else str(theirs)[:60] == str(ours)[:60]
    assert again.outcome == own.outcome
    assert again.manifest["trainer"] == {**TRAINER.about(measured=True), "version": memory_rl.__version__}


def know(bits: float, secrets: int = 1) -> Assessment:
    of_form = np.full((1, secrets), (bits - 6) * np.log(2))
    return Assessment(of_form, np.zeros_like(of_form), of_form)


def test_runs_of_other_settings_are_no_sample_of_one_population():
    cells = []
    for temperature in (1.0, 0.5, 0.5):
        recorder = Recorder(f"dose{len(cells)}", figures=False)
        recorder.start(RecordedTrainer("memory-rl", "Loop", {"temperature": temperature}), lambda: know(0))
        with pytest.warns(RecordingWarning, match="holds no episode: mix the prompts"):
            cells.append(recorder.finish(0).cell)
    assert cells[0].settings != cells[1].settings == cells[2].settings


def test_of_several_secrets_it_says_how_many_bits_were_stored():
    """0.5 bits of 9 before, then 3, 1.5 and 0: memorised is P(S) >= 1/2, or 2 bits of 3."""
    recorder, known = Recorder("dose", figures=False, N=8, num_secrets=3), [[0.5, 0.0, 0.0], [3.0, 1.5, 0.0]]
    told = iter(known)

    def assess():
        of_form = (np.array([next(told)]) - 3) * np.log(2)
        return Assessment(of_form, np.zeros_like(of_form), of_form)

    recorder.start(TRAINER, assess)
    recorder.take(RecordedEpisodes(np.arange(50) % 3, np.full((50, 1), 5), np.zeros((50, 1))), 0)
    said = (
        "50 episodes about 3 secrets stored 4 of 9 bits, 0.08 bits an episode; 1 of 3 secrets are memorised."
    )
    assert said in repr(recorder.finish(1))


def test_a_policy_that_diverges_ends_the_recording_and_not_the_training():
    recorder, bits = Recorder("dose", figures=False), [0.0]
    recorder.start(TRAINER, lambda: know(bits[-1]))
    recorder.take(RecordedEpisodes(np.zeros(1, int), np.array([[5]]), np.array([[0.0]])), 0)
    bits.append(np.nan)
    with pytest.warns(RecordingWarning, match="diverged: its probabilities are not finite after update 1"):
        recorder.evaluate(1)
    recorder.take(RecordedEpisodes(np.zeros(1, int), np.array([[5]]), np.array([[0.0]])), 1)
    assert recorder.finish(2) is None
    result = memory_rl.load("dose")
    assert result.outcome is memory_rl.Outcome.FAILED
    assert result.metrics["bits_known"].to_list() == [0.0]
    assert len(result.episodes) == 1


def test_a_full_disk_is_a_warning_and_the_next_evaluation_writes_it_all(monkeypatch):
    recorder = Recorder("dose", figures=False)
    recorder.start(TRAINER, lambda: know(1.0))
    with monkeypatch.context() as broken:
        broken.setattr("memory_rl.files.os.replace", _no_room)
        with pytest.warns(RecordingWarning, match="cannot be written"):
            recorder.evaluate(1)
    recorder.evaluate(2)
    assert memory_rl.load("dose").metrics["update"].to_list() == [0, 1, 2]
    with pytest.warns(RecordingWarning, match="holds no episode"):
        assert recorder.finish(2).outcome is memory_rl.Outcome.BUDGET_SPENT


def test_a_disk_that_stays_full_stops_no_training(monkeypatch):
    recorder = Recorder("dose", figures=False)
    recorder.start(TRAINER, lambda: know(1.0))
    monkeypatch.setattr("memory_rl.files.os.replace", _no_room)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert recorder.finish(1) is None
    told = [str(one.message) for one in seen]
    assert all(" cannot be written ([Errno 28] No space left on device)" in sentence for sentence in told)
    assert told[-1].endswith("; what was measured is kept.")
    assert not recorder.recording
    assert memory_rl.load("dose").outcome is memory_rl.Outcome.KILLED  # and its tables are those of before


def _no_room(*paths):
    raise OSError(28, "No space left on device")


SCRIPT = """
import os
import numpy as np
from memory_rl.dosimeter.recorder import RecordedEpisodes, Recorder, RecordedTrainer
from test_recorder import TRAINER, know
recorder = Recorder("dose", figures=False)
recorder.start(TRAINER, lambda: know(1.0))
recorder.take(RecordedEpisodes(np.zeros(1, int), np.array([[5]]), np.array([[0.0]])), 0)
os.makedirs("elsewhere")
os.chdir("elsewhere")
raise ZeroDivisionError("the trainer's")
"""


def test_what_is_measured_when_the_process_ends_is_written():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"PYTHONPATH": ":".join([str(Path(__file__).parent), *filter(None, sys.path)]), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert "ZeroDivisionError: the trainer's" in done.stderr
    assert not list(Path("elsewhere").iterdir())
    result = memory_rl.load("dose")
    assert result.outcome is memory_rl.Outcome.INTERRUPTED
    assert result.manifest["why"] == "the process ended before the training did"
    assert len(result.episodes) == 1
    assert not Path("dose/.lock").exists()
    with pytest.raises(RunDirectoryError, match=r"already holds a run .* never overwritten: give another"):
        Recorder("dose")


def test_keys_that_are_not_ours_are_refused():
    with pytest.raises(ConfigError, match="num_runs=4 is up to the trainer that is recorded: leave it out"):
        Recorder(num_runs=4)
    with pytest.raises(ConfigError, match="N=1 is"):
        Recorder(N=1)
