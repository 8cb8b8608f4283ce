"""The reference learner: an exact softmax over answers, or over each bit, with one logit a choice.

What a transformer does beyond this is generalisation; what it shares is the algorithm. Thousands of runs go
in lockstep.

Axes: R runs, M prompts, D decisions, C choices of a decision, K steps, E episodes, B blocks of them, F forms
(valid conversations).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from typing_extensions import override

from memory_rl.learning.divergence import check_finite, check_loss
from memory_rl.learning.optimisers import OPTIMISERS
from memory_rl.learning.penalty import Penalty
from memory_rl.policies.base import Scores, every_prompt
from memory_rl.seeding import RunStreams, along_noise, noise
from memory_rl.state import State

if TYPE_CHECKING:
    from memory_rl.learning.batch import Batch
    from memory_rl.learning.imitation import Imitation
    from memory_rl.learning.learners import Learner


_NO_PENALTY = Penalty()


class TabularPolicy(Scores):
    """Logits (R M, D, C), a row for each run and prompt. Implements `Distils`, `Imitates`, `Perturbs`.

    They are zero at first, so that every answer is equally likely, unless a prior is given.

    With one step there is one decision over all answers. With several, each step has a decision of its own,
    whatever was answered before (`prefixes` false), or one for each string of earlier choices (`prefixes`
    true).

    Args:
        forms: (F, K) the choices that spell each valid conversation: all C^K strings of choices, in order.
        num_choices: C.
        num_runs: R.
        num_prompts: M.
        prefixes: see above.
        optimiser: "adam" or "sgd".
        learning_rate: its step size.
        seed: of sampling.
        penalty: what is added to a learner's loss.
        prior: (C,) C times the probability of each choice at first, if that is not uniform.
    """

    noise = 1.0
    # The distributions are kept, too: recomputed, they need not come out the same to the bit.
    kept = ("logits", "_optimiser", "updates", "_log_probs", "_stale", "_streams")

    def __init__(
        self,
        forms: np.ndarray,
        num_choices: int,
        *,
        num_runs: int,
        num_prompts: int = 1,
        prefixes: bool = False,
        optimiser: str = "adam",
        learning_rate: float,
        seed: int,
        penalty: Penalty = _NO_PENALTY,
        prior: np.ndarray | None = None,
    ) -> None:
        self.penalty = penalty
        self.num_runs, self._num_prompts = num_runs, num_prompts
        self.updates = np.zeros(num_runs, dtype=np.int64)
        self._num_choices, self._num_steps, self._prefixes = num_choices, forms.shape[1], prefixes
        self._form_path = self._path(forms)  # (F, K)
        num_decisions, num_rows = int(self._form_path.max()) // num_choices + 1, num_runs * num_prompts
        self.logits = torch.zeros(num_rows, num_decisions, num_choices, dtype=torch.float64)
        if prior is not None:
            self.logits += torch.from_numpy(prior).log()
        self._flat = self.logits.view(num_rows, -1)
        self.trained_parameters = self._flat.shape[1] * num_prompts
        self.trained_bytes = self._flat[0].nbytes * num_prompts
        self._optimiser = OPTIMISERS[optimiser](learning_rate, self._flat)
        self._base = self._normalised(self.logits[:1])  # (1, D C): all rows start alike
        self._streams = RunStreams(seed, "answers", num_runs)
        self._stale = np.ones(num_rows, dtype=bool)
        self._log_probs = np.zeros(self._flat.shape)
        self._place = np.arange(num_rows * num_decisions).reshape(num_rows, num_decisions)
        self._cumulative = np.repeat(self._place[:, :, None], num_choices, axis=2).astype(np.float64)

    @override
    def sample(self, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Batch:
        blocks = self._rows(runs, prompts)
        self._refresh(blocks)
        rows = np.repeat(blocks, num_episodes // blocks.shape[1], axis=1)  # (R, E)
        uniforms = self._streams.random(runs, num_episodes, self._num_steps)
        choices = np.zeros(uniforms.shape, dtype=np.int64)
        for step in range(self._num_steps):
            places = self._place[rows, self._decision(choices, step)]
            # Every row of the table stands one higher than the last, so that one search serves all rows.
            found = np.searchsorted(self._cumulative.ravel(), uniforms[:, :, step] + places, side="right")
            choices[:, :, step] = (found - places * self._num_choices).clip(0, self._num_choices - 1)
        return self._batch(runs, prompts, choices, self._path(choices))

    @override
    def demonstrate(self, runs: np.ndarray, prompts: np.ndarray, forms: np.ndarray) -> Batch:
        path = self._form_path[forms]
        return self._batch(runs, prompts, path % self._num_choices, path)

    @override
    def log_probs(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        rows = self._rows(runs, prompts)
        self._refresh(rows)
        of_choices = self._log_probs[rows]
        return of_choices if self._num_steps == 1 else of_choices[:, :, self._form_path].sum(axis=3)

    @override
    def invalid(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        return np.zeros(prompts.shape)

    @override
    def update(self, batch: Batch, advantages: np.ndarray, learner: Learner) -> None:
        rows, run, own, weights = self._by_row(batch, advantages)
        moved = learner.moves(weights) | self.penalty.active
        if not moved.any():
            return
        path, gains = torch.from_numpy(batch.path[run[moved]]), torch.from_numpy(weights[moved])
        before = None if batch.before is None else torch.from_numpy(batch.before[run[moved]])
        is_token = torch.from_numpy(own[moved])[:, :, None]
        for _ in range(learner.epochs):
            logits = self._leaf(rows[moved])
            distributions = self._normalised(logits)
            log_probs = distributions.gather(1, path.flatten(1)).view(path.shape)
            before = log_probs.detach() if before is None else before
            loss = learner.loss(log_probs, before, gains)
            if self.penalty.active:
                base = self._base.expand(len(path), -1).gather(1, path.flatten(1)).view(path.shape)
                decisions = self._on_path(distributions, path)
                loss = loss + self.penalty.loss(log_probs, decisions, base, is_token)
            self._descend(rows[moved], logits, loss)

    def _on_path(self, distributions: torch.Tensor, path: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (R, D C) at the decisions on paths (R, E, K): (R, E, K, C)."""
        by_decision = distributions.view(len(path), -1, self._num_choices)
        decision = (path // self._num_choices).flatten(1)[:, :, None].expand(-1, -1, self._num_choices)
        return by_decision.gather(1, decision).view(*path.shape, self._num_choices)

    def distil(self, runs: np.ndarray, prompts: np.ndarray, targets: np.ndarray, epochs: int) -> None:
        """Steps of the rows that are asked for, see `Distils`."""
        rows, first = np.unique(self._rows(runs, prompts), return_index=True)
        wanted = torch.from_numpy(targets.reshape(-1, targets.shape[-1])[first])
        path = torch.from_numpy(self._form_path[: targets.shape[-1]])
        for _ in range(epochs):
            logits = self._leaf(rows)
            log_probs = self._normalised(logits)[:, path].sum(dim=2)
            self._descend(rows, logits, -(wanted * log_probs).sum())  # cross-entropy

    def imitate(self, batch: Batch, learner: Imitation) -> None:
        """A step of the rows that are asked for, see `Imitates`."""
        assert batch.taught is not None  # noqa: S101  # a teacher was asked
        rows, run, own, _ = self._by_row(batch, np.zeros(batch.choices.shape))
        taught = batch.taught.turns(batch.choices, self._num_choices)[run]
        path = torch.from_numpy(batch.path[run])
        logits = self._leaf(rows)
        decisions = self._on_path(self._normalised(logits), path)
        heard = torch.from_numpy(own)[:, :, None]
        loss = learner.tokens_loss(decisions, path % self._num_choices, torch.from_numpy(taught), heard)
        self._descend(rows, logits, loss)

    @override
    def log_probs_of_path(self, batch: Batch) -> np.ndarray:
        rows = self._rows(batch.runs, batch.asked)
        self._refresh(rows)
        return self._log_probs[rows[:, :, None], batch.path]

    @contextmanager
    def perturbed(self, runs: np.ndarray, seeds: np.ndarray, scale: float) -> Iterator[None]:
        """What is known of the distributions is put back, too, see `Perturbs`."""
        rows, own = self._rows_of(runs), (self._stale, self._log_probs, self._cumulative)
        which = torch.from_numpy(rows)
        values, known = self._flat[which], [part[rows] for part in own]  # copies
        drawn = np.stack([noise(seed, values.numel() // len(runs)) for seed in seeds])
        self._flat[which] += scale * torch.from_numpy(drawn).view_as(values)
        self._stale[rows] = True
        try:
            yield
        finally:
            self._flat[which] = values
            for part, before in zip(own, known, strict=True):
                part[rows] = before

    def follow(self, runs: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> None:
        """A step of all rows of these runs, see `Perturbs`."""
        rows, size = self._rows_of(runs), self._flat.shape[1] * self._num_prompts
        gradients = np.stack([along_noise(*of_run, size) for of_run in zip(seeds, weights, strict=True)])
        self._step(rows, torch.from_numpy(gradients).view(len(rows), -1))

    @override
    def restore(self, state: State) -> None:
        super().restore(state)
        fresh = np.nonzero(~self._stale)[0]
        self._keep(fresh, self._log_probs[fresh])

    def _rows_of(self, runs: np.ndarray) -> np.ndarray:
        """All rows of these runs, one run after the other: (R,) to (R M,)."""
        return self._rows(runs, every_prompt(runs, self._num_prompts)).ravel()

    def _rows(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """The rows of these runs at these prompts: (R,), (R, B) to (R, B)."""
        return runs[:, None] * self._num_prompts + prompts

    def _by_row(self, batch: Batch, advantages: np.ndarray) -> tuple[np.ndarray, ...]:
        """The rows that a batch is about (U,), where in it their runs are (U,), and what is about them.

        Which episodes are the row's own (U, E), and the advantages (U, E, K), 0 for those of others.
        """
        blocks = self._rows(batch.runs, batch.prompts)
        of_episode = np.repeat(blocks, advantages.shape[1] // blocks.shape[1], axis=1)  # (R, E)
        rows, first = np.unique(blocks, return_index=True)
        run = first // blocks.shape[1]
        own = of_episode[run] == rows[:, None]
        return rows, run, own, np.where(own[:, :, None], advantages[run], 0.0)

    def _decision(self, choices: np.ndarray, step: int) -> np.ndarray:
        """Which decision a step is, given the earlier choices: (..., K) to (...)."""
        if not self._prefixes:
            return np.full(choices.shape[:-1], step)
        strings = self._num_choices ** np.arange(step)  # of earlier choices, by their number
        return choices[..., :step] @ strings[::-1] + strings.sum()

    def _path(self, choices: np.ndarray) -> np.ndarray:
        """Where the logit of each choice lies in a run's row: (..., K)."""
        decisions = np.stack([self._decision(choices, step) for step in range(self._num_steps)], axis=-1)
        return decisions * self._num_choices + choices

    def _leaf(self, rows: np.ndarray) -> torch.Tensor:
        return self.logits[torch.from_numpy(rows)].requires_grad_()

    @staticmethod
    def _normalised(logits: torch.Tensor) -> torch.Tensor:
        """Log-probability of each choice at each decision: (R, D, C) to (R, D C)."""
        return logits.log_softmax(dim=2).flatten(1)

    def _descend(self, rows: np.ndarray, logits: torch.Tensor, loss: torch.Tensor) -> None:
        (gradients,) = torch.autograd.grad(loss, logits)
        self._step(rows, gradients.flatten(1))
        check_loss(loss.item(), rows // self._num_prompts, self.updates)

    def _step(self, rows: np.ndarray, gradients: torch.Tensor) -> None:
        """An optimiser step of these rows down gradients (rows, D C)."""
        self._optimiser.step(self._flat, rows, gradients)
        runs = rows // self._num_prompts
        self.updates[np.unique(runs)] += 1
        self._stale[rows] = True
        check_finite(self._flat.numpy()[rows], "parameters are", runs, self.updates)

    def _refresh(self, rows: np.ndarray) -> None:
        """Recomputes the distributions of those of the rows whose logits have moved."""
        moved = np.unique(rows[self._stale[rows]])
        if len(moved):
            self._keep(moved, self._normalised(self.logits[torch.from_numpy(moved)]).numpy())
            self._stale[moved] = False

    def _keep(self, rows: np.ndarray, log_probs: np.ndarray) -> None:
        """The distributions (rows, D C) of these rows, until their logits move."""
        self._log_probs[rows] = log_probs
        cumulative = np.exp(log_probs).reshape(len(rows), -1, self._num_choices).cumsum(axis=2)
        self._cumulative[rows] = cumulative / cumulative[:, :, -1:] + self._place[rows][:, :, None]
