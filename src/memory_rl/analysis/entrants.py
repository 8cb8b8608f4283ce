"""Who entered which task: the cells of a study as one row per run, by learner and task, for a ranking."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.samples import BOOKKEEPING, Sample, gather
from memory_rl.catalogue import experiment_keys, learner_keys
from memory_rl.files import Json

RUNS: dict[str, Any] = {
    "learner": pl.String,
    "task": pl.String,
    "base": pl.Int64,
    "seed": pl.Int64,
    "learning_rate": pl.Float64,
    "run": pl.Int64,
    "episodes": pl.Int64,
    "memorised": pl.Boolean,
    "information": pl.Float64,
    "ceiling": pl.Float64,
    "by_questioner": pl.Boolean,
    "observer": pl.Float64,
}
"""One row per run.

learner, task: JSON of their keys that differ from their defaults. base: `base_seed`, null where there is no
base of a seed. episodes: to memorise, or those that the run had, which is its budget, where it has not
`memorised`. information: bits of a run that memorised. ceiling: bits an episode, of the ideal questioner or
else the channel's capacity; null for runs that diverged. observer: bits an episode of the ideal observers of
the run's cell, null without a ledger.
"""

_HOW = ("skip_ahead", "scoring")  # how it was computed
_SAID = (
    "kind",
    "condition",
    "N",
    "signal",
    "env_type",
    "reward_type",
    "reward_bins",
    "reward_noise",
    "credit",
)
_NOT_OF_TASK = {*BOOKKEEPING, *_HOW, "learning_rate", "base_seed"}


def runs_of(cells: Iterable[Cell]) -> pl.DataFrame:
    """The runs of all cells with a learner, completed or diverged, with the columns of `RUNS`.

    A run that diverged counts as one that has not memorised within its budget. Of two cells that differ in
    `num_runs` alone the larger one counts. Where a learner was run at several learning rates on the same
    secrets, the rate is one of its keys: the best of them on these secrets would be too good.
    """
    entered = [cell for cell in cells if "algorithm" in cell.settings and _ended(cell)]
    entered = [cell for sample in gather(entered) for cell in sample.cells]
    by_rate = _several_rates(entered)
    frames = [_runs_of(cell, by_rate) for cell in entered]
    return pl.concat(frames) if frames else pl.DataFrame(schema=RUNS)


def _ended(cell: Cell) -> bool:
    return cell.completed or (cell.manifest["status"] == "failed" and "diverged at" in cell.ended)


def _several_rates(cells: Sequence[Cell]) -> bool:
    keys = [(learner_of(cell), task_of(cell), *_stratum(cell)) for cell in cells]
    return len(set(keys)) < len(keys)


def _stratum(cell: Cell) -> tuple[int | None, int]:
    return cell.settings.get("base_seed"), cell.config["seed"]


def _runs_of(cell: Cell, by_rate: bool) -> pl.DataFrame:
    base, seed = _stratum(cell)
    rate, budget = cell.settings["learning_rate"], cell.settings["max_episodes"]
    about = {
        "learner": learner_of(cell, {"learning_rate": rate} if by_rate else {}),
        "task": task_of(cell),
        "base": base,
        "seed": seed,
        "learning_rate": rate,
        "information": cell.information,
        **_reference(cell),
    }
    runs = cell.config["num_runs"]
    episodes = cell.times.episodes if cell.completed else np.full(runs, budget)
    memorised = cell.times.memorised if cell.completed else np.zeros(runs, bool)
    of_runs = {"run": np.arange(len(episodes)), "episodes": episodes, "memorised": memorised}
    frame = pl.DataFrame(of_runs).with_columns(
        pl.lit(value, dtype=RUNS[name]).alias(name) for name, value in about.items()
    )
    return frame.select(pl.col(name).cast(kind) for name, kind in RUNS.items())


def _reference(cell: Cell) -> Json:
    """What the runs of a cell are compared with."""
    if not cell.completed:
        return {"ceiling": None, "by_questioner": None, "observer": None}
    ceilings = Sample((cell,)).ceilings
    asker = ceilings.get("ideal questioner")
    observer = cell.summary.get("rates", {}).get("observer", {}).get("estimate")
    return {
        "ceiling": ceilings["capacity"] if asker is None else asker,
        "by_questioner": asker is not None,
        "observer": observer,
    }


def learner_of(cell: Cell, more: Json | None = None) -> str:
    """The algorithm, those of its settings that differ from their defaults, and the hashes of its code."""
    chosen = _chosen(cell, cell.settings.keys() & learner_keys()) | {"algorithm": cell.settings["algorithm"]}
    code = cell.settings.get("inputs", {}).get("algorithm")
    return _as_json({**chosen, **(more or {}), **({"inputs": code} if code else {})})


def task_of(cell: Cell) -> str:
    """All other keys that determine what is measured and differ from their defaults; not which base."""
    chosen = _chosen(cell, cell.settings.keys() - learner_keys() - _NOT_OF_TASK)
    read = {key: value for key, value in chosen.pop("inputs", {}).items() if key != "algorithm"}
    said = {key: cell.settings[key] for key in ("condition", "N", "max_episodes")}
    return _as_json({**chosen, **said, **({"inputs": read} if read else {})})


def _chosen(cell: Cell, words: AbstractSet[str]) -> Json:
    """Those of its settings under these words that differ from their defaults."""
    keys, given = experiment_keys(), {word: cell.settings[word] for word in words}
    return {word: value for word, value in given.items() if word not in keys or value != keys[word].default}


def _as_json(settings: Json) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


def names_of_learners(ids: Sequence[str]) -> dict[str, str]:
    """The algorithm of each, and those of its settings that differ from their defaults, as typed.

    A user's own goes by the name of its class, with its file where two have the same.
    """
    found = {one: json.loads(one) for one in ids}
    return _told_apart(
        {one: _name(keys, keys["algorithm"].rpartition(":")[2]) for one, keys in found.items()},
        {one: _name(keys, keys["algorithm"]) for one, keys in found.items()},
    )


def _name(keys: Json, first: str) -> str:
    rest = (f"{word}={_short(value)}" for word, value in keys.items() if word not in ("algorithm", "inputs"))
    return " ".join([first, *rest])


def names_of_tasks(ids: Sequence[str]) -> dict[str, str]:
    """The condition and N of each, and what else sets it apart from the others."""
    found = {one: json.loads(one) for one in ids}
    varying = [
        word for word in _words(found.values()) if len({str(one.get(word)) for one in found.values()}) > 1
    ]
    short = {
        one: _task_name(keys, [word for word in varying if word != "max_episodes"])
        for one, keys in found.items()
    }
    return _told_apart(short, {one: _task_name(keys, varying) for one, keys in found.items()})


def _words(settings: Iterable[Json]) -> Iterator[str]:
    """All keys of these in the order of the catalogue, without those that a condition's name says."""
    there = {word for one in settings for word in one}
    yield from (word for word in experiment_keys() if word in there and word not in _SAID)


def _task_name(keys: Json, words: Sequence[str]) -> str:
    more = (f"{word}={_short(keys[word])}" for word in words if word in keys)
    return " ".join([keys["condition"], f"N={keys['N']}", *more])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _told_apart(short: dict[str, str], long: dict[str, str]) -> dict[str, str]:
    """The short name of each, the long one where others have the same, and a number where even that fails."""
    found = dict[str, str]()
    for one, name in short.items():
        name = name if list(short.values()).count(name) == 1 else long[one]
        twice = sum(other == name or other.startswith(f"{name} (") for other in found.values())
        found[one] = f"{name} ({twice + 1})" if twice else name
    return found
