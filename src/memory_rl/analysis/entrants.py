"""Who entered which task: the cells of a study as one row per run, by learner and task, for a ranking."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from memory_rl.analysis.collect import Cell
from memory_rl.analysis.samples import BOOKKEEPING, Sample
from memory_rl.catalogue import experiment_keys, learner_keys, learner_name
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

    A run that diverged counts as one that has not memorised within its budget. Of two cells of one learner,
    task, base, seed and learning rate the larger one counts: its runs are those of the other and more. Where
    a learner was run at several learning rates on the same secrets, the rate is one of its keys: the best of
    them on these secrets would be too good.
    """
    entered = dict[tuple[Any, ...], Cell]()
    for cell in filter(has_runs, cells):
        key = (learner_of(cell), task_of(cell), *_stratum(cell), cell.settings["learning_rate"])
        if key not in entered or entered[key].config["num_runs"] < cell.config["num_runs"]:
            entered[key] = cell
    counts = Counter(key[:-1] for key in entered)  # of rates
    by_rate = {learner for (learner, *_), count in counts.items() if count > 1}
    frames = [_runs_of(cell, key[0] in by_rate) for key, cell in entered.items()]
    return pl.concat(frames) if frames else pl.DataFrame(schema=RUNS)


def has_runs(cell: Cell) -> bool:
    """Whether a cell has a learner and came to its end, were it that a run diverged."""
    diverged = cell.manifest["status"] == "failed" and "diverged at" in cell.ended
    return "algorithm" in cell.settings and (cell.completed or diverged)


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
    """The algorithm, those of its settings that differ from their defaults, and the hashes of its code.

    A user's own goes by the name of its file, wherever that lies: the hashes say what is in it.
    """
    file, colon, name = str(cell.settings["algorithm"]).rpartition(":")
    chosen = _chosen(cell, cell.settings.keys() & learner_keys())
    chosen["algorithm"] = f"{Path(file).name}{colon}{name}"
    code = cell.settings.get("inputs", {}).get("algorithm")
    return _as_json({**chosen, **(more or {}), **({"inputs": code} if code else {})})


def without_rate(learner: str) -> str:
    """The id of a learner that was run at several rates, without the rate."""
    return _as_json({word: value for word, value in json.loads(learner).items() if word != "learning_rate"})


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
    """What `learner_name` calls each, with its rate where that is a key of it.

    A user's own goes by the name of its class, with its file where others have the same, and with the first
    digits of the hash of its code where it has several versions.
    """
    found = {one: json.loads(one) for one in ids}
    return _told_apart(
        {one: _with_rate(learner_name(keys, short=True), keys) for one, keys in found.items()},
        {one: _with_rate(learner_name(keys), keys) for one, keys in found.items()},
        {one: _with_rate(f"{learner_name(keys)} ({_digest(keys)})", keys) for one, keys in found.items()},
    )


def _with_rate(name: str, keys: Json) -> str:
    return f"{name} learning_rate={_short(keys['learning_rate'])}" if "learning_rate" in keys else name


def _digest(keys: Json) -> str:
    """Seven digits: of the hash of its own file if that is all of its code, else of the hash of all."""
    hashes = [digest for kind in keys.get("inputs", {}).values() for digest in kind.values()]
    text = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()
    return text[:7]


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


def _told_apart(*names: Mapping[str, str]) -> dict[str, str]:
    """Of the names of each, ever longer ones, the first that no other has, or else the last and a number."""
    found = dict[str, str]()
    for one in names[0]:
        own = (named[one] for named in names if [*named.values()].count(named[one]) == 1)
        name = next(own, names[-1][one])
        twice = sum(other == name or other.startswith(f"{name} (") for other in found.values())
        found[one] = f"{name} ({twice + 1})" if twice else name
    return found
