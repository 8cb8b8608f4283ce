"""What cannot be audited gets one sentence and exit code 2; what is damaged is counted and named."""

import json
import re

import numpy as np
import polars as pl
import pytest
from audit_helpers import write_lines

import memory_rl
from memory_rl.cli import main
from memory_rl.errors import DataError
from memory_rl.reporting.audit_page import render
from memory_rl.rollouts.groups import group_rollouts
from memory_rl.rollouts.tables import Columns, read_rollouts

HEAD = "step,prompt,reward\n"
GOOD = "".join(f"{step},{prompt},{reward}\n" for step in (1, 2) for prompt in "ab" for reward in (0, 1, 1))


def answer(capsys, *words):
    """The one sentence of a failure."""
    assert main(["audit", *map(str, words)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("memory-rl: ")
    assert shown.err.endswith((".\n", "?\n"))
    return shown.err


def table(tmp_path, text, name="run.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_path_is_needed(capsys):
    assert "audit takes one path, and none was given" in answer(capsys)


def test_what_is_not_there(capsys, tmp_path):
    assert "does not exist" in answer(capsys, tmp_path / "none")


def test_no_rollouts_are_found(capsys, tmp_path):
    table(tmp_path, "words", "notes.txt")
    said = answer(capsys, tmp_path)
    assert "holds no rollouts; looked for: completions/completions_*.parquet of TRL" in said
    for trainer in ("Tinker cookbook", "prime-rl", "verl"):
        assert trainer in said


def test_a_run_directory_of_our_own(capsys, tmp_path):
    for name in ("manifest.json", "metrics.parquet"):
        table(tmp_path, "", name)
    said = answer(capsys, tmp_path)
    assert "is a run directory of memory-rl, whose ledger says more than an audit" in said
    assert f"type memory-rl report {tmp_path}" in said


def test_an_unknown_format(capsys, tmp_path):
    said = answer(capsys, table(tmp_path, "words", "run.log"))
    assert "is of no format that is known; looked for: " in said
    assert ".csv, .jsonl, .ndjson, .parquet" in said


@pytest.mark.parametrize("name", ["run.csv", "run.jsonl"])
def test_an_empty_file(capsys, tmp_path, name):
    assert "is empty" in answer(capsys, table(tmp_path, "", name))


def test_a_head_alone(capsys, tmp_path):
    assert "is empty: it has no line that is whole" in answer(capsys, table(tmp_path, HEAD))


def test_groups_that_cannot_be_told_apart(capsys, tmp_path):
    said = answer(capsys, table(tmp_path, "step,reward\n1,0\n1,1\n"))
    assert "cannot be told apart, since it has no column prompt or group, only step and reward" in said


def test_groups_that_hold_several_prompts(capsys, tmp_path):
    text = "step,group,prompt,reward\n1,0,a,0\n1,0,b,1\n1,1,a,1\n1,1,a,1\n"
    said = answer(capsys, table(tmp_path, text))
    assert "1 of 2 hold several prompts, the first in step 1" in said


def test_one_reward_a_group(capsys, tmp_path):
    said = answer(capsys, table(tmp_path, HEAD + "1,a,0\n1,b,1\n2,a,1\n"))
    assert "has one reward, so that nothing is known of how much rewards of a prompt differ" in said


def test_rewards_that_are_no_numbers(capsys, tmp_path):
    path = table(tmp_path, HEAD + GOOD + "3,a,good\n")
    assert f"the reward 'good' in line 14 of {path} is not a number" in answer(capsys, path)
    frame = pl.DataFrame({"step": [1, 1], "prompt": ["a", "a"], "reward": ["good", "bad"]})
    frame.write_parquet(tmp_path / "run.parquet")
    assert "the reward 'good' in" in answer(capsys, tmp_path / "run.parquet")


@pytest.mark.parametrize("reward", ["nan", "inf", "-inf"])
def test_rewards_that_are_not_finite(capsys, tmp_path, reward):
    said = answer(capsys, table(tmp_path, HEAD + GOOD + f"3,a,{reward}\n"))
    assert f"1 reward is not finite in run.csv, the first of them {reward} in step 3" in said


def test_steps_out_of_order(capsys, tmp_path):
    said = answer(capsys, table(tmp_path, HEAD + GOOD + "1,a,0\n1,a,1\n"))
    assert "step 1 comes after step 2 (rollout 13), so that two runs may be mixed" in said


def test_a_column_that_is_not_there(capsys, tmp_path):
    said = answer(capsys, table(tmp_path, HEAD + GOOD), "reward=rewards")
    assert "reward=rewards is no column of" in said
    assert "did you mean reward?" in said
    said = answer(capsys, table(tmp_path, "iteration,prompt,score\n1,a,0\n"))
    assert "has no column step, only iteration, prompt and score: name it as step=NAME." in said


def test_a_group_size_of_one(capsys, tmp_path):
    assert "group_size=1" in answer(capsys, table(tmp_path, HEAD + GOOD), "group_size=1")


def test_several_formats(capsys, tmp_path):
    table(tmp_path, HEAD + GOOD), write_lines(tmp_path / "run.jsonl", [{"step": 1}])
    assert "holds tables of several formats (run.csv and run.jsonl)" in answer(capsys, tmp_path)


def test_several_runs(capsys, tmp_path):
    for run in "ab":
        (tmp_path / run / "completions").mkdir(parents=True)
        pl.DataFrame({"step": [1]}).write_parquet(
            tmp_path / run / "completions" / "completions_00001.parquet"
        )
    assert "holds the rollouts of 2 runs" in answer(capsys, tmp_path)


def test_a_parquet_file_that_is_none(capsys, tmp_path):
    assert "cannot be read as Parquet" in answer(capsys, table(tmp_path, "words", "run.parquet"))


def test_damaged_lines_are_counted_and_named(tmp_path):
    """Bytes in the middle that are none, a field that is missing, and a last line that was cut off."""
    records = [{"step": 1, "prompt": p, "reward": r} for p in "ab" for r in (0, 1)]
    lines = [json.dumps(one) for one in records]
    text = "\n".join([lines[0], '{"step": 1, \x00', lines[1], '{"step": 1}', *lines[2:], lines[0][:20]])
    found = memory_rl.audit(table(tmp_path, text, "run.jsonl"))
    assert found.notes[0] == (
        "3 lines are damaged or cut off and left out: line 2 of run.jsonl, line 4 of run.jsonl and line 7 of "
        "run.jsonl."
    )
    assert found.account.whole.rollouts == 4


def test_a_csv_file_that_is_cut_off_in_a_quoted_field(tmp_path):
    found = memory_rl.audit(table(tmp_path, HEAD + GOOD + '3,"a long prom'))
    assert found.notes[0] == "1 line is damaged or cut off and left out: line 14 of run.csv."
    assert found.account.whole.rollouts == 12


def test_rewards_that_are_missing_are_counted(tmp_path):
    found = memory_rl.audit(table(tmp_path, HEAD + GOOD + "3,a,\n"))
    assert found.notes[0] == "1 rollout has no reward and is left out."


def test_levels_that_are_almost_all_different_are_named(tmp_path):
    text = "".join(
        f"1,{prompt},{(7 * prompt + 3 * place) % 101}\n" for prompt in range(9) for place in range(8)
    )
    found = memory_rl.audit(table(tmp_path, HEAD + text))
    assert any(
        "cannot be told, since most rewards of a group are the only ones" in s for s in found.sentences
    )
    assert found.account.rates is None
    assert not any("not what was learned" in sentence for sentence in found.sentences)
    assert "audit" in render(found)


@pytest.mark.parametrize("text", [("True", "False"), ("true", "false"), ("1", "0"), ("1.0", " 0.0")])
def test_rewards_written_as_other_tools_write_them(tmp_path, text):
    written = HEAD + "".join(f"1,{prompt},{reward}\n" for prompt in "ab" for reward in text)
    assert memory_rl.audit(table(tmp_path, written)).account.whole.reward.value == 0.5


def test_texts_in_parquet_are_read_if_they_are_numbers(capsys, tmp_path):
    frame = pl.DataFrame({"step": ["1", "1"], "prompt": ["a", "a"], "reward": ["1.0", "0"]})
    frame.write_parquet(tmp_path / "run.parquet")
    assert memory_rl.audit(tmp_path / "run.parquet").account.whole.reward.value == 0.5
    frame.with_columns(pl.lit("ten").alias("tokens")).write_parquet(tmp_path / "run.parquet")
    assert "the tokens 'ten' in" in answer(capsys, tmp_path / "run.parquet")
    frame.with_columns(pl.lit("step_1").alias("step")).write_parquet(tmp_path / "run.parquet")
    assert "the step 'step_1' in" in answer(capsys, tmp_path / "run.parquet")


@pytest.mark.parametrize(
    ("head", "row", "reason"),
    [
        (HEAD, "step_1,a,1", "could not convert string to float: 'step_1'"),
        (HEAD, "0.25,a,1", "step 0.25 is no whole number"),
        ("step,prompt,reward,tokens\n", "1,a,1,ten", "could not convert string to float: 'ten'"),
        ("step,prompt,reward,tokens\n", "1,a,1,-5", "-5 is no number of tokens"),
        ("step,prompt,reward,tokens\n", "1,a,1,nan", "nan is no number of tokens"),
    ],
)
def test_where_no_line_is_a_rollout_the_first_is_explained(capsys, tmp_path, head, row, reason):
    said = answer(capsys, table(tmp_path, head + 4 * f"{row}\n"))
    assert f"all 4 lines are no rollouts: line 2 of run.csv cannot be read ({reason})" in said


def test_parts_of_a_step_are_no_steps_in_parquet_either(capsys, tmp_path):
    rows = {"step": [0.25, 0.25, 0.5, 0.5], "prompt": ["a"] * 4, "reward": [0, 1, 1, 1]}
    pl.DataFrame(rows).write_parquet(tmp_path / "run.parquet")
    assert "has a step that is a whole number from 0" in answer(capsys, tmp_path / "run.parquet")


def test_odd_rows_of_parquet_are_counted(tmp_path):
    rows = {"step": [1, 1, None, 1, 1], "prompt": ["a"] * 5, "reward": [0.0, 1, 1, 1, 1]}
    frame = pl.DataFrame(rows | {"tokens": [5.0, 5.0, 5.0, np.nan, -1.0]})
    frame.write_parquet(tmp_path / "run.parquet")
    found = memory_rl.audit(tmp_path / "run.parquet")
    assert found.notes[0] == "3 rows have no whole step, or no possible number of tokens, and are left out."
    assert (found.account.whole.rollouts, found.account.whole.tokens) == (2, 10)


def test_of_several_parquet_files_a_damaged_one_is_named_and_types_may_differ(tmp_path):
    whole = pl.DataFrame({"step": [1, 1], "prompt": ["a", "a"], "reward": [0, 1]})
    whole.write_parquet(tmp_path / "1.parquet")
    (tmp_path / "2.parquet").write_bytes((tmp_path / "1.parquet").read_bytes()[:99])
    whole.with_columns(pl.col("step") + 1, pl.col("reward") * 1.0).write_parquet(tmp_path / "3.parquet")
    found = memory_rl.audit(tmp_path)
    assert found.notes[0] == "1 file cannot be read and is left out: 2.parquet."
    assert found.account.whole.rollouts == 4


@pytest.mark.parametrize("name", ["run.csv", "run.parquet"])
def test_rollouts_without_a_prompt_are_no_group(tmp_path, name):
    """Together they would look like one."""
    path = table(tmp_path, HEAD + GOOD + "3,,0\n3,,1\n3,,1\n")
    if name.endswith("parquet"):
        pl.read_csv(path).write_parquet(tmp_path / name)
    found = memory_rl.audit(tmp_path / name)
    assert found.notes[0] == "3 rollouts have no prompt and are left out."
    assert found.account.whole.groups == 4


def test_no_prompt_at_all(capsys, tmp_path):
    said = answer(capsys, table(tmp_path, HEAD + "1,,0\n1,,1\n"))
    assert "groups cannot be told apart: no rollout of run.csv has a prompt or a group" in said


def test_tokens_that_only_a_part_of_the_log_has(tmp_path):
    """As after the last checkpoint of TRL, whose state has the lengths: bits a token stay those of a part."""
    rows = [{"step": step, "prompt": p, "reward": r} for step in (1, 2) for p in "ab" for r in (0, 1)]
    logged = [row | ({"tokens": 10} if row["step"] == 1 else {}) for row in rows]
    found = memory_rl.audit(write_lines(tmp_path / "run.jsonl", logged))
    assert found.account.whole.tokens == 80
    assert "Tokens of 4 of 8 rollouts are not in the log, and are taken as the mean of the others, 10." in (
        found.notes
    )
    assert all(one.bits_per_1000_tokens.value > 0 for one in found.account.stretches)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = table(tmp_path, HEAD + GOOD)
    monkeypatch.setattr(
        "pathlib.Path.open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "no"))
    )
    with pytest.raises(DataError, match=r"cannot be read \(no\)"):
        memory_rl.audit(path)


ODD = ("", "null", "-1", "1e400", "99999999999999999999", '"a"', "[1]", "{}", "true", "NaN", "1" * 400)
LOGS = {
    "3.jsonl": '{"input": %s, "output": "o", "gts": "1", "score": %s, "step": %s}',
    "iteration_000003/train_rollout_summaries.jsonl": (
        '{"group_idx": %s, "total_reward": %s, "iteration": %s, "steps": [{"ac_len": 3}]}'
    ),
    "run.jsonl": '{"prompt": %s, "reward": %s, "step": %s}',
    "run.csv": "%s,%s,%s",
}


def read(path):
    """How many rollouts are in groups; None if a sentence says why there are none."""
    try:
        return int(group_rollouts(read_rollouts(path, Columns())).frame["size"].sum())
    except DataError as error:
        return None if re.fullmatch(r"[^\n]+[.?]", str(error)) else -1


@pytest.mark.parametrize("name", LOGS)
def test_odd_values_anywhere_are_left_out_or_answered_by_a_sentence(name, tmp_path):
    good, path, answers = ('"p"', "1", "3"), tmp_path / name, set()
    path.parent.mkdir(parents=True, exist_ok=True)
    for place in range(3):
        for odd in ODD:
            values = tuple(odd if at == place else value for at, value in enumerate(good))
            head = ["prompt,reward,step"] if name.endswith("csv") else []
            rows = [LOGS[name] % row for row in (good, ('"p"', "0", "3"), values)]
            path.write_text("\n".join(head + rows))
            answers.add(read(path))
    assert answers == {2, 3, None}


def test_random_damage_is_left_out_or_answered_by_a_sentence(tmp_path):
    random, text, answers = np.random.default_rng(0), (HEAD + GOOD).encode(), set()
    for seed in range(200):
        damaged = bytearray(text)
        for place in random.integers(0, len(text), 1 + seed % 5):
            damaged[place] = random.integers(0, 256)
        path = tmp_path / "run.csv"
        path.write_bytes(bytes(damaged[: random.integers(1, len(text))]))
        answers.add(read(path))
    assert answers <= {None, *range(2, 13)}
    assert len(answers) > 5
