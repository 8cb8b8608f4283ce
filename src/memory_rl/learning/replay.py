"""A learner that also learns from what its run did earlier.

Axes: R runs, B groups, G episodes of a group, K steps, E = B G episodes, L tokens, P earlier episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from typing_extensions import override

from memory_rl.keys import key
from memory_rl.learning.batch import Batch
from memory_rl.learning.learners import Learner, over_runs
from memory_rl.limits import FACTORS, SIZES
from memory_rl.seeding import RunStreams

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Replay(Learner, name="replay"):
    """The group's mean as baseline, and after each update a step on earlier episodes of the run.

    A replayed answer has the advantage that it had, times the ratio of its probability now to that when it
    was given, truncated (Ionides 2008, Truncated Importance Sampling; Espeholt et al. 2018,
    arXiv:1802.01561). Answers that had no advantage, such as those of a group of equal returns, are not
    replayed.
    """

    choice: Literal["best", "recent", "random"] = key(
        "best",
        "Which earlier episodes are replayed: those with the highest returns, the last ones, or any.",
        word="replay_choice",
    )
    size: int = key(4, "Earlier episodes that are replayed after an update.", SIZES, word="replay_episodes")
    memory: int = key(64, "The most earlier episodes that a run remembers.", SIZES, word="replay_memory")
    truncation: float = key(
        2.0, "The most that a ratio of probabilities weighs.", (1, FACTORS[1]), word="replay_truncation"
    )
    silent_if_equal = False  # then earlier episodes still move
    samples_suffice = True
    not_hosted = "replays earlier episodes"
    kept = ("_memory", "_random")

    @override
    def start(self, seed: int, num_runs: int) -> None:
        self._num_runs, self._random = num_runs, RunStreams(seed, "replay", num_runs)
        self._memory: Any = None  # arrays (R, P, ...), the latest episode last

    @override
    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        log_ratio = (log_probs - before).sum(dim=2, keepdim=True)
        weight = log_ratio.clamp(max=math.log(self.truncation)).exp().detach()
        return over_runs(-(weight * advantages * log_probs))

    @override
    def learn(self, policy: Any, batch: Batch) -> np.ndarray:
        assert batch.returns is not None  # noqa: S101  # rewarded
        equal = np.ptp(batch.returns, axis=2, keepdims=True) == 0
        advantages = np.where(equal, 0.0, self.advantages(batch.returns))
        seen = {
            "path": batch.path,
            "choices": batch.choices,
            "prompts": batch.asked,
            "before": policy.log_probs_of_path(batch),
            "advantages": advantages.reshape(batch.choices.shape),
            "value": batch.returns.reshape(batch.choices.shape).sum(axis=2),
        }
        silent = self._move(policy, batch, advantages)
        if self._memory is not None:
            self._replay(policy, batch)
        self._remember(batch.runs, seen)
        return silent

    def _remember(self, runs: np.ndarray, seen: dict[str, np.ndarray]) -> None:
        """Adds episodes (R', E, ...) of these runs to the memory, which forgets the oldest."""
        old, self._memory = self._memory, {}
        for name, of_runs in seen.items():
            new = np.zeros((self._num_runs, *of_runs.shape[1:]), of_runs.dtype)
            new[runs] = of_runs
            both = new if old is None else np.concatenate([old[name], new], axis=1)
            self._memory[name] = both[:, -self.memory :]

    def _replay(self, policy: Any, batch: Batch) -> None:
        """A step on the episodes of these runs that are to be replayed."""
        known = {name: of_all[batch.runs] for name, of_all in self._memory.items()}
        rank = np.where(known["advantages"].any(axis=2), self._ranks(batch.runs, known["value"]), -np.inf)
        chosen = np.argsort(rank, axis=1, kind="stable")[:, ::-1][:, : self.size]  # of equal ones the latest
        row = np.arange(len(chosen))[:, None]
        picked = {name: of_run[row, chosen] for name, of_run in known.items()}
        asked = picked["prompts"]
        prompts = asked if asked.any() else asked[:, :1]  # one block if they are all about the same secret
        again = Batch(
            batch.runs, prompts, picked["choices"], picked["path"], batch.updates, before=picked["before"]
        )
        policy.update(again, picked["advantages"], self)

    def _ranks(self, runs: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The higher, the sooner an episode is replayed: (R, P), from their returns."""
        if self.choice == "best":
            return values
        if self.choice == "recent":
            return np.broadcast_to(np.arange(values.shape[1], dtype=np.float64), values.shape)
        return self._random.random(runs, values.shape[1])
