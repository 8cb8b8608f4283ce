"""What all sides of the benchmark share.

One experiment, its warm base model, its tokens and rewards, a stop watch, and the exact P(S).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import peft
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from memory_rl.experiment import Experiment, make_experiment
from memory_rl.policies.answer_trie import AnswerTrie, TokenTurn
from memory_rl.policies.base_model import find_base_model, warm_up_cached
from memory_rl.policies.lora import TARGETS
from memory_rl.policies.tokenisation import tokenise
from memory_rl.populations import make_trie
from memory_rl.task import INVALID, Environment, make_environment
from memory_rl.training.recompute import draw_secrets

THRESHOLDS = (0.5, 0.9)
"""A secret is memorised once P(S) is at least this."""


class StopWatch:
    """Wall and CPU seconds since `start()`, less what ran inside `paused()`."""

    def __init__(self) -> None:
        self.wall = self.cpu = self.paused_wall = 0.0

    def start(self) -> None:
        """From now on."""
        self._add(-1)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Takes a block out of the time, and counts it apart."""
        self._add(+1)
        start = time.perf_counter()
        yield
        self.paused_wall += time.perf_counter() - start
        self._add(-1)

    def now(self) -> tuple[float, float]:
        """(wall, CPU) so far."""
        return self.wall + time.perf_counter(), self.cpu + time.process_time()

    def _add(self, sign: int) -> None:
        self.wall += sign * time.perf_counter()
        self.cpu += sign * time.process_time()


@dataclass
class Trace:
    """One run: what P(S) was, and how much time had gone by, after so many episodes.

    Attributes:
        episodes, p_secret, wall, cpu: a number for each update.
        measuring: wall seconds spent on P(S) that are not in `wall`.
    """

    episodes: list[int] = field(default_factory=list)
    p_secret: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    measuring: float = 0.0

    def add(self, episodes: int, p_secret: float, wall: float, cpu: float) -> None:
        """Appends an update."""
        self.episodes.append(episodes)
        self.p_secret.append(p_secret)
        self.wall.append(wall)
        self.cpu.append(cpu)

    def first(self, threshold: float) -> int | None:
        """The update after which P(S) was first at least this."""
        return next((update for update, p in enumerate(self.p_secret) if p >= threshold), None)


class Problem:
    """One condition: its environment, and the model that every learner of it starts from."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings
        self.experiment = make_experiment(settings)
        world, chosen = self.experiment.world, self.experiment.policy
        self.environment: Environment = make_environment(
            world, self.experiment.signal, self.experiment.wording
        )
        base = find_base_model(chosen.model_name, chosen.base_seed)
        self.tokenizer: PreTrainedTokenizerBase = base.tokenizer
        self.trie: AnswerTrie = make_trie(base.tokenizer, self.environment)
        warm_up_cached(base, self.trie, world.N)
        self._base: PreTrainedModel = base.model

    @cached_property
    def max_new_tokens(self) -> int:
        """The longest reply."""
        return max(len(reply) for form in range(self.environment.num_forms) for _, reply in self.turns(form))

    def told(self, **signal: object) -> Problem:
        """The same world and base model with another signal."""
        other = copy.copy(self)
        other.settings = {**self.settings, **signal}
        other.experiment = make_experiment(other.settings)
        other.environment = make_environment(
            other.experiment.world, other.experiment.signal, other.experiment.wording
        )
        return other

    def base_model(self) -> PreTrainedModel:
        """A fresh copy of the warm base model."""
        return copy.deepcopy(self._base)

    def configured(self, seed: int, num_runs: int = 1, **more: object) -> Experiment:
        """The same experiment with another seed, number of runs, and what else is given."""
        return make_experiment({**self.settings, "seed": seed, "num_runs": num_runs, **more})

    def secret(self, seed: int) -> int:
        """The secret of this seed, the same on all sides."""
        return int(draw_secrets(self.configured(seed))[0, 0])

    def lora(self) -> peft.LoraConfig:
        """The adapters of the configuration, as PEFT makes them."""
        chosen = self.experiment.policy
        return peft.LoraConfig(
            r=chosen.lora_rank,
            lora_alpha=chosen.lora_alpha,
            target_modules=list(TARGETS[chosen.lora_targets]),
            task_type="CAUSAL_LM",
        )

    def turns(self, form: int) -> list[TokenTurn]:
        """The tokens of each turn of a valid conversation: (the user's, the reply's)."""
        return tokenise(self.tokenizer, self.environment.conversation(form))

    def read(self, reply: list[int]) -> int:
        """The choice that these sampled tokens write, up to their end-of-sequence token.

        `INVALID` if they write none.
        """
        end = self.tokenizer.eos_token_id
        if end not in reply:
            return INVALID
        choice = self.environment.parse(self.tokenizer.decode(reply[: reply.index(end)]))
        return INVALID if choice is None else choice

    def rewards(self, choices: np.ndarray, secret: int) -> np.ndarray:
        """Rewards (G, K) of the choices (G, K)."""
        return self.environment.rewards(choices[None], np.array([secret]))[0]

    def p_secret(self, model: torch.nn.Module, secret: int) -> float:
        """P(S) by one teacher-forced forward pass."""
        tokens: list[int] = []
        replies: list[int] = []
        for forced, reply in self.turns(secret):
            replies.extend(range(len(tokens) + len(forced), len(tokens) + len(forced) + len(reply)))
            tokens += [*forced, *reply]
        with torch.no_grad():
            log_probs = (
                model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double().log_softmax(dim=1)
            )
        place = torch.tensor(replies)
        return float(log_probs[place - 1, torch.tensor(tokens)[place]].sum().exp())
