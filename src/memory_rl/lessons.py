"""The policies of another run directory as teachers: whether they can be, and what they would answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from memory_rl.assembly import make_setting
from memory_rl.config import Keep, Stop
from memory_rl.errors import ConfigError, NotFiniteError, one_line
from memory_rl.experiment import Experiment
from memory_rl.files import as_path, failures
from memory_rl.policies.base import every_prompt
from memory_rl.populations import make_learners
from memory_rl.runs.store import MANIFEST, RunDirectory, experiment_of
from memory_rl.state import SavedModel
from memory_rl.training.recompute import draw_secrets

_SAVING = "use the path of a run of backend=local with save_adapters=True"


def find_teacher(experiment: Experiment) -> Experiment | None:
    """The experiment whose policies are to teach; None without one.

    Raises:
        ConfigError: if there is no such run, or it cannot teach this one.
        RunDirectoryError: if its manifest is damaged.
    """
    path = experiment.signal.taught_by
    if path is None:
        return None
    folder, name = as_path(path), f"teacher={path}"
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"{name} is neither secret nor observer nor a run directory: {_SAVING}.")
    manifest = RunDirectory(folder).read_manifest()
    found = experiment_of(folder, manifest)
    if found.policy.backend != "local" or not (folder / "adapters" / "base.json").is_file():
        raise ConfigError(f"{name} is a run that kept no adapters: {_SAVING}.")
    _check_worlds(name, experiment, found)
    return found


def _check_worlds(name: str, experiment: Experiment, found: Experiment) -> None:
    """Raises a ConfigError unless run i of both has the same secrets."""
    ours, theirs, runs = experiment.world, found.world, experiment.stop.num_runs
    for key in ("env_type", "N", "num_secrets"):
        if getattr(ours, key) != getattr(theirs, key):
            raise ConfigError(f"{name} was trained with another {key}: use {key}={getattr(theirs, key)}.")
    if runs > found.stop.num_runs:
        raise ConfigError(
            f"{name} holds {found.stop.num_runs} teachers, one for each run, and num_runs={runs} are to be "
            f"taught: use num_runs={found.stop.num_runs} or less."
        )
    if not np.array_equal(draw_secrets(experiment), draw_secrets(found)[:runs]):
        fixed = theirs.fixed_secret
        keys = f"seed={theirs.seed} and no fixed_secret" if fixed is None else f"fixed_secret={fixed}"
        raise ConfigError(f"{name} knows other secrets: use {keys}, as it did.")


def lessons_of(experiment: Experiment) -> np.ndarray | None:
    """What the teachers of an experiment would answer, (R, M, F); None if they are not those of a run.

    Their mass on invalid answers is left out.

    Raises:
        ConfigError: if they cannot teach, or are not what they were.
        ModelError: if their model cannot be loaded.
    """
    found = find_teacher(experiment)
    if found is None:
        return None
    folder = as_path(experiment.signal.taught_by or "")
    runs = np.arange(experiment.stop.num_runs)
    plain = Experiment(
        world=found.world,
        policy=replace(found.policy, scoring=None),
        stop=Stop(num_runs=len(runs), memorised_at=found.stop.memorised_at, stop_at=found.stop.stop_at),
        keep=Keep(save_adapters=True, threads=experiment.keep.threads),
    )
    learners = make_learners(make_setting(plain))
    saved = RunDirectory(folder).read_json("adapters/base.json")
    if learners.base is None or saved.get("sha256") != learners.base["sha256"]:
        raise ConfigError(
            f"teacher={folder} was trained on another base model than model_name={found.policy.model_name} "
            "is here: use the model and the versions that its adapters/base.json names."
        )
    policy: Any = learners.policy
    saved_adapters = _adapters(folder, len(runs), whole=found.policy.adapter == "full")
    prompts = every_prompt(runs, found.world.num_secrets)
    try:
        policy.adapters.restore(saved_adapters)
        answers = np.exp(policy.log_probs(runs, prompts))
    except (ValueError, NotFiniteError) as error:
        raise ConfigError(
            f"teacher={folder} has damaged adapters ({one_line(str(error))}): {_SAVING}."
        ) from error
    return np.asarray(answers / answers.sum(axis=2, keepdims=True))


def _adapters(folder: Path, num_runs: int, *, whole: bool) -> dict[str, SavedModel]:
    from safetensors.numpy import load_file

    file, found = SavedModel({}, {}, whole).files[1], {}
    for run in range(num_runs):
        place = folder / "adapters" / f"run-{run}" / file
        try:
            found[f"run-{run}"] = SavedModel({}, load_file(place), whole)
        except failures() as error:
            raise ConfigError(f"teacher={folder} has lost {place} ({error}): {_SAVING}.") from error
    return found
