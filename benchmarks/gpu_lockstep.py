"""Sections of gpu_check.py about the tiny model with many runs in lockstep: speed and its parts.

A step of the loop: each run answers four times, is rewarded by how near it came (so that all runs move),
makes an update, and the exact probabilities of all N = 64 answers are computed.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from gpu_engine import GROUP, Row, Settings, memory, new_policy, reset_peak, synchronise, tiny_trie
from torch.profiler import ProfilerActivity, profile

from memory_rl.learning.learners import Reinforce
from memory_rl.policies import tiny_model, transformer
from memory_rl.policies.base import first_prompt

UPDATES_A_RUN = 30
"""Of a run of binary reward at N = 64, median 120 episodes (results/agreement.csv), four an update."""
_AS_ON_A_CPU = 2**12  # tokens in a pass: what suits the caches of a CPU


class Lockstep:
    """R runs of the tiny model on a device."""

    def __init__(self, num_runs: int, device: str, num_bits: int) -> None:
        self.device, self.runs = device, np.arange(num_runs)
        model = tiny_model.make_model(0).to(device)
        self.policy = new_policy(model, tiny_trie("single_step", num_bits), num_runs)
        self._secrets = np.random.default_rng(0).integers(2**num_bits, size=(num_runs, 1, 1))
        self._learner, self.phases = Reinforce(), defaultdict[str, float](float)

    def step(self) -> None:
        """Sample, reward, update, evaluate; the time of each adds up in `phases`."""
        asked = first_prompt(self.runs)
        with self._phase("sample"):
            batch = self.policy.sample(self.runs, asked, GROUP)
        with self._phase("reward"):
            rewards = -np.abs(np.log2((batch.choices + 2.0) / (self._secrets + 2.0)))
            noise = np.random.default_rng(0).standard_normal(rewards.shape)
            advantages = self._learner.advantages((rewards + 1e-3 * noise)[:, None])[:, 0]
        with self._phase("update"):
            self.policy.update(batch, advantages, self._learner)
        with self._phase("evaluate"):
            self.policy.log_probs(self.runs, asked)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        synchronise(self.device)
        self.phases[name] += time.perf_counter() - start


@contextmanager
def tokens_a_pass(limit: int | None) -> Iterator[None]:
    """In its block the engine puts so many tokens into a pass; None leaves its limit."""
    before = transformer._TOKENS_ELSEWHERE
    transformer._TOKENS_ELSEWHERE = limit or before
    try:
        yield
    finally:
        transformer._TOKENS_ELSEWHERE = before


@contextmanager
def one_thread(alone: bool) -> Iterator[None]:
    """In its block PyTorch has one thread of the CPU, if asked."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if alone else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def lockstep(device: str, sizes: str, so_far: Row) -> Settings:
    """Runs a second against R: on the device, there with the small passes of a CPU, and on one CPU thread."""
    counts, bits = ((1024, 16, 256, 64), 6) if sizes == "full" else ((4, 2), 3)
    for num_runs in counts:
        for where, limit in dict.fromkeys([(device, None), (device, _AS_ON_A_CPU), ("cpu", None)]):
            threads = ", 1 thread" if where == "cpu" else ""
            passes = f", {limit} tokens a pass" if limit else ""
            yield (
                f"R={num_runs} {where}{threads}{passes}",
                lambda s=(num_runs, where, bits, limit): lockstep_row(*s),
            )


def lockstep_row(num_runs: int, where: str, num_bits: int, limit: int | None) -> Row:
    """Steps for at most some seconds."""
    reset_peak(where)
    with tokens_a_pass(limit), one_thread(where == "cpu"):
        start = time.perf_counter()
        runs = Lockstep(num_runs, where, num_bits)
        made = time.perf_counter() - start
        runs.step()
        runs.phases.clear()
        steps, start = 0, time.perf_counter()
        while steps < 20 and time.perf_counter() - start < 3.0:
            runs.step()
            steps += 1
        each = (time.perf_counter() - start) / steps
    return {
        "step_s": each,
        "run_updates_s": num_runs / each,
        f"runs_s_at_{UPDATES_A_RUN}_updates": num_runs / each / UPDATES_A_RUN,
        **{f"{phase}_s": spent / steps for phase, spent in runs.phases.items()},
        "making_s": made,
        **memory(where),
    }


def profiles(device: str, sizes: str, so_far: Row) -> Settings:
    """Where the time of a step goes, few runs and many."""
    counts, bits = ((16, 1024), 6) if sizes == "full" else ((2,), 3)
    for num_runs in counts:
        for limit in (None, _AS_ON_A_CPU):
            note = f"R={num_runs}" + (f", {limit} tokens a pass" if limit else "")
            work = (num_runs, device, bits, limit)
            yield f"{note}: device", lambda work=work: profiled(*work, of_device)
            yield f"{note}: host", lambda work=work: profiled(*work, of_host)


def profiled(
    num_runs: int, device: str, num_bits: int, limit: int | None, look: Callable[[Lockstep, int], Row]
) -> Row:
    """Looks at some steps, after two."""
    with tokens_a_pass(limit):
        runs = Lockstep(num_runs, device, num_bits)
        for _ in range(2):
            runs.step()
        return look(runs, 3 if num_runs < 100 else 1)


def of_device(runs: Lockstep, steps: int) -> Row:
    """Share of the time in which the device computes, by PyTorch's profiler; its kernels; calls to launch.

    On one stream kernels follow each other, so that the sum of their times is that of a busy device. Under
    the profiler the host is slower: the wall time without it is given, too.
    """
    start = time.perf_counter()
    for _ in range(steps):
        runs.step()
    plain = time.perf_counter() - start
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities if runs.device.startswith("cuda") else activities[:1]) as seen:
        for _ in range(steps):
            runs.step()
    kernels, calls, host = Counter[str](), Counter[str](), Counter[str]()
    for event in seen.key_averages():
        on_device = float(getattr(event, "self_device_time_total", 0.0))
        if "cuda" in str(event.device_type).lower():
            kernels[event.key[:90]] += on_device / 1e6
            calls["kernels_and_copies"] += event.count
        else:
            host[event.key[:60]] += event.self_cpu_time_total / 1e6
            if event.key.startswith("cuda"):
                calls[event.key] += event.count
    busy = sum(kernels.values())
    copies = sum(spent for key, spent in kernels.items() if key.startswith(("Memcpy", "Memset")))
    launching = sum(spent for key, spent in host.items() if "LaunchKernel" in key)
    return {
        "step_s": plain / steps,
        "device_busy_of_wall": busy / plain if busy else "the profiler saw no kernels",
        "copies_of_wall": copies / plain,
        "launch_calls_of_wall": launching / plain,
        "calls_a_step": {key: count // steps for key, count in calls.most_common(8)},
        "top_kernels_ms_a_step": {key: 1e3 * spent / steps for key, spent in kernels.most_common(10)},
        "top_host_ms_a_step": {key: 1e3 * spent / steps for key, spent in host.most_common(12)},
    }


def of_host(runs: Lockstep, steps: int) -> Row:
    """Seconds of the Python thread by library and by function, by cProfile, which makes Python itself slower.

    What it waits for the device is in the function that waits, such as `to`, `cpu` or `synchronize`.
    """
    runs.phases.clear()
    watch = cProfile.Profile()
    watch.enable()
    for _ in range(steps):
        runs.step()
    watch.disable()
    libraries, functions = Counter[str](), Counter[str]()
    measured = pstats.Stats(watch).stats.items()  # type: ignore[attr-defined]
    for (file, line, name), (_, _, own, _, _) in measured:
        text = f"{file} {name}"
        library = next(
            (word for word in ("numpy", "torch", "transformers", "memory_rl") if word in text), "other"
        )
        libraries[library] += own / steps
        functions[f"{file.rpartition('/')[2]}:{line} {name}"] += own / steps
    total = sum(libraries.values())
    return {
        "phases_ms": {phase: 1e3 * spent / steps for phase, spent in runs.phases.items()},
        "share_by_library": {key: round(spent / total, 3) for key, spent in libraries.most_common()},
        "top_functions_ms": {key: round(1e3 * spent, 3) for key, spent in functions.most_common(15)},
    }
