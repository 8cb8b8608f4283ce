"""Why dense RL can collapse: turns that look alike to the adapters learn each other's bits.

    python studies/turn_interference.py          (about 3 minutes on one core; prints two tables)

Table 1, the real policy: multi_step, N = 64, on base models that differ in how their random body was drawn
and warmed up. "cosine" is the mean cosine between the hidden states that the head sees where two different
turns (or histories) are answered.

Table 2, the smallest model that shows it: one Bernoulli policy a turn, p_j = sigmoid(w . x_j), whose features
have cosine c with each other, trained in the same way (groups of 4, mean baseline, credit to the own step). c
= 0 is the exact tabular learner.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from memory_rl.analysis.survival import memorisation_times
from memory_rl.assembly import make_meter, make_sampling, make_setting
from memory_rl.experiment import make_experiment
from memory_rl.learning.learners import Reinforce
from memory_rl.policies import tiny_model
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.lora import LoRASettings
from memory_rl.policies.packed import decision_states, pack_all
from memory_rl.policies.tokenisation import tokenise_all
from memory_rl.policies.transformer import TransformerPolicy
from memory_rl.policies.warmup import WarmupSettings, warm_up
from memory_rl.runs.store import RunDirectory
from memory_rl.task import SecretSpace
from memory_rl.training.loop import train
from memory_rl.training.recompute import draw_secrets
from memory_rl.training.tables import Tables

EXPERIMENT = make_experiment(
    {"env_type": "multi_step", "N": 64, "num_runs": 64, "seed": 1, "max_episodes": 1000, "ledger": False}
)
BASES = {
    "std 0.02, all parameters at once": (0.02, WarmupSettings(learning_rate=1e-3)),
    "std 0.2, all parameters at once": (0.2, WarmupSettings(learning_rate=1e-3)),
    "std 0.02, head first": (0.02, WarmupSettings(head_steps=1000)),
    "std 0.2, head first (the default)": (0.2, WarmupSettings(head_steps=1000)),
}
COSINES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def turn_cosine(model: torch.nn.Module, trie: AnswerTrie) -> float:
    """Mean cosine of the hidden states at the decisions that begin a turn."""
    first = trie.edge_decision[
        np.isin(trie.edge_token, tiny_model.make_tokenizer().convert_tokens_to_ids(["0", "1"]))
    ]
    begins = decision_states(model, trie, pack_all(trie))[0, torch.from_numpy(np.unique(first))]
    unit = begins / begins.norm(dim=1, keepdim=True)
    return float(((unit @ unit.T).sum() - len(unit)) / (len(unit) * (len(unit) - 1)))


def real_policy(body_std: float, settings: WarmupSettings) -> tuple[float, int, list[int]]:
    """The cosine, the runs that memorised, and the secrets of those that did not."""
    setting, world, stop = make_setting(EXPERIMENT), EXPERIMENT.world, EXPERIMENT.stop
    environment, secrets = setting.environment, draw_secrets(setting.experiment)
    forms = environment.choices(np.arange(environment.num_forms))
    trie = tokenise_all(tiny_model.make_tokenizer(), environment.conversations(), forms)
    model = tiny_model.make_model(EXPERIMENT.policy.base_seed, body_std)
    warm_up(model, trie, world.N, settings)
    cosine = turn_cosine(model, trie)
    policy = TransformerPolicy(
        model,
        trie,
        num_runs=stop.num_runs,
        lora=LoRASettings(),
        learning_rate=EXPERIMENT.step_size,
        seed=world.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables(RunDirectory(Path(folder)), secrets, world.seed, EXPERIMENT.step_size)
        meter = make_meter(setting, secrets, [tables.take], lambda *_: None, None)
        train(policy, setting.learner, make_sampling(setting, policy, secrets), meter)
        times = memorisation_times(tables.metrics, 6.0, stop.memorised_at)
    return cosine, int(times.memorised.sum()), sorted(set(secrets[~times.memorised, 0].tolist()))


def linear_policy(cosine: float, step_size: float = 1.0, episodes: int = 4000) -> tuple[int, list[int]]:
    """All 64 secrets at once: how many end with P(S) >= 0.5, and those that do not."""
    space, group = SecretSpace(64), 4
    secrets = np.arange(64)
    bits = space.to_bits(secrets)  # (R, K)
    features = np.concatenate(
        [np.full((6, 1), np.sqrt(cosine)), np.sqrt(1 - cosine) * np.eye(6)], axis=1
    )  # (K, d)
    weights, random, learner = np.zeros((64, 7)), np.random.default_rng(0), Reinforce()
    for _ in range(episodes // group):
        ones = 1 / (1 + np.exp(-weights @ features.T))  # (R, K)
        drawn = (random.random((64, group, 6)) < ones[:, None]).astype(int)
        advantages = learner.advantages((drawn == bits[:, None]).astype(float)[:, None])[:, 0]
        weights += step_size * (advantages * (drawn - ones[:, None])).mean(axis=1) @ features
    ones = 1 / (1 + np.exp(-weights @ features.T))
    known = np.where(bits == 1, ones, 1 - ones).prod(axis=1) >= 0.5
    return int(known.sum()), secrets[~known].tolist()


def main() -> None:
    """Prints both tables."""
    torch.set_num_threads(1)
    space = SecretSpace(EXPERIMENT.world.N)
    real = Table(
        "base model",
        "cosine",
        f"memorised of {EXPERIMENT.stop.num_runs}",
        "secrets never learned",
        title="1. transformer, LoRA rank 8",
    )
    for name, (body_std, settings) in BASES.items():
        cosine, memorised, missed = real_policy(body_std, settings)
        real.add_row(name, f"{cosine:.5f}", str(memorised), _spell(space, missed))
    linear = Table(
        "cosine c",
        "memorised of 64",
        "secrets never learned",
        title="2. linear policy, all 64 secrets, SGD step 1",
    )
    for cosine in COSINES:
        memorised, missed = linear_policy(cosine)
        linear.add_row(f"{cosine:g}", str(memorised), _spell(space, missed))
    Console(width=140).print(real, linear)


def _spell(space: SecretSpace, secrets: list[int]) -> str:
    words = ["".join(map(str, space.to_bits(secret))) for secret in secrets]
    return " ".join(words[:8]) + (" ..." if len(words) > 8 else "")


if __name__ == "__main__":
    main()
