"""kill -9 at random moments: the same command with resume=True continues to the very bytes of a run that
nobody disturbed."""

import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import memory_rl

EXPERIMENTS = {
    "tabular": (
        "train",
        {"backend": "tabular", "N": 32, "num_runs": 8, "max_episodes": 2400, "learning_rate": 0.05},
    ),
    "tabular sgd": (
        "train",
        {
            "backend": "tabular",
            "N": 16,
            "num_runs": 8,
            "max_episodes": 1600,
            "optimiser": "sgd",
            "learning_rate": 0.1,
            "ledger": False,
        },
    ),
    "tabular bits": (
        "train",
        {
            "backend": "tabular",
            "env_type": "multi_step",
            "N": 16,
            "num_runs": 8,
            "max_episodes": 1200,
            "learning_rate": 0.02,
            "tabular_bits": "prefixes",
        },
    ),
    "tabular posterior": (
        "train",
        {
            "backend": "tabular",
            "algorithm": "posterior",
            "posterior_epochs": 2,
            "N": 64,
            "num_runs": 8,
            "learning_rate": 0.03,
            "group_size": 1,
        },
    ),
    "transformer": ("train", {"N": 16, "num_runs": 4, "max_episodes": 400}),
    "transformer noise": (
        "train",
        {
            "N": 16,
            "num_runs": 3,
            "max_episodes": 160,
            "reward_type": "binned_log_distance",
            "reward_bins": 4,
            "reward_noise": 0.1,
            "skip_ahead": False,
        },
    ),
    "transformer ppo": (
        "train",
        {
            "env_type": "multi_step",
            "N": 8,
            "num_runs": 3,
            "max_episodes": 160,
            "algorithm": "ppo",
            "ppo_epochs": 2,
        },
    ),
    "transformer posterior": (
        "train",
        {"algorithm": "posterior", "posterior_epochs": 2, "N": 16, "num_runs": 3, "max_episodes": 160},
    ),
    "paths": ("train", {"scoring": "paths", "N": 64, "num_runs": 4, "max_episodes": 3000}),
    "shared": (
        "train",
        {"N": 16, "num_runs": 4, "max_episodes": 400, "adapter": "shared", "adapter_parameters": 64},
    ),
    "full": (
        "train",
        {
            "env_type": "multi_step",
            "N": 8,
            "num_runs": 3,
            "max_episodes": 160,
            "adapter": "full",
            "learning_rate": 2e-5,
        },
    ),
    "teacher": (
        "train",
        {"signal": "teacher", "N": 16, "num_runs": 3, "max_episodes": 160, "learning_rate": 1e-4},
    ),
    "sft": ("sft", {"N": 64, "num_runs": 4, "learning_rate": 5e-5, "optimiser": "adam"}),
    "sft paths": ("sft", {"scoring": "paths", "N": 64, "num_runs": 4, "learning_rate": 5e-5}),
}

MEASURED = ("metrics.parquet", "episodes.parquet", "summary.json", "film.parquet")
OFTEN = 0.02
"""Seconds between checkpoints, so that many moments are in the middle of writing one."""


@pytest.fixture(scope="module")
def server():
    """Starts processes in which everything is imported and nothing has been used."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "memory_rl.api",
            "memory_rl.execution",
            "memory_rl.policies.transformer",
            "memory_rl.reporting.pictures",
            "vl_convert",
        ]
    )
    return context


def run_until(
    server, kind: str, settings: dict, seconds: float | None, learning: bool = False
) -> float | None:
    """Runs an experiment; kills it after some seconds, unless it has ended by then. Returns how long it took,
    None if it was killed.

    With `learning` the seconds are counted from the first checkpoint that it has written.
    """
    process = server.Process(target=getattr(memory_rl, kind), kwargs=settings)
    started, before = time.monotonic(), checkpoints(settings["log_path"])
    process.start()
    while learning and process.is_alive() and checkpoints(settings["log_path"]) <= before:
        time.sleep(0.002)
    process.join(seconds)
    took = time.monotonic() - started
    if process.is_alive():
        process.kill()
        process.join()
        return None
    assert process.exitcode == 0
    return took


def checkpoints(path: str) -> int:
    """The number of the last one."""
    try:
        return max((int(folder.name) for folder in Path(path).glob("checkpoint/[0-9]*")), default=0)
    except FileNotFoundError:  # a run that ends takes the folder away while it is read
        return 0


def moment_of(path: Path) -> str:
    """How far a killed run had come."""
    if not (path / "manifest.json").exists():
        return "before the manifest"
    if memory_rl.load(path).outcome is not memory_rl.Outcome.KILLED:
        return "after the end"
    if (path / "checkpoint" / ".next").exists():
        return "while a checkpoint was written"
    return "after a checkpoint" if list(path.glob("checkpoint/[0-9]*")) else "before a checkpoint"


def measured(path: Path) -> dict[str, bytes]:
    return {name: (path / name).read_bytes() for name in MEASURED if (path / name).exists()}


def kill_and_resume(server, name: str, kills: int, seed: int, learning: bool = False) -> Counter:
    """Kills runs of one experiment at random moments, until there were so many kills, and compares each that
    came to its end with an undisturbed one.

    With `learning` they are moments between the first checkpoint that the process has written and its end.
    """
    kind, settings = EXPERIMENTS[name]
    chance, moments = np.random.default_rng(seed), Counter()
    run_until(
        server, kind, {**settings, "log_path": str(Path("warm").resolve())}, None
    )  # the base model is in the cache from now on
    duration = run_until(server, kind, {**settings, "log_path": str(Path("undisturbed").resolve())}, None)
    if learning:
        duration = memory_rl.load("undisturbed").manifest["seconds"]
    expected = measured(Path("undisturbed"))
    assert expected.keys() >= {"metrics.parquet", "episodes.parquet", "summary.json"}
    assert measured(Path("warm")) == expected
    while moments.total() < kills:
        path = Path(f"killed-{moments.total()}").resolve()
        disturbed = {**settings, "log_path": str(path), "resume": True, "checkpoint_every": OFTEN}
        while (
            run_until(
                server,
                kind,
                disturbed,
                chance.uniform(0, duration) if moments.total() < kills else None,
                learning,
            )
            is None
        ):
            moments[moment_of(path)] += 1
        assert measured(path) == expected
        assert memory_rl.load(path).manifest["status"] == "completed"
        assert not (path / "checkpoint").exists()
    sys.stdout.write(
        f"{name}: {moments.total()} kills in runs of {duration:.1f} s: {dict(moments)}\n"
    )  # shown by pytest -s
    return moments


@pytest.mark.parametrize("name", ["tabular", "transformer"])
def test_a_few_kills(server, name):
    kill_and_resume(server, name, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tabular", "transformer"])
def test_twenty_kills(server, name):
    moments = kill_and_resume(server, name, kills=20, seed=2)
    assert (
        moments["after a checkpoint"] + moments["while a checkpoint was written"] >= 5
    )  # else little was tested


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPERIMENTS.keys() - {"tabular", "transformer"}))
def test_kills_of_every_kind_of_learner(server, name):
    moments = kill_and_resume(server, name, kills=6, seed=3, learning=True)
    assert moments["after a checkpoint"] + moments["while a checkpoint was written"] >= 5
