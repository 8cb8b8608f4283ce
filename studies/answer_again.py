"""The verdicts that decide, measured again on base models and secrets that were not used before.

    python studies/answer_again.py plan                    (writes studies/answer-again.yaml)
    python sweep.py protocol=studies/answer-again.yaml executor=processes log_path=sweeps/again
    python studies/answer_again.py ship sweeps/again       (adds to studies/answer_again.parquet)

What decides is how much slower than SFT hit or miss is, and a reward for each bit: with the default learner,
and with the best one, which is taken from studies/answer_choices.json. Bases 8 to 15 and 16 to 23 are two
studies of their own; what they came to is in docs/results.md. Every cell has a seed of its own: where bases
share their secrets and random numbers, their runs are late or early together, and intervals over bases are
too narrow. So they were in a first run, with one seed for all: it came to the same four verdicts, and is left
out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml
from ship_answer import keep, with_cells

from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.analysis.protocol import load_protocol
from memory_rl.analysis.study_numbers import BEST, DEFAULT
from memory_rl.catalogue import learner_name
from memory_rl.config import TINY
from memory_rl.errors import ConfigError, MemoryRLError
from memory_rl.experiment import make_experiment
from memory_rl.experiments.sweep import make_plan
from memory_rl.files import Json

FOLDER = Path(__file__).parent
PLAN = FOLDER / "answer-again.yaml"
BASES = [*range(8, 24)]
DECIDING, LARGEST = ("sft", "binary", "multi_step"), 1024
_HEAD = (
    "# Made by `python studies/answer_again.py plan` from what the contests chose, before its first run.\n"
)


def plan() -> str:
    """The protocol, as YAML."""
    protocol = {
        "name": "answer-again",
        "description": "The conditions of protocol=answer that decide, on other bases and secrets.",
        "minimum_runs": 64,
        "seeds": "independent",
        "grid": [{**entry, "base_seed": BASES, "num_runs": 16} for entry in entries()],
        "hypotheses": [],
    }
    return _HEAD + yaml.safe_dump(protocol, sort_keys=False, width=110)


def entries() -> Iterator[Json]:
    """Each deciding condition at each N: as the package has it, and with what was chosen."""
    for entry in load_protocol("answer").grid:
        if "tune" in entry or "reward_noise" in entry:
            continue
        one = {key: value for key, value in entry.items() if key not in ("base_seed", "num_runs")}
        one |= {"credit": "step"} if "credit" in one else {}
        for size in one["N"] if isinstance(one["N"], list) else [one["N"]]:
            condition = _condition({**one, "N": size})
            if condition in DECIDING and size <= LARGEST:
                yield {**one, "N": size}
                yield {**one, "N": size, **chosen(condition, size)}


def _condition(entry: Json) -> str:
    keys = {key: value[0] if isinstance(value, list) else value for key, value in entry.items()}
    return make_experiment(keys, keys.pop("command")).condition


def chosen(condition: str, N: int) -> Json:
    """The keys of the learner that won a contest on the built-in model."""
    one = _choice(condition, N)
    learners = {learner_name(keys): keys for keys in (load_protocol("answer").tune or {})["learners"]}
    groups = {"group_size": one["group_size"]} if one["group_size"] else {}
    return {**learners.get(one["learner"], {}), **groups, "learning_rate": one["learning_rate"]}


def _choice(condition: str, N: int) -> Json:
    choices = json.loads((FOLDER / "answer_choices.json").read_text(encoding="utf-8"))
    (one,) = (choice for choice in choices if _place(choice) == (condition, N, TINY))
    return dict(one)


def _place(choice: Json) -> tuple[str, int, str]:
    return choice["condition"], choice["N"], choice["settings"].get("model_name", TINY)


def measured(places: list[str]) -> list[Cell]:
    """The cells of the plan that these places have.

    Raises:
        ConfigError: if they have another one.
    """
    planned, cells = {cell.id for cell in make_plan([f"protocol={PLAN}"]).cells}, find_cells(places)
    for cell in cells:
        if cell.path.name not in planned:
            raise ConfigError(f"{cell.path} is no cell of {PLAN}: give the directory of that sweep alone.")
    return cells


def with_role(cell: Cell) -> Cell:
    """The cell as one of the best learner, if it has that, or else of the default one."""
    best, keys = _choice(cell.condition, cell.settings["N"]), cell.settings
    has_it = (best["learner"], best["learning_rate"]) == (learner_name(keys), keys["learning_rate"])
    config = {**cell.config, "role": BEST if has_it else DEFAULT}
    return replace(cell, manifest={**cell.manifest, "config": config})


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["plan"]:
            PLAN.write_text(plan(), encoding="utf-8")
        case ["ship", *places] if places:
            try:
                table = FOLDER / "answer_again.parquet"
                keep(with_cells(table, map(with_role, measured(places))), table)
            except MemoryRLError as error:
                sys.exit(str(error))
        case _:
            sys.exit("type python studies/answer_again.py plan, or ship and the directory of its sweep")
