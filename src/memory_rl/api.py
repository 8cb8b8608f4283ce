"""The commands as functions, for notebooks and for the command line alike.

What needs PyTorch is imported when work starts, so that a mistyped key is reported at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from memory_rl.catalogue import bounds_keys as bounds_keys
from memory_rl.catalogue import experiment_keys
from memory_rl.config import (
    Keep,
    PolicySettings,
    Secrets,
    Signal,
    Stop,
    Threshold,
    Updates,
    World,
)
from memory_rl.experiment import Experiment, make_experiment
from memory_rl.files import as_path
from memory_rl.key_files import KeyFile, with_file
from memory_rl.keys import fill, key, keys_of, make, path_key, read
from memory_rl.learning.learners import LearnerKeys
from memory_rl.limits import SIZES
from memory_rl.reporting.settings import (
    AuditConfig,
    CompareConfig,
    ReportConfig,
)

if TYPE_CHECKING:
    import polars as pl

    from memory_rl.analysis.comparison import Reference
    from memory_rl.reporting.audit import Audit
    from memory_rl.reporting.comparison import RateComparison
    from memory_rl.reporting.group_plan import GroupPlan
    from memory_rl.reporting.planning import RunPlan
    from memory_rl.result import Result
    from memory_rl.training.ceilings import Ceilings

Keys = ParamSpec("Keys")
Given = TypeVar("Given")

_QUIET: dict[str, Any] = {"quiet": True}  # a function prints nothing unless it is asked to


@dataclass(frozen=True, kw_only=True)
class DataFiles(World):
    """Labelled examples for supervised learning, as chat messages."""

    num_train: int = key(1000, "Lines of train.jsonl.", SIZES)
    num_test: int = key(200, "Lines of test.jsonl.", SIZES)
    data_dir: str = path_key("data", "The folder that gets a folder for this N and secret.")
    quiet: bool = key(False, "Print nothing.")


@dataclass(frozen=True, kw_only=True)
class _DataKeys(KeyFile, DataFiles):
    """What `generate_sft_data` takes."""


@dataclass(frozen=True, kw_only=True)
class _AllKeys(KeyFile, Keep, Stop, LearnerKeys, Updates, PolicySettings, Signal, Secrets):
    """What `train` takes, for type checkers and `help`."""


@dataclass(frozen=True, kw_only=True)
class _BoundsKeys(KeyFile, Threshold, Signal, World):
    """What `bounds` takes."""


def _takes(kind: Callable[Keys, Any]) -> Callable[[Callable[..., Given]], Callable[Keys, Given]]:
    """Gives a function the keys of a class, for type checkers, `inspect.signature` and `help` alike."""

    def typed(function: Callable[..., Given]) -> Callable[Keys, Given]:
        listed = (
            one.replace(default=_QUIET.get(one.name, one.default))
            for one in inspect.signature(kind).parameters.values()
        )
        signature = inspect.signature(function).replace(parameters=[*listed])
        function.__signature__ = signature  # type: ignore[attr-defined]
        known = {one.name: one.metadata.get("doc") for one in fields(kind)}  # type: ignore[arg-type]
        meanings = (f"    {word}: {doc or experiment_keys()[word].doc}" for word, doc in known.items())
        function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *meanings])
        return function

    return typed


@_takes(_AllKeys)
def train(**keys: Any) -> Result:
    """Runs reinforcement learning and returns what was measured.

    Nothing is printed unless quiet=False is given.

    Raises:
        MemoryRLError: one sentence about a key, a value, a model or a directory, before any work is done.
    """
    return run(make_experiment({**_QUIET, **keys}))


@_takes(_AllKeys)
def sft(**keys: Any) -> Result:
    """Runs supervised learning and returns what was measured.

    Nothing is printed unless quiet=False is given. With fixed_secret the examples are those that
    `generate_sft_data` wrote; without it each run is shown its own secret.

    Raises:
        MemoryRLError: one sentence about a key, a value, a model, the data or a directory, before any work is
            done.
    """
    return run(make_experiment({**_QUIET, **keys}, "sft"))


def run(experiment: Experiment) -> Result:
    """Runs an experiment that was made from its parts.

    Raises:
        MemoryRLError: if it cannot start. Once it has started, whatever stops it is noted in the manifest,
            and what was measured is kept.
    """
    from memory_rl.execution import run_experiment

    return run_experiment(experiment)


@_takes(_DataKeys)
def generate_sft_data(**keys: Any) -> Path:
    """Writes train.jsonl and test.jsonl for one secret and returns their folder.

    The secret is drawn from the seed unless fixed_secret is given.

    Raises:
        MemoryRLError: one sentence about a key, a value or the folder.
    """
    return write_sft_data(data_files({**_QUIET, **keys}, typed=True))


def data_files(given: Mapping[str, Any], *, typed: bool) -> DataFiles:
    """What is to be written, from its keys, given as Python values or as texts."""
    keys = keys_of(DataFiles)
    return fill(DataFiles, read(keys, with_file(given, keys, {}), typed=typed))


def write_sft_data(files: DataFiles) -> Path:
    """Writes train.jsonl and test.jsonl as their keys ask, and returns their folder."""
    from memory_rl.task import (
        TEST,
        TRAIN,
        examples_directory,
        make_environment,
        secrets_of_run,
        write_examples,
    )

    environment, (secret,) = make_environment(files, Signal()), secrets_of_run(files)
    folder = examples_directory(files.data_dir, environment, secret)
    write_examples(folder / TRAIN, environment, secret, files.num_train)
    write_examples(folder / TEST, environment, secret, files.num_test)
    return folder


@_takes(_BoundsKeys)
def bounds(**keys: Any) -> Ceilings:
    """The ceilings of a reward channel, without training anything.

    Raises:
        MemoryRLError: one sentence about a key, a value or a reward.
    """
    from memory_rl.condition import condition_of
    from memory_rl.reporting.notebook import NamedCeilings

    found = condition_of(keys, typed=True)
    name = found.signal.condition(found.world)
    return NamedCeilings(
        **vars(found.ceilings), condition=name, N=found.world.N, memorised_at=found.memorised_at
    )


@_takes(ReportConfig)
def report(**keys: Any) -> Path:
    """Writes the report on run directories and returns the path of its page; see docs/report.md.

    Raises:
        MemoryRLError: one sentence about a key, a folder or a run directory.
    """
    from memory_rl.reporting.watch import make_report

    return make_report(make(ReportConfig, {**_QUIET, **keys}))


def compare(runs: Sequence[str | Path | Result], to: Reference = "best") -> RateComparison:
    """Compares conditions by their bits per episode: ratios with intervals, log-rank tests, ranked.

    Args:
        runs: run directories, cells of sweeps, folders that hold some, or results; two conditions or more.
            Within a folder, runs that differ in their seed alone are one condition.
        to: what they are compared with: the fastest, or the first of them.

    Returns:
        `sentence` says what came out, `warnings` what is not alike, `frame` has a row per condition.

    Raises:
        MemoryRLError: one sentence about a path, or if there is nothing to compare.
    """
    from memory_rl.reporting.comparison import compare_paths

    return compare_paths(_paths_or_cells(runs), make(CompareConfig, {"to": to}).to)


def _paths_or_cells(runs: Any) -> list[Any]:
    """Paths, and what is there of results, one by one; whatever else is given as it is."""
    several = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    return [getattr(one, "cell", one) for one in several]


def plan(
    runs: str | Path | Result | Audit | Sequence[str | Path | Result] | None = None,
    ratio: float | None = None,
    power: float | None = None,
    alpha: float | None = None,
    **keys: Any,
) -> RunPlan | GroupPlan:
    """What an experiment needs, before it is run; see docs/plan.md.

    Of a pilot: how many runs tell two rates apart, or give one an interval of some width. Of pass rates, or
    of an audit: which groups carry a signal, bits a rollout and a dollar, the first hit. Of a condition
    (N=64 and other keys of `bounds`): ceilings, episodes and groups.

    Args:
        runs: the pilot: run directories, a sweep, folders that hold some, or results; or an audit.
        ratio: of the faster rate to the slower one, that is to be seen; above 1. Default: 1.5.
        power: the chance that it is seen. Default: 0.8.
        alpha: the chance that two equal rates are told apart, in either direction. Default: 0.05.
        keys: width for a pilot; p, group_size, groups, tokens, price and out for pass rates; N and the other
            keys of `bounds`, group_size, tokens, price and out for a condition.

    Returns:
        `sentences` say what came out, `notes` what is assumed, `frame` has a row per condition of a pilot,
            size of groups, or milestone; a `GroupPlan` has `plot()`, too.

    Raises:
        MemoryRLError: one sentence about a key or a path, or if there is nothing to plan from.
    """
    from memory_rl.plans import make_plan

    demand = {"ratio": ratio, "power": power, "alpha": alpha}
    given = {word: value for word, value in demand.items() if value is not None} | keys
    if isinstance(given.get("p"), Path):
        given["p"] = str(given["p"])
    several = [] if runs is None else _paths_or_cells(runs)
    return make_plan(several, given, typed=True)


def audit(
    path: str | Path,
    *,
    step: str | None = None,
    group: str | None = None,
    prompt: str | None = None,
    reward: str | None = None,
    tokens: str | None = None,
    group_size: int | None = None,
    stretches: int = 10,
    out: str | None = None,
) -> Audit:
    """What the rollouts of a real run could tell: bits delivered, silent groups; see docs/audit.md.

    Args:
        path: a folder or a file that TRL, the Tinker cookbook, verl or prime-rl wrote, or any CSV, JSON Lines
            or Parquet file.
        step: the column of the training step, in other files than those of trainers.
        group: the column that tells the groups of a step apart.
        prompt: the column of prompts.
        reward: the column of rewards.
        tokens: the column with the number of sampled tokens.
        group_size: rewards of a group, where those of a prompt in one step are several groups.
        stretches: in how many stretches training is looked at.
        out: the folder for audit.json, stretches.csv and a page.

    Returns:
        `sentences` say what came out, `notes` what limits it; `delivered_bits_per_rollout`, `silent_groups`,
            `frame` with a row per stretch, and `as_dict()` hold the numbers.

    Raises:
        MemoryRLError: one sentence about a key, or about what the path holds.
    """
    from memory_rl.reporting.audit import audit_path

    columns = {"step": step, "group": group, "prompt": prompt, "reward": reward, "tokens": tokens}
    config = make(AuditConfig, {**columns, "group_size": group_size, "stretches": stretches, "out": out})
    return audit_path(as_path(path), config)


def list_runs(*folders: str | Path, sort: str | None = None, cells: bool = False) -> pl.DataFrame:
    """Lists runs and sweeps: how each ended, when, and what came out; one row each, the newest first.

    Args:
        folders: run directories, sweeps, or folders that hold some; none for runs and sweeps.
        sort: a column, or a key of the runs such as "learning_rate"; a minus before it turns the order round.
        cells: whether all cells of sweeps have rows; else a sweep has one, unless it is given itself.

    Returns:
        The columns path, kind, name, N, ended (finished, running, interrupted, killed, failed, diverged or
            damaged), runs, memorised, bits_per_episode and median_episodes with their intervals, cells and
            complete (of a sweep), started, updated (UTC), seconds (of training), why.

    Raises:
        MemoryRLError: one sentence about a folder, or about what it is to be sorted by.
    """
    from memory_rl.reporting.listing import list_folders

    return list_folders(folders, sort, cells=cells)
