"""The real learner: any Llama-style causal language model with R stacked LoRA adapters.

Sampling is from the model's exact next-token distributions, computed for the whole answer trie in one forward
pass and kept until the parameters move (where the trie is too large for that: paths.py). An update recomputes
the sampled conversations alone, with their graph.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from memory_rl.learning.divergence import check_finite, check_loss
from memory_rl.learning.penalty import Penalty
from memory_rl.policies.adapters import AdapterSettings
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.base import Policy, Scores
from memory_rl.policies.packed import (
    all_edge_log_probs,
    chosen_log_probs,
    form_log_probs,
    pack_all,
    path_decision_log_probs,
    tensor_beside,
)
from memory_rl.policies.teaching import judged
from memory_rl.seeding import RunStreams, along_noise, noise, torch_seed
from memory_rl.state import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from memory_rl.learning.batch import Batch
    from memory_rl.learning.imitation import Imitation
    from memory_rl.learning.learners import Learner
    from memory_rl.policies.lean import LeanLlama

_FLOATS_A_PASS = 2**27  # bounds the memory of one forward pass: runs are taken in chunks
_TOKENS_ON_A_CPU = 2**12  # in a pass: with more, which is slower, the activations leave the cache
_TOKENS_ELSEWHERE = 2**18  # with as few, a GPU waits for the host: see docs/gpu.md
_NO_PENALTY = Penalty()
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class AdaptedTransformer(Policy):
    """R adapters on a causal language model, and how they learn; subclasses say how they are asked.

    Implements `Imitates`.

    Args:
        model: the base model; it is frozen and its target layers are replaced in place.
        trie: the valid conversations of the environment.
        num_runs: R.
        lora: what a run trains: `LoRASettings`, or those of another kind of adapter.
        learning_rate: the optimiser's step size.
        seed: of the initial adapters and of sampling.
        optimiser: "adam" or "sgd".
        penalty: what is added to a learner's loss.
    """

    kept: tuple[str, ...] = ("adapters", "updates", "_stale", "_streams")

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
        penalty: Penalty = _NO_PENALTY,
    ) -> None:
        self.penalty = penalty
        self.num_runs, self.updates = num_runs, np.zeros(num_runs, dtype=np.int64)
        self.model, self.trie = model.eval(), trie
        self._passes: PreTrainedModel | LeanLlama = model  # what sampled conversations pass through
        self.adapters = lora.adapt(model, [torch_seed(seed, "adapters", run) for run in range(num_runs)])
        self.trained_parameters = self.adapters.vectors[0].numel()
        self.trained_bytes = self.adapters.vectors[0].nbytes
        # One parameter a run: Adam then counts each run's steps apart and skips a run without a gradient.
        kind = torch.optim.Adam if optimiser == "adam" else torch.optim.SGD
        self.optimiser = kind(self.adapters.vectors, lr=learning_rate, fused=True)
        self._streams = RunStreams(seed, "answers", num_runs)
        self._stale = np.ones((num_runs, trie.num_prompts), dtype=bool)
        torch.set_flush_denormal(True)  # denormals make Adam slow

    @override
    def demonstrate(self, runs: np.ndarray, prompts: np.ndarray, forms: np.ndarray) -> Batch:
        return self._of_path(runs, prompts, self.trie.form_edges[forms])

    @override
    def update(self, batch: Batch, advantages: np.ndarray, learner: Learner) -> None:
        rows = np.nonzero(learner.moves(advantages) | self.penalty.active)[0]
        if len(rows) == 0:
            return
        runs, prompts, path = batch.runs[rows], batch.prompts[rows], batch.path[rows]
        weights = torch.from_numpy(self.trie.per_token(path, advantages[rows])).float().to(self.model.device)
        blocks, length = prompts.shape[1], path[0].size // prompts.shape[1] + len(self.trie.prompt)
        before = None if batch.before is None else torch.from_numpy(batch.before[rows]).float().to(weights)
        for _ in range(learner.epochs):
            total = torch.zeros((), device=self.model.device)
            self.optimiser.zero_grad(set_to_none=True)
            now = torch.zeros(path.shape, device=self.model.device)
            for chunk in self._chunks(len(rows), blocks, length):
                self.adapters.activate(runs[chunk])
                log_probs, added = self._penalised(path[chunk], prompts[chunk])
                now[chunk] = log_probs.detach()
                reference = log_probs.detach() if before is None else before[chunk]
                loss = learner.loss(log_probs, reference, weights[chunk]) + added
                loss.backward()
                total += loss.detach()
            self._step(runs, total)
            before = now if before is None else before

    def imitate(self, batch: Batch, learner: Imitation) -> None:
        """A pass over the sampled conversations, see `Imitates`."""
        assert batch.taught is not None  # noqa: S101  # a teacher was asked
        runs, prompts, path = batch.runs, batch.prompts, batch.path
        heard = judged(self.trie, path) if learner.told == "sampled" else path != NONE
        taught, column = batch.taught.on_path(self.trie, path), self.trie.column(path)
        blocks, length = prompts.shape[1], path[0].size // prompts.shape[1] + len(self.trie.prompt)
        total = torch.zeros((), device=self.model.device)
        self.optimiser.zero_grad(set_to_none=True)
        for chunk in self._chunks(len(runs), blocks, length):
            self.adapters.activate(runs[chunk])
            decisions = self._decision_log_probs(path[chunk], prompts[chunk])
            of_chunk = (tensor_beside(decisions, values[chunk]) for values in (column, taught, heard))
            chosen, wanted, counts = of_chunk
            loss = learner.tokens_loss(decisions, chosen, wanted.float(), counts)
            loss.backward()
            total += loss.detach()
        self._step(runs, total)

    def _penalised(self, path: np.ndarray, prompts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Log-probabilities of sampled edges (R, E, L), and what the penalty adds to their loss."""
        if not self.penalty.active:
            return self._chosen_log_probs(path, prompts), 0.0
        decisions = self._decision_log_probs(path, prompts)
        column = torch.from_numpy(self.trie.column(path)).to(decisions.device)
        log_probs = decisions.gather(3, column[..., None])[..., 0]
        base = self._of_base(path, prompts) if self.penalty.kl_to_base else None
        is_token = torch.from_numpy(path != NONE).to(decisions.device)
        return log_probs, self.penalty.loss(log_probs, decisions, base, is_token)

    @abstractmethod
    def _of_base(self, path: np.ndarray, prompts: np.ndarray) -> torch.Tensor:
        """What the base gives to sampled edges, as `_chosen_log_probs`; only where a penalty asks for it."""

    def _decision_log_probs(self, path: np.ndarray, prompts: np.ndarray) -> torch.Tensor:
        """Of all edges of the decisions on sampled paths (R, E, L): (R, E, L, C), see `_chosen_log_probs`."""
        by_block = path.reshape(prompts.size, -1, path.shape[2])
        log_probs = path_decision_log_probs(self._passes, self.trie, by_block, prompts.ravel())
        return log_probs.view(*path.shape, -1)

    def _chosen_log_probs(self, path: np.ndarray, prompts: np.ndarray) -> torch.Tensor:
        """Of sampled edges (R, E, L), in blocks to prompts (R, B): a row for each block."""
        by_block = path.reshape(prompts.size, -1, path.shape[2])
        return chosen_log_probs(self._passes, self.trie, by_block, prompts.ravel()).view(path.shape)

    def _step(self, runs: np.ndarray, loss: torch.Tensor) -> None:
        """The optimiser step of these runs, of which this was the loss."""
        self.optimiser.step()
        self.updates[runs] += 1
        self._stale[runs] = True
        self._check_step(runs, loss)

    def _check_step(self, runs: np.ndarray, loss: torch.Tensor) -> None:
        """Parameters and loss must be finite."""
        vectors = [self.adapters.vectors[run].detach() for run in runs]
        sums = [vector.sum() for vector in vectors]  # not finite if any of their numbers is not
        if not torch.stack([*sums, loss]).isfinite().all():
            for run, vector in zip(runs, vectors, strict=True):
                check_finite(vector.cpu().numpy()[None], "parameters are", [run], self.updates)
            check_loss(loss.item(), runs, self.updates)

    @override
    def state(self) -> State:
        return {**super().state(), "optimiser": self._moments()}

    @override
    def restore(self, state: State) -> None:
        super().restore(state)
        self.optimiser.state.clear()
        moments = state["optimiser"]
        for place, run in enumerate(moments["runs"]):
            vector = self.adapters.vectors[run]
            self.optimiser.state[vector] = {
                name: torch.from_numpy(moments[name])[place].clone().to(vector.device) for name in _MOMENTS
            }

    def _moments(self) -> State:
        """What Adam knows of the runs that have moved; nothing of plain steps.

        Their steps (R',), and the running means of gradients and of their squares (R', P).
        """
        known = [self.optimiser.state[vector] for vector in self.adapters.vectors]
        moved = [run for run, moments in enumerate(known) if "exp_avg" in moments]
        return {"runs": np.array(moved, dtype=np.int64)} | {
            name: torch.stack([known[run][name] for run in moved]).cpu().numpy() for name in _MOMENTS if moved
        }

    def _of_path(self, runs: np.ndarray, prompts: np.ndarray, path: np.ndarray) -> Batch:
        return self._batch(runs, prompts, self.trie.choices(path), path)

    @property
    def _tokens_a_pass(self) -> int:
        return _TOKENS_ON_A_CPU if self.model.device.type == "cpu" else _TOKENS_ELSEWHERE

    def _chunks(self, num_runs: int, num_rows: int, num_tokens: int) -> Iterator[slice]:
        """Slices of runs, each of so many rows of tokens, that one pass can hold.

        Logits and attention scores are what takes memory.
        """
        config = self.model.config.get_text_config()
        tokens_a_run = num_rows * num_tokens
        floats_a_run = tokens_a_run * max(config.vocab_size, config.num_attention_heads * num_tokens)
        step = max(1, min(self._tokens_a_pass // tokens_a_run, _FLOATS_A_PASS // floats_a_run))
        return (slice(start, start + step) for start in range(0, num_runs, step))


class TransformerPolicy(AdaptedTransformer, Scores):
    """Knows the probability of every answer. Implements `Distils`, `Perturbs`."""

    noise = 0.02
    # The same runs need not be in one pass again: what is known of their distributions is kept, too.
    kept = (*AdaptedTransformer.kept, "_edge_log_probs")

    def __init__(self, model: PreTrainedModel, trie: AnswerTrie, **settings: Any) -> None:
        super().__init__(model, trie, **settings)
        self._pack = pack_all(trie)
        self._edge_log_probs = np.zeros((*self._stale.shape, len(trie.edge_token)))
        # Every run starts as the base: what an adapter adds is nothing at first.
        first, every = np.zeros(1, dtype=np.int64), np.arange(trie.num_prompts)[None]
        self._base = (
            np.pad(self._edges(first, every)[0], ((0, 0), (0, 1))) if self.penalty.kl_to_base else None
        )

    @override
    def sample(self, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Batch:
        edges = np.exp(self._edges(runs, prompts))  # (R, B, E)
        uniforms = self._streams.random(runs, num_episodes, self.trie.max_edges)
        blocks = uniforms.reshape(prompts.size, -1, self.trie.max_edges)
        path = self.trie.sample(edges.reshape(len(blocks), -1), blocks)
        return self._of_path(runs, prompts, path.reshape(uniforms.shape))

    @override
    def _of_base(self, path: np.ndarray, prompts: np.ndarray) -> torch.Tensor:
        asked = np.repeat(prompts, path.shape[1] // prompts.shape[1], axis=1)
        assert self._base is not None  # noqa: S101  # a penalty asks for it
        return torch.from_numpy(self._base[asked[:, :, None], path]).float().to(self.model.device)

    @override
    def log_probs(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        return self.trie.form_log_probs(self._edges(runs, prompts))

    @override
    def invalid(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        return self.trie.exit_mass(self._edges(runs, prompts))

    @override
    def log_probs_of_path(self, batch: Batch) -> np.ndarray:
        edges, block = self._edges(batch.runs, batch.prompts), batch.path.shape[1] // batch.prompts.shape[1]
        run, asked = np.arange(len(batch.runs)), np.arange(batch.path.shape[1]) // block
        chosen: np.ndarray = edges[run[:, None, None], asked[:, None], batch.path]
        return np.where(batch.path == NONE, 0.0, chosen)

    @contextmanager
    def perturbed(self, runs: np.ndarray, seeds: np.ndarray, scale: float) -> Iterator[None]:
        """What is known of the distributions is put back, too, see `Perturbs`."""
        vectors = [self.adapters.vectors[run].data for run in runs]
        values = [vector.clone() for vector in vectors]
        stale, known = self._stale[runs], self._edge_log_probs[runs]  # copies
        for vector, seed in zip(vectors, seeds, strict=True):
            vector.add_(torch.from_numpy(noise(seed, vector.numel())).to(vector), alpha=scale)
        self._stale[runs] = True
        try:
            yield
        finally:
            for vector, before in zip(vectors, values, strict=True):
                vector.copy_(before)
            self._stale[runs], self._edge_log_probs[runs] = stale, known

    def follow(self, runs: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> None:
        """One step of the optimiser of each of these runs, see `Perturbs`."""
        self.optimiser.zero_grad(set_to_none=True)
        for run, drawn, each in zip(runs, seeds, weights, strict=True):
            vector = self.adapters.vectors[run]
            vector.grad = torch.from_numpy(along_noise(drawn, each, vector.numel())).to(vector)
        self._step(runs, torch.zeros((), device=self.model.device))

    def distil(self, runs: np.ndarray, prompts: np.ndarray, targets: np.ndarray, epochs: int) -> None:
        """Gradient passes over the whole trie, see `Distils`."""
        wanted = torch.from_numpy(targets).float().to(self.model.device)
        pieces, length = self._pack.tokens.shape
        for _ in range(epochs):
            self.optimiser.zero_grad(set_to_none=True)
            total = torch.zeros((), device=self.model.device)
            for chunk in self._chunks(len(runs), prompts.shape[1] * pieces, length):
                self.adapters.activate(runs[chunk])
                log_probs = form_log_probs(self.trie, self._of_edges(prompts[chunk]), targets.shape[-1])
                loss = -(wanted[chunk].flatten(0, 1) * log_probs).sum()  # cross-entropy
                loss.backward()
                total += loss.detach()
            self._step(runs, total)

    def _edges(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """Log-probabilities of all edges of these runs behind these prompts (R, B): (R, B, E)."""
        where = runs[:, None], prompts
        moved = np.nonzero(self._stale[where].any(axis=1))[0]
        pieces, length = self._pack.tokens.shape
        most = max(1, self._tokens_a_pass // (pieces * length))  # prompts of one run in a pass
        for some in (slice(first, first + most) for first in range(0, prompts.shape[1], most)):
            for chunk in self._chunks(len(moved), prompts[:, some].shape[1] * pieces, length):
                self._refresh(runs[moved[chunk]], prompts[moved[chunk], some])
        return self._edge_log_probs[where]

    def _refresh(self, runs: np.ndarray, prompts: np.ndarray) -> None:
        """Recomputes the distributions of runs behind prompts (R, B)."""
        with torch.no_grad():
            self.adapters.activate(runs)
            log_probs = self._of_edges(prompts).cpu().double().numpy()
        largest = log_probs.max(axis=1).reshape(len(runs), -1)  # -inf is the probability of what cannot be
        check_finite(largest, "probabilities are", runs, self.updates)
        where = runs[:, None], prompts
        self._edge_log_probs[where] = log_probs.reshape(*prompts.shape, -1)
        self._stale[where] = False

    def _of_edges(self, prompts: np.ndarray) -> torch.Tensor:
        """Of all edges behind prompts (R, B), of the runs that are active: (R B, E)."""
        return all_edge_log_probs(self.model, self.trie, self._pack, prompts.ravel())
