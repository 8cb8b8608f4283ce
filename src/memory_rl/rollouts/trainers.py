"""What four trainers leave on disk, and how it is found and read; docs/audit.md names the versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_rl.errors import DataError, first_few
from memory_rl.files import Json, from_json
from memory_rl.rollouts.rows import Rollout, Rollouts, hashed, json_lines, read_text
from memory_rl.rollouts.trl_table import read_trl

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Trainer:
    """What a trainer writes.

    Attributes:
        name: of the trainer.
        pattern: of the paths of its files.
        looked_for: the same in words.
        depth: how many folders lie between a file and the folder of its run, which may hold one run alone.
        read: from the run's folder and its files in the order of training.
    """

    name: str
    pattern: str
    looked_for: str
    depth: int
    read: Callable[[Path, Sequence[Path]], Rollouts]


def find_run(path: Path, reward: str | None = None) -> Rollouts | None:
    """The rollouts of the run in a folder or a file of it; None if no trainer is known by its files.

    Args:
        path: of either.
        reward: the one of several that is meant; of TRL alone, whose log has each in a column.

    Raises:
        DataError: if there are several runs, or what is there cannot be read.
    """
    every = [path] if path.is_file() else sorted(found for found in path.rglob("*") if found.is_file())
    named = replace(TRAINERS[0], read=partial(_read_trl, reward=reward))
    for trainer in TRAINERS if reward is None else (named,):
        files = [one for one in every if re.search(trainer.pattern, one.absolute().as_posix())]
        if trainer.name == "verl":
            files = [one for one in files if _of_verl(one)]
        if files:
            return _read(trainer, files, path)
    return None


def _read(trainer: Trainer, files: Sequence[Path], path: Path) -> Rollouts:
    runs = sorted({one.absolute().parents[trainer.depth] for one in files})
    if len(runs) > 1:
        named = first_few([str(run) for run in runs], 2)
        raise DataError(f"{path} holds the rollouts of {len(runs)} runs ({named}): give one of them.")
    return trainer.read(runs[0], sorted(files, key=_in_order))


def _in_order(path: Path) -> list[int]:
    """By the numbers in the last four parts of a path."""
    return [int(digits) for digits in re.findall(r"\d+", "/".join(path.absolute().parts[-4:]))]


def _read_cookbook(run: Path, files: Sequence[Path]) -> Rollouts:
    frame, notes = read_text(files, json_lines, _cookbook_rows)
    notes.append("The log does not name prompts: each group counts as a prompt of its own.")
    if _json_of(run / "config.json").get("remove_constant_reward_groups"):
        notes.append(
            "Groups of equal rewards were removed before they were logged (remove_constant_reward_groups), "
            "so the silent groups here are not all there were."
        )
    return Rollouts(frame, "the Tinker cookbook", len(files), notes, _cookbook_kl(run / "metrics.jsonl"))


def _cookbook_rows(record: Json, path: Path) -> Iterator[Rollout]:
    tokens = sum(step["ac_len"] for step in record["steps"])
    yield Rollout(record["iteration"], hashed(record["group_idx"]), None, record["total_reward"], tokens)


def _cookbook_kl(metrics: Path) -> pl.DataFrame | None:
    if not metrics.is_file():
        return None
    logged = (record for _, record in json_lines(metrics))
    return kl_frame((one.get("step"), one.get("kl_policy_base")) for one in logged)


def _read_verl(run: Path, files: Sequence[Path]) -> Rollouts:
    frame, notes = read_text(files, json_lines, _verl_rows)
    return Rollouts(frame, "verl", len(files), notes)


def _verl_rows(record: Json, path: Path) -> Iterator[Rollout]:
    yield Rollout(record["step"], None, hashed(record["input"]), record["score"])


def _of_verl(path: Path) -> bool:
    """Whether one of the first lines is a rollout of verl; other programs number their files, too."""
    return any({"input", "output", "score", "step"} <= {*record} for _, record in islice(json_lines(path), 3))


def _read_prime(run: Path, files: Sequence[Path]) -> Rollouts:
    """All rollouts where they were kept, else those that were trained on.

    A group may begin in the folder of one step and end in that of the next.
    """
    whole = [one for one in files if one.parent.name == "all"]
    frame, notes = read_text(whole or files, json_lines, _prime_rows)
    if not whole:
        notes.append(
            "Only the rollouts that were trained on are here (effective), not all that were sampled."
        )
    return Rollouts(frame, "prime-rl", len(whole or files), notes, grouped="in the run")


def _prime_rows(record: Json, path: Path) -> Iterator[Rollout]:
    step = int(path.parents[2].name.removeprefix("step_"))
    for trace in record["traces"] if record["ok"] else ():
        agent = trace["agent"]
        if agent["trainable"]:
            group, task = hashed([record["group"]["id"], agent["name"]]), trace["task"]
            rewards = [one["score"] * one["weight"] for one in trace["rewards"].values() if one]
            prompt = hashed([task.get("hash") or task["data"], agent["name"]])
            yield Rollout(step, group, prompt, sum(rewards) if rewards else None, trace["num_output_tokens"])


def kl_frame(logged: Iterable[tuple[Any, Any]]) -> pl.DataFrame | None:
    """Steps and logged divergences as a frame; None if there are none."""
    import polars as pl

    pairs = [(step, kl) for step, kl in logged if isinstance(step, int) and isinstance(kl, float)]
    return pl.DataFrame(pairs, schema={"step": pl.Int64, "kl": pl.Float64}, orient="row") if pairs else None


def _json_of(path: Path) -> Json:
    try:
        return from_json(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _read_trl(run: Path, files: Sequence[Path], reward: str | None = None) -> Rollouts:
    states = sorted(run.glob("checkpoint-*/trainer_state.json"), key=_in_order)
    states += [one for one in [run / "trainer_state.json"] if one.is_file()]
    history = _json_of(states[-1]).get("log_history", []) if states else []
    found = read_trl(files, history, reward)
    return replace(found, kl=kl_frame((one.get("step"), one.get("kl")) for one in history))


TRAINERS = (
    Trainer(
        "TRL",
        r"/completions_\d+\.parquet$",
        "completions/completions_*.parquet of TRL (log_completions=True)",
        1,
        _read_trl,
    ),
    Trainer(
        "the Tinker cookbook",
        r"/train_rollout_summaries\.jsonl$",
        "train_rollout_summaries.jsonl of the Tinker cookbook",
        1,
        _read_cookbook,
    ),
    Trainer(
        "prime-rl",
        r"/rollouts/step_\d+/train/(all|effective)/traces\.jsonl$",
        "rollouts/step_*/train/*/traces.jsonl of prime-rl",
        5,
        _read_prime,
    ),
    Trainer(
        "verl", r"/\d+\.jsonl$", "1.jsonl, 2.jsonl ... of verl (trainer.rollout_data_dir)", 0, _read_verl
    ),
)
