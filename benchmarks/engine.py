"""Side 1: this engine, R runs in lockstep.

As `memory_rl.train` runs it, without ledger, figures and summary.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from problem import Problem, StopWatch, Trace

from memory_rl.assembly import make_meter, make_sampling, make_setting
from memory_rl.experiment import Experiment
from memory_rl.policies.base import Policy
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.paths import PathPolicy
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.runs.store import RunDirectory
from memory_rl.training.loop import train
from memory_rl.training.recompute import draw_secrets
from memory_rl.training.tables import Tables


def adapters_of(experiment: Experiment) -> LoRASettings:
    """The adapters of its runs."""
    chosen = experiment.policy
    return LoRASettings(chosen.lora_rank, chosen.lora_alpha, chosen.lora_targets)


def run_engine(problem: Problem, seed: int, num_runs: int, scoring: str = "all") -> list[Trace]:
    """R runs.

    The time of each update is shared evenly by the runs that were still learning; it includes the exact P(S),
    and, with scoring "all", that of all N answers.
    """
    experiment = problem.configured(seed, num_runs, ledger=False, scoring=scoring)
    given = {
        "num_runs": num_runs,
        "lora": adapters_of(experiment),
        "learning_rate": experiment.step_size,
        "seed": seed,
    }
    model, trie = problem.base_model(), problem.trie
    if scoring == "paths":
        return timed(experiment, PathPolicy(model, trie, avoids=experiment.only_hits, **given))
    return timed(experiment, TransformerPolicy(model, trie, **given))


def timed(experiment: Experiment, policy: Policy) -> list[Trace]:
    """The loop alone, on the clock."""
    setting, watch, times = make_setting(experiment), StopWatch(), list[tuple[float, float]]()
    secrets = draw_secrets(setting.experiment)
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(RunDirectory(Path(folder)), secrets, experiment.world.seed, experiment.step_size)
        meter = make_meter(setting, secrets, [tables.take], lambda *_: times.append(watch.now()), None)
        sampling = make_sampling(setting, policy, secrets)
        watch.start()
        train(policy, setting.learner, sampling, meter)
        return traces_of(tables, experiment, np.array(times))


def traces_of(tables: Tables, experiment: Experiment, times: np.ndarray) -> list[Trace]:
    """The traces by run.

    The rows of the metrics are those of one evaluation after the other, by run within each; evaluation i was
    over at `times[i]`.
    """
    rows = tables.metrics.select("run", "episode", "bits_known")
    run = rows["run"].to_numpy()
    evaluation = np.concatenate([[0], np.cumsum(run[1:] <= run[:-1])])
    share = np.diff(times, axis=0, prepend=np.zeros((1, 2))) / np.bincount(evaluation)[:, None]
    spent = share.cumsum(axis=0)
    traces = [Trace() for _ in range(experiment.stop.num_runs)]
    for (which, episode, bits), (wall, cpu) in zip(rows.iter_rows(), spent[evaluation], strict=True):
        traces[which].add(episode, 2.0**bits / experiment.world.N, wall, cpu)
    return traces
