"""The learner when there are too many answers to score them all: N up to a million.

The cost grows with the length of an answer, not with N.

What is needed of the policy is the probability of the secret, and samples: both come from one pass over the
prompt and the secret's tokens, whose keys and values serve the sampled tokens after it (asking.py). The mass
on valid answers is estimated from the same samples: of each, not whether it came out valid, but the
probability that it would have, which hardly varies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from memory_rl.learning.divergence import check_finite
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.asking import Asker, Drawn, draw_with
from memory_rl.policies.base import Assessment, every_prompt, first_prompt
from memory_rl.policies.lean import LeanLlama, lean
from memory_rl.policies.transformer import MOST_FLOATS, AdaptedTransformer
from memory_rl.state import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from memory_rl.learning.batch import Batch
    from memory_rl.policies.transformer import Scored

_GROUPS = 8  # the most groups of samples that are drawn of a run at once
_SAMPLES = 8  # drawn of each run after each update, for the estimate and for the next episodes


@dataclass(frozen=True)
class _Asked:
    """Passes that were made with gradients.

    Attributes:
        runs: (R,).
        prompts: (R, B) of each.
        asker: made them, with a row for each run and prompt.
    """

    runs: np.ndarray
    prompts: np.ndarray
    asker: Asker

    def log_probs(self, runs: np.ndarray, prompts: np.ndarray, path: np.ndarray) -> torch.Tensor | None:
        """Of edges (R, E, L) of some of its runs, in blocks to prompts (R, B); None if others were asked."""
        place = np.searchsorted(self.runs, runs)
        if len(runs) == 0 or not np.array_equal(self.prompts[place], prompts):
            return None
        rows = place[:, None] * prompts.shape[1] + np.arange(prompts.shape[1])
        found = self.asker.log_probs(rows.ravel(), path.reshape(rows.size, -1, path.shape[2]))
        return None if found is None else found.view(path.shape)

    def state(self) -> State:
        """What the same passes can be made from."""
        rows, decisions = zip(*self.asker.passes, strict=True)
        return {
            "runs": self.runs,
            "prompts": self.prompts,
            "forms": self.asker.forms,
            "sizes": np.array([*map(len, rows)]),
            "rows": np.concatenate(rows),
            "decisions": np.concatenate(decisions),
        }


class PathPolicy(AdaptedTransformer):
    """Implements `ScoresPaths`. A run is asked about the same forms throughout: its secrets.

    Args:
        model, trie, settings: as of any transformer.
        avoids: whether the samples that are drawn are given that they are not the secret.
    """

    kept = (*AdaptedTransformer.kept, "_assessed", "_wanted")

    def __init__(
        self, model: PreTrainedModel, trie: AnswerTrie, *, avoids: bool = True, **settings: Any
    ) -> None:
        super().__init__(model, trie, **settings)
        self._passes = lean(model) or model
        self._asked: list[_Asked] = []
        self._avoids = avoids
        self._assessed = np.full((3, *self._stale.shape), np.nan)  # of_form, of_valid and of_best
        # Samples of each run that were not given out yet, where it has one prompt.
        self._waiting = [np.zeros((0, trie.max_edges), dtype=np.int64)] * self.num_runs
        self._wanted = _SAMPLES

    @override
    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact for the forms; the mass on all answers is estimated from samples, see `Policy`."""
        moved = self._stale[runs].any(axis=1)
        self._look(runs[moved], forms[moved], self._wanted)
        return Assessment(*self._assessed[:, runs])

    def sample(self, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Batch:
        """This many episodes of each run, in blocks to these prompts (R, B).

        Those that were drawn when the run was assessed are given out first.
        """
        self._wanted, size = num_episodes, num_episodes // prompts.shape[1]
        path = np.full((len(runs), num_episodes, self.trie.max_edges), NONE)
        ready = ~self._stale[runs, 0] & (self._num_waiting[runs] >= num_episodes)
        for row in np.nonzero(ready)[0]:
            path[row] = self._give_out(runs[row], num_episodes)
        some, no_forms = np.nonzero(~ready)[0], np.zeros((len(runs), prompts.shape[1], 0), dtype=np.int64)
        for chunk, drawn in self._draw(runs[some], prompts[some], no_forms[some], size):
            sampled = drawn.paths.reshape(len(some[chunk]), -1, path.shape[2])
            path[some[chunk]] = sampled[:, :num_episodes]
            self._put_by(runs[some[chunk]], sampled[:, num_episodes:])
        return self._of_path(runs, prompts, path)

    def sample_others(self, runs: np.ndarray, forms: np.ndarray, num_episodes: int) -> Batch:
        """Gives out samples, and draws more where they do not suffice, see `ScoresPaths`."""
        lacking = self._stale[runs, 0] | (self._num_waiting[runs] < num_episodes)
        self._look(runs[lacking], forms[lacking, None], max(_SAMPLES, num_episodes))
        path = np.stack([self._give_out(run, num_episodes) for run in runs])
        return self._of_path(runs, first_prompt(runs), path)

    def log_probs_of(self, runs: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """One pass over the tokens of the forms, see `ScoresPaths`."""
        return self._of_tokens(runs, first_prompt(runs), self.trie.form_edges[forms]).sum(axis=2)

    def log_probs_of_path(self, batch: Batch) -> np.ndarray:
        """Of the tokens that were chosen, as the policy is now: (R, E, L), see `Scores`."""
        return self._of_tokens(batch.runs, batch.prompts, batch.path)

    def _of_tokens(self, runs: np.ndarray, prompts: np.ndarray, path: np.ndarray) -> np.ndarray:
        """Log-probability of each edge of paths (R, E, L), in blocks to prompts (R, B); 0 at the padding."""
        log_probs, length = np.empty(path.shape), path[0].size // prompts.shape[1] + len(self.trie.prompt)
        with torch.inference_mode():
            for chunk in self._chunks(len(runs), prompts.shape[1], length):
                self.adapters.activate(runs[chunk])
                log_probs[chunk] = self._chosen_log_probs(path[chunk], prompts[chunk]).cpu().double().numpy()
        return log_probs

    @property
    def _num_waiting(self) -> np.ndarray:
        return np.array([len(paths) for paths in self._waiting])

    def _put_by(self, runs: np.ndarray, paths: np.ndarray) -> None:
        """Keeps samples (R, E, L) of these runs for later; some rows may be of none."""
        for run, sampled in zip(runs, paths, strict=True):
            self._waiting[run] = sampled[sampled[:, 0] != NONE]

    def _give_out(self, run: int, num_episodes: int) -> np.ndarray:
        given, self._waiting[run] = np.split(self._waiting[run], [num_episodes])
        return given

    @override
    def _scored(self, runs: np.ndarray, prompts: np.ndarray, path: np.ndarray) -> Iterator[Scored]:
        """From the passes in which they were sampled, as far as these go."""
        left = np.arange(len(runs))
        for asked in () if self.penalty.active else self._asked:
            rows = left[np.isin(runs[left], asked.runs)]
            log_probs = asked.log_probs(runs[rows], prompts[rows], path[rows])
            if log_probs is not None:
                left = np.setdiff1d(left, rows)
                yield rows, log_probs, 0.0
        for some, log_probs, added in super()._scored(runs[left], prompts[left], path[left]):
            yield left[some], log_probs, added

    @override
    def _step(self, runs: np.ndarray, loss: torch.Tensor) -> None:
        for run in np.setdiff1d(np.arange(self.num_runs), runs):
            self.adapters.vectors[run].grad = None  # zeros, where its passes were those of others, too
        super()._step(runs, loss)
        self._asked = []  # before they moved

    @override
    def state(self) -> State:
        waiting = {"others": np.concatenate(self._waiting), "num_others": self._num_waiting}
        asked = {str(place): asked.state() for place, asked in enumerate(self._asked)}
        return {**super().state(), **waiting, "asked": asked}

    @override
    def restore(self, state: State) -> None:
        super().restore(state)
        self._waiting = np.split(state["others"], np.cumsum(state["num_others"])[:-1])
        for saved in state["asked"].values():  # the same passes, so that gradients are the same to the bit
            asker = self._asker(saved["runs"], saved["prompts"], saved["forms"])
            parts = (np.split(saved[name], np.cumsum(saved["sizes"])[:-1]) for name in ("rows", "decisions"))
            for rows, decisions in [*zip(*parts, strict=True)][1:]:  # the first was that of the forms
                asker.ask(rows, decisions)

    def _look(self, runs: np.ndarray, forms: np.ndarray, num_samples: int) -> None:
        """Assesses these runs as they are now, and draws samples of each."""
        for chunk, seen in self._draw(
            runs, every_prompt(runs, forms.shape[1]), forms[..., None], num_samples
        ):
            here, of_form = runs[chunk], seen.of_forms[:, 0]
            best = np.maximum(of_form, seen.of_valid_path.max(axis=1))
            of_all = np.stack([of_form, self._of_valid(seen), best]).reshape(3, len(here), -1)
            check_finite(of_all[0], "probabilities are", here, self.updates)
            self._assessed[:, here] = of_all
            if forms.shape[1] == 1:
                self._put_by(here, seen.paths)
        self._stale[runs] = False

    def _of_valid(self, seen: Drawn) -> np.ndarray:
        """The mass on all valid answers: (R,), an unbiased estimate.

        The mean probability of staying, of samples of all answers; of samples that are not the form,
        P(form) + (1 - P(form)) times it.
        """
        form, others = np.exp(seen.of_forms[:, 0]), np.nanmean(np.exp(seen.of_staying), axis=1)
        return np.log(form + (1 - form) * others if self._avoids else others)

    def _draw(
        self, runs: np.ndarray, prompts: np.ndarray, forms: np.ndarray, num_samples: int
    ) -> Iterator[tuple[slice, Drawn]]:
        """Some of the runs at a time, behind prompts (R, B): forms (R, B, Q), and samples a prompt."""
        blocks, longest = prompts.shape[1], self.trie.max_edges
        samples = blocks * num_samples * self._groups(runs, num_samples)
        length = len(self.trie.prompt) + (samples.max(initial=0) // blocks + 1) * longest
        # An update is about what is sampled now, and about one prompt's samples when all are looked at.
        keep = (blocks == 1 or forms.size == 0) and self._room_for(len(runs) * blocks * length)
        for chunk in self._chunks(len(runs), blocks, length):
            here, uniforms = runs[chunk], np.full((len(runs[chunk]), samples[chunk].max(), longest, 2), np.nan)
            for row, (run, count) in enumerate(zip(here, samples[chunk], strict=True)):
                uniforms[row, :count] = self._streams[run].random((count, longest, 2))
            numbers = uniforms.reshape(len(here) * blocks, -1, longest, 2)
            with torch.inference_mode(not keep):
                asker = self._asker(here, prompts[chunk], forms[chunk].reshape(len(numbers), -1))
                drawn = draw_with(asker, numbers, avoid=self._avoids)
            yield chunk, drawn

    def _groups(self, runs: np.ndarray, num_samples: int) -> np.ndarray:
        """How many groups of samples (R,) to draw at once, so that silent ones seldom ask for more.

        From P(S) as it was last known, since samples that are all S carry no signal: about as many as come
        until one does.
        """
        if self._avoids or self.trie.num_prompts > 1:
            return np.ones(len(runs), dtype=np.int64)
        silent = np.exp(np.nan_to_num(self._assessed[0, runs, 0], nan=-np.inf) * num_samples)
        return np.clip(np.round(2 / (1 - silent)) - 1, 1, _GROUPS).astype(np.int64)

    def _room_for(self, num_tokens: int) -> bool:
        """Whether the gradients of so many tokens can be kept until the next update."""
        return isinstance(self._passes, LeanLlama) and num_tokens * self._passes.floats_a_token <= MOST_FLOATS

    def _asker(self, runs: np.ndarray, prompts: np.ndarray, forms: np.ndarray) -> Asker:
        """Asks these runs behind prompts (R, B); with gradients, its passes are kept for the next update."""
        self.adapters.activate(runs)
        asker = Asker(self._passes, self.trie, prompts.ravel(), forms)
        if torch.is_grad_enabled():
            others = [asked for asked in self._asked if not np.isin(asked.runs, runs).any()]
            self._asked = [*others, _Asked(runs, prompts, asker)]
        return asker
