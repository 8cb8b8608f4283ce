"""What in a base model stops binary reward: one thing swapped at a time.

    python studies/base_priors.py          (about 3 minutes on one core; prints a table)

N = 16, one secret, LoRA of rank 8, learning rate 0.001, budget 600 episodes; 32 runs on each of four base
models that differ in `base_seed`. "from uniform" is KL(uniform || answers) of the base in bits, "least" the
bits known of its least likely answer, "head" the mean norm of the head's rows of the digits, "rows" the least
distance between two of them, "stuck" the runs that have not memorised by the end of the budget.

Worlds in turn: the base is warmed up for this world, then for multi_step, then for four prompts, a hundred
times over, so that this world is never the last one. "then this world" warms it up once more, "with that
prior" trains the base of this world alone until its answers are as likely as those. Of M prompts: warmed up
for M prompts at once, as `num_secrets=M` does, and asked for one secret by the first of them.
"""

from __future__ import annotations

import contextlib
import copy
import math
import string
import tempfile
from collections.abc import Callable
from functools import partial
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import beta
from transformers import PreTrainedModel

import memory_rl
from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.packed import all_edge_log_probs, form_log_probs, pack_all
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.policies.warmup import WarmupSettings, warm_up
from memory_rl.task import Environment, MultiStep, SecretSpace, SingleStep, make_channel

N, SEEDS, RUNS, ROUNDS = 16, range(4), 32, 100
TOKENIZER = tiny_model.make_tokenizer()
DEFAULT, LOOSE, TOGETHER = (
    WarmupSettings(head_steps=1000),
    WarmupSettings(head_steps=1000, tolerance=0.02),
    WarmupSettings(),
)


def single(num_secrets: int = 1) -> SingleStep:
    """One number, asked for by as many prompts."""
    return SingleStep(SecretSpace(N), make_channel("binary", N), num_secrets)


def trie_of(world: Environment) -> AnswerTrie:
    """All valid conversations of a world."""
    answers = np.arange(world.num_forms)
    return tokenise_all(TOKENIZER, world.conversations(), world.choices(answers), world.first_prompts())


HERE = trie_of(single())


def log_probs(model: PreTrainedModel, trie: AnswerTrie = HERE) -> torch.Tensor:
    """Of the N answers behind the first prompt, in nats."""
    edges = all_edge_log_probs(model, trie, pack_all(trie), np.arange(1))
    return form_log_probs(trie, edges, N).flatten()


def alone(seed: int, num_prompts: int = 1) -> PreTrainedModel:
    """As `base_seed=seed num_secrets=num_prompts` is warmed up."""
    model = tiny_model.make_model(seed)
    warm_up(model, trie_of(single(num_prompts)), N, DEFAULT)
    return model


def in_turn(seed: int) -> PreTrainedModel:
    """Warmed up for three worlds in turn, this one first."""
    model = tiny_model.make_model(seed)
    worlds = [(HERE, N), (trie_of(MultiStep.with_noise(SecretSpace(8))), 8), (trie_of(single(4)), N)]
    for _ in range(ROUNDS):
        for trie, num_answers in worlds:
            warm_up(model, trie, num_answers, LOOSE)
    return model


def then_this_world(model: PreTrainedModel) -> PreTrainedModel:
    """Once more, all parameters, for this world."""
    warm_up(model, HERE, N, TOGETHER)
    return model


def given_prior_of(other: PreTrainedModel, model: PreTrainedModel) -> PreTrainedModel:
    """All parameters, until each answer is as likely as in the other model, to 0.05 bit on average."""
    wanted = log_probs(other).detach()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-4)
    for _ in range(3000):
        error = ((log_probs(model) - wanted) ** 2).mean()
        if error.sqrt().item() < 0.05 * math.log(2):
            return model
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    raise RuntimeError(f"still {error.sqrt().item() / math.log(2):.2f} bits away")


def learn(model: PreTrainedModel, num_prompts: int) -> np.ndarray:
    """Episodes until each run has memorised, infinity where it is stuck."""
    name = single(num_prompts).prompt(0)
    asked = mock.patch.object(SingleStep, "prompt", return_value=name)
    with tempfile.TemporaryDirectory() as folder, asked if num_prompts > 1 else contextlib.nullcontext():
        model.save_pretrained(f"{folder}/model")
        TOKENIZER.save_pretrained(f"{folder}/model")
        metrics = memory_rl.train(
            model_name=f"{folder}/model", log_path=f"{folder}/run", N=N, num_runs=RUNS, max_episodes=600,
            learning_rate=1e-3, warmup=False, wording="terse", ledger=False, quiet=True,
        ).metrics  # fmt: skip
    times = np.full(RUNS, np.inf)
    for run, episode, bits in metrics.select("run", "episode", "bits_known").iter_rows():
        if bits >= math.log2(N) - 1:
            times[run] = min(times[run], episode)
    return times


def look(model: PreTrainedModel, num_prompts: int) -> tuple[float, float, float, float]:
    """KL(uniform || answers), the least likely answer, mean norm and least distance of the digits' rows."""
    with torch.no_grad():
        bits = log_probs(model, trie_of(single(num_prompts))) / math.log(2) + math.log2(N)
        digits = TOKENIZER.convert_tokens_to_ids(list(string.digits))
        rows = model.get_output_embeddings().weight[digits]
        return (
            -bits.mean().item(),
            bits.min().item(),
            rows.norm(dim=1).mean().item(),
            torch.pdist(rows).min().item(),
        )


def stuck(times: np.ndarray) -> str:
    """How many, with the Clopper-Pearson interval of their share."""
    k, n = int(np.isinf(times).sum()), times.size
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{k} of {n} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    mixed = {seed: in_turn(seed) for seed in SEEDS}
    bases: list[tuple[str, int, Callable[[int], PreTrainedModel]]] = [
        ("this world alone (the default)", 1, alone),
        ("three worlds in turn", 1, lambda seed: mixed[seed]),
        ("... then this world", 1, lambda seed: then_this_world(copy.deepcopy(mixed[seed]))),
        ("this world alone, with that prior", 1, lambda seed: given_prior_of(mixed[seed], alone(seed))),
        *((f"{many} prompts (the default)", many, partial(alone, num_prompts=many)) for many in (4, 16, 64)),
    ]
    table = Table("base", "from uniform", "least", "head", "rows", "stuck", "each base", "median")
    for name, num_prompts, make in bases:
        models = [make(seed) for seed in SEEDS]
        seen = np.array([look(model, num_prompts) for model in models])
        times = np.stack([learn(model, num_prompts) for model in models])
        ranges = [
            f"{low:.3g} to {high:.3g}" for low, high in zip(seen.min(axis=0), seen.max(axis=0), strict=True)
        ]
        each = ", ".join(map(str, np.isinf(times).sum(axis=1)))
        table.add_row(name, *ranges, stuck(times), each, f"{np.median(times):g}")
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
