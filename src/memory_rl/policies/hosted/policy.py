"""R LoRA adapters on a service.

The answer trie is the local one, so that P(S) is the probability of one path of tokens here, too. Answers are
really sampled, turn by turn, and each sampled token is trained with the advantage of its step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from typing_extensions import override

from memory_rl.errors import ConfigError, ServiceError, TokensSpentError
from memory_rl.learning.batch import Batch
from memory_rl.learning.divergence import check_finite, check_loss
from memory_rl.learning.imitation import FLOOR, Imitation
from memory_rl.learning.learners import Learner
from memory_rl.learning.ratios import CISPO, PPO
from memory_rl.policies.answer_trie import NONE, AnswerTrie
from memory_rl.policies.base import Assessment, Policy, Scores, assess_all, every_prompt
from memory_rl.policies.hosted.clients import Clients, Loss, make_datum
from memory_rl.policies.hosted.conversations import START, Conversations
from memory_rl.policies.hosted.costs import WARMUP_ANSWERS, WARMUP_LOOK, WARMUP_STEPS, WINDOW, Costs
from memory_rl.policies.hosted.drawn import Drawn, demonstrations
from memory_rl.policies.hosted.service import Service
from memory_rl.policies.hosted.settings import HostedSettings
from memory_rl.policies.hosted.spending import Spending
from memory_rl.policies.teaching import judged
from memory_rl.policies.warmup_report import WarmupReport
from memory_rl.seeding import generator
from memory_rl.state import State

_WARMUP_TOLERANCE = 0.0145  # KL(uniform || policy) in bits: the mass on valid answers is then above 0.99


@dataclass(frozen=True, kw_only=True)
class HostedBatch(Batch):
    """Episodes with what training on the service needs.

    Attributes:
        records: (R, E) as they were sampled, see `blank`.
        shown: whether they were shown, not sampled.
    """

    records: np.ndarray
    shown: bool


def hosted_loss(learner: Learner) -> Loss:
    """The service's name for a learner's loss, and its settings.

    Raises:
        ConfigError: if the service has no such loss.
    """
    kind, loss = type(learner), type(learner).loss
    if kind.sample is not Learner.sample:
        raise ConfigError(
            f"algorithm={kind.__name__} samples in a way of its own, which backend=tinker cannot: use "
            "backend=local, or leave sample out."
        )
    if loss is Learner.loss:
        return "importance_sampling", None
    if loss is PPO.loss and isinstance(learner, PPO):
        return "ppo", _clipped(1 - learner.clip, 1 + learner.upper)
    if loss is CISPO.loss and isinstance(learner, CISPO):
        return "cispo", _clipped(0.0, learner.clip)
    raise ConfigError(
        f"algorithm={type(learner).__name__} has a loss of its own, which backend=tinker cannot compute: use "
        "backend=local, or replace its advantages alone."
    )


def _clipped(low: float, high: float) -> dict[str, float]:
    """The service's settings for ratios that are clipped to [low, high]."""
    return {"clip_low_threshold": low, "clip_high_threshold": high}


class TinkerPolicy(Policy):
    """Can be sampled from. All runs are asked at once, and their results are awaited after that.

    Args:
        service: where the runs live.
        trie: the valid conversations of the environment, in the model's tokens.
        settings: of the population.

    Attributes:
        costs: what requests will cost.
        spending: counts tokens and requests.
        warmup: how the format warm-up ended; None before, and without one.
    """

    kept: tuple[str, ...] = ("updates", "warmup", "_clients", "_drawn")

    def __init__(self, service: Service, trie: AnswerTrie, settings: HostedSettings) -> None:
        self.num_runs, self.updates = settings.num_runs, np.zeros(settings.num_runs, dtype=np.int64)
        self.settings, self.trie, self.spending = settings, trie, Spending(settings.max_tokens)
        self.warmup: dict[str, Any] | None = None
        self._conversations = Conversations(trie)
        self.costs = Costs(self._conversations, settings)
        self._clients = Clients(service, self._conversations, settings, self.spending)
        window = max(WINDOW, settings.episodes, self.costs.samples(0) * trie.num_prompts)
        self._drawn = Drawn(trie, self.num_runs, window)

    def sample(self, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> HostedBatch:
        """Samples this many episodes of each run turn by turn, in blocks to these prompts (R, B).

        Raises:
            TokensSpentError: if there might not be enough tokens left for the update that these episodes are
                for.
        """
        self._reserve_update(runs)
        accounts = self._accounts(runs, prompts)  # (R, B)
        size = num_episodes // accounts.shape[1]
        self._draw({account: blocks * size for account, blocks in Counter(accounts.ravel().tolist()).items()})
        taken = np.stack([self._drawn.take(account, size) for account in accounts.ravel()])
        return self._of_records(runs, prompts, taken.reshape(len(runs), num_episodes), shown=False)

    @override
    def demonstrate(self, runs: np.ndarray, prompts: np.ndarray, forms: np.ndarray) -> HostedBatch:
        self._reserve_update(runs)
        return self._of_records(runs, prompts, demonstrations(self.trie, forms), shown=True)

    @override
    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact for the forms; the mass on all answers is estimated from samples, see `Policy`."""
        of_forms = self._score(runs, forms[:, :, None])[:, :, 0]
        accounts = self._accounts(runs, every_prompt(runs, forms.shape[1]))
        seen = np.array([self._drawn.best(account) for account in accounts.ravel()]).reshape(forms.shape)
        of_valid = [self._drawn.of_valid(*of_run) for of_run in zip(runs, forms, of_forms, strict=True)]
        return Assessment(of_forms, np.array(of_valid), np.maximum(of_forms, seen))

    @override
    def update(self, batch: Batch, advantages: np.ndarray, learner: Learner) -> None:
        """One forward and backward pass and one step of Adam for each epoch, see `Policy`."""
        rows = np.nonzero(learner.moves(advantages))[0]
        self._train(cast(HostedBatch, batch), rows, self.trie.per_token(batch.path, advantages), learner)

    def imitate(self, batch: Batch, learner: Imitation) -> None:
        """A step on what a teacher says of the sampled tokens, see `Imitates`."""
        batch = cast(HostedBatch, batch)
        assert batch.taught is not None  # noqa: S101  # a teacher was asked
        taught, column = batch.taught.on_path(self.trie, batch.path), self.trie.column(batch.path)
        wanted = np.take_along_axis(taught, column[..., None], axis=3)[..., 0]
        surplus = np.log(np.maximum(wanted, FLOOR)) - batch.records["log_probs"]
        per_token = np.where(judged(self.trie, batch.path), surplus, 0.0)
        self._train(batch, np.arange(len(batch.runs)), per_token, learner)

    def _train(self, batch: HostedBatch, rows: np.ndarray, per_token: np.ndarray, learner: Learner) -> None:
        """The learner's steps of some of a batch's runs, on advantages (R, E, L)."""
        moved, asked, asked_by = batch.runs[rows], list[Any](), list[int]()
        loss: Loss = ("cross_entropy", None) if batch.shown else hosted_loss(learner)
        self._clients.start(moved)
        per_token = per_token / batch.path.shape[1]  # the service sums over data
        for row, run in zip(rows, moved, strict=True):
            data = self._data(batch.records[row], per_token[row], batch.prompts[row], batch.shown)
            for _ in range(learner.epochs):
                asked += self._clients.ask_step(run, data, loss, self.settings.learning_rate)
                asked_by += [run] * (len(asked) - len(asked_by))
            self._drawn.drop(run)
        answers = self._clients.results(asked)
        self.updates[moved] += learner.epochs
        for run, answer in zip(asked_by, answers, strict=True):
            check_loss(_loss_of(answer), np.array([run]), self.updates)

    @override
    def state(self) -> State:
        """With where on the service each run's weights and optimiser are, saved now if they have moved."""
        self._clients.save(
            {run: f"update-{self.updates[run]}" for run in np.nonzero(self.updates)[0].tolist()}
        )
        return super().state()

    @override
    def close(self, completed: bool) -> None:
        self._clients.close(completed)

    def _accounts(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        """The accounts of these runs behind these prompts (R, B): (R, B), see `Drawn`."""
        return runs[:, None] * self.trie.num_prompts + prompts

    def _reserve_update(self, runs: np.ndarray) -> None:
        self.spending.reserve(self.costs.update * len(runs))

    def _of_records(
        self, runs: np.ndarray, prompts: np.ndarray, records: np.ndarray, shown: bool
    ) -> HostedBatch:
        path, updates = records["path"], self.updates[runs]
        choices = self.trie.choices(path)
        return HostedBatch(runs, prompts, choices, path, updates, records=records, shown=shown)

    def _score(self, runs: np.ndarray, forms: np.ndarray) -> np.ndarray:
        """The log-probability of some forms of each prompt (R, M, F), and the samples that are wanted.

        What the next episodes of a run with several secrets are about is not known yet. Each prompt is asked,
        so that one with a sure answer is seen.
        """
        self._sample_from(runs)
        asked = [
            self._clients.ask_log_prob(int(runs[row]), form, prompt)
            for (row, prompt, _), form in np.ndenumerate(forms)
        ]
        accounts = self._accounts(runs, every_prompt(runs, self.trie.num_prompts))
        seen = [self._drawn.seen(run) for run in runs]
        self._draw({account: self.costs.samples(seen[row]) for (row, _), account in np.ndenumerate(accounts)})
        log_probs = np.array(self._clients.results(asked)).reshape(forms.shape)
        check_finite(log_probs.max(axis=2), "probabilities are", runs, self.updates)
        return log_probs

    def _draw(self, counts: Mapping[int, int]) -> None:
        """Samples conversations until so many can be given out, by account.

        In each turn there is one request for each account and each conversation so far, with all who share
        it.
        """
        fresh = self._drawn.missing(counts)
        standing = np.full(len(fresh), START)
        runs, prompts = np.divmod(fresh["account"], self.trie.num_prompts)
        self._sample_from(np.unique(runs))
        while len(waiting := np.nonzero(standing != NONE)[0]):
            groups = dict[tuple[int, int, int], list[int]]()
            for row in waiting.tolist():
                groups.setdefault((runs[row], standing[row], prompts[row]), []).append(row)
            asked = [self._clients.ask_replies(*said, len(rows)) for said, rows in groups.items()]
            for rows, answer in zip(groups.values(), self._clients.results(asked), strict=True):
                for row, sequence in zip(rows, answer.sequences, strict=True):
                    standing[row] = self._take_in(fresh[row], standing[row], sequence)
            self.spending.on_change()
        self._drawn.add(fresh)

    def _take_in(self, drawn: np.void, decision: int, sequence: Any) -> int:
        """Enters one turn of a conversation, and returns the decision at which it stands after it."""
        tokens, log_probs = list(sequence.tokens), sequence.logprobs
        self.spending.count(sampled=len(tokens))
        reply = self._conversations.read(decision, tokens)
        if reply is None or log_probs is None:
            raise ServiceError(
                f"model_name={self.settings.model_name} answered {tokens} without an end or without "
                "log-probabilities: use another server."
            )
        edges, drawn["exit_token"], after = reply
        start = int((drawn["path"] != NONE).sum())
        chosen = slice(start, start + len(edges))
        drawn["path"][chosen], drawn["log_probs"][chosen] = edges, log_probs[: len(edges)]
        return after

    def _data(
        self, records: np.ndarray, advantages: np.ndarray, prompts: np.ndarray, shown: bool
    ) -> list[Any]:
        """A datum for each of some episodes (E,), with advantages (E, L), in blocks to prompts (B,)."""
        prompts = np.repeat(prompts, len(records) // len(prompts))
        return [
            make_datum(self._conversations, *of_episode, shown)
            for of_episode in zip(records, advantages, prompts, strict=True)
        ]

    def _sample_from(self, runs: np.ndarray) -> None:
        """Makes samplers of these runs; first of all the weights that every run starts from."""
        if self.settings.warms_up and self.warmup is None:
            try:
                self.warmup = self._warm_up()
            except TokensSpentError as error:
                raise ServiceError(
                    f"{error}, while the format warm-up is not over: allow more, or use warmup=False."
                ) from error
        self._clients.sample_from(runs)

    def _warm_up(self) -> dict[str, Any]:
        """Supervised learning on random answers, all if they are few, until they are uniform.

        All runs start with its weights. See policies/warmup.py.

        Raises:
            ModelError: if they do not get there.
            TokensSpentError: if that might take more tokens than are allowed.
        """
        settings, num_prompts, base = self.settings, self.trie.num_prompts, self._clients.base
        random, size = generator(settings.seed, "warm-up"), min(settings.num_answers, WARMUP_ANSWERS)
        weights = np.full((size, self.trie.max_edges), 1 / size)
        self._clients.start([base])
        for step in range(WARMUP_STEPS + 1):
            answers = random.choice(settings.num_answers, size, replace=False)
            prompts = random.integers(num_prompts, size=size) if num_prompts > 1 else np.zeros_like(answers)
            self.spending.reserve((self.costs.scoring + self.costs.training) * size)
            if step % WARMUP_LOOK == 0:
                divergence = self._divergence(answers, prompts)
                if divergence < _WARMUP_TOLERANCE:
                    break
            data = self._data(demonstrations(self.trie, answers), weights, prompts, shown=True)
            rate = settings.learning_rate * (0.5 + 0.5 * math.cos(math.pi * step / (WARMUP_STEPS + 1)))
            self._clients.results(self._clients.ask_step(base, data, ("cross_entropy", None), rate))
        else:
            report = WarmupReport(0, step, divergence, reached=False)
            report.check(settings.warmup_tolerance, "another model_name or learning_rate")
        self._clients.save({base: "warm-up"})
        reached = divergence < _WARMUP_TOLERANCE
        return {"steps": step, "divergence": divergence, "reached": reached, "usage": self.spending.as_dict()}

    def _divergence(self, answers: np.ndarray, prompts: np.ndarray) -> float:
        """KL(uniform || policy) in bits of the base model, from these answers (A,), each to a prompt (A,)."""
        self._clients.sample_from([self._clients.base])
        asked = [
            self._clients.ask_log_prob(self._clients.base, *of_answer)
            for of_answer in zip(answers, prompts, strict=True)
        ]
        return float(
            -np.mean(self._clients.results(asked)) / math.log(2) - math.log2(self.settings.num_answers)
        )


class TinkerScoringPolicy(TinkerPolicy, Scores):
    """Scores every answer after every update; what it knows is as of the last assessment."""

    kept = (*TinkerPolicy.kept, "_log_probs")

    def __init__(self, service: Service, trie: AnswerTrie, settings: HostedSettings) -> None:
        super().__init__(service, trie, settings)
        self._log_probs = np.full((self.num_runs, trie.num_prompts, settings.num_answers), np.nan)

    @override
    def assess(self, runs: np.ndarray, forms: np.ndarray, num_answers: int) -> Assessment:
        """Exact, see `Policy`."""
        self._log_probs[runs] = self._score(
            runs, np.broadcast_to(np.arange(num_answers), (*forms.shape, num_answers))
        )
        return assess_all(self._log_probs[runs], forms)

    @override
    def log_probs(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        return self._log_probs[runs[:, None], prompts]

    @override
    def invalid(self, runs: np.ndarray, prompts: np.ndarray) -> np.ndarray:
        return np.maximum(0.0, -np.expm1(np.logaddexp.reduce(self.log_probs(runs, prompts), axis=2)))


def _loss_of(answer: Any) -> float:
    """The loss that a service reports of a forward and backward pass; 0 where an answer holds none."""
    metrics = getattr(answer, "metrics", None) or {}
    return float(sum(value for name, value in metrics.items() if name.startswith("loss")))


def make_hosted(service: Service, trie: AnswerTrie, settings: HostedSettings) -> TinkerPolicy:
    """The policy of these settings."""
    return (TinkerScoringPolicy if settings.scores_all else TinkerPolicy)(service, trie, settings)
