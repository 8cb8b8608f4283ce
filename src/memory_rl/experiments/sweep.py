"""What a sweep is asked for, from Python and from the command line: its plan, checked before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from memory_rl.analysis.protocol import Protocol, load_protocol
from memory_rl.errors import ConfigError
from memory_rl.experiments import results
from memory_rl.experiments.contests import make_all
from memory_rl.experiments.found import read_known, unknown
from memory_rl.experiments.grid import (
    GridCell,
    GridFile,
    cells_of_axes,
    cells_of_entries,
    merge,
    read_grid_file,
)
from memory_rl.experiments.halving import read_tune
from memory_rl.experiments.ranks import chosen_learners
from memory_rl.experiments.roles import plan_roles
from memory_rl.experiments.settings import read_arguments, read_file, typed
from memory_rl.experiments.sweeping import Sweep
from memory_rl.reporting.sheets import console_for, say
from memory_rl.runs.interruption import InterruptedBySignal
from memory_rl.task.making import make_environment


def sweep(**settings: Any) -> results.SweepSummary:
    """Runs many experiments and returns the summary, with a `frame`; docs/sweeps.md has all the keys.

    Nothing is printed unless `quiet=False` is given.

    Args:
        settings: the keys of `SweepConfig` and, as axes, those of `train` and `sft`, with a list or one value
            for each, such as conditions=["sft", "binary"], N=[16, 64].

    Raises:
        MemoryRLError: one sentence about a key, a value, a cell or a directory, before any work is done.
        KeyboardInterrupt: if it is stopped; what is complete is kept.
    """
    words = [
        f"{key}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in {"quiet": True, **settings}.items()
    ]
    plan = make_plan(words)
    return plan.estimated() if plan.settings.dry_run else plan.run()


def main(words: Sequence[str]) -> int:
    """The command line of a sweep: returns its exit code.

    0: all cells are complete. 1: some failed. 130 or 143: stopped from the keyboard or by SIGTERM.

    Args:
        words: key=value arguments.

    Raises:
        MemoryRLError: one sentence about bad input.
    """
    plan = make_plan(words)
    if plan.settings.dry_run:
        plan.estimated().show()
        return 0
    try:
        summary = plan.run()
    except InterruptedBySignal as stopped:
        kept = results.what_is_kept(plan.directory)
        say(f"memory-rl: {stopped}; {kept}, and the same command continues.", console_for(stderr=True))
        return 128 + stopped.signal
    failed = [row for row in summary["cells"] if row["status"] != "completed"]
    for row in failed:
        say(f"memory-rl: {row['id']} {row['status']}: {row['why']}", console_for(stderr=True))
    return 1 if failed else 0


def make_plan(words: Sequence[str]) -> Sweep:
    """Checks all arguments and every cell.

    Raises:
        ConfigError: one sentence about the first that is bad.
    """
    words, of_file = read_file(words)
    settings, axes = read_arguments(words)
    source: Protocol | GridFile | None = None
    if settings.protocol is not None:
        source = load_protocol(settings.protocol)
    elif settings.grid is not None:
        source = read_grid_file(settings.grid)
    elif settings.conditions is None and not axes and settings.learners is None:
        raise ConfigError(
            "there is nothing to sweep: type for example protocol=quick, grid=file.yaml, "
            "or conditions=sft,binary N=16,64."
        )
    protocol = source if isinstance(source, Protocol) else None
    learners = chosen_learners(settings, axes, protocol)
    every = (
        cells_of_entries(source.grid, axes, learners)
        if source
        else cells_of_axes(settings.conditions, axes, of_file)
    )
    unused = of_file & axes.keys() - {key for cell in every for key in cell.values}
    cells = merge(every, planned=True)
    if learners:  # nobody looks at hundreds of figures, which take longer than most such cells
        cells = [cell.with_values(figures=False) for cell in cells]
    tuning = settings.tuning or (read_tune(source.tune) if source and source.tune is not None else None)
    merged, notes = len(every) - len(cells), list[str]()
    cells = plan_roles(cells, tuning, protocol)
    if settings.known and learners:
        raise ConfigError(
            f"known={settings.known} has no meaning where learners are ranked, which takes all their runs: "
            "leave it out, and give the log_path that has them."
        )
    known = read_known(settings.known)
    if source and "backend" in axes and merged:
        why = f"without the keys that have no meaning with backend={axes['backend']}"
        notes = [f"cells left out as the same as others, {why}: {merged}"]
    left = unknown(cells, known, tuning is not None)
    if len(left) < len(cells):
        notes += [f"cells left out, since known={settings.known} has them: {len(cells) - len(left)}"]
    contests = [] if tuning is None else [*make_all(cells, tuning)]
    _check_own_code([*left, *(cell for contest in contests for cell in contest.opening)])
    return Sweep(
        settings,
        source.name if source else "sweep",
        left,
        tuning,
        contests,
        protocol,
        typed(words, unused),
        axes.get("backend") if source else None,
        notes,
        learners=learners,
        known=known,
    )


def _check_own_code(cells: Iterable[GridCell]) -> None:
    """Asks each reward of the user's own, at each N, for all that runs ask it for, and tries each learner.

    Raises:
        ConfigError: if one cannot be used.
    """
    experiments = [cell.experiment for cell in cells]
    rewards = {(one.signal.reward_type, one.world.N): one for one in experiments if one.signal.own_reward}
    for experiment in rewards.values():
        make_environment(experiment.world, experiment.signal)
    learners = {one.updates.algorithm: one for one in experiments if one.own_learner}
    for experiment in learners.values():
        _ = experiment.learner
