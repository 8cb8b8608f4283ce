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
from memory_rl.policies.asking import PathSamples, draw
from memory_rl.policies.base import Assessment, every_prompt, first_prompt
from memory_rl.policies.lean import lean
from memory_rl.policies.transformer import AdaptedTransformer
from memory_rl.state import State

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from memory_rl.learning.batch import Batch

_MOST_AT_ONCE = 128  # samples of a run that stands still
_SAMPLES = 8  # drawn of each run after each update, for the estimate and for the next episodes


class PathPolicy(AdaptedTransformer):
    """Implements `ScoresPaths`. A run is asked about the same forms throughout: its secrets.

    Args:
        model, trie, settings: as of any transformer.
        avoids: whether the samples that are drawn are given that they are not the secret.
    """

    kept = (*AdaptedTransformer.kept, "_assessed", "_wanted", "_forms", "_playing", "_stretch")

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
        # Of each run: how many groups it was given since it moved, and half as many of the stretch before.
        self._stretch = np.zeros(self.num_runs, dtype=np.int64)

    @override
    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact for the forms; the mass on all answers is estimated from samples, see `Policy`."""
        moved = self._stale[runs].any(axis=1)
        self._look(runs[moved], forms[moved], self._wanted, num_answers, others=self._lacking())
        return Assessment(*self._assessed[:, runs])

    def sample(self, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Batch:
        """This many episodes of each run, in blocks to these prompts (R, B).

        Those that were drawn before are given out first: while a run stands still its samples stay good, so
        that in a stretch of silent groups as many are drawn at once as it has lasted. Of several prompts none
        are drawn ahead, since the next group may be about another.
        """
        self._wanted, size = num_episodes, num_episodes // prompts.shape[1]
        self._playing[:] = np.isin(np.arange(self.num_runs), runs)
        path = np.full((len(runs), num_episodes, self.trie.max_edges), NONE)
        ready = ~self._stale[runs, 0] & (self._num_waiting[runs] >= num_episodes)
        for row in np.nonzero(ready)[0]:
            path[row] = self._give_out(runs[row], num_episodes)
        some, no_forms = np.nonzero(~ready)[0], np.zeros((len(runs), prompts.shape[1], 0), dtype=np.int64)
        times = self._times(runs[some], num_episodes) if self.trie.num_prompts == 1 else 1
        for chunk, drawn in self._draw(runs[some], prompts[some], no_forms[some], size, times):
            here = some[chunk]
            sampled = drawn.paths.reshape(len(here), -1, path.shape[2])
            path[here] = sampled[:, :num_episodes]
            self._put_by(runs[here], sampled[:, num_episodes:])
        self._stretch[runs] += 1
        return self._of_path(runs, prompts, path)

    def sample_others(self, runs: np.ndarray, forms: np.ndarray, num_episodes: int) -> Batch:
        """Gives out samples, and draws more where they do not suffice, see `ScoresPaths`."""
        lacking = self._stale[runs, 0] | (self._num_waiting[runs] < num_episodes)
        self._look(
            runs[lacking], forms[lacking, None], max(_SAMPLES, num_episodes), len(self.trie.form_edges)
        )
        path = np.stack([self._give_out(run, num_episodes) for run in runs])
        return self._of_path(runs, first_prompt(runs), path)

    def log_probs_of(self, runs: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """One pass over the tokens of the forms, see `ScoresPaths`."""
        return self._of_tokens(runs, first_prompt(runs), self.trie.form_edges[forms]).sum(axis=2)

    def log_probs_of_path(self, batch: Batch) -> np.ndarray:
        """Of the tokens that were chosen, as the policy is now: (R, E, L), see `Scores`."""
        return self._of_tokens(batch.runs, batch.prompts, batch.path)

    @override
    def _of_base(self, path: np.ndarray, prompts: np.ndarray) -> torch.Tensor:
        with self.adapters.off(), torch.no_grad():
            return self._chosen_log_probs(path, prompts)

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

    def _times(self, runs: np.ndarray, num_episodes: int) -> np.ndarray:
        """How many groups of so many episodes to draw at once of each of these runs."""
        most = max(1, _MOST_AT_ONCE // num_episodes)
        times: np.ndarray = np.where(self._stale[runs, 0], 1, self._stretch[runs].clip(1, most))
        return times

    def _lacking(self) -> np.ndarray:
        """The runs that have not moved and have no samples left, of those that were last sampled from."""
        if self._avoids or self.trie.num_prompts > 1:
            return np.zeros(0, dtype=np.int64)
        return np.nonzero(self._playing & ~self._stale[:, 0] & (self._num_waiting < self._wanted))[0]

    def _look(
        self,
        runs: np.ndarray,
        forms: np.ndarray,
        num_samples: int,
        num_answers: int,
        others: np.ndarray | None = None,
    ) -> None:
        """Assesses these runs as they are now, and draws samples of them and of others in the same passes."""
        self._forms[runs] = forms
        every = runs if others is None or len(runs) == 0 else np.union1d(runs, others)
        asked, times = self._forms[every, :, None], np.ones(len(every), dtype=np.int64)
        if others is not None:
            still = np.isin(every, others)
            times[still] = self._times(every[still], num_samples)
        every_row = every_prompt(every, asked.shape[1])
        for chunk, seen in self._draw(every, every_row, asked, num_samples, times):
            here, of_form = every[chunk], seen.of_forms[:, 0]
            beyond = self._beyond(seen.valid_paths, num_answers)
            best = np.maximum(of_form, np.where(beyond, -np.inf, seen.of_valid_path).max(axis=1))
            of_all = np.stack([of_form, self._of_valid(seen, beyond), best]).reshape(3, len(here), -1)
            check_finite(of_all[0], "probabilities are", here, self.updates)
            moved = np.isin(here, runs)
            self._assessed[:, here[moved]] = of_all[:, moved]
            if asked.shape[1] == 1:
                self._put_by(here, seen.paths)
        self._stale[runs], self._stretch[runs] = False, self._stretch[runs] // 2

    def _of_valid(self, seen: PathSamples, beyond: np.ndarray) -> np.ndarray:
        """The mass on all answers: (R,), estimated without bias, but at least that of the form.

        The mean probability of staying, of samples of all answers; of samples that are not the form,
        P(form) + (1 - P(form)) times it. Staying is worth nothing where it leads beyond all answers (R, E).
        """
        staying = np.where(beyond, 0.0, np.exp(seen.of_staying))
        form, others = np.exp(seen.of_forms[:, 0]), np.nanmean(staying, axis=1)
        with np.errstate(divide="ignore"):
            of_all = np.log(form + (1 - form) * others if self._avoids else others)
        return np.maximum(seen.of_forms[:, 0], of_all)

    def _beyond(self, paths: np.ndarray, num_answers: int) -> np.ndarray:
        """Which samples (..., L) are valid in each turn and spell a number that is no answer: (...)."""
        if len(self.trie.form_edges) == num_answers:
            return np.zeros(paths.shape[:-1], dtype=bool)
        choices = self.trie.choices(paths)
        spelt = choices @ 2 ** np.arange(choices.shape[-1])[::-1]
        return (choices >= 0).all(axis=-1) & (spelt >= num_answers)

    def _draw(
        self,
        runs: np.ndarray,
        prompts: np.ndarray,
        forms: np.ndarray,
        num_samples: int,
        times: np.ndarray | int = 1,
    ) -> Iterator[tuple[slice, PathSamples]]:
        """Some of the runs at a time, behind prompts (R, B): forms (R, B, Q), and samples a prompt.

        Of one prompt, so many times (R,) as many samples; a run's row ends with samples that are none.
        """
        blocks, longest = prompts.shape[1], self.trie.max_edges
        samples = np.broadcast_to(blocks * num_samples * times, runs.shape)
        length = len(self.trie.prompt) + (int(samples.max(initial=0)) // blocks + 1) * longest
        for chunk in self._chunks(len(runs), blocks, length):
            here, counts = runs[chunk], samples[chunk]
            uniforms = np.full((len(here), counts.max(), longest, 2), np.nan)
            for row, run, count in zip(uniforms, here, counts, strict=True):
                row[:count] = self._streams[run].random((count, longest, 2))  # whoever is beside it
            rows = prompts[chunk].ravel(), forms[chunk].reshape(len(here) * blocks, forms.shape[2])
            numbers = uniforms.reshape(len(here) * blocks, -1, longest, 2)
            with torch.inference_mode():
                self.adapters.activate(here)
                drawn = draw(self._passes, self.trie, *rows, numbers, avoid=self._avoids)
            yield chunk, drawn
