"""Three ways to warm up a base model for many prompts, and what can be taught to adapters on each.

    python studies/many_prompts.py          (about 5 minutes on one core; prints a table)

"cosine" is the mean cosine between the hidden states at which two of 64 prompts are answered, "rows" the
least distance between the head's rows of two digits. Then SFT of 4, 16 and 64 secrets in [0, 16), and binary
and per-bit reward on 16: LoRA of rank 8, 8 runs each, one step size for each kind of learning.
"""

from __future__ import annotations

import string
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import memory_rl
from memory_rl.experiment import make_experiment
from memory_rl.policies import base_model, tiny_model, warmup
from memory_rl.policies.packed import decision_states, pack_all
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.task import make_environment

HEAD, TOGETHER, APART = "head alone first", "all parameters together", "kept apart (the default)"
COMMON: dict[str, Any] = {"N": 16, "num_runs": 8, "order": "cycle", "ledger": False, "quiet": True}
REWARDS: dict[str, dict[str, Any]] = {
    "binary": {"reward_type": "binary", "max_episodes": 12800, "learning_rate": 0.0005},
    "per bit": {"env_type": "multi_step", "max_episodes": 9600, "learning_rate": 0.0005},
}


@contextmanager
def warmed_up(how: str) -> Iterator[str]:
    """Base models are made in this way; gives a folder for what is measured on them."""
    settings = replace(base_model._TINY_WARMUP, head_steps=0) if how == TOGETHER else base_model._TINY_WARMUP
    opened = {"return_value": None} if how == HEAD else {"wraps": warmup.open_answers}
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict("os.environ", MEMORY_RL_CACHE=folder),
        mock.patch.object(base_model, "_TINY_WARMUP", settings),
        mock.patch.object(warmup, "open_answers", **opened),
    ):
        yield folder


def look(num_secrets: int = 64) -> tuple[float, float]:
    """The mean cosine between prompts and the least distance between the rows of two digits."""
    experiment = make_experiment({"N": 16, "num_secrets": num_secrets}, "sft")
    environment = make_environment(experiment.world, experiment.signal, experiment.wording)
    base = base_model.find_base_model(experiment.policy.model_name, experiment.policy.base_seed)
    trie = tokenise_all(
        base.tokenizer,
        environment.conversations(),
        environment.choices(np.arange(environment.num_forms)),
        environment.first_prompts(),
    )
    base_model.warm_up_cached(base, trie, experiment.world.N)
    states = torch.nn.functional.normalize(
        decision_states(base.model, trie, pack_all(trie), np.arange(num_secrets))[:, 0], dim=1
    )
    rows = base.model.get_output_embeddings().weight[
        tiny_model.make_tokenizer().convert_tokens_to_ids(list(string.digits))
    ]
    return float((states @ states.T)[~torch.eye(num_secrets, dtype=torch.bool)].mean()), float(
        torch.pdist(rows.detach()).min()
    )


def taught_by_example(num_secrets: int, folder: str) -> str:
    """Median examples until memorised, or the bits stored."""
    settings = {
        "num_secrets": num_secrets,
        "batch_size": num_secrets,
        "max_episodes": 200 * num_secrets,
        "evaluate_every": 1,
        "learning_rate": 0.005,
    }
    [summary] = memory_rl.sft(**COMMON, **settings, log_path=f"{folder}/sft-{num_secrets}").summary.values()
    median = summary["episodes_to_memorise"]["median"]
    return (
        f"{median:g}"
        if median is not None
        else f"{summary['stored']['estimate']:.0f} of {4 * num_secrets} bits"
    )


def taught_by_reward(name: str, folder: str) -> str:
    """Runs that memorised 16 secrets, and the median of their episodes."""
    settings = {**REWARDS[name], "num_secrets": 16, "batch_size": 16, "evaluate_every": 2}
    [summary] = memory_rl.train(**COMMON, **settings, log_path=f"{folder}/{name}").summary.values()
    median = summary["episodes_to_memorise"]["median"]
    return f"{summary['memorised']} of {summary['runs']}" + (f": {median:g}" if median is not None else "")


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    secrets = (4, 16, 64)
    table = Table(
        "base model",
        "cosine",
        "rows",
        *(f"SFT, M={number}" for number in secrets),
        *(f"{name}, M=16" for name in REWARDS),
    )
    for how in (HEAD, TOGETHER, APART):
        with warmed_up(how) as folder:
            cosine, rows = look()
            learned = [
                *(taught_by_example(number, folder) for number in secrets),
                *(taught_by_reward(name, folder) for name in REWARDS),
            ]
            table.add_row(how, f"{cosine:.3f}", f"{rows:.2f}", *learned)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
