"""The experiments as functions, for notebooks and for the command line alike: `train`, `sft`,
`generate_sft_data` and `load`.

What needs PyTorch is imported when work begins, so that a mistyped key is told at once.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memory_rl.config import (
    BoundsConfig,
    Experiment,
    SFTConfig,
    SFTDataConfig,
    TrainConfig,
    as_values,
    make_config,
    name_of,
)
from memory_rl.errors import LawBreachWarning, MemoryRLError, RunDirectoryError, TokensSpentError
from memory_rl.result import Result, load
from memory_rl.runs.checkpoint import Checkpoints
from memory_rl.runs.interruption import SignalsWait, sigterm_raises
from memory_rl.runs.manifest import SCHEMA, make_manifest, resumed, with_status
from memory_rl.runs.store import MANIFEST, USAGE, RunDirectory
from memory_rl.runs.trackers import Trackers
from memory_rl.seeding import generator

if TYPE_CHECKING:
    import polars as pl

    from memory_rl.policies.spending import Meter
    from memory_rl.task import Environment
    from memory_rl.training.ceilings import Ceilings
    from memory_rl.training.continuation import Continuation, FromCheckpoints
    from memory_rl.training.population import Population
    from memory_rl.training.recorder import Recorder


__all__ = [
    "bounds",
    "compute_bounds",
    "generate_sft_data",
    "ledger_from_episodes",
    "load",
    "run_experiment",
    "sft",
    "tell_limits",
    "train",
    "write_sft_data",
]


class NotStartedError(Exception):
    """Bad input that only shows once models are loaded; nothing has been measured yet."""

    def __init__(self, reason: MemoryRLError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def train(**settings: Any) -> Result:
    """Runs reinforcement learning and returns what was measured.

    Nothing is printed unless `quiet=False` is given.

    Args:
        settings: the keys of `TrainConfig`, such as env_type="single_step", N=64, reward_type="binary".

    Raises:
        MemoryRLError: one sentence about a key, a value, a model or a directory, before any work is done.
    """
    return run_experiment(make_config(TrainConfig, {"quiet": True, **settings}))


def sft(**settings: Any) -> Result:
    """Runs supervised learning and returns what was measured.

    With `fixed_secret` the examples are those that `generate_sft_data` wrote; without it each run is shown
    its own secret. Nothing is printed unless `quiet=False` is given.

    Args:
        settings: the keys of `SFTConfig`, such as N=64, fixed_secret=42.

    Raises:
        MemoryRLError: one sentence about a key, a value, a model, the data or a directory, before any work is
            done.
    """
    return run_experiment(make_config(SFTConfig, {"quiet": True, **settings}))


def generate_sft_data(**settings: Any) -> Path:
    """Writes train.jsonl and test.jsonl for one secret and returns their folder.

    Args:
        settings: the keys of `SFTDataConfig`, such as N=64, fixed_secret=42. Without fixed_secret one is
            drawn from the seed.

    Raises:
        MemoryRLError: one sentence about a key, a value or the folder.
    """
    return write_sft_data(make_config(SFTDataConfig, {"quiet": True, **settings}))


def bounds(**settings: Any) -> Ceilings:
    """The ceilings of a reward channel, without training anything.

    Args:
        settings: the keys of `BoundsConfig`, such as env_type="single_step", N=64, reward_type="binary".

    Raises:
        MemoryRLError: one sentence about a key, a value or a reward.
    """
    return compute_bounds(make_config(BoundsConfig, settings))


def ledger_from_episodes(path: str | Path) -> pl.DataFrame:
    """The ledger of every run after every episode, recomputed from the answers and rewards that a run
    directory holds.

    Args:
        path: a run directory.

    Returns:
        A row a run and episode; all bits are cumulative: asked_bits (expected information of the questions
        asked), asked_variance (squared bits), observer_bits (log2 N + log2 P(S) of an ideal observer).

    Raises:
        RunDirectoryError: if a file is missing or damaged.
    """
    from memory_rl.training import recompute

    return recompute.ledger_from_episodes(path)


def compute_bounds(config: BoundsConfig) -> Ceilings:
    """As `bounds`, from a configuration."""
    from memory_rl.training.ceilings import ceilings
    from memory_rl.training.environments import make_environment

    return ceilings(config, make_environment(config))


def tell_limits(config: Experiment | BoundsConfig, limits: Ceilings) -> None:
    """Prints the ceilings, and what the channel cannot teach."""
    from memory_rl.reporting.terminal import ceilings_table, show
    from memory_rl.training.ceilings import warnings_about
    from memory_rl.training.sampling import why_not_skip

    show(ceilings_table(config.condition, config.N, config.memorised_at, limits.as_dict()))
    notes = list(warnings_about(limits, config.N))
    if isinstance(config, TrainConfig) and config.skip_ahead and (reason := why_not_skip(config)):
        notes.append(f"no silent updates are skipped: {reason}.")
    for sentence in notes:
        print(f"note: {sentence}")  # noqa: T201  # asked for with quiet=False


def _tell_device(population: Population) -> None:
    if "device" in population.about:
        print(f"device: the model computes on {population.about['device']} in {population.about['dtype']}.")  # noqa: T201  # asked for with quiet=False


def write_sft_data(config: SFTDataConfig) -> Path:
    """As `generate_sft_data`, from a configuration."""
    from memory_rl.task import TEST, TRAIN, examples_directory, write_examples
    from memory_rl.training.environments import make_environment

    environment = make_environment(config)
    secret = (
        config.fixed_secret
        if config.fixed_secret is not None
        else environment.space.draw(generator(config.seed, "secrets", 0))
    )
    folder = examples_directory(config.data_dir, environment, secret)
    write_examples(folder / TRAIN, environment, secret, config.num_train)
    write_examples(folder / TEST, environment, secret, config.num_test)
    return folder


def run_experiment(config: Experiment) -> Result:
    """Runs one configuration from its first check to its figures.

    Raises:
        MemoryRLError: if it cannot start. Once it has started, whatever stops it is noted in the manifest,
            and what was measured is kept.
    """
    with Trackers(config) as trackers:
        result = _run(config, trackers)
        trackers.summarise(result.summary)
    return result


def _run(config: Experiment, trackers: Trackers) -> Result:
    from memory_rl.training.ceilings import ceilings
    from memory_rl.training.environments import make_environment, read_answers

    answers = read_answers(config) if isinstance(config, SFTConfig) else None
    environment = make_environment(config)
    limits = ceilings(config, environment)
    manifest = make_manifest(
        "train" if isinstance(config, TrainConfig) else "sft", config.condition, as_values(config)
    )
    with (
        sigterm_raises(),
        RunDirectory.claim(config.log_path, _slug(config), manifest, resume=config.resume) as directory,
    ):
        if directory.begun is None or directory.begun["status"] != "completed":
            _run_in(directory, manifest, Work(config, environment, limits, answers, trackers))
        elif not config.quiet:
            print(f"note: {directory.path} is complete already; nothing was run.")  # noqa: T201  # asked for with quiet=False
        return load(directory.path)


@dataclass(frozen=True)
class Work:
    """What is to be run.

    Attributes:
        config: the experiment.
        environment: its world.
        limits: its ceilings.
        answers: (D,) of the examples that supervised learning was given, if it was.
        trackers: who is to be told of it.
    """

    config: Experiment
    environment: Environment
    limits: Ceilings
    answers: np.ndarray | None
    trackers: Trackers


def _run_in(directory: RunDirectory, manifest: Mapping[str, Any], work: Work) -> None:
    """Runs it in a directory that was claimed, from its last checkpoint if it holds one; the manifest always
    tells how it stands.
    """
    from memory_rl.training.continuation import FromCheckpoints

    checkpoints, signals, begun = (
        Checkpoints(directory.path, work.config.checkpoint_seconds),
        SignalsWait(),
        directory.begun,
    )
    continuation = FromCheckpoints(checkpoints, signals)
    current = dict(manifest) if begun is None else resumed(begun, manifest)
    directory.write_json(MANIFEST, with_status(current, "running"))
    try:
        with _progress(work.config) as on_progress:
            about = _measure(work, directory, continuation, signals, on_progress)
    except NotStartedError as error:
        if begun is None:
            directory.discard()
        else:
            directory.write_json(MANIFEST, begun)
        raise error.reason from None
    except BaseException as error:
        _note_end(directory, current, error)
        raise
    directory.write_json(MANIFEST, with_status(current, "completed", **about))
    checkpoints.remove()


def _note_end(directory: RunDirectory, manifest: Mapping[str, Any], error: BaseException) -> None:
    """Notes what stopped it, even on a disk that has just become full: then at least the error itself is
    told.
    """
    interrupted = isinstance(error, KeyboardInterrupt)
    why = (
        (str(error) or "interrupted from the keyboard") if interrupted else f"{type(error).__name__}: {error}"
    )
    if interrupted:
        error.add_note(f"the same command with log_path={directory.path} resume=True goes on")
    with suppress(RunDirectoryError):
        directory.write_json(MANIFEST, with_status(manifest, "interrupted" if interrupted else "failed", why))


def _measure(
    work: Work,
    directory: RunDirectory,
    continuation: FromCheckpoints,
    signals: SignalsWait,
    on_progress: Callable[[Any], None] | None,
) -> dict[str, Any]:
    """Learns, and writes what was measured however the learning ends. Returns what the manifest tells of it,
    because it may differ from time to time.
    """
    from memory_rl.training.population import make_population
    from memory_rl.training.questions import make_bookkeeper
    from memory_rl.training.recorder import Recorder

    config, environment = work.config, work.environment
    try:
        population = make_population(config, environment)
        _keep_own_reward(config, environment, directory)
    except MemoryRLError as error:
        raise NotStartedError(error) from error
    if not config.quiet:
        _tell_device(population)
        tell_limits(config, work.limits)
        _tell_cost(population)
    if population.meter is not None:
        _keep_usage(population.meter, directory)
    work.trackers.start(directory, continuation.measured)
    recorder = Recorder(
        config,
        population.secrets,
        directory,
        on_progress,
        make_bookkeeper(config, environment) if config.ledger else None,
    )
    recorder.on_evaluation = work.trackers.record
    stopped, completed = None, False
    try:
        with signals:
            _learn(config, population, recorder, work.answers, continuation)
        completed = True
    except TokensSpentError as why:
        completed = True
        stopped = f"{why}: the runs that had not memorised by then are censored there."
        if not config.quiet:
            print(f"note: {stopped}")  # noqa: T201  # asked for with quiet=False
    finally:
        if recorder.has_measured:
            recorder.write()
        population.close(completed)
    if population.meter is not None:
        population.about.update(usage=population.meter.as_dict(), stopped=stopped, **population.told_later())
    _report(config, population, recorder, work.limits)
    if config.save_adapters:
        directory.write_adapters(population.policy.state()["adapters"])
    return {
        "seconds": recorder.seconds,
        "warmup_from_cache": population.warmup_from_cache,
        "warmup_seconds": population.warmup_seconds,
    }


def _tell_cost(population: Population) -> None:
    """Prints what a hosted policy may cost."""
    if population.estimate is not None:
        for sentence in population.estimate.sentences():
            print(f"note: {sentence}")  # noqa: T201  # asked for with quiet=False


def _keep_usage(meter: Meter, directory: RunDirectory) -> None:
    """Goes on with the counts of a run that is taken up again, and keeps them on disk from now on."""
    if (directory.path / USAGE).exists():
        meter.restore(directory.read_json(USAGE))
    meter.on_change = lambda: directory.write_json(USAGE, meter.as_dict())


def _keep_own_reward(config: Experiment, environment: Environment, directory: RunDirectory) -> None:
    """Writes the table of a reward of the user's own, so that the ledger can be recomputed without running
    their code again.

    Raises:
        RunDirectoryError: if the directory holds another table, because the reward was changed since.
    """
    if not (isinstance(config, TrainConfig) and config.own_reward):
        return
    from memory_rl.runs.store import CHANNEL
    from memory_rl.task import table_of

    channel = environment.channel
    arrays = {"levels": channel.levels, "classes": table_of(channel, config.N)}
    arrays |= {} if channel.outcomes is None else {"outcomes": channel.outcomes}
    if not (directory.path / CHANNEL).exists():
        directory.write_arrays(CHANNEL, **arrays)
    elif not _same_arrays(arrays, directory.read_arrays(CHANNEL)):
        raise RunDirectoryError(
            f"log_path={directory.path} was begun with another table of rewards: give reward_type={name_of(config.reward_type)} as it was, or another log_path."
        )


def _same_arrays(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _learn(
    config: Experiment,
    population: Population,
    recorder: Recorder,
    answers: np.ndarray | None,
    continuation: Continuation,
) -> None:
    from memory_rl.training.rl import train_by_reward
    from memory_rl.training.sft import train_by_example

    if isinstance(config, TrainConfig):
        train_by_reward(config, population.environment, population.policy, recorder, continuation)
        return
    train_by_example(config, population.policy, recorder, answers, continuation)


def _report(config: Experiment, population: Population, recorder: Recorder, limits: Ceilings) -> None:
    """Writes the summary and the figures, and warns of a breached law."""
    from memory_rl.analysis.collect import Cell
    from memory_rl.analysis.laws import breaches
    from memory_rl.analysis.summary import summarise
    from memory_rl.reporting.pictures import draw_run
    from memory_rl.runs.store import SUMMARY

    summary = summarise(
        recorder.metrics,
        N=config.N,
        memorised_at=config.memorised_at,
        stop_at=config.stop_at,
        ceilings=limits.as_dict(),
        episodes_to_know=recorder.episodes_to_know,
        fixed_secret=config.fixed_secret is not None,
        about={**population.about, "tokens": recorder.tokens},
        secrets=config.secrets_to_memorise,
        prior_of=config.num_secrets if config.backend == "local" and not config.warmup else None,
    )
    recorder.directory.write_json(SUMMARY, {"schema": SCHEMA, "conditions": {config.condition: summary}})
    for name, content in draw_run(Cell(recorder.directory.path, recorder.directory.read_manifest(), summary)):
        recorder.directory.write_bytes(f"figures/{name}", content)
    for breach in breaches(summary.get("checks", {})):
        warnings.warn(breach, LawBreachWarning, stacklevel=2)


def _progress(config: Experiment) -> AbstractContextManager[Callable[[Any], None] | None]:
    if config.quiet:
        return nullcontext()
    from memory_rl.reporting.terminal import progress_bar

    return progress_bar(config.condition, math.log2(config.N))


def _slug(config: Experiment) -> str:
    """The condition, N and seed as a folder's name."""
    return re.sub(r"[^\w.-]+", "-", f"{config.condition} N{config.N} seed{config.seed}")
