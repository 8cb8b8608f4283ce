"""The real learner: any Llama-style causal language model with R stacked LoRA adapters.

Sampling is from the model's exact next-token distributions, computed for the whole answer trie in one forward
pass and kept until the parameters move (where the trie is too large for that: paths.py). An update recomputes
the sampled conversations alone, with their graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from memory_rl.learning.objectives import Objective, cross_entropy
from memory_rl.policies.adapters import AdapterSettings, make_adapters
from memory_rl.policies.answer_trie import AnswerTrie
from memory_rl.policies.base import Assessment, Rollout, assess_all, every_prompt
from memory_rl.policies.packed import all_edge_log_probs, chosen_log_probs, form_log_probs, pack_all
from memory_rl.seeding import RunStreams, torch_seed
from memory_rl.state import State

_FLOATS_A_PASS = 2**27  # bounds the memory of one forward pass: runs are taken in chunks
_TOKENS_A_PASS = 2**12  # more at once are slower: the activations leave the cache


class AdaptedTransformer:
    """R adapters on a Hugging Face causal language model, and how they learn; how they are asked is for its
    subclasses to say.

    Args:
        model: the base model; it is frozen and its target layers are replaced in place.
        trie: the valid conversations of the environment.
        num_runs: R.
        lora: what a run trains: `LoRASettings`, or those of another kind of adapter.
        learning_rate: the optimiser's step size.
        seed: of the initial adapters and of sampling.
        optimiser: "adam" or "sgd".
    """

    def __init__(
        self,
        model: PreTrainedModel,
        trie: AnswerTrie,
        *,
        num_runs: int,
        lora: AdapterSettings,
        learning_rate: float,
        seed: int,
        optimiser: str = "adam",
    ) -> None:
        self.num_runs = num_runs
        self.updates = np.zeros(num_runs, dtype=np.int64)
        self.model = model.eval()
        self.trie = trie
        self.adapters = make_adapters(
            model, lora, [torch_seed(seed, "adapters", run) for run in range(num_runs)]
        )
        # One parameter a run: Adam then counts each run's steps apart and leaves a run without a gradient
        # alone.
        kind = torch.optim.Adam if optimiser == "adam" else torch.optim.SGD
        self.optimiser = kind(self.adapters.vectors, lr=learning_rate, fused=True)
        self._streams = RunStreams(seed, "answers", num_runs)
        self._stale = np.ones(
            num_runs * trie.num_prompts, dtype=bool
        )  # of each run, and of each of its prompts
        torch.set_flush_denormal(True)  # denormals make Adam slow

    @property
    def trained_parameters(self) -> int:
        """Parameters that one run trains."""
        return self.adapters.size

    @property
    def trained_bytes(self) -> int:
        """Bytes of them."""
        return self.adapters.size * self.adapters.vectors[0].element_size()

    def demonstrate(self, runs: np.ndarray, forms: np.ndarray, prompts: np.ndarray | None = None) -> Rollout:
        """Teacher-forced conversations; see `Policy`."""
        return self._rollout(runs, self.trie.form_edges[forms], prompts)

    def update(self, rollout: Rollout, advantages: np.ndarray, objective: Objective) -> None:
        """One or more gradient passes, as the objective asks, over the runs that have a signal; see
        `Policy`.
        """
        rows = np.nonzero(advantages.any(axis=(1, 2)))[0]
        if len(rows) == 0:
            return
        path = rollout.path[rows]
        prompts = None if rollout.prompts is None else rollout.prompts[rows]
        blocks = 1 if prompts is None else prompts.shape[1]
        weights = torch.from_numpy(self.trie.per_token(path, advantages[rows])).float().to(self.model.device)
        before = None
        for _ in range(objective.epochs):
            self.optimiser.zero_grad(set_to_none=True)
            now = torch.zeros(path.shape, device=self.model.device)
            for chunk in self._chunks(len(rows), blocks, path[0].size // blocks + len(self.trie.prompt)):
                self.adapters.activate(rollout.runs[rows[chunk]])
                log_probs = self._chosen_log_probs(path[chunk], None if prompts is None else prompts[chunk])
                now[chunk] = log_probs.detach()
                reference = log_probs.detach() if before is None else before[chunk]
                objective.loss(log_probs, reference, weights[chunk]).backward()
            self.optimiser.step()
            before = now if before is None else before
        self._moved(rollout.runs[rows], objective.epochs)

    def _chosen_log_probs(self, path: np.ndarray, prompts: np.ndarray | None) -> torch.Tensor:
        """Of sampled edges (R, E, L), in blocks to these prompts (R, B): a row for each block."""
        if prompts is None:
            return chosen_log_probs(self.model, self.trie, path)
        by_block = path.reshape(prompts.size, -1, path.shape[2])
        return chosen_log_probs(self.model, self.trie, by_block, prompts.ravel()).view(path.shape)

    def _moved(self, runs: np.ndarray, updates: int) -> None:
        """Notes that these runs have made that many updates."""
        self.updates[runs] += updates
        self._stale.reshape(self.num_runs, -1)[runs] = True

    def state(self) -> State:
        """See `memory_rl.state.Stateful`."""
        learned = {
            "adapters": self.adapters.state(),
            "optimiser": _moments(self.optimiser, self.adapters.vectors),
            "updates": self.updates,
        }
        return {**learned, "stale": self._stale, "streams": self._streams.state()}

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self.adapters.restore(state["adapters"])
        _restore_moments(self.optimiser, self.adapters.vectors, state["optimiser"])
        self.updates[:], self._stale[:] = state["updates"], state["stale"]
        self._streams.restore(state["streams"])

    def _rollout(self, runs: np.ndarray, path: np.ndarray, prompts: np.ndarray | None = None) -> Rollout:
        return Rollout(np.asarray(runs), self.trie.choices(path, self.trie.num_steps), path, prompts)

    def _chunks(self, num_runs: int, num_rows: int, num_tokens: int) -> Iterator[slice]:
        """Slices of runs, each of so many rows of tokens, that one pass can hold: logits and attention scores
        are what takes memory.
        """
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
        self._edge_log_probs = np.zeros((len(self._stale), len(trie.edge_token)))

    def sample(self, runs: np.ndarray, num_episodes: int, prompts: np.ndarray | None = None) -> Rollout:
        """Samples token by token; see `Policy`."""
        edges = np.exp(self._edges(runs, prompts))  # (R, B, E)
        uniforms = self._streams.random(runs, num_episodes, self.trie.max_edges)
        blocks = uniforms.reshape(len(edges) * edges.shape[1], -1, self.trie.max_edges)
        path = self.trie.sample(edges.reshape(len(blocks), -1), blocks)
        return self._rollout(runs, path.reshape(uniforms.shape), prompts)

    def log_probs(self, runs: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
        """Exact log-probabilities of all valid conversations; see `ScoresAll`."""
        edges = self._edges(runs, prompts)
        of_forms = self.trie.form_log_probs(edges.reshape(-1, edges.shape[2])).reshape(*edges.shape[:2], -1)
        return of_forms[:, 0] if prompts is None else of_forms

    def invalid(self, runs: np.ndarray) -> np.ndarray:
        """The mass on the trie's exits; see `ScoresAll`."""
        return self.trie.exit_mass(self._edges(runs)[:, 0])

    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact; see `Policy`."""
        return assess_all(
            self.log_probs(runs, every_prompt(len(runs), self.trie.num_prompts))[:, :, :num_answers], forms
        )

    def distil(
        self, runs: np.ndarray, targets: np.ndarray, epochs: int, prompts: np.ndarray | None = None
    ) -> None:
        """Gradient passes over the whole trie; see `ScoresAll`."""
        runs, wanted = (
            np.asarray(runs),
            torch.from_numpy(targets).float().to(self.model.device).view(len(runs), -1, targets.shape[-1]),
        )  # (R, B, N)
        pieces, length = self._pack.tokens.shape
        for _ in range(epochs):
            self.optimiser.zero_grad(set_to_none=True)
            for chunk in self._chunks(len(runs), wanted.shape[1] * pieces, length):
                self.adapters.activate(runs[chunk])
                which = None if prompts is None else prompts[chunk].ravel()
                edges = all_edge_log_probs(
                    self.model, self.trie, self._pack, wanted[chunk].shape[:2].numel(), which
                )
                cross_entropy(
                    form_log_probs(self.trie, edges)[:, : targets.shape[-1]], wanted[chunk].flatten(0, 1)
                ).backward()
            self.optimiser.step()
        self._moved(runs, epochs)

    def state(self) -> State:
        """See `AdaptedTransformer`; with what is known of the distributions, since the same runs need not be
        in one pass again.
        """
        return {**super().state(), "edge_log_probs": self._edge_log_probs}

    def restore(self, state: State) -> None:
        """See `AdaptedTransformer`."""
        super().restore(state)
        self._edge_log_probs[:] = state["edge_log_probs"]

    def _edges(self, runs: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
        """Log-probabilities of all edges of these runs behind these prompts (R, B), or the only one: (R, B,
        E).
        """
        which = np.zeros((len(runs), 1), dtype=np.int64) if prompts is None else prompts
        rows = np.asarray(runs)[:, None] * self.trie.num_prompts + which
        moved = np.nonzero(self._stale[rows].any(axis=1))[0]
        pieces, length = self._pack.tokens.shape
        most = max(1, _TOKENS_A_PASS // (pieces * length))  # prompts of one run in a pass
        for first in range(0, which.shape[1], most):
            some = slice(first, first + most)
            for chunk in self._chunks(len(moved), which[:, some].shape[1] * pieces, length):
                self._refresh(
                    np.asarray(runs)[moved[chunk]], which[moved[chunk], some], rows[moved[chunk], some]
                )
        return self._edge_log_probs[rows]

    def _refresh(self, runs: np.ndarray, prompts: np.ndarray, rows: np.ndarray) -> None:
        """Recomputes the distributions of runs behind prompts (R, B), which are kept in these rows (R, B)."""
        which = prompts.ravel() if self.trie.num_prompts > 1 else None
        with torch.no_grad():
            self.adapters.activate(runs)
            log_probs = all_edge_log_probs(self.model, self.trie, self._pack, rows.size, which)
        self._edge_log_probs[rows.ravel()] = log_probs.cpu().double().numpy()
        self._stale[rows] = False


def _moments(optimiser: torch.optim.Optimizer, vectors: Sequence[torch.Tensor]) -> State:
    """What Adam knows of each run: (R,) steps, (R, P) running means of gradients and of their squares.
    Nothing before the first step, and of plain steps.
    """
    moved = [run for run, vector in enumerate(vectors) if "exp_avg" in optimiser.state[vector]]
    if not moved:
        return {}
    kept = [optimiser.state[vectors[run]] for run in moved]
    moments = {
        name: torch.stack([state[name] for state in kept]).cpu().numpy()
        for name in ("step", "exp_avg", "exp_avg_sq")
    }
    return {"runs": np.array(moved), **moments}


def _restore_moments(optimiser: torch.optim.Optimizer, vectors: Sequence[torch.Tensor], state: State) -> None:
    """Takes back what `_moments` gave."""
    optimiser.state.clear()
    for place, run in enumerate(state.get("runs", ())):
        kept = {
            name: torch.from_numpy(state[name])[place].clone() for name in ("step", "exp_avg", "exp_avg_sq")
        }
        optimiser.state[vectors[run]] = {
            name: tensor.to(vectors[run].device) for name, tensor in kept.items()
        }
