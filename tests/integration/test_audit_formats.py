"""The audit of what trainers write: the same rollouts in every format give the same numbers, without a flag.

prime-rl's file monitor writes `episode.to_record()` of verifiers with orjson, a line an episode: so does this
test, by verifiers. The lines of verl (0.7.0, `_dump_generations` in verl/trainer/ppo/ray_trainer.py) are made
field by field from its source, and so are those of the Tinker cookbook here; its own writer is called in
tests/integrations/test_tinker_cookbook.py.
"""

import json

import numpy as np
import polars as pl
import pytest
from audit_helpers import drawn, pass_or_fail, write_lines

import memory_rl
from memory_rl.errors import DataError

RATES, SIZE, STEPS = [0.0, 0.1, 0.3, 0.5, 0.8, 1.0], 4, 12
TABLE = drawn(pass_or_fail(RATES), SIZE, STEPS, np.random.default_rng(0))


def rows():
    """Each rollout: step, prompt, its place in the group, reward, sampled tokens."""
    for place, (step, prompt, reward) in enumerate(TABLE.iter_rows()):
        yield step, prompt, place % SIZE, reward, 5 + place % 7


def verl(folder):
    """Rows of a step in an order of their own, as balance_batch leaves them."""
    random = np.random.default_rng(1)
    for step in range(STEPS):
        lines = [
            {
                "input": f"user\nprompt {prompt}\nassistant\n",
                "output": f"an answer of {tokens} tokens",
                "gts": str(prompt),
                "score": reward,
                "step": step + 1,
                "acc": reward,
            }
            for at, prompt, _, reward, tokens in rows()
            if at == step
        ]
        write_lines(folder / f"{step + 1}.jsonl", [lines[place] for place in random.permutation(len(lines))])
    return folder


def cookbook(folder):
    for step in range(STEPS):
        lines = [
            {
                "schema_version": 1,
                "split": "train",
                "iteration": step,
                "group_idx": prompt,
                "traj_idx": place,
                "tags": ["math"],
                "sampling_client_step": step,
                "total_reward": reward,
                "final_reward": reward,
                "trajectory_metrics": {},
                "steps": [
                    {"step_idx": 0, "ob_len": 9, "ac_len": 3, "reward": 0.0, "episode_done": False},
                    {"step_idx": 1, "ob_len": 9, "ac_len": tokens - 3, "reward": 0.0, "episode_done": True},
                ],
                "final_ob_len": 0,
            }
            for at, prompt, place, reward, tokens in rows()
            if at == step
        ]
        write_lines(folder / f"iteration_{step:06d}" / "train_rollout_summaries.jsonl", lines)
        write_lines(folder / f"iteration_{step:06d}" / "eval_test_rollout_summaries.jsonl", lines[:3])
    write_lines(
        folder / "metrics.jsonl", [{"step": step, "kl_policy_base": step / 100} for step in range(STEPS)]
    )
    return folder


def prime(folder):
    """Episodes of verifiers, with a failed one, as FileMonitor.log_episodes writes them."""
    pytest.importorskip(
        "verifiers.v1", reason="verifiers is not installed: pip install 'memory-rl[verifiers]'"
    )
    import orjson

    for step, prompt, place, reward, tokens in rows():
        episode = _episode(step, prompt, reward, ok=True)
        record = episode.to_record()
        record["traces"][0]["num_output_tokens"] = tokens  # which verifiers counts in messages
        path = folder / "rollouts" / f"step_{step}" / "train" / "all" / "traces.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        with path.open("ab") as file:
            file.write(orjson.dumps(record, default=str, option=options))
            if not place:
                failed = _episode(step, prompt, 1.0, ok=False)
                file.write(orjson.dumps(failed.to_record(), default=str, option=options))
    return folder


def _episode(step, prompt, reward, *, ok):
    from verifiers.v1.configs.agent import WireAgentConfig
    from verifiers.v1.episode import GroupInfo, TrainRunInfo, TrainWorkInfo, WireEpisode
    from verifiers.v1.task import WireTaskData
    from verifiers.v1.trace import AgentInfo, TraceTask, WireTrace

    data = WireTaskData(idx=prompt, prompt=f"prompt {prompt}")
    task = TraceTask(type="Sum", data=data, hash=f"h{prompt}")
    trace = WireTrace(task=task, agent=AgentInfo(config=WireAgentConfig()), ok=ok)
    trace.record_reward("right", reward)
    trace.record_reward("style", 5.0, weight=0.0)
    run = TrainRunInfo(id="run", work=TrainWorkInfo(step=step))
    group = GroupInfo(id=f"{step}-{prompt}")
    return WireEpisode(task=task, group=group, ok=ok, traces=[trace], run=run)


def as_csv(folder):
    _table().write_csv(folder / "rollouts.csv")
    return folder / "rollouts.csv"


def as_parquet(folder):
    table = _table()
    for part, name in ((table[:96], "part_9.parquet"), (table[96:], "part_10.parquet")):
        part.write_parquet(folder / name)
    return folder


def as_lines(folder):
    return write_lines(folder / "rollouts.ndjson", _table().to_dicts())


def _table():
    return pl.DataFrame(list(rows()), schema=["step", "prompt", "place", "reward", "tokens"], orient="row")


FORMATS = {
    "verl": (verl, False),
    "the Tinker cookbook": (cookbook, True),
    "prime-rl": (prime, True),
    "rollouts.csv": (as_csv, True),
    "parquet": (as_parquet, True),
    "rollouts.ndjson": (as_lines, True),
}


@pytest.fixture(scope="module")
def known():
    """Counted by numpy, from the table itself."""
    rewards = TABLE["reward"].to_numpy().reshape(-1, SIZE)
    hits = rewards.sum(axis=1)
    return {
        "share": np.mean((hits == 0) | (hits == SIZE)),
        "all_right": np.mean(hits == SIZE),
        "all_wrong": np.mean(hits == 0),
        "tokens": sum(tokens for *_, tokens in rows()),
    }


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_without_a_flag(name, known, tmp_path):
    write, tells_tokens = FORMATS[name]
    found = memory_rl.audit(write(tmp_path))
    whole = found.account.whole
    assert found.source == (name if name != "parquet" else tmp_path.name)
    assert (whole.rollouts, whole.groups, found.account.usual_size) == (len(TABLE), 72, SIZE)
    assert (whole.first_step, whole.last_step) == ((1, 12) if name == "verl" else (0, 11))
    for part in ("share", "all_right", "all_wrong"):
        assert found.silent_groups[part].value == pytest.approx(known[part])
    assert whole.tokens == (known["tokens"] if tells_tokens else None)
    assert whole.prompts == (72 if name == "the Tinker cookbook" else 6)
    assert [note for note in found.notes if "damaged" in note] == []


def test_the_divergence_of_the_cookbook_is_read(tmp_path):
    found = memory_rl.audit(cookbook(tmp_path), stretches=4)
    assert found.frame["kl"].to_list() == [0.02, 0.05, 0.08, 0.11]
    assert "At the end the policy was 0.11 nats a token from its start" in found.sentences[-1]
    assert "each group counts as a prompt of its own" in found.notes[0]


def test_groups_that_were_removed_before_the_log_are_missed(tmp_path):
    cookbook(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"remove_constant_reward_groups": True}))
    assert any("remove_constant_reward_groups" in note for note in memory_rl.audit(tmp_path).notes)


def test_what_was_trained_on_alone_is_said(tmp_path):
    prime(tmp_path)
    for folder in list((tmp_path / "rollouts").glob("*/train/all")):
        folder.rename(folder.with_name("effective"))
    assert any("(effective), not all that were sampled" in note for note in memory_rl.audit(tmp_path).notes)


def test_a_group_of_prime_may_go_on_in_the_next_step(tmp_path, known):
    """Its monitor writes an episode into the folder of the step in which it ends."""
    folder = prime(tmp_path) / "rollouts"
    paths = [folder / f"step_{step}" / "train" / "all" / "traces.jsonl" for step in (3, 4)]
    lines = [path.read_text().splitlines(keepends=True) for path in paths]
    paths[0].write_text("".join(lines[0][:-2]))
    paths[1].write_text("".join(lines[0][-2:] + lines[1]))
    found = memory_rl.audit(tmp_path)
    assert found.account.whole.groups == 72
    assert found.silent_groups["share"].value == pytest.approx(known["share"])


def test_steps_are_those_of_the_numbers_not_of_the_names(tmp_path):
    """10.jsonl comes after 9.jsonl; the last step of the table is in the last stretch."""
    found = memory_rl.audit(verl(tmp_path), stretches=12)
    rewards = TABLE["reward"].to_numpy().reshape(STEPS, -1).mean(axis=1)
    assert found.frame["reward"].to_list() == pytest.approx(rewards.tolist())


def test_columns_may_have_any_name(tmp_path):
    names = {"step": "iteration", "prompt": "question", "reward": "score", "tokens": "length"}
    path = tmp_path / "mine.csv"
    _table().rename(names).write_csv(path)
    found, known = memory_rl.audit(path, **names), memory_rl.audit(as_csv(tmp_path))
    assert found.delivered_bits_per_rollout == known.delivered_bits_per_rollout
    assert found.account.whole.tokens == known.account.whole.tokens


def test_groups_may_be_named_where_prompts_are_not(tmp_path):
    table = _table().with_columns(team=pl.col("prompt") + 100).drop("prompt")
    table.write_csv(tmp_path / "mine.csv")
    found = memory_rl.audit(tmp_path / "mine.csv", group="team")
    assert (found.account.whole.groups, found.account.whole.prompts) == (72, 72)


def test_numbered_lines_of_another_program_are_no_rollouts(tmp_path):
    write_lines(tmp_path / "1.jsonl", [{"input": 1, "output": 2}])
    with pytest.raises(DataError, match="has no column step"):
        memory_rl.audit(tmp_path)
