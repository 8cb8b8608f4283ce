"""Why grades mislead a model whose answers share weights, and what a target over answers changes.

    python studies/ideas_diagnosed.py            (about a minute on one core)
    python studies/ideas_diagnosed.py DIR        (also: where the runs of ideas_measured.py in DIR ended)

1. One step away from a single answer: how much less likely it becomes, and its neighbours with it.
2. Steps away from half of the answers, four at a time, each four times: how likely the others are then, and
   above all the answer S among them, whose nearest neighbours were all pushed away.
3. The answers of the last 200 episodes of each run: right, next to S (1 to 3 away), farther; silent groups.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

import memory_rl
from memory_rl import Learner
from memory_rl.assembly import make_setting
from memory_rl.experiment import make_experiment
from memory_rl.populations import make_learners

N = 64
RUNS, EVERY = np.arange(N), np.arange(N)
PROMPTS = np.zeros((N, 1), dtype=np.int64)
Print = Console(width=160, highlight=False).print


def make_policy(backend: str, factor: float = 1.0) -> Any:
    """A policy with a run for each answer, as an experiment starts; a factor of the default step size."""
    keys = {"backend": backend, "N": N, "num_runs": N}
    rate = factor * make_experiment(keys).step_size
    return make_learners(make_setting(make_experiment({**keys, "learning_rate": rate}))).policy


def push(policy: Any, answers: np.ndarray, weight: float) -> None:
    """One policy-gradient step that moves each run's log-probability of its answers (R, E)."""
    batch = policy.demonstrate(RUNS, PROMPTS, answers)
    policy.update(batch, np.full(batch.choices.shape, weight), Learner())


def one_step(backend: str) -> str:
    """How log-probabilities change with a step of run a away from answer a."""
    policy = make_policy(backend)
    before = policy.log_probs(RUNS, PROMPTS)[:, 0]
    push(policy, EVERY[:, None], -1.0)
    change = policy.log_probs(RUNS, PROMPTS)[:, 0] - before
    far = np.abs(EVERY[:, None] - EVERY)
    digits = (EVERY[:, None] // 10 == EVERY // 10) & (far > 0)
    units = (EVERY[:, None] % 10 == EVERY % 10) & (far > 0)
    kinds = {
        "itself": far == 0,
        "same tens": digits,
        "same units": units,
        "others": ~(digits | units | (far == 0)),
    }
    return ", ".join(f"{name} {change[of].mean():+.3f}" for name, of in kinds.items())


def eliminated(backend: str, kind: str, factor: float) -> str:
    """What is left of S = run once 32 others, its 8 nearest among them, were each pushed away four times."""
    policy, random = make_policy(backend, factor), np.random.default_rng(0)
    near = np.argsort(np.abs(EVERY[:, None] - EVERY), axis=1, kind="stable")  # S first
    beaten = np.array([np.append(row[1:9], random.choice(row[9:], 24, replace=False)) for row in near])
    for _ in range(4):
        for answers in random.permuted(beaten, axis=1).reshape(N, 8, 4).swapaxes(0, 1):
            if kind == "policy gradient":
                push(policy, answers, -1.0)
                continue
            target = policy.log_probs(RUNS, PROMPTS)[:, 0]
            np.put_along_axis(target, answers, np.take_along_axis(target, answers, axis=1) - 1.0, axis=1)
            target = np.exp(target) / np.exp(target).sum(axis=1, keepdims=True)
            policy.distil(RUNS, PROMPTS, target[:, None], 8)
    p = np.exp(policy.log_probs(RUNS, PROMPTS)[:, 0])
    of_s, of_beaten = p[RUNS, RUNS], np.take_along_axis(p, beaten, axis=1).sum(axis=1)
    rest = 1 - of_s - of_beaten
    return (
        f"P(S) median {np.median(of_s):.4f} (1/32 = 0.031 if only the beaten lose), worst {of_s.min():.1e}; "
        f"beaten {of_beaten.mean():.3f}, other untried answers {rest.mean():.3f}, "
        f"entropy {-(p * np.log2(p.clip(1e-300))).sum(axis=1).mean():.2f} bits"
    )


def endings(folder: Path) -> str:
    """What the runs in a folder that have not memorised answered in their last 200 episodes."""
    result = memory_rl.load(folder)
    last = result.metrics.sort("episode").group_by("run").last()
    stuck = last.filter(pl.col("bits_known") < np.log2(N) - 1)
    late = result.episodes.join(stuck.select("run", "secret", end="episode"), on="run")
    late = late.filter(pl.col("episode") > pl.col("end") - 200)
    far = (late["answer"] - late["secret"]).abs().to_numpy()
    silent = result.metrics.join(stuck.select("run", end="episode"), on="run")
    silent = silent.filter(pl.col("episode") > pl.col("end") - 200)["zero_advantage_fraction"].mean()
    if not len(far):
        return "no run is stuck"
    shares = ((far == 0).mean(), ((far > 0) & (far <= 3)).mean(), (far > 3).mean())
    right, near, farther = (f"{share:.0%}" for share in shares)
    said = "-" if silent is None else f"{silent:.0%}"
    return f"{stuck.height} stuck: right {right}, 1 to 3 away {near}, farther {farther}; silent {said}"


def main() -> None:
    """Prints the three."""
    for backend in ("tabular", "local"):
        Print(f"1. {backend}: change of log P by one step away from an answer: {one_step(backend)}")
    for backend in ("tabular", "local"):
        for kind, factor in (("policy gradient", 1.0), ("policy gradient", 0.1), ("target", 1.0)):
            Print(f"2. {backend}, {kind}, {factor} times the step: {eliminated(backend, kind, factor)}")
    for folder in sorted(Path(sys.argv[1]).iterdir()) if len(sys.argv) > 1 else ():
        if "tuning" not in folder.name and "secrets" not in folder.name and "sums" not in folder.name:
            Print(f"3. {folder.name}: {endings(folder)}")


if __name__ == "__main__":
    main()
