"""The hosted learner: R LoRA training clients of a service that speaks the Tinker API, through its official
SDK.

The answer trie is the local one, so that P(S) is the probability of one path of tokens here, too. Answers are
really sampled, turn by turn, and each sampled token is trained with the advantage of its step. All runs are
asked at once: requests are handed over first, and their results are awaited after that.

A sampler is made anew after each update and an old one is never asked: on the service it is a snapshot,
elsewhere it may not be.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tinker
from tinker.lib.base_url import resolve_base_url
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from memory_rl.errors import ModelError, ServiceError, TokensSpentError, suggest
from memory_rl.learning.objectives import ClippedRatio, Objective
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.base import Assessment, Rollout, assess_all
from memory_rl.policies.conversations import START, Conversations
from memory_rl.policies.spending import Cost, Estimate, Meter
from memory_rl.seeding import generator, torch_seed
from memory_rl.state import State

_KEY = "TINKER_API_KEY"
_REMOTE_CODE = "moonshotai/"  # the SDK runs code from the hub to read the tokenizers of these
_WINDOW = 16  # samples of a run that its mass on valid answers is estimated from, at least
_WARMUP_STEPS, _WARMUP_ANSWERS, _WARMUP_LOOK = (
    300,
    128,
    10,
)  # at most so many steps of so many answers, with a look every so many steps
_WARMUP_TOLERANCE = 0.0145  # KL(uniform || policy) in bits: the mass on valid answers is then above 0.99
_SECONDS_KEPT = 30 * 24 * 3600  # of a saved state, from when it was saved


@dataclass(frozen=True)
class Service:
    """What the SDK speaks to the service with.

    Attributes:
        session: a `tinker.ServiceClient`.
        rest: a `tinker.RestClient`, for what needs no session.
    """

    session: Any
    rest: Any


@dataclass(frozen=True)
class HostedSettings:
    """What a population is on the service.

    Attributes:
        model_name: of the base model there.
        num_runs: R.
        rank: of the adapters. Their scale is the service's.
        targets: which matrices get one; never the output head.
        learning_rate: of Adam, with the constants of the local one.
        seed: of the initial adapters. Sampling has no seed there.
        num_answers: N.
        episodes: of one run in an update.
        epochs: optimiser steps of an update.
        sampled: whether the episodes are sampled, not shown.
        scores_all: whether every answer is scored after every update.
        warms_up: whether the base model is taught the answer format first.
        max_tokens: the hard stop, or None.
        blocks: B equal ones that the episodes of an update come in, each about one of several secrets.
        every: updates of a run between two measurements.
    """

    model_name: str
    num_runs: int
    rank: int
    targets: str
    learning_rate: float
    seed: int
    num_answers: int
    episodes: int
    epochs: int
    sampled: bool
    scores_all: bool
    warms_up: bool = False
    max_tokens: int | None = None
    blocks: int = 1
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class HostedRollout(Rollout):
    """A rollout with what training on the service needs.

    Attributes:
        exit_tokens: (R, E) the token that left the trie, -1 where none did.
        log_probs: (R, E, L) of the chosen tokens as they were sampled, 0 at the padding; None for
            demonstrations.
    """

    exit_tokens: np.ndarray
    log_probs: np.ndarray | None


@dataclass
class _Drawn:
    """Conversations of one run behind one prompt, sampled and not yet given out: paths (E, L), exit tokens
    (E,) and log-probabilities (E, L).
    """

    paths: np.ndarray
    exit_tokens: np.ndarray
    log_probs: np.ndarray

    @classmethod
    def blank(cls, count: int, length: int) -> _Drawn:
        return cls(np.full((count, length), NONE), np.full(count, NONE), np.zeros((count, length)))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: slice) -> _Drawn:
        return _Drawn(self.paths[which], self.exit_tokens[which], self.log_probs[which])

    @classmethod
    def joined(cls, parts: Sequence[_Drawn]) -> _Drawn:
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("paths", "exit_tokens", "log_probs")
            )
        )


class TinkerPolicy:
    """Implements `ScoresAll`, as far as it is told to score all answers.

    Args:
        service: where the runs live.
        trie: the valid conversations of the environment, in the model's tokens.
        settings: of the population.
    """

    def __init__(self, service: Service, trie: AnswerTrie, settings: HostedSettings) -> None:
        self.num_runs = settings.num_runs
        self.updates = np.zeros(self.num_runs, dtype=np.int64)
        self.settings, self.trie, self.meter = settings, trie, Meter(settings.max_tokens)
        self._service, self._conversations = service, Conversations(trie)
        self._end = int(trie.edge_token[trie.form_edges[0][trie.form_edges[0] != NONE][-1]])
        self._training: list[Any] = [None] * self.num_runs
        self._samplers: list[Any] = [None] * self.num_runs
        self.warmup: dict[str, Any] | None = None
        """How the format warm-up ended, and where on the service its weights are; None before, and without
        one."""
        self._saved: list[str | None] = [
            None
        ] * self.num_runs  # where each run's last saved state is, as long as it has not moved since
        self._obsolete: tuple[list[str], list[str]] = (
            [],
            [],
        )  # saved states that no run stands at: named by the last checkpoint alone; by none
        self._num_prompts = (
            trie.num_prompts
        )  # a run and one of its prompts, (run, prompt), are the number run * M + prompt: their account
        self._drawn = [
            _Drawn.blank(0, trie.max_edges) for _ in range(self.num_runs * trie.num_prompts)
        ]  # by account
        window = max(_WINDOW, settings.episodes, self._each * trie.num_prompts)
        self._last = np.full(
            (self.num_runs, window, trie.max_edges), NONE
        )  # paths, the newest last, whatever the prompt
        self._last_prompts = np.zeros(self._last.shape[:2], dtype=np.int64)
        self._log_probs = np.full(
            (self.num_runs, trie.num_prompts, settings.num_answers if settings.scores_all else 0), np.nan
        )

    @property
    def trained_parameters(self) -> None:
        """The service does not tell."""
        return

    @property
    def trained_bytes(self) -> None:
        """The service does not tell."""
        return

    def forget(self) -> None:
        """Asks the service to forget all saved states, when no checkpoint is needed any more."""
        warm = [] if self.warmup is None else [self.warmup["state"]]
        self._delete(
            [
                *warm,
                *(path for path in self._saved if path is not None),
                *self._obsolete[0],
                *self._obsolete[1],
            ]
        )

    def close(self, completed: bool = True) -> None:
        """Ends the session, so that the service frees what it holds; a service that is gone needs no
        goodbye.
        """
        with contextlib.suppress(Exception):
            self._service.session.close("success" if completed else "errored").result(timeout=10)

    # --- asking
    # -------------------------------------------------------------------------------------------------------------------------------

    def sample(self, runs: np.ndarray, num_episodes: int, prompts: np.ndarray | None = None) -> HostedRollout:
        """Samples turn by turn; see `ScoresAll`.

        Raises:
            TokensSpentError: if there might not be enough tokens left for the update that these episodes are
                for.
        """
        self.meter.reserve(self.estimate(1).update * len(runs))
        accounts = self._accounts(runs, prompts)  # (R, B)
        size = num_episodes // accounts.shape[1]
        which, blocks = np.unique(accounts, return_counts=True)
        self._draw(self._missing(dict(zip(which.tolist(), (blocks * size).tolist(), strict=True))))
        taken = [
            _Drawn.joined([self._take(account, size) for account in of_run]) for of_run in accounts.tolist()
        ]
        path, exits, log_probs = (
            np.stack([getattr(part, name) for part in taken])
            for name in ("paths", "exit_tokens", "log_probs")
        )
        choices = self.trie.choices(path, self.trie.num_steps)
        return HostedRollout(np.asarray(runs), choices, path, prompts, exit_tokens=exits, log_probs=log_probs)

    def demonstrate(
        self, runs: np.ndarray, forms: np.ndarray, prompts: np.ndarray | None = None
    ) -> HostedRollout:
        """Teacher-forced conversations; see `Policy`.

        Raises:
            TokensSpentError: as in `sample`.
        """
        self.meter.reserve(self.estimate(1).update * len(runs))
        path = self.trie.form_edges[forms]
        choices = self.trie.choices(path, self.trie.num_steps)
        return HostedRollout(
            np.asarray(runs), choices, path, prompts, exit_tokens=np.full(forms.shape, NONE), log_probs=None
        )

    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact for the forms. The mass on all answers is exact with `scores_all`, else estimated from the
        run's last samples; see `Policy`.
        """
        scored = (
            np.broadcast_to(np.arange(num_answers), (*forms.shape, num_answers))
            if self.settings.scores_all
            else forms[:, :, None]
        )  # (R, M, F)
        self._sample_from(runs)
        accounts = np.repeat(self._accounts(runs), scored.shape[2])
        asked = [
            self._ask_log_probs(account, form)
            for account, form in zip(accounts.tolist(), scored.ravel().tolist(), strict=True)
        ]
        self._draw_to_measure(runs)
        log_probs = np.array(self._collect(asked)).reshape(scored.shape)
        self.meter.count(sampled=len(asked))  # a token that nobody wants comes with each
        self.meter.keep()
        if self.settings.scores_all:
            self._log_probs[runs] = log_probs
            return assess_all(log_probs, forms)
        of_forms = log_probs[:, :, 0]
        seen = np.array([self._best_drawn(account) for account in accounts.tolist()]).reshape(forms.shape)
        of_valid = np.array(
            [self._of_valid(run, *of_run) for run, *of_run in zip(runs, forms, of_forms, strict=True)]
        )
        return Assessment(of_forms, of_valid, np.maximum(of_forms, seen))

    def log_probs(self, runs: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
        """(R, N), or (R, B, N) behind these prompts (R, B), as they were last assessed, with `scores_all`;
        see `ScoresAll`.
        """
        if not self.settings.scores_all:
            raise NotImplementedError("only scoring=all asks for the probability of every answer")
        return (
            self._log_probs[runs, 0]
            if prompts is None
            else self._log_probs[np.asarray(runs)[:, None], prompts]
        )

    def invalid(self, runs: np.ndarray) -> np.ndarray:
        """See `ScoresAll`."""
        return np.maximum(0.0, -np.expm1(np.logaddexp.reduce(self.log_probs(runs), axis=1)))

    def distil(
        self, runs: np.ndarray, targets: np.ndarray, epochs: int, prompts: np.ndarray | None = None
    ) -> None:
        """Not on a service; see `ScoresAll`."""
        raise NotImplementedError("algorithm=posterior needs backend=local")

    def _accounts(self, runs: np.ndarray, prompts: np.ndarray | None = None) -> np.ndarray:
        """The accounts of these runs behind these prompts (R, B), or behind all: (R, B)."""
        return np.asarray(runs)[:, None] * self._num_prompts + (
            np.arange(self._num_prompts) if prompts is None else prompts
        )

    def _draw_to_measure(self, runs: np.ndarray) -> None:
        """The samples that a measurement of these runs wants: those that become the next episodes anyway, or
        enough for an estimate.

        What the next episodes of a run with several secrets are about is not known yet. Each prompt is asked,
        so that one with a sure answer is seen.
        """
        if self._num_prompts > 1:
            self._draw(self._missing(dict.fromkeys(self._accounts(runs).ravel().tolist(), self._each)))
            return
        wanting = [int(run) for run in runs if len(self._drawn[run]) < self._wanted(run)]
        self._draw(dict.fromkeys(wanting, max(map(self._wanted, runs))))

    @property
    def _each(self) -> int:
        """Samples behind each of several prompts in a measurement, which needs none where all answers are
        scored.
        """
        return 0 if self.settings.scores_all else math.ceil(_WINDOW / self._num_prompts)

    def _wanted(self, run: int) -> int:
        """Samples that a measurement of this run wants, which has one secret."""
        known = int((self._last[run, :, 0] != NONE).sum())
        return (
            self.settings.episodes
            if self.settings.sampled and known >= _WINDOW
            else max(_WINDOW, self.settings.episodes)
        )

    def _missing(self, counts: Mapping[int, int]) -> dict[int, int]:
        """How many samples must be drawn, by account, so that there are so many to give out."""
        return {
            account: count - len(self._drawn[account])
            for account, count in counts.items()
            if len(self._drawn[account]) < count
        }

    def _take(self, account: int, count: int) -> _Drawn:
        taken, self._drawn[account] = self._drawn[account][:count], self._drawn[account][count:]
        return taken

    def _of_valid(self, run: int, forms: np.ndarray, of_forms: np.ndarray) -> np.ndarray:
        """Log of P(form) + (1 - P(form)) v, (M,): v is the share of valid answers among the last samples that
        are not the form of their prompt, or else 1.
        """
        known = self._last[run, :, 0] != NONE
        paths, prompts = self._last[run][known], self._last_prompts[run][known]
        others = paths[(paths != self.trie.form_edges[forms[prompts]]).any(axis=1)]
        valid = 1.0 - self._is_invalid(others).mean() if len(others) else 1.0
        probability = np.minimum(1.0, np.exp(of_forms))
        with np.errstate(divide="ignore"):
            return np.where(
                probability + valid > 0, np.log(probability + (1 - probability) * valid), of_forms
            )

    def _is_invalid(self, paths: np.ndarray) -> np.ndarray:
        return np.asarray((self.trie.is_exit[paths] & (paths != NONE)).any(axis=1))

    def _best_drawn(self, account: int) -> float:
        drawn = self._drawn[account]
        valid = ~self._is_invalid(drawn.paths)
        return float(drawn.log_probs[valid].sum(axis=1).max()) if valid.any() else -np.inf

    def _draw(self, counts: Mapping[int, int]) -> None:
        """Samples so many more conversations, by account: in each turn one request for each account and each
        conversation so far, with all who share it.
        """
        self._sample_from(dict.fromkeys(account // self._num_prompts for account in counts))
        fresh = {account: _Drawn.blank(count, self.trie.max_edges) for account, count in counts.items()}
        standing = {account: np.full(count, START) for account, count in counts.items()}
        while waiting := [
            (account, decision)
            for account, here in standing.items()
            for decision in np.unique(here[here != NONE]).tolist()
        ]:
            rows = [np.nonzero(standing[account] == decision)[0] for account, decision in waiting]
            asked = [
                self._ask_replies(account, decision, len(here))
                for (account, decision), here in zip(waiting, rows, strict=True)
            ]
            for (account, decision), here, answer in zip(waiting, rows, self._collect(asked), strict=True):
                standing[account][here] = self._take_in(fresh[account], here, decision, answer.sequences)
            self.meter.keep()
        for account, drawn in fresh.items():
            self._keep(account, drawn)

    def _keep(self, account: int, fresh: _Drawn) -> None:
        """Takes in samples that are to be given out later."""
        run, prompt = divmod(account, self._num_prompts)
        self._drawn[account] = _Drawn.joined([self._drawn[account], fresh])
        window = self._last.shape[1]
        self._last[run] = np.concatenate([self._last[run], fresh.paths])[-window:]
        self._last_prompts[run] = np.concatenate([self._last_prompts[run], np.full(len(fresh), prompt)])[
            -window:
        ]

    def _take_in(
        self, drawn: _Drawn, rows: np.ndarray, decision: int, sequences: Sequence[Any]
    ) -> np.ndarray:
        """Enters one turn of some conversations, and returns the decision at which each of them stands after
        it.
        """
        after = np.full(len(rows), NONE)
        for place, (row, sequence) in enumerate(zip(rows, sequences, strict=True)):
            tokens, log_probs = list(sequence.tokens), sequence.logprobs
            self.meter.count(sampled=len(tokens))
            reply = self._conversations.read(decision, tokens)
            if reply is None or log_probs is None:
                raise ServiceError(
                    f"model_name={self.settings.model_name} answered {tokens} without an end or without log-probabilities: use another server."
                )
            start = int((drawn.paths[row] != NONE).sum())
            chosen = slice(start, start + len(reply.edges))
            drawn.paths[row, chosen], drawn.log_probs[row, chosen] = (
                reply.edges,
                log_probs[: len(reply.edges)],
            )
            drawn.exit_tokens[row], after[place] = reply.exit_token, reply.decision
        return after

    def _ask_replies(self, account: int, decision: int, count: int) -> Any:
        run, prompt = divmod(account, self._num_prompts)
        said = self._conversations.before(decision, prompt)
        self.meter.count("sample", prefilled=len(said))
        most = int(self._conversations.longest_reply[decision])
        wanted = tinker.SamplingParams(
            max_tokens=most, temperature=1.0, top_p=1.0, top_k=-1, stop=[self._end]
        )
        return self._samplers[run].sample(tinker.ModelInput.from_ints(list(said)), count, wanted)

    def _ask_log_probs(self, account: int, form: int) -> Any:
        """A promise of the log-probability of one answer."""
        run, prompt = divmod(account, self._num_prompts)
        return self._ask_sampler(self._samplers[run], form, prompt)

    def _ask_sampler(self, sampler: Any, form: int, prompt: int) -> Any:
        tokens, places = self._conversations.write(self.trie.form_edges[form], prompt=prompt)
        self.meter.count("compute_logprobs", prefilled=len(tokens))
        return _Promise(sampler.compute_logprobs(tinker.ModelInput.from_ints(tokens)), places)

    # --- learning
    # -----------------------------------------------------------------------------------------------------------------------------

    def update(self, rollout: Rollout, advantages: np.ndarray, objective: Objective) -> None:
        """One forward and backward pass and one step of Adam for each epoch, of all runs that have a signal;
        see `Policy`.
        """
        if not isinstance(rollout, HostedRollout):
            raise TypeError(
                "the episodes of another policy lack the log-probabilities that they were sampled with"
            )
        rows = np.nonzero(advantages.any(axis=(1, 2)))[0]
        loss, settings = _loss_of(rollout, objective)
        asked: list[Any] = []
        self._start(rollout.runs[rows])
        per_token = self.trie.per_token(rollout.path, advantages / rollout.path.shape[1])
        for row in rows:
            run = int(rollout.runs[row])
            data = self._data(rollout, row, per_token[row])
            for _ in range(objective.epochs):
                asked += self._ask_step(
                    self._training[run], data, loss, settings, self.settings.learning_rate
                )
            self._has_moved(run)
        self._collect(asked)
        self.updates[rollout.runs[rows]] += objective.epochs
        self.meter.keep()

    def _ask_step(
        self, client: Any, data: list[Any], loss: str, settings: dict[str, float] | None, learning_rate: float
    ) -> list[Any]:
        adam = tinker.AdamParams(learning_rate=learning_rate, beta1=0.9, beta2=0.999, eps=1e-8)
        self.meter.count("forward_backward", trained=sum(datum.model_input.length for datum in data))
        self.meter.count("optim_step")
        return [client.forward_backward(data, loss, settings), client.optim_step(adam)]

    def _warm_up(self) -> dict[str, Any]:
        """Supervised learning on random answers, all if they are few, until they are uniform; see warmup.py.
        All runs begin with its weights.

        Raises:
            ModelError: if they do not get there.
            TokensSpentError: if that might take more tokens than are allowed.
        """
        settings, random = self.settings, generator(self.settings.seed, "warm-up")
        [client] = self._collect([self._ask_fresh(0)])
        divergence = math.inf
        for step in range(_WARMUP_STEPS + 1):
            answers = random.choice(
                settings.num_answers, min(settings.num_answers, _WARMUP_ANSWERS), replace=False
            )
            prompts = (
                random.integers(self._num_prompts, size=len(answers))
                if self._num_prompts > 1
                else np.zeros_like(answers)
            )
            self.meter.reserve(
                Cost(prefilled=self._longest, sampled=1, trained=self._longest - 1) * len(answers)
            )
            if step % _WARMUP_LOOK == 0:
                divergence = self._divergence(client, answers, prompts)
                if divergence < _WARMUP_TOLERANCE:
                    break
            paths = self.trie.form_edges[answers]
            data = [
                self._datum(path, NONE, np.full(len(path), 1 / len(paths)), None, prompt)
                for path, prompt in zip(paths, prompts, strict=True)
            ]
            rate = settings.learning_rate * (0.5 + 0.5 * math.cos(math.pi * step / (_WARMUP_STEPS + 1)))
            self._collect(self._ask_step(client, data, "cross_entropy", None, rate))
            self.meter.keep()
        else:
            raise ModelError(
                f"the format warm-up stopped {divergence:.3f} bits from uniform after {_WARMUP_STEPS} steps: use another model_name or learning_rate."
            )
        self.meter.count("save_state")
        [saved] = self._collect([client.save_state("warm-up", ttl_seconds=_SECONDS_KEPT)])
        return {"steps": step, "divergence": divergence, "usage": self.meter.as_dict(), "state": saved.path}

    def _divergence(self, client: Any, answers: np.ndarray, prompts: np.ndarray) -> float:
        """KL(uniform || policy) in bits, from these answers (A,), each to a prompt (A,)."""
        self.meter.count("save_weights_and_get_sampling_client")
        [sampler] = self._collect([client.save_weights_and_get_sampling_client()])
        log_probs = self._collect(
            [self._ask_sampler(sampler, *asked) for asked in zip(answers, prompts, strict=True)]
        )
        self.meter.count(sampled=len(log_probs))
        return float(-np.mean(log_probs) / math.log(2) - math.log2(self.settings.num_answers))

    def _data(self, rollout: HostedRollout, row: np.intp, advantages: np.ndarray) -> list[Any]:
        """A datum for each episode; advantages (E, L), already divided by E because the service sums over
        data.
        """
        count = len(advantages)
        log_probs = [None] * count if rollout.log_probs is None else rollout.log_probs[row]
        prompts = np.zeros(1, dtype=np.int64) if rollout.prompts is None else rollout.prompts[row]
        parts = zip(
            rollout.path[row],
            rollout.exit_tokens[row],
            advantages,
            log_probs,
            np.repeat(prompts, count // len(prompts)),
            strict=True,
        )
        return [self._datum(*of_episode) for of_episode in parts]

    def _datum(
        self,
        path: np.ndarray,
        exit_token: int,
        advantages: np.ndarray,
        log_probs: np.ndarray | None,
        prompt: int,
    ) -> Any:
        """Each token predicts the next one; what the model did not choose has advantage 0."""
        tokens, places = self._conversations.write(path, int(exit_token), prompt)
        count = len(places)
        inputs = {"target_tokens": np.array(tokens[1:], dtype=np.int64)}
        if log_probs is None:
            inputs["weights"] = _spread(advantages[:count], places - 1, len(tokens) - 1)
        else:
            inputs["advantages"] = _spread(advantages[:count], places - 1, len(tokens) - 1)
            inputs["logprobs"] = _spread(log_probs[:count], places - 1, len(tokens) - 1)
        return tinker.Datum(model_input=tinker.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs)

    def _has_moved(self, run: int) -> None:
        self._samplers[run] = None
        for account in range(run * self._num_prompts, (run + 1) * self._num_prompts):
            self._drawn[account] = self._drawn[account][:0]
        saved, self._saved[run] = self._saved[run], None
        if saved is not None:
            self._obsolete[0].append(saved)

    # --- clients
    # ------------------------------------------------------------------------------------------------------------------------------

    def _start(self, runs: Iterable[int]) -> None:
        """Makes the training clients of those of these runs that have none: fresh, or from their saved
        states.
        """
        new = [int(run) for run in runs if self._training[run] is None]
        if self.settings.warms_up and self.warmup is None and new:
            try:
                self.warmup = self._warm_up()
            except TokensSpentError as error:
                raise ServiceError(
                    f"{error}, while the format warm-up is not over: allow more, or use warmup=False."
                ) from error
        for run, client in zip(new, self._collect([self._ask_training(run) for run in new]), strict=True):
            self._training[run] = client

    def _ask_training(self, run: int) -> Any:
        saved = self._saved[run]
        if saved is not None:
            self.meter.count("create_training_client_from_state_with_optimizer")
            return self._service.session.create_training_client_from_state_with_optimizer(saved)
        if self.warmup is not None:
            self.meter.count("create_training_client_from_state")
            return self._service.session.create_training_client_from_state(self.warmup["state"])
        return self._ask_fresh(run)

    def _ask_fresh(self, run: int) -> Any:
        settings = self.settings
        self.meter.count("create_lora_training_client")
        return self._service.session.create_lora_training_client(
            base_model=settings.model_name,
            rank=settings.rank,
            seed=torch_seed(settings.seed, "adapters", run) % 2**31,
            train_mlp=settings.targets in ("all", "mlp"),
            train_attn=settings.targets in ("all", "attention"),
            train_unembed=False,
        )

    def _sample_from(self, runs: Iterable[int]) -> None:
        """Makes a sampler of each of these runs as it stands now."""
        stale = [int(run) for run in runs if self._samplers[run] is None]
        self._start(stale)
        for _ in stale:
            self.meter.count("save_weights_and_get_sampling_client")
        made = self._collect([self._training[run].save_weights_and_get_sampling_client() for run in stale])
        for run, sampler in zip(stale, made, strict=True):
            self._samplers[run] = sampler

    def _collect(self, promises: Sequence[Any]) -> list[Any]:
        """The results, in order.

        Raises:
            ServiceError: one sentence about the first that failed, after the SDK has tried again.
        """
        try:
            return [promise.result() for promise in promises]
        except (tinker.TinkerError, RuntimeError, ValueError, OSError) as error:
            raise explain(error, self.settings.model_name) from error

    # --- keeping
    # ------------------------------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """See `memory_rl.state.Stateful`: where on the service each run's weights and optimiser are, saved
        now if they have moved.
        """
        unsaved = [run for run in range(self.num_runs) if self._saved[run] is None and self.updates[run] > 0]
        saving = [
            self._training[run].save_state(f"update-{self.updates[run]}", ttl_seconds=_SECONDS_KEPT)
            for run in unsaved
        ]
        for run, response in zip(unsaved, self._collect(saving), strict=True):
            self._saved[run] = response.path
            self.meter.count("save_state")
        self._delete(self._obsolete[1])
        self._obsolete = (
            [],
            self._obsolete[0],
        )  # the checkpoint before this one counts until this one is written
        self.meter.keep()
        drawn = _Drawn.joined(self._drawn)
        return {
            "updates": self.updates,
            "warmup": self.warmup,
            "saved": list(self._saved),
            "obsolete": [*self._obsolete[0], *self._obsolete[1]],
            "last": self._last,
            "last_prompts": self._last_prompts,
            "log_probs": self._log_probs,
            "drawn": {"paths": drawn.paths, "exit_tokens": drawn.exit_tokens, "log_probs": drawn.log_probs},
            "num_drawn": np.array([len(part) for part in self._drawn]),
        }

    def restore(self, state: State) -> None:
        """See `memory_rl.state.Stateful`. The clients are made when they are needed, from the saved
        states.
        """
        self.updates[:], self._saved, self._obsolete = (
            state["updates"],
            list(state["saved"]),
            ([], list(state["obsolete"])),
        )
        self._last[:], self._last_prompts[:] = state["last"], state["last_prompts"]
        self._log_probs[:], self.warmup = state["log_probs"], state["warmup"]
        drawn, ends = _Drawn(**state["drawn"]), np.cumsum(state["num_drawn"])
        self._drawn = [drawn[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self._training, self._samplers = [None] * self.num_runs, [None] * self.num_runs

    def _delete(self, paths: Sequence[str]) -> None:
        """Asks the service to forget saved states that no checkpoint names; what it does not forget it
        forgets in time.
        """
        with contextlib.suppress(Exception):
            for promise in [self._service.rest.delete_checkpoint_from_tinker_path(path) for path in paths]:
                promise.result(timeout=10)

    # --- spending
    # -----------------------------------------------------------------------------------------------------------------------------

    def estimate(self, updates: int) -> Estimate:
        """What this many updates of all runs cost at most."""
        settings = self.settings
        measurements = min(
            updates, updates * settings.epochs // settings.every + 1
        )  # it is optimiser steps that lie between two
        sampling = (
            self._cost_of_samples(settings.episodes // settings.blocks) * settings.blocks
            if settings.sampled
            else Cost()
        )
        learning = Cost(trained=settings.episodes * (self._longest - 1), requests=2) * settings.epochs
        first = self._cost_of_scores() + self._cost_of_first_samples() + Cost(requests=2)
        sampler = Cost(requests=1)  # it is new after each update, and once more where that was not measured
        learning += sampler if settings.every > 1 else Cost()
        after = self._cost_of_scores() + self._cost_of_later_samples() + sampler
        warmup = self._cost_of_warmup() if settings.warms_up else Cost()
        return Estimate(
            first * self.num_runs, learning + sampling, after, self.num_runs, updates, measurements, warmup
        )

    def _cost_of_first_samples(self) -> Cost:
        """Of those that the first measurement of a run draws."""
        if self._num_prompts > 1:
            return self._cost_of_samples(self._each) * self._num_prompts
        return self._cost_of_samples(max(_WINDOW, self.settings.episodes))

    def _cost_of_later_samples(self) -> Cost:
        """Of those that each later one draws; with one secret they are the next episodes."""
        if self._num_prompts > 1:
            return self._cost_of_first_samples()
        return self._cost_of_samples(self.settings.episodes if self.settings.sampled else _WINDOW)

    def _cost_of_warmup(self) -> Cost:
        answers, looks = min(self.settings.num_answers, _WARMUP_ANSWERS), 1 + _WARMUP_STEPS // _WARMUP_LOOK
        learning = Cost(trained=answers * (self._longest - 1), requests=2) * _WARMUP_STEPS
        return (
            learning
            + (Cost(prefilled=self._longest, sampled=1, requests=1) * answers + Cost(requests=1)) * looks
            + Cost(requests=2)
        )

    @property
    def _longest(self) -> int:
        """Tokens of the longest conversation."""
        lengths = self._conversations.longest_reply
        return max(
            len(self._conversations.before(decision)) + int(lengths[decision])
            for decision in self._conversations.turns[-1]
        )

    def _cost_of_scores(self) -> Cost:
        forms = self.settings.num_answers if self.settings.scores_all else 1
        return Cost(prefilled=self._longest, sampled=1, requests=1) * (forms * self._num_prompts)

    def _cost_of_samples(self, count: int) -> Cost:
        cost, longest = Cost(), self._conversations.longest_reply
        for begins in self._conversations.turns:
            asked = min(count, len(begins))
            prompt = max(len(self._conversations.before(decision)) for decision in begins)
            cost += Cost(
                prefilled=asked * prompt,
                sampled=count * max(int(longest[decision]) for decision in begins),
                requests=asked,
            )
        return cost


@dataclass(frozen=True)
class _Promise:
    """The log-probability of the tokens at these places, once it is there."""

    log_probs: Any
    places: np.ndarray

    def result(self) -> float:
        log_probs = self.log_probs.result()
        return float(sum(log_probs[place] for place in self.places))


def _spread(values: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    spread = np.zeros(length, dtype=np.float32)
    spread[places] = values
    return spread


def _loss_of(rollout: HostedRollout, objective: Objective) -> tuple[str, dict[str, float] | None]:
    """The service's name for an objective, and its settings."""
    if rollout.log_probs is None:
        return "cross_entropy", None
    if isinstance(objective, ClippedRatio):
        return "ppo", {"clip_low_threshold": 1 - objective.clip, "clip_high_threshold": 1 + objective.clip}
    return "importance_sampling", None


def open_service(model_name: str, base_url: str | None) -> Service:
    """A session with the service, after a look at whether it would serve this model.

    Raises:
        ServiceError: one sentence, if there is no key, no answer, or no account.
        ModelError: if there is no such model.
    """
    key = os.environ.get(_KEY)
    if not key:
        raise ServiceError(
            f"backend=tinker needs an API key, and {_KEY} is not set: type export {_KEY}=tml-... first."
        )
    if model_name.startswith(_REMOTE_CODE):
        raise ModelError(
            f"model_name={model_name} has a tokenizer that runs code from the hub, which is never done here: use another model."
        )
    try:
        _knock(resolve_base_url(base_url))
        service = Service(
            tinker.ServiceClient(base_url=base_url, api_key=key),
            tinker.RestClient(base_url=base_url, api_key=key),
        )
        service.session._check_accessible()  # the SDK's public calls wait for minutes where an account lacks money
        models = [
            model.model_name for model in service.rest.get_server_capabilities().result().supported_models
        ]
    except (tinker.TinkerError, RuntimeError, ValueError, OSError) as error:
        raise explain(error, model_name) from None
    if models and model_name not in models:
        raise ModelError(
            f"model_name={model_name} is not a model of the service: {suggest(model_name, [name for name in models if name])}"
        )
    return service


def _knock(address: str) -> None:
    """Whether anything answers there at all, which the SDK would try for minutes.

    Raises:
        OSError: if nothing does.
    """
    try:
        httpx.get(f"{address}/api/v1/healthz", timeout=30, follow_redirects=True)
    except httpx.HTTPError as error:
        raise ConnectionError(f"{address}: {error}") from error


def find_tokenizer(service: Service, model_name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model of the service: in the model's directory, if it is one, else where the SDK has
    it.

    Raises:
        ModelError: if it cannot be loaded.
    """
    try:
        if Path(model_name).is_dir():
            return AutoTokenizer.from_pretrained(model_name, trust_remote_code=False)
        return service.session.create_sampling_client(base_model=model_name).result().get_tokenizer()
    except tinker.TinkerError as error:
        raise explain(error, model_name) from error
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model_name={model_name} has a tokenizer that cannot be loaded ({reason}): use another model."
        ) from error


def explain(error: Exception, model_name: str) -> ServiceError:
    """What a failure of the SDK means, in one sentence without the key."""
    status = getattr(error, "status_code", None)
    reason = (
        " ".join(str(getattr(error, "message", None) or error).split())[:300]
        .replace(os.environ.get(_KEY) or "\0", f"the {_KEY}")
        .rstrip(".")
    )
    if status in (401, 403) or "must start with" in reason:
        return ServiceError(f"{_KEY} is not accepted by the service ({reason}): give a valid key.")
    if status == 402:
        return ServiceError(
            f"the account of {_KEY} cannot pay ({reason}): see to its billing, then type the same command."
        )
    if isinstance(error, (tinker.APIConnectionError, ConnectionError)):
        return ServiceError(
            f"the service does not answer ({reason}): check tinker_base_url and the network, then type it again, with resume=True if it had begun."
        )
    return ServiceError(
        f"the service failed for model_name={model_name} ({reason}): try again, or go on with log_path=... resume=True."
    )
