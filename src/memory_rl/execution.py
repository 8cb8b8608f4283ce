"""The life of an experiment: from its first check to its figures, whatever stops it in between."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from memory_rl.analysis.collect import Cell
from memory_rl.assembly import (
    Setting,
    make_film,
    make_meter,
    make_sampling,
    make_setting,
)
from memory_rl.condition import channel_notes, show_ceilings
from memory_rl.errors import (
    DivergedError,
    MemoryRLError,
    NotFiniteError,
    RunDirectoryError,
    TokensSpentError,
    one_line,
)
from memory_rl.experiment import Experiment
from memory_rl.files import Json, folder_name, print_anything
from memory_rl.inputs import changed_input, hash_inputs
from memory_rl.keys import name_of
from memory_rl.lessons import find_teacher, lessons_of
from memory_rl.populations import Learners, floats_as_before, make_learners, refuse_unknown_model
from memory_rl.reporting.progress import Progress
from memory_rl.reporting.sheets import console_for, say
from memory_rl.reporting.values import number
from memory_rl.result import Result, load
from memory_rl.runs.checkpoint import Checkpoints
from memory_rl.runs.interruption import SignalsWait, sigterm_raises
from memory_rl.runs.manifest import make_manifest, resumed, with_status
from memory_rl.runs.store import MANIFEST, USAGE, RunDirectory
from memory_rl.runs.trackers import MeanCurve, Trackers
from memory_rl.summing_up import draw_figures, keep_own_reward, sum_up, warn_of_breaches
from memory_rl.training.continuation import FromCheckpoints
from memory_rl.training.loop import train
from memory_rl.training.meter import Meter
from memory_rl.training.recompute import draw_secrets
from memory_rl.training.sampling import Sampling
from memory_rl.training.tables import Tables


class NotStartedError(Exception):
    """Bad input, its argument, that only shows once models are loaded; nothing has been measured yet."""


def run_experiment(experiment: Experiment) -> Result:
    """Runs one experiment from its first check to its figures.

    Raises:
        MemoryRLError: if it cannot start. Once it has started, whatever stops it is noted in the manifest,
            and what was measured is kept.
    """
    if not experiment.keep.quiet:
        print_anything()
    with closing(_trackers(experiment)) as trackers, Progress(experiment.keep.quiet) as progress:
        refuse_unknown_model(experiment)
        progress.phase("working out the ceilings")
        find_teacher(experiment)
        setting, manifest = make_setting(experiment), make_manifest(experiment)
        claim = RunDirectory.claim(
            experiment.keep.log_path, _slug(experiment), manifest, resume=experiment.keep.resume
        )
        with sigterm_raises(), floats_as_before(), claim as directory:
            if directory.is_complete:
                Checkpoints(directory.path).remove()  # a kill may have come between the end and this
                note = f"{directory.path} is complete already; nothing was run."
                _answer(experiment, load(directory.path).cell, progress, [note])
            else:
                _run_in(directory, manifest, setting, trackers, progress)
            result = load(directory.path)
        progress.phase("ending the trackers")
        trackers.close(result.summary)
    return result


def _trackers(experiment: Experiment) -> Trackers:
    stop, bits = experiment.stop, math.log2(experiment.world.N)
    memorised, ended = (bits + math.log2(probability) for probability in (stop.memorised_at, stop.stop_at))
    curve = MeanCurve(stop.num_runs, experiment.budget, memorised, ended)
    return Trackers({**experiment.flat(), "condition": experiment.condition}, curve)


def _run_in(
    directory: RunDirectory, manifest: Json, setting: Setting, trackers: Trackers, progress: Progress
) -> None:
    """Runs it in a claimed directory, from its last checkpoint if there is one.

    The manifest always has its status.
    """
    signals, existing = SignalsWait(), directory.existing
    checkpoints = Checkpoints(directory.path, setting.experiment.checkpoint_seconds)
    continuation = FromCheckpoints(checkpoints, signals)
    current = manifest if existing is None else resumed(existing, manifest)
    measuring = existing is not None
    try:  # around the first and last words of the manifest, too: a signal may come while they are written
        directory.write_json(MANIFEST, with_status(current, "running"))
        learners, read = _start(setting, directory, progress)
        if existing is None:
            current = {**current, **read}
            directory.write_json(MANIFEST, with_status(current, "running"))
        measuring = True
        about = _measure(setting, directory, learners, continuation, signals, trackers, progress)
        directory.write_json(MANIFEST, with_status(current, "completed", **about))
    except NotStartedError as error:
        if existing is None:
            directory.discard()
        else:
            directory.write_json(MANIFEST, existing)
        raise error.args[0] from None
    except BaseException as error:
        _note_end(directory, current, error, measured=measuring)
        raise
    checkpoints.remove()


def _note_end(directory: RunDirectory, manifest: Json, error: BaseException, *, measured: bool) -> None:
    """Notes what stopped it; if that fails, as on a full disk, at least the error itself is raised."""
    interrupted = isinstance(error, KeyboardInterrupt)
    why = (
        (str(error) or "interrupted from the keyboard") if interrupted else f"{type(error).__name__}: {error}"
    )
    if interrupted:
        again = f"what was measured is kept, and the same command with log_path={directory.path} resume=True"
        error.add_note(f"{again} resumes it" if measured else "nothing had been measured yet")
    with suppress(RunDirectoryError):
        status = with_status(manifest, "interrupted" if interrupted else "failed", why)
        directory.write_json(MANIFEST, status)


def _measure(
    setting: Setting,
    directory: RunDirectory,
    learners: Learners,
    continuation: FromCheckpoints,
    signals: SignalsWait,
    trackers: Trackers,
    progress: Progress,
) -> Json:
    """Learns, and writes what was measured however the learning ends.

    Returns what the manifest says of it, because it may differ from time to time.
    """
    experiment, stopped = setting.experiment, None
    trackers.start(directory, continuation.measured)
    secrets, film = draw_secrets(experiment), make_film(experiment)
    tables = Tables(directory, secrets, experiment.world.seed, experiment.step_size, film)
    continuation.parts["tables"] = tables
    progress.phase("learning")
    meter = make_meter(setting, secrets, (tables.take, trackers.take), _watcher(experiment, progress), film)
    sampling = make_sampling(setting, learners.policy, secrets, learners.lessons)
    completed = False
    try:
        with signals:
            train(learners.policy, setting.learner, sampling, meter, continuation)
        completed = True
    except NotFiniteError as found:
        raise DivergedError(_why_diverged(experiment, found, sampling)) from None
    except TokensSpentError as why:
        completed, stopped = True, f"{why}: the runs that had not memorised by then are censored there."
    finally:
        progress.phase("writing and summing up")
        tables.write()
        learners.policy.close(completed)
    _report(setting, learners, meter, tables, stopped, progress)
    if experiment.keep.save_adapters:
        _save_adapters(learners, directory)
    return {"seconds": tables.seconds, **learners.warmup}


def _watcher(experiment: Experiment, progress: Progress) -> Callable[[float, float, int], None]:
    """Shows how far the learning is; see `memory_rl.training.meter.Watcher`."""
    runs, bits = (
        experiment.stop.num_runs,
        number(experiment.world.num_secrets * math.log2(experiment.world.N)),
    )

    def watch(share: float, known: float, memorised: int) -> None:
        about = f"{memorised} of {runs} runs memorised, {max(known, 0.0):.2f} of {bits} bits"
        progress.move(share, about)

    return watch


def _why_diverged(experiment: Experiment, found: NotFiniteError, sampling: Sampling) -> str:
    """The sentence about numbers that are no longer finite: of which run, since when, and what to change."""
    run, policy = "one of its runs" if found.run is None else f"run {found.run}", experiment.policy
    if found.update == 0:
        return (
            f"{run} starts where its {found.what} not finite: use another model_name than "
            f"{policy.model_name}, or another dtype than {policy.dtype}."
        )
    episode = sampling.episodes.max() if found.run is None else sampling.episodes[found.run]
    own = f", or repair algorithm={name_of(experiment.updates.algorithm)}" if experiment.own_learner else ""
    return (
        f"{run} diverged at its update {found.update} (episode {episode}), where its {found.what} not "
        "finite, and what was measured before is kept: "
        f"use a learning_rate below {experiment.step_size:g}{own}."
    )


_LOADING = {
    "local": "loading the model",
    "tabular": "making the table",
    "tinker": "connecting to the service",
}
"""What is done before anything is learned."""


def _start(setting: Setting, directory: RunDirectory, progress: Progress) -> tuple[Learners, Json]:
    """Loads the model, and prints what can be expected.

    Returns:
        The policies, and what is only known for sure once the model is loaded, since one of the hub may just
        have been downloaded: the hashes of what was read, and the prompt.
    """
    keep = setting.experiment.keep
    progress.phase(_LOADING[setting.experiment.policy.backend])
    try:
        learners = make_learners(setting, directory.path, progress.warm_up)
        learners = replace(learners, lessons=lessons_of(setting.experiment))
        read: Json = {"inputs": hash_inputs(setting.experiment), "prompt": learners.prompt}
        _refuse_other_words(directory, read)
        if keep.save_adapters:  # what would not load later is refused now
            with tempfile.TemporaryDirectory() as scratch:
                _save_adapters(learners, RunDirectory(Path(scratch)), only="run-0")
        keep_own_reward(setting.condition, directory)
    except MemoryRLError as error:
        raise NotStartedError(error) from error
    if not keep.quiet:
        with progress.aside():
            _tell(setting, learners)
    spending = getattr(learners.policy, "spending", None)
    if spending is not None:  # what was spent before resuming counts too, and is kept from now on
        if (directory.path / USAGE).exists():
            spending.restore(directory.read_json(USAGE))
        spending.on_change = lambda: directory.write_json(USAGE, spending.as_dict())
    return learners, read


def _save_adapters(learners: Learners, directory: RunDirectory, only: str | None = None) -> None:
    """Writes the adapters of all runs, or of one, and reads them back.

    Raises:
        RunDirectoryError: if they cannot be written, or are not what was trained.
    """
    from memory_rl.policies.saved import check_saved

    policy: Any = learners.policy
    saved = policy.state()["adapters"]
    saved = saved if only is None else {only: saved[only]}
    directory.write_adapters(saved, learners.base)
    check_saved(policy.adapters, policy.model, directory.path / "adapters", saved)


def _refuse_other_words(directory: RunDirectory, read: Json) -> None:
    """Refuses to resume with another model or prompt than the run was started with.

    Raises:
        RunDirectoryError: if they are not those of its manifest.
    """
    started = directory.existing or {}
    changed = changed_input(started.get("inputs") or {}, read["inputs"])
    if changed:
        raise RunDirectoryError(
            f"log_path={directory.path} holds another experiment: {changed} since it began; restore it, or "
            "give another log_path."
        )
    if started.get("prompt", read["prompt"]) != read["prompt"]:
        now = one_line(repr(read["prompt"]))
        raise RunDirectoryError(
            f"log_path={directory.path} was started with another prompt than {now}: "
            "use the versions that its manifest names, or give another log_path."
        )


def _tell(setting: Setting, learners: Learners) -> None:
    """Prints what hosting may cost; if asked, device and ceilings, too."""
    if setting.experiment.keep.verbose:
        if "device" in learners.about:
            say(f"device: the model computes on {learners.about['device']} in {learners.about['dtype']}.")
        show_ceilings(setting.condition)
    for sentence in learners.notes:
        say(f"note: {sentence}", console_for(stderr=True))


def _notes(setting: Setting, stopped: str | None) -> Iterator[str]:
    """What limits an answer: of the channel, and of how it was learned."""
    experiment = setting.experiment
    if not experiment.keep.verbose:
        yield from channel_notes(setting.condition)
    if experiment.updates.skip_ahead and experiment.why_not_skip:
        yield f"no silent updates are skipped: {experiment.why_not_skip}."
    if stopped:
        yield stopped


def _report(
    setting: Setting,
    learners: Learners,
    meter: Meter,
    tables: Tables,
    stopped: str | None,
    progress: Progress,
) -> None:
    """Writes the summary, says what came out, draws the figures, and warns of a breached law."""
    experiment, directory = setting.experiment, tables.directory
    about = {**learners.about, **_about_service(learners, stopped), "tokens": meter.tokens}
    cell = sum_up(directory, setting.condition.ceilings, meter.episodes_to_know, about)
    _answer(experiment, cell, progress, _notes(setting, stopped))
    if experiment.keep.figures:
        progress.phase("drawing the figures")
        draw_figures(cell, directory)
    warn_of_breaches(cell)


def _answer(experiment: Experiment, cell: Cell, progress: Progress, notes: Iterable[str]) -> None:
    """Says what came out, and what limits it, before anything is drawn of it."""
    if experiment.keep.quiet:
        return
    from memory_rl.reporting.terminal import show_answer

    with progress.aside():
        show_answer(cell, notes)


def _about_service(learners: Learners, stopped: str | None) -> Json:
    """What was spent on a hosted policy, and its warm-up, which happens when the first run starts."""
    spending, warmup = getattr(learners.policy, "spending", None), getattr(learners.policy, "warmup", None)
    if spending is None:
        return {}
    about = {"usage": spending.as_dict(), "stopped": stopped}
    return {**about, "warmup": warmup} if warmup else about


def _slug(experiment: Experiment) -> str:
    """The condition, N and seed as a folder's name."""
    world = experiment.world
    return folder_name(f"{experiment.condition} N{world.N} seed{world.seed}")
