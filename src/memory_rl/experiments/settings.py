"""The keys of a sweep itself, and how its arguments part into these and the axes of its grid."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from memory_rl.catalogue import KEEP, OF_ONE_RUN, experiment_keys
from memory_rl.errors import ConfigError, require, suggest
from memory_rl.files import Json
from memory_rl.key_files import with_file
from memory_rl.keys import (
    Key,
    accept,
    fill,
    key,
    keys_of,
    name_or_path,
    parse,
    path_key,
    read,
    read_selection,
    shown,
    split_words,
)
from memory_rl.limits import RUNS, SEEDS

TUNING_SEED = 1_000_000

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The candidates of a tuning, as multiples of the rate that a condition has without it."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A grid of experiments.

    Beside these keys every key of train and sft-train is an axis: values with commas between them.
    """

    protocol: str | None = name_or_path(
        None, "The name of a shipped protocol, such as quick, or the path of one: fixes the grid."
    )
    learners: str | None = key(
        None,
        "Of a protocol with learners: run these in place of its own, names or your own as file.py:Name, with "
        "commas between them.",
    )
    grid: str | None = path_key(
        None,
        "A YAML file with a grid: a list of entries, each with command: train or sft and keys, a list "
        "being an axis.",
    )
    conditions: str | None = key(
        None,
        "Of a grid on the command line: any of sft, binary, log_distance, binned_log_distance, multi_step, "
        "sft_multi_step, teacher, teacher_multi_step, file.py:Name.",
    )
    log_path: str | None = name_or_path(
        None, "The sweep's directory, or any URL that fsspec can write. Default: a new one under sweeps/."
    )
    known: str | None = key(
        None,
        "Tables of cells that were measured elsewhere, such as studies/answer.parquet, with commas between "
        "them: these cells are not run again, and of those in a tuning in rounds it is known how they did.",
    )
    executor: Literal["inline", "processes", "ray"] = key(
        "inline", "Where cells run: in this process, in local ones, or on a Ray cluster."
    )
    workers: int | None = key(
        None,
        "Processes at once (executor=processes, or ray without an address). Default: one per CPU core.",
        (1, 1024),
        needs="executor=processes,ray",
    )
    ray_address: str | None = key(
        None,
        "Of a running Ray cluster, such as auto or host:6379. Default: RAY_ADDRESS, which a job of ray job "
        "submit has; or else the one that ray start has started on this machine, or one of the sweep's own.",
        needs="executor=ray",
    )
    retries: int = key(3, "How often a cell is started again after its worker was lost.", (0, 1000))
    dry_run: bool = key(False, "List the cells with estimated episodes and time, and run nothing.")
    tune: bool = key(
        False,
        "Choose the learning rate of each condition and N on secrets of their own, then report on fresh "
        "ones.",
    )
    tune_rates: str | None = key(
        None,
        "The candidates, with commas between them. Default: 0.1, 0.3, 1, 3 and 10 times the rate that the "
        "condition has without tuning.",
        needs="tune=True",
    )
    tune_seed: int = key(
        TUNING_SEED,
        "The seed of the tuning secrets; none of the reported seeds.",
        SEEDS,
        needs="tune=True",
    )
    tune_runs: int | None = key(
        None, "Runs of each candidate. Default: as many as the cell has.", RUNS, needs="tune=True"
    )
    quiet: bool = key(False, "Print nothing but what failed.")

    def __post_init__(self) -> None:
        if self.protocol is not None and self.grid is not None:
            raise ConfigError(f"{self.fixed_by} and grid={self.grid} are two grids: give one of them.")
        if self.fixed_by and self.conditions is not None:
            raise ConfigError(
                f"conditions={self.conditions} has no meaning with {self.fixed_by}, which lists its own: "
                "leave one of them out."
            )
        if self.protocol is not None and self.tune:
            raise ConfigError(
                f"tune=True cannot be added to {self.fixed_by}, which fixes its tuning: "
                "copy the protocol and set tune there."
            )
        if self.executor == "ray":
            require("ray", "ray", "executor=ray")
            self._check_cluster()
        self.tuning  # noqa: B018  # raises if a value is bad

    @property
    def cluster(self) -> tuple[str, str | None]:
        """Where the address of a Ray cluster comes from, and the address; None leaves it to Ray."""
        told = os.environ.get("RAY_ADDRESS")
        if told and self.ray_address in (None, "auto"):  # as Ray's own programs read it
            return "RAY_ADDRESS", told
        return "ray_address", self.ray_address

    def _check_cluster(self) -> None:
        word, address = self.cluster
        if address is None:
            return
        if "://" in address:  # of a Ray Client, or where jobs are submitted
            raise ConfigError(
                f"{word}={address} is not the address of a cluster's machines: type this command on one of "
                "them or with ray job submit, and give ray_address=host:6379, or auto."
            )
        if self.workers is not None and address != "local":
            raise ConfigError(
                f"workers={self.workers} has no meaning with {word}={address}, whose nodes say what they can "
                "do: leave workers out, or give ray_address=local for a cluster of its own."
            )

    @property
    def fixed_by(self) -> str | None:
        """The argument that fixes the cells, if one does."""
        given = {word: getattr(self, word) for word in ("protocol", "grid")}
        return next((f"{word}={value}" for word, value in given.items() if value is not None), None)

    @property
    def tuning(self) -> Tuning | None:
        """How rates are chosen, or None where they are given."""
        values = {"rates": self.tune_rates, "seed": self.tune_seed, "num_runs": self.tune_runs}
        return read_tuning(values, "tune_") if self.tune else None


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How learning rates are chosen; rates and factors are kept ascending."""

    rates: Any = key(None, "The candidates. Default: multiples of each condition's own rate.")
    factors: Any = key(None, "These multiples.")
    seed: int = key(TUNING_SEED, "Of the tuning secrets.", SEEDS)
    num_runs: int | None = key(None, "Of each candidate. Default: as many as the cell has.", RUNS)
    together: Any = key(
        None,
        "Keys: cells that differ in them alone, beside seed and runs, share one rate, chosen on one of them.",
    )
    chosen_on: Any = key(
        None,
        "Selections (keys with a value, or a list of values): that one is the first cell that fits the first "
        "of these that any cell fits. If none does, it is the middle one.",
    )

    def __post_init__(self) -> None:
        if self.rates is not None and self.factors is not None:
            raise ConfigError(
                f"factors={shown(self.factors)} has no meaning with rates={shown(self.rates)}: "
                "leave one of them out."
            )
        for name in ("rates", "factors"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else _ascending(name, given))
        self._check_list("together", str, "keys", "[num_secrets, batch_size]")
        self._check_list("chosen_on", dict, "selections", "[{num_secrets: 16, order: cycle}]")
        if self.chosen_on:
            selections = [read_selection(cell_keys(), selection) for selection in self.chosen_on]
            object.__setattr__(self, "chosen_on", selections)
        if self.chosen_on and not self.together:
            raise ConfigError(
                f"chosen_on={shown(self.chosen_on)} has no meaning where each cell is tuned by itself: "
                "add together, or leave chosen_on out."
            )

    def _check_list(self, name: str, kind: type[Any], things: str, example: str) -> None:
        given = getattr(self, name)
        if given is None:
            return
        if (
            not isinstance(given, list)
            or not given
            or not all(isinstance(one, kind) and one for one in given)
        ):
            raise ConfigError(
                f"{name}={shown(given)} is not a list of {things}: give one or more, such as {example}."
            )
        for word in given if kind is str else [word for selection in given for word in selection]:
            if word not in cell_keys():
                raise ConfigError(
                    f"{name} has {word}, which is no key of a cell: {suggest(str(word), cell_keys())}"
                )


def read_tuning(values: Json, prefix: str = "tune: ") -> Tuning:
    """The tuning of a protocol, a grid file or the command line.

    Args:
        values: keys of `Tuning`.
        prefix: what the keys are called by.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
    """
    try:
        return fill(Tuning, read(keys_of(Tuning), values, typed=False))
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def _ascending(name: str, given: Any) -> tuple[float, ...]:
    pieces = given.split(",") if isinstance(given, str) else given
    pieces = list(pieces) if isinstance(pieces, list | tuple) else [pieces]
    try:
        numbers = {accept(experiment_keys()["learning_rate"], piece) for piece in pieces}
    except ConfigError:
        numbers = set()
    if len(numbers) < 2 or None in numbers:
        raise ConfigError(
            f"{name}={','.join(map(shown, pieces))} is not a choice of positive numbers: "
            "give two or more, such as 0.0003,0.001,0.003."
        )
    return tuple(sorted(numbers))


def cell_keys() -> dict[str, Key]:
    """The keys that a cell may have."""
    return {word: one for word, one in experiment_keys().items() if word not in OF_ONE_RUN}


def read_file(words: Sequence[str]) -> tuple[list[str], set[str]]:
    """The arguments with those of the file that `config=` names, and which keys only the file gives.

    Raises:
        ConfigError: about the file, or if there is another grid.
    """
    if not any(word.startswith("config=") for word in words):
        return [*words], set()
    given = split_words(words)
    grid = next((word for word in ("protocol", "grid") if word in given), None)
    if grid is not None:
        raise ConfigError(
            f"config={given['config']} has no meaning with {grid}={given[grid]}, which fixes its cells: "
            "leave one of them out."
        )
    merged = with_file(given, {**keys_of(SweepConfig), **cell_keys()}, {}, axes=True)
    said = {"signal", "env_type", "reward_type"} if "conditions" in given else set()
    texts = {word: text for word, text in merged.items() if word in given or word not in said}
    return [f"{word}={text}" for word, text in texts.items()], texts.keys() - given.keys()


def typed(words: Sequence[str], left_out: Container[str]) -> str:
    """The command line of a sweep without some keys, and without passwords."""
    kept = [word for word in words if word.partition("=")[0] not in left_out]
    return re.sub(r"://[^/@\s]*@", "://***@", shlex.join(["memory-rl", "sweep", *kept]))


def read_arguments(words: Sequence[str]) -> tuple[SweepConfig, dict[str, str]]:
    """Parts key=value arguments into the sweep's own keys and those of its cells, whose values stay texts.

    Raises:
        ConfigError: one sentence about the first argument that is not key=value, unknown, given twice or bad.
    """
    own, of_cells = keys_of(SweepConfig), cell_keys()
    for word, count in Counter(word.partition("=")[0] for word in words).items():
        if count > 1 and word in of_cells:
            raise ConfigError(f"{word} is given twice: give it once, with commas between its values.")
    texts = split_words(words)
    for word, text in texts.items():
        if word not in own and word not in of_cells:
            raise ConfigError(f"{word}={text} is not a known key: {suggest(word, [*own, *of_cells])}")
    config = parse(SweepConfig, [f"{word}={text}" for word, text in texts.items() if word in own])
    axes = {word: text for word, text in texts.items() if word not in own}
    for word, text in axes.items():
        if config.fixed_by and word not in KEEP and not (config.protocol and word == "backend"):
            raise cannot_be_added(word, text, config.fixed_by)
    return config, axes


def cannot_be_added(word: str, text: str, fixed_by: str) -> ConfigError:
    """The error about a key of the command line that would change a grid which is fixed."""
    return ConfigError(
        f"{word}={text} cannot be added to {fixed_by}, which fixes its cells: "
        f"copy that file and change {word} there."
    )
