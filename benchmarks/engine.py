"""Side 1: this engine, R runs in lockstep, as `memory_rl.train` runs it, without ledger, figures and
summary.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from problem import Problem, StopWatch, Trace

from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.runs.store import RunDirectory
from memory_rl.training.environments import draw_secrets
from memory_rl.training.recorder import Recorder
from memory_rl.training.rl import train_by_reward


def run_engine(problem: Problem, seed: int, num_runs: int) -> list[Trace]:
    """R runs. The time of each update is shared evenly by the runs that were still learning; it includes the
    exact P(S) of all N answers.
    """
    config = problem.configured(seed, num_runs)
    policy = TransformerPolicy(
        problem.base_model(),
        problem.trie,
        num_runs=num_runs,
        lora=LoRASettings(config.lora_rank, config.lora_alpha, config.lora_targets),
        learning_rate=config.step_size,
        seed=seed,
    )
    watch, times = StopWatch(), []
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(
            config,
            draw_secrets(config),
            RunDirectory(Path(folder)),
            on_progress=lambda _: times.append(watch.now()),
        )
        watch.start()
        train_by_reward(config, problem.environment, policy, recorder)
        return traces_of(recorder, np.array(times))


def traces_of(recorder: Recorder, times: np.ndarray) -> list[Trace]:
    """By run. The rows of the metrics are those of one evaluation after the other, by run within each;
    evaluation i was over at `times[i]`.
    """
    rows = recorder.metrics.select("run", "episode", "bits_known")
    run = rows["run"].to_numpy()
    evaluation = np.concatenate([[0], np.cumsum(run[1:] <= run[:-1])])
    share = np.diff(times, axis=0, prepend=np.zeros((1, 2))) / np.bincount(evaluation)[:, None]
    spent = share.cumsum(axis=0)
    traces = [Trace() for _ in recorder.secrets]
    for (which, episode, bits), (wall, cpu) in zip(rows.iter_rows(), spent[evaluation], strict=True):
        traces[which].add(episode, 2.0**bits / recorder.config.N, wall, cpu)
    return traces
