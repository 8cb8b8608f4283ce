"""The learner when there are too many answers to score them all: N up to a million.

The cost grows with the length of an answer, not with N.

What is needed of the policy is the probability of the secret, and samples: both come from one pass over the
prompt and the secret's tokens, whose keys and values serve the sampled tokens after it (asking.py). The mass
on valid answers is estimated from the same samples: of each, not whether it came out valid, but the
probability that it would have, which hardly varies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from typing_extensions import override

from memory_rl.learning.divergence import check_finite
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.asking import Drawn, draw
from memory_rl.policies.base import Assessment, every_prompt, first_prompt
from memory_rl.policies.lean import lean
from memory_rl.policies.transformer import AdaptedTransformer
from memory_rl.state import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from memory_rl.learning.batch import Batch

_GROUPS = 8  # the most groups of samples that are drawn of a run at once
_SAMPLES = 8  # drawn of each run after each update, for the estimate and for the next episodes


class PathPolicy(AdaptedTransformer):
    """Implements `ScoresPaths`. A run is asked about the same forms throughout: its secrets.

    Args:
        model, trie, settings: as of any transformer.
        avoids: whether the samples that are drawn are given that they are not the secret.
    """

    kept = (*AdaptedTransformer.kept, "_assessed", "_wanted", "_forms", "_playing")

    def __init__(
        self, model: PreTrainedModel, trie: AnswerTrie, *, avoids: bool = True, **settings: Any
    ) -> None:
        super().__init__(model, trie, **settings)
        self._passes = lean(model) or model
        self._avoids = avoids
        self._assessed = np.full((3, *self._stale.shape), np.nan)  # of_form, of_valid and of_best
        # Samples of each run that were not given out yet, where it has one prompt.
        self._waiting = [np.zeros((0, trie.max_edges), dtype=np.int64)] * self.num_runs
        self._wanted = _SAMPLES
        self._forms = np.zeros(self._stale.shape, dtype=np.int64)  # that each run was last asked about
        self._playing = np.zeros(self.num_runs, dtype=bool)  # which runs were last sampled from

    @override
    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact for the forms; the mass on all answers is estimated from samples, see `Policy`."""
        moved = self._stale[runs].any(axis=1)
        self._look(runs[moved], forms[moved], self._wanted, others=self._lacking())
        return Assessment(*self._assessed[:, runs])

    def sample(self, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Batch:
        """This many episodes of each run, in blocks to these prompts (R, B).

        Those that were drawn when the run was assessed are given out first.
        """
        self._wanted, size = num_episodes, num_episodes // prompts.shape[1]
        self._playing[:] = np.isin(np.arange(self.num_runs), runs)
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
        """Keeps samples (R, E, L) of these runs for later; some runs have fewer."""
        for run, sampled in zip(runs, paths, strict=True):
            self._waiting[run] = sampled[sampled[:, 0] != NONE]

    def _give_out(self, run: int, num_episodes: int) -> np.ndarray:
        given, self._waiting[run] = np.split(self._waiting[run], [num_episodes])
        return given

    @override
    def state(self) -> State:
        return {**super().state(), "others": np.concatenate(self._waiting), "num_others": self._num_waiting}

    @override
    def restore(self, state: State) -> None:
        super().restore(state)
        self._waiting = np.split(state["others"], np.cumsum(state["num_others"])[:-1])

    def _lacking(self) -> np.ndarray:
        """The runs that have not moved and have no samples left, of those that were last sampled from."""
        if self._avoids or self.trie.num_prompts > 1:
            return np.zeros(0, dtype=np.int64)
        return np.nonzero(self._playing & ~self._stale[:, 0] & (self._num_waiting < self._wanted))[0]

    def _look(
        self, runs: np.ndarray, forms: np.ndarray, num_samples: int, others: np.ndarray | None = None
    ) -> None:
        """Assesses these runs as they are now, and draws samples of them and of others in the same passes."""
        self._forms[runs] = forms
        every = runs if others is None or len(runs) == 0 else np.union1d(runs, others)
        asked = self._forms[every, :, None]
        for chunk, seen in self._draw(every, every_prompt(every, asked.shape[1]), asked, num_samples):
            here, of_form = every[chunk], seen.of_forms[:, 0]
            best = np.maximum(of_form, seen.of_valid_path.max(axis=1))
            of_all = np.stack([of_form, self._of_valid(seen), best]).reshape(3, len(here), -1)
            check_finite(of_all[0], "probabilities are", here, self.updates)
            moved = np.isin(here, runs)
            self._assessed[:, here[moved]] = of_all[:, moved]
            if asked.shape[1] == 1:
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
        samples = num_samples * self._groups(runs, num_samples)
        length = len(self.trie.prompt) + (samples.max(initial=0) + 1) * longest
        for chunk in self._chunks(len(runs), blocks, length):
            here, counts = runs[chunk], blocks * samples[chunk]
            uniforms = np.full((len(here), counts.max(), longest, 2), np.nan)
            for of_run, run, count in zip(uniforms, here, counts, strict=True):
                of_run[:count] = self._streams[run].random((count, longest, 2))
            rows = prompts[chunk].ravel(), forms[chunk].reshape(len(here) * blocks, forms.shape[2])
            numbers = uniforms.reshape(len(here) * blocks, -1, longest, 2)
            with torch.inference_mode():
                self.adapters.activate(here)
                drawn = draw(self._passes, self.trie, *rows, numbers, avoid=self._avoids)
            yield chunk, drawn

    def _groups(self, runs: np.ndarray, num_samples: int) -> np.ndarray:
        """How many groups of samples (R,) to draw at once, so that silent ones seldom ask for more.

        Samples that are all S carry no signal. So these are about as many as come until a group does, from
        P(S) as it was last known.
        """
        if self._avoids or self.trie.num_prompts > 1:
            return np.ones(len(runs), dtype=np.int64)
        silent = np.exp(np.nan_to_num(self._assessed[0, runs, 0], nan=-np.inf) * num_samples)
        return np.clip(np.round(2 / (1 - silent)) - 1, 1, _GROUPS).astype(np.int64)
