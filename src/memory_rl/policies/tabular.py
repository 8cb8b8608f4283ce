"""The reference learner: an exact softmax over the answers, or over each bit, with one logit a choice and no
network behind it.

What a transformer does beyond this is generalisation; what it shares is the algorithm. Thousands of runs go
in lockstep.

Axes: R runs, M prompts, D decisions, C choices of a decision, K steps, E episodes, B blocks of them, F forms
(valid conversations).
"""

from __future__ import annotations

import numpy as np
import torch

from memory_rl.learning.objectives import Objective, cross_entropy
from memory_rl.learning.optimisers import make_optimiser
from memory_rl.policies.base import Assessment, Rollout, assess_all, every_prompt
from memory_rl.seeding import RunStreams
from memory_rl.state import State


class TabularPolicy:
    """Implements `ScoresAll` with logits (R M, D, C), zero at first, so that every answer is equally likely;
    a row for each run and prompt.

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
    """

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
    ) -> None:
        self.num_runs, self._num_prompts = num_runs, num_prompts
        self.updates = np.zeros(num_runs, dtype=np.int64)
        self._num_choices, self._num_steps, self._prefixes = num_choices, forms.shape[1], prefixes
        self._form_path = self._path(forms)  # (F, K)
        num_decisions, num_rows = int(self._form_path.max()) // num_choices + 1, num_runs * num_prompts
        self.logits = torch.zeros(num_rows, num_decisions, num_choices, dtype=torch.float64)
        self._flat = self.logits.view(num_rows, -1)
        self._optimiser = make_optimiser(optimiser, learning_rate, self._flat)
        self._streams = RunStreams(seed, "answers", num_runs)
        self._stale = np.ones(num_rows, dtype=bool)
        self._log_probs = np.zeros((num_rows, num_decisions * num_choices))
        self._place = np.arange(num_rows * num_decisions).reshape(num_rows, num_decisions)
        self._cumulative = np.broadcast_to(
            self._place[:, :, None], (num_rows, num_decisions, num_choices)
        ).astype(np.float64)

    @property
    def trained_parameters(self) -> int:
        """Parameters that one run trains."""
        return int(self._flat.shape[1]) * self._num_prompts

    @property
    def trained_bytes(self) -> int:
        """Bytes of them."""
        return int(self._flat[0].nbytes) * self._num_prompts

    def sample(self, runs: np.ndarray, num_episodes: int, prompts: np.ndarray | None = None) -> Rollout:
        """Samples choice by choice; see `Policy`."""
        blocks = self._rows(runs, prompts)
        self._refresh(np.unique(blocks))
        rows = np.repeat(blocks, num_episodes // blocks.shape[1], axis=1)  # (R, E)
        uniforms = self._streams.random(runs, num_episodes, self._num_steps)
        choices = np.zeros(uniforms.shape, dtype=np.int64)
        for step in range(self._num_steps):
            places = self._place[rows, self._decision(choices, step)]
            # Every row of the table stands one higher than the last, so that one search serves all rows.
            found = (
                np.searchsorted(self._cumulative.ravel(), uniforms[:, :, step] + places, side="right")
                - places * self._num_choices
            )
            choices[:, :, step] = found.clip(0, self._num_choices - 1)
        return Rollout(np.asarray(runs), choices, self._path(choices), prompts)

    def demonstrate(self, runs: np.ndarray, forms: np.ndarray, prompts: np.ndarray | None = None) -> Rollout:
        """See `Policy`."""
        path = self._form_path[forms]
        return Rollout(np.asarray(runs), path % self._num_choices, path, prompts)

    def log_probs(self, runs: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
        """See `ScoresAll`."""
        rows = self._rows(runs, prompts)
        self._refresh(np.unique(rows))
        of_forms = (
            self._log_probs[rows]
            if self._num_steps == 1
            else self._log_probs[rows][:, :, self._form_path].sum(axis=3)
        )
        return of_forms[:, 0] if prompts is None else of_forms

    def invalid(self, runs: np.ndarray) -> np.ndarray:
        """Never: see `ScoresAll`."""
        return np.zeros(len(runs))

    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """See `Policy`."""
        return assess_all(
            self.log_probs(runs, every_prompt(len(runs), self._num_prompts))[:, :, :num_answers], forms
        )

    def update(self, rollout: Rollout, advantages: np.ndarray, objective: Objective) -> None:
        """See `Policy`."""
        rows, run, weights = self._by_row(rollout, advantages)
        if len(rows) == 0:
            return
        path, before = torch.from_numpy(rollout.path[run]), None
        for _ in range(objective.epochs):
            logits = self._leaf(rows)
            log_probs = self._normalised(logits).gather(1, path.flatten(1)).view(path.shape)
            before = log_probs.detach() if before is None else before
            self._descend(rows, logits, objective.loss(log_probs, before, torch.from_numpy(weights)))

    def distil(
        self, runs: np.ndarray, targets: np.ndarray, epochs: int, prompts: np.ndarray | None = None
    ) -> None:
        """See `ScoresAll`."""
        rows, first = np.unique(self._rows(runs, prompts), return_index=True)
        wanted = torch.from_numpy(targets.reshape(-1, targets.shape[-1])[first])
        path = torch.from_numpy(self._form_path[: targets.shape[-1]])
        for _ in range(epochs):
            logits = self._leaf(rows)
            self._descend(rows, logits, cross_entropy(self._normalised(logits)[:, path].sum(dim=2), wanted))

    def state(self) -> State:
        """See `memory_rl.state.Stateful`. The distributions are kept, too, so that they need not come out the
        same to the bit when recomputed.
        """
        learned = {
            "logits": self.logits.numpy(),
            "optimiser": self._optimiser.state(),
            "updates": self.updates,
        }
        return {
            **learned,
            "log_probs": self._log_probs,
            "stale": self._stale,
            "streams": self._streams.state(),
        }

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`."""
        self.logits.copy_(torch.from_numpy(state["logits"]))
        self._optimiser.restore(state["optimiser"])
        self.updates[:], self._stale[:] = state["updates"], state["stale"]
        self._streams.restore(state["streams"])
        fresh = np.nonzero(~self._stale)[0]
        self._keep(fresh, state["log_probs"][fresh])

    def _rows(self, runs: np.ndarray, prompts: np.ndarray | None) -> np.ndarray:
        """The rows of these runs at these prompts: (R,), (R, B) to (R, B)."""
        first = np.asarray(runs)[:, None] * self._num_prompts
        return first if prompts is None else first + prompts

    def _by_row(self, rollout: Rollout, advantages: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows (U,) that have a signal, the run of the rollout that each is of (U,), and the advantages
        of its episodes alone (U, E, K).
        """
        blocks = self._rows(rollout.runs, rollout.prompts)
        of_episode = np.repeat(blocks, advantages.shape[1] // blocks.shape[1], axis=1)  # (R, E)
        rows, first = np.unique(blocks, return_index=True)
        run = first // blocks.shape[1]
        weights = np.where((of_episode[run] == rows[:, None])[:, :, None], advantages[run], 0.0)
        signal = weights.any(axis=(1, 2))
        return rows[signal], run[signal], weights[signal]

    def _decision(self, choices: np.ndarray, step: int) -> np.ndarray:
        """Which decision a step is, given the earlier choices: (..., K) to (...)."""
        if not self._prefixes:
            return np.full(choices.shape[:-1], step)
        prefix = np.zeros(choices.shape[:-1], dtype=np.int64)
        for earlier in range(step):
            prefix = prefix * self._num_choices + choices[..., earlier]
        return prefix + sum(self._num_choices**earlier for earlier in range(step))

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
        self._optimiser.step(self._flat, rows, gradients.flatten(1))
        self.updates[np.unique(rows // self._num_prompts)] += 1
        self._stale[rows] = True

    def _refresh(self, rows: np.ndarray) -> None:
        """Recomputes the distributions of those of the rows whose logits have moved."""
        moved = rows[self._stale[rows]]
        if len(moved) == 0:
            return
        self._keep(moved, self._normalised(self.logits[torch.from_numpy(moved)]).numpy())
        self._stale[moved] = False

    def _keep(self, rows: np.ndarray, log_probs: np.ndarray) -> None:
        """The distributions (rows, D C) of these rows, until their logits move."""
        self._log_probs[rows] = log_probs
        cumulative = np.exp(log_probs).reshape(len(rows), -1, self._num_choices).cumsum(axis=2)
        self._cumulative[rows] = cumulative / cumulative[:, :, -1:] + self._place[rows][:, :, None]
