"""Experiments on the base that has read text, and what decides whether a reward for each bit gets through.

    python studies/text_bases.py DIR conditions          (prints table 1)
    python studies/text_bases.py DIR turns               (prints table 2)

Two bases (`base_seed` 0 and 1), 16 runs on each, at most 2000 episodes. "stuck" are the runs of both that
have not memorised by then, which count as infinite in the medians. What DIR holds is not measured again.

Table 1: each condition at N = 16 and 64, at the default step size, its double and its fourfold, beside
the built-in random base at the default.

Table 2: multi_step, one thing changed at a time. "cosine" is the mean cosine between the hidden states that
the head sees where different turns (or histories) are answered: of the base before the format warm-up, and
after it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from turn_interference import turn_cosine

import memory_rl
from memory_rl.analysis.survival import memorisation_times
from memory_rl.assembly import make_setting
from memory_rl.experiment import make_experiment
from memory_rl.policies import base_model
from memory_rl.policies.base_model import find_base_model, warm_up_cached
from memory_rl.policies.warmup import WarmupSettings
from memory_rl.populations import make_trie

SEEDS, RUNS, BUDGET, DEFAULT = (0, 1), 16, 2000, 5e-4
RATES = (DEFAULT, DEFAULT * 2, DEFAULT * 4)
PER_BIT = {"env_type": "multi_step"}
CONDITIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT": ("sft", {}),
    "binary": ("train", {}),
    "per bit": ("train", PER_BIT),
    "8 bins": ("train", {"reward_type": "binned_log_distance", "reward_bins": 8}),
}
HEAD_FIRST, THROUGH_ADAPTER = base_model._TINY_WARMUP, base_model._PRETRAINED_WARMUP
TOGETHER = WarmupSettings()
Change = tuple[dict[str, Any], WarmupSettings]
CHANGES: dict[str, Change] = {
    "as it is": ({}, THROUGH_ADAPTER),
    "asked tersely": ({"wording": "terse"}, THROUGH_ADAPTER),
    "warmed up head first": ({}, HEAD_FIRST),
    "warmed up whole": ({}, TOGETHER),
    "half the step size": ({"learning_rate": DEFAULT / 2}, THROUGH_ADAPTER),
    "a fifth of the step size": ({"learning_rate": DEFAULT / 5}, THROUGH_ADAPTER),
    "ppo, 4 epochs": ({"algorithm": "ppo", "ppo_epochs": 4}, THROUGH_ADAPTER),
    "adapters on layer 1 alone": ({"lora_layers": "1"}, THROUGH_ADAPTER),
    "16 episodes a group": ({"group_size": 16}, THROUGH_ADAPTER),
    "random base, head first (tiny)": ({"model_name": "tiny"}, HEAD_FIRST),
    "random base, through an adapter": ({"model_name": "tiny"}, THROUGH_ADAPTER),
}


@contextmanager
def warmed_up_by(settings: WarmupSettings) -> Iterator[None]:
    """Within, every base is warmed up so."""
    with (
        mock.patch.object(base_model, "_TINY_WARMUP", settings),
        mock.patch.object(base_model, "_PRETRAINED_WARMUP", settings),
    ):
        yield


def times_of(folder: Path, command: str, **keys: Any) -> np.ndarray:
    """Episodes until each run has memorised, infinity where it is stuck; from the folder if there."""
    result = getattr(memory_rl, command)(  # what follows on memorising is not looked at
        stop_at=0.5,
        log_path=str(folder),
        resume=True,
        num_runs=RUNS,
        max_episodes=BUDGET,
        ledger=False,
        quiet=True,
        **keys,
    )
    times = memorisation_times(result.metrics, float(np.log2(keys["N"])), 0.5)
    return np.where(times.memorised, times.episodes, np.inf)


def over_bases(folder: Path, command: str, **keys: Any) -> list[str]:
    """The medians of each base, and the runs of all that are stuck."""
    times = np.stack([times_of(folder / f"base-{seed}", command, base_seed=seed, **keys) for seed in SEEDS])
    return [
        *(f"{median:g}" for median in np.median(times, axis=1)),
        f"{np.isinf(times).sum()} of {times.size}",
    ]


def cosines(N: int, keys: dict[str, Any]) -> Iterator[str]:
    """Of both bases: between turns before the warm-up, and after it."""
    for seed in SEEDS:
        setting = make_setting(make_experiment({"N": N, "base_seed": seed, **PER_BIT, **keys}))
        base = find_base_model(keys["model_name"], seed)
        trie = make_trie(base.tokenizer, setting.environment)
        with torch.no_grad():
            raw = turn_cosine(base.model, trie)
        warm_up_cached(base, trie, N, accepted=1.0)
        with torch.no_grad():
            yield f"{raw:.3f}, {turn_cosine(base.model, trie):.3f}"


def conditions(folder: Path, sizes: tuple[int, ...], show: Any) -> None:
    """Table 1."""
    show("| N | condition | base | step size | median, base 0 | base 1 | stuck |")
    for N in sizes:
        for name, (command, keys) in CONDITIONS.items():
            for model, rate in (("tiny", DEFAULT), *(("tiny-text", rate) for rate in RATES)):
                place = folder / f"{name.replace(' ', '-')}-{N}-{model}-{rate:g}"
                cells = over_bases(place, command, N=N, model_name=model, learning_rate=rate, **keys)
                show("| " + " | ".join([str(N), name, model, f"{rate:g}", *cells]) + " |")


def turns(folder: Path, sizes: tuple[int, ...], show: Any) -> None:
    """Table 2."""
    show("| N | multi_step | cosine, base 0 | base 1 | median, base 0 | base 1 | stuck |")
    for N in sizes:
        for name, (keys, settings) in CHANGES.items():
            keys = {"model_name": "tiny-text", **keys}
            with warmed_up_by(settings):
                place = folder / f"turns-{N}-{name.replace(' ', '-').replace(',', '')}"
                cells = [
                    *cosines(N, keys),
                    *over_bases(place, "train", N=N, warmup_tolerance=1.0, **PER_BIT, **keys),
                ]
            show("| " + " | ".join([str(N), name, *cells]) + " |")


def main() -> None:
    """Prints a row as soon as its runs are there."""
    torch.set_num_threads(1)
    folder, which, *sizes = sys.argv[1:]
    show = Console(width=200, highlight=False).print
    {"conditions": conditions, "turns": turns}[which](Path(folder), tuple(map(int, sizes)) or (16, 64), show)


if __name__ == "__main__":
    main()
