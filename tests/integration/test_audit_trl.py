"""The audit of a run of TRL's stock GRPOTrainer, against what the trainer logs itself and its tables."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("trl", reason="TRL is not installed: pip install 'memory-rl[trl]'")

import memory_rl
from memory_rl.errors import DataError

_spec = importlib.util.spec_from_file_location(
    "trl_rollouts", Path(__file__).parents[2] / "benchmarks" / "trl_rollouts.py"
)
trl_rollouts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(trl_rollouts)

pytestmark = pytest.mark.filterwarnings(  # by TRL of itself
    "ignore:`gradient_checkpointing` is deprecated:FutureWarning"
)

STEPS = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpo")
    trl_rollouts.train(folder, STEPS)
    return folder


@pytest.fixture
def copy(run, tmp_path):
    """The same run, of which a test may change what it likes."""
    shutil.copytree(run / "completions", tmp_path / "completions")
    shutil.copy(run / "trainer_state.json", tmp_path)
    return tmp_path


def history(run):
    return [
        one for one in json.loads((run / "trainer_state.json").read_text())["log_history"] if "reward" in one
    ]


def test_it_counts_what_the_trainer_logs(run):
    """Silent groups, mean reward, tokens and KL of each step are those of TRL's own log."""
    found = memory_rl.audit(run, stretches=STEPS)
    logged = history(run)
    assert found.source == "TRL"
    assert found.account.usual_size == trl_rollouts.GROUP
    assert found.frame["first_step"].to_list() == [one["step"] for one in logged] == [1, 2, 3, 4]
    for column, key in (("silent", "frac_reward_zero_std"), ("reward", "reward"), ("kl", "kl")):
        known = [one[key] for one in logged]
        assert found.frame[column].to_list() == pytest.approx(known, abs=1e-6)
    rollouts = trl_rollouts.GROUP * trl_rollouts.GROUPS_A_STEP
    known = [rollouts * one["completions/mean_length"] for one in logged]
    assert found.frame["tokens"].to_list() == pytest.approx(known)


def test_bits_are_those_of_the_tables(run):
    """The plug-in by numpy, from groups of eight rows."""
    table = pl.concat([pl.read_parquet(one) for one in sorted((run / "completions").glob("*.parquet"))])
    rates = table["right"].to_numpy().reshape(-1, trl_rollouts.GROUP).mean(axis=1)
    logs = [-(p * np.log2(p) + (1 - p) * np.log2(1 - p)) if 0 < p < 1 else 0.0 for p in rates]
    found = memory_rl.audit(run)
    assert found.account.whole.estimators["plug_in"] == pytest.approx(np.mean(logs))
    assert found.account.whole.groups == len(rates)


def test_a_file_that_repeats_the_one_before_is_left_out(copy):
    """As TRL writes it where a batch of completions serves several steps."""
    folder = copy / "completions"
    again = pl.read_parquet(folder / "completions_00004.parquet").with_columns(step=pl.lit(5, pl.Int64))
    again.write_parquet(folder / "completions_00005.parquet")
    before, found = memory_rl.audit(copy / "completions" / "completions_00004.parquet"), memory_rl.audit(copy)
    assert "1 file repeats the rollouts of the one before it and is left out." in found.notes
    assert found.account.whole.last_step == 4
    assert before.account.whole.rollouts == 48


def test_steps_that_were_not_logged_are_missed(copy):
    """As with logging_steps=2: every second file."""
    for step in (1, 3):
        (copy / "completions" / f"completions_{step:05d}.parquet").unlink()
    assert any(note.startswith("The log has one batch every 2 steps") for note in memory_rl.audit(copy).notes)
    assert found_steps(copy) == [2, 4]


def found_steps(run):
    return memory_rl.audit(run, stretches=2).frame["first_step"].to_list()


def test_one_prompt_for_all_groups_needs_their_size(copy):
    right = memory_rl.audit(copy)
    for path in (copy / "completions").glob("*.parquet"):
        frame = pl.read_parquet(path)
        frame.with_columns(prompt=pl.lit("Guess.")).write_parquet(path)
    with pytest.raises(DataError, match=r"equal rewards have unequal advantages.*group_size=NUMBER"):
        memory_rl.audit(copy)
    found = memory_rl.audit(copy, group_size=8)
    assert found.silent_groups["share"].value == right.silent_groups["share"].value


def test_a_prompt_twice_in_a_row_is_two_groups(copy):
    path = copy / "completions" / "completions_00001.parquet"
    frame = pl.read_parquet(path)
    prompts = frame["prompt"].to_list()
    prompts[8:16] = prompts[:8]
    frame.with_columns(prompt=pl.Series(prompts, dtype=frame["prompt"].dtype)).write_parquet(path)
    found = memory_rl.audit(copy, stretches=STEPS)
    assert found.frame["groups"].to_list() == [6] * STEPS


def test_a_file_that_is_cut_off_is_named(copy):
    path = copy / "completions" / "completions_00004.parquet"
    path.write_bytes(path.read_bytes()[:500])
    found = memory_rl.audit(copy)
    assert "1 file cannot be read and is left out: completions_00004.parquet." in found.notes
    assert found.account.whole.last_step == 3


def test_several_rewards_are_summed_and_named(copy):
    """Without the state the columns of rewards are told by their place; with it, by name."""
    for path in (copy / "completions").glob("*.parquet"):
        frame = pl.read_parquet(path)
        place = frame.columns.index("right") + 1
        frame.insert_column(place, (2 * frame["right"]).alias("style")).write_parquet(path)
    (copy / "trainer_state.json").rename(copy / "kept")
    found = memory_rl.audit(copy)
    assert found.notes[0].startswith("The reward is the sum of right and style, each with weight 1")
    (copy / "kept").rename(copy / "trainer_state.json")
    one = memory_rl.audit(copy)
    assert found.account.whole.reward.value == pytest.approx(3 * one.account.whole.reward.value)


def test_one_of_several_rewards_is_read_with_the_groups_of_the_trainer(copy):
    """A prompt that comes twice in a row is two groups, as in the sum of all: in a plain table it is one."""
    for path in (copy / "completions").glob("*.parquet"):
        frame = pl.read_parquet(path)
        prompts = frame["prompt"].to_list()
        prompts[8:16] = prompts[:8]
        prompt, style = pl.Series(prompts, dtype=frame["prompt"].dtype), pl.Series(np.arange(48) % 3 * 1.0)
        frame.with_columns(prompt=prompt, style=style).write_parquet(path)
    of_one, of_all = (memory_rl.audit(copy, reward=reward).account.whole for reward in ("right", None))
    rewards = pl.concat([pl.read_parquet(path) for path in (copy / "completions").glob("*.parquet")])
    assert of_one.reward.value == pytest.approx(rewards["right"].mean())
    assert of_one.groups == of_all.groups
    assert memory_rl.audit(copy / "completions", reward="right").account.whole.groups == of_all.groups
    with pytest.raises(
        DataError, match=r"reward=rihgt is no column of these completions: did you mean right\?"
    ):
        memory_rl.audit(copy, reward="rihgt")


def test_batches_that_serve_several_steps(tmp_path):
    """The trainer itself, with steps_per_generation=2: every second file repeats the one before."""
    trl_rollouts.train(tmp_path, STEPS, steps_per_generation=2)
    found = memory_rl.audit(tmp_path)
    assert "2 files repeat the rollouts of the one before them and are left out." in found.notes
    assert found.account.whole.groups == 2 * 2 * trl_rollouts.GROUPS_A_STEP
