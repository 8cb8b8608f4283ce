"""The real learner: any Llama-style causal language model with R stacked LoRA adapters.

Sampling is from the model's exact next-token distributions, computed for the whole answer trie in one forward pass and kept until the parameters
move (where the trie is too large for that: paths.py). An update recomputes the sampled conversations alone, with their graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from memory_rl.learning.objectives import Objective, cross_entropy
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.base import Assessment, Rollout, assess_all
from memory_rl.policies.lora import LoRASettings, StackedAdapters
from memory_rl.policies.packed import all_edge_log_probs, chosen_log_probs, form_log_probs, pack_all
from memory_rl.seeding import RunStreams, torch_seed
from memory_rl.state import State

_FLOATS_A_PASS = 2**27  # bounds the memory of one forward pass: runs are taken in chunks
_TOKENS_A_PASS = 2**12  # more at once are slower: the activations leave the cache


class AdaptedTransformer:
    """R adapters on a Hugging Face causal language model, and how they learn; how they are asked is for its subclasses to say.

    Args:
        model: the base model; it is frozen and its target layers are replaced in place.
        trie: the valid conversations of the environment.
        num_runs: R.
        lora: rank, alpha and targets of the adapters.
        learning_rate: the optimiser's step size.
        seed: of the initial adapters and of sampling.
        optimiser: "adam" or "sgd".
    """

    def __init__(
        self, model: PreTrainedModel, trie: AnswerTrie, *, num_runs: int, lora: LoRASettings, learning_rate: float, seed: int, optimiser: str = "adam"
    ) -> None:
        self.num_runs = num_runs
        self.updates = np.zeros(num_runs, dtype=np.int64)
        self.model = model.eval()
        self.trie = trie
        self.adapters = StackedAdapters(model, lora, [torch_seed(seed, "adapters", run) for run in range(num_runs)])
        # One parameter a run: Adam then counts each run's steps apart and leaves a run without a gradient alone.
        kind = torch.optim.Adam if optimiser == "adam" else torch.optim.SGD
        self.optimiser = kind(self.adapters.vectors, lr=learning_rate, fused=True)
        self._streams = RunStreams(seed, "answers", num_runs)
        self._stale = np.ones(num_runs, dtype=bool)
        torch.set_flush_denormal(True)  # denormals make Adam slow

    @property
    def trained_parameters(self) -> int:
        """Parameters that one run trains."""
        return self.adapters.size

    def demonstrate(self, runs: np.ndarray, forms: np.ndarray) -> Rollout:
        """Teacher-forced conversations; see `Policy`."""
        return self._rollout(runs, self.trie.form_edges[forms])

    def update(self, rollout: Rollout, advantages: np.ndarray, objective: Objective) -> None:
        """One or more gradient passes, as the objective asks, over the runs that have a signal; see `Policy`."""
        rows = np.nonzero(advantages.any(axis=(1, 2)))[0]
        if len(rows) == 0:
            return
        path = rollout.path[rows]
        weights = torch.from_numpy(self._per_token(path, advantages[rows])).float()
        before = None
        for _ in range(objective.epochs):
            self.optimiser.zero_grad(set_to_none=True)
            now = torch.zeros(path.shape)
            for chunk in self._chunks(len(rows), 1, path[0].size + len(self.trie.prompt)):
                self.adapters.activate(rollout.runs[rows[chunk]])
                log_probs = chosen_log_probs(self.model, self.trie, path[chunk])
                now[chunk] = log_probs.detach()
                reference = log_probs.detach() if before is None else before[chunk]
                objective.loss(log_probs, reference, weights[chunk]).backward()
            self.optimiser.step()
            before = now if before is None else before
        self.updates[rollout.runs[rows]] += objective.epochs
        self._stale[rollout.runs[rows]] = True

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        learned = {"adapters": self.adapters.state(), "optimiser": _moments(self.optimiser, self.adapters.vectors), "updates": self.updates}
        return {**learned, "stale": self._stale, "streams": self._streams.state()}

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self.adapters.restore(state["adapters"])
        _restore_moments(self.optimiser, self.adapters.vectors, state["optimiser"])
        self.updates[:], self._stale[:] = state["updates"], state["stale"]
        self._streams.restore(state["streams"])

    def _rollout(self, runs: np.ndarray, path: np.ndarray) -> Rollout:
        return Rollout(np.asarray(runs), self.trie.choices(path, self.trie.num_steps), path)

    def _per_token(self, path: np.ndarray, advantages: np.ndarray) -> np.ndarray:
        """Each token's advantage is that of its step: (R, E, K) to (R, E, L)."""
        return self.trie.per_token(path, advantages)

    def _chunks(self, num_runs: int, num_rows: int, num_tokens: int) -> Iterator[slice]:
        """Slices of runs, each of so many rows of tokens, that one pass can hold: logits and attention scores are what takes memory."""
        config = self.model.config
        tokens_a_run = num_rows * num_tokens
        floats_a_run = tokens_a_run * max(config.vocab_size, config.num_attention_heads * num_tokens)
        step = max(1, min(_TOKENS_A_PASS // tokens_a_run, _FLOATS_A_PASS // floats_a_run))
        return (slice(start, start + step) for start in range(0, num_runs, step))


class TransformerPolicy(AdaptedTransformer):
    """Implements `ScoresAll`; see `AdaptedTransformer` for what it is made of."""

    def __init__(self, model: PreTrainedModel, trie: AnswerTrie, **settings: Any) -> None:
        super().__init__(model, trie, **settings)
        self._pack = pack_all(trie)
        self._edge_log_probs = np.zeros((self.num_runs, len(trie.edge_token)))

    def sample(self, runs: np.ndarray, num_episodes: int) -> Rollout:
        """Samples token by token; see `Policy`."""
        self._refresh(runs)
        uniforms = self._streams.random(runs, num_episodes, self.trie.max_edges)
        path = self.trie.sample(np.exp(self._edge_log_probs[runs]), uniforms)
        return self._rollout(runs, path)

    def log_probs(self, runs: np.ndarray) -> np.ndarray:
        """Exact log-probabilities of all valid conversations; see `ScoresAll`."""
        self._refresh(runs)
        return self.trie.form_log_probs(self._edge_log_probs[runs])

    def invalid(self, runs: np.ndarray) -> np.ndarray:
        """The mass on the trie's exits; see `ScoresAll`."""
        self._refresh(runs)
        return self.trie.exit_mass(self._edge_log_probs[runs])

    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact; see `Policy`."""
        return assess_all(self.log_probs(runs)[:, :num_answers], forms)

    def distil(self, runs: np.ndarray, targets: np.ndarray, epochs: int) -> None:
        """Gradient passes over the whole trie; see `ScoresAll`."""
        runs, wanted = np.asarray(runs), torch.from_numpy(targets).float()
        for _ in range(epochs):
            self.optimiser.zero_grad(set_to_none=True)
            for chunk in self._chunks(len(runs), *self._pack.tokens.shape):
                self.adapters.activate(runs[chunk])
                edges = all_edge_log_probs(self.model, self.trie, self._pack, len(runs[chunk]))
                cross_entropy(form_log_probs(self.trie, edges)[:, : targets.shape[1]], wanted[chunk]).backward()
            self.optimiser.step()
        self.updates[runs] += epochs
        self._stale[runs] = True

    def state(self) -> State:
        """See `AdaptedTransformer`; with what is known of the distributions, since the same runs need not be in one pass again."""
        return {**super().state(), "edge_log_probs": self._edge_log_probs}

    def restore(self, state: State) -> None:
        """See `AdaptedTransformer`."""
        super().restore(state)
        self._edge_log_probs[:] = state["edge_log_probs"]

    def _refresh(self, runs: np.ndarray) -> None:
        """Recomputes the distributions of those of the runs whose parameters have moved."""
        moved = np.asarray(runs)[self._stale[runs]]
        with torch.no_grad():
            for chunk in self._chunks(len(moved), *self._pack.tokens.shape):
                self.adapters.activate(moved[chunk])
                log_probs = all_edge_log_probs(self.model, self.trie, self._pack, len(moved[chunk]))
                self._edge_log_probs[moved[chunk]] = log_probs.double().numpy()
        self._stale[moved] = False


def _moments(optimiser: torch.optim.Optimizer, vectors: Sequence[torch.Tensor]) -> State:
    """What Adam knows of each run: (R,) steps, (R, P) running means of gradients and of their squares. Nothing before the first step, and of plain steps."""
    moved = [run for run, vector in enumerate(vectors) if "exp_avg" in optimiser.state[vector]]
    if not moved:
        return {}
    kept = [optimiser.state[vectors[run]] for run in moved]
    moments = {name: torch.stack([state[name] for state in kept]).numpy() for name in ("step", "exp_avg", "exp_avg_sq")}
    return {"runs": np.array(moved), **moments}


def _restore_moments(optimiser: torch.optim.Optimizer, vectors: Sequence[torch.Tensor], state: State) -> None:
    """Takes back what `_moments` gave."""
    optimiser.state.clear()
    for place, run in enumerate(state.get("runs", ())):
        optimiser.state[vectors[run]] = {name: torch.from_numpy(state[name])[place].clone() for name in ("step", "exp_avg", "exp_avg_sq")}
