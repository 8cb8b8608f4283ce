"""Learners that need no knowledge of the channel, tried on graded and noisy rewards.

    python train.py N=64 reward_type=binned_log_distance reward_bins=8 algorithm=studies/ideas.py:Surrogate

Each sees the answers and rewards of its own run, and nothing else. What they are worth: docs/learners.md;
`python studies/ideas_measured.py` compares all of them on one base.

Axes: R runs, M secrets of a run, B blocks of an update, E episodes, N answers, K those that were seen, H
hypotheses about the rewards, T draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid
from typing_extensions import override

from memory_rl import Learner
from memory_rl.seeding import RunStreams
from memory_rl.state import Stateful

TIE = 1e-9  # means of equal rewards differ by rounding


def answers_of(batch: Any) -> np.ndarray:
    """What each episode answered (R, E), of several turns the number that their bits spell; -1 if invalid."""
    places = 2 ** np.arange(batch.choices.shape[2])[::-1]
    return np.where((batch.choices < 0).any(axis=2), -1, batch.choices @ places)


class Seen(Stateful):
    """How often each answer was given and what it earned: (R, M, N) each, None before the first batch."""

    kept = ("counts", "means", "squares")

    def __init__(self, num_runs: int) -> None:
        self.num_runs = num_runs
        self.counts: Any = None
        self.means, self.squares = self.counts, self.counts  # the last: squared deviations from the mean

    def add(self, batch: Any, num_answers: int) -> None:
        """Enters the episodes of a batch with a valid answer."""
        self.make_room(int(batch.prompts.max()) + 1, num_answers)
        answers, rewards = answers_of(batch), batch.rewards.sum(axis=2)
        for place in range(answers.shape[1]):  # within a batch, too, an answer may come twice
            rows = np.nonzero(answers[:, place] >= 0)[0]
            where = batch.runs[rows], batch.asked[rows, place], answers[rows, place]
            self.counts[where] += 1
            off = rewards[rows, place] - self.means[where]
            self.means[where] += off / self.counts[where]
            self.squares[where] += off * (rewards[rows, place] - self.means[where])

    def best(self, run: int, secret: int) -> np.ndarray:
        """The answers with the highest mean, none before the first."""
        seen = np.nonzero(self.counts[run, secret])[0]
        means = self.means[run, secret, seen]
        return seen[means >= means.max(initial=-np.inf) - TIE]

    def least_tried(self, run: int, secret: int) -> np.ndarray:
        """The answers that were given least often."""
        counts = self.counts[run, secret]
        return np.nonzero(counts == counts.min())[0]

    def make_room(self, num_secrets: int, num_answers: int) -> None:
        """Room for so many secrets of a run, and answers."""
        for name in self.kept:
            old = getattr(self, name)
            old = np.zeros((self.num_runs, 0, num_answers)) if old is None else old
            more = max(0, num_secrets - old.shape[1])
            setattr(self, name, np.pad(old, ((0, 0), (0, more), (0, 0))))


class Remembering(Learner):
    """A learner with a memory of what each answer of a run has earned, and random numbers of its own."""

    silent_if_equal = False
    kept = ("_seen", "_random")

    @override
    def start(self, seed: int, num_runs: int) -> None:
        self._seen = Seen(num_runs)
        self._random = RunStreams(seed, "ideas", num_runs)

    def _enter(self, policy: Any, batch: Any) -> np.ndarray:
        """Enters a batch, and returns what the policy gave to each answer: (R, B, N)."""
        log_probs = policy.log_probs(batch.runs, batch.prompts)
        self._seen.add(batch, log_probs.shape[2])
        return np.asarray(log_probs)


# A model of the rewards


class Process:
    """A Gaussian process over N answers whose smoothness, noise and scale are not known.

    Rewards are s (f(a) + e): f has the covariance exp(-|a - b| / length), and e the variance `noise`. Each of
    H pairs of a length and a noise is a hypothesis, all equally likely beforehand. The squared scale has the
    prior inverse gamma(1, 1e-3). Length 0 says that answers have nothing in common.

    Args:
        num_answers: N.
        lengths: in shares of N.
        noises: variances in units of f's.
    """

    SHAPE, RATE, COMMON = 1.0, 1e-3, 1.0

    def __init__(self, num_answers: int, lengths: tuple[float, ...], noises: tuple[float, ...]) -> None:
        far = np.abs(np.subtract.outer(np.arange(num_answers), np.arange(num_answers))) / num_answers
        same = np.eye(num_answers)
        kernels = [np.exp(-far / length) if length else same for length in lengths]
        self.kernels = np.stack(kernels) + self.COMMON  # (lengths, N, N), with an unknown mean of all answers
        self.roots = np.linalg.cholesky(self.kernels + 1e-9 * same)
        self.length_of = np.repeat(np.arange(len(lengths)), len(noises))  # (H,)
        self.noises = np.tile(noises, len(lengths))  # (H,)

    def fit(self, counts: np.ndarray, means: np.ndarray, squares: np.ndarray) -> Fit:
        """What rewards that were seen (N,) say of each hypothesis."""
        seen = np.nonzero(counts)[0]
        count, total = counts[seen], counts.sum()
        centre = float(count @ means[seen] / total)
        values = means[seen] - centre
        spread = self.noises[:, None, None] * np.diag(1 / count)
        covariance = self.kernels[:, seen[:, None], seen][self.length_of] + spread  # (H, K, K)
        inverse = np.linalg.inv(covariance)
        _, log_size = np.linalg.slogdet(covariance)
        log_size = log_size + (total - len(seen)) * np.log(self.noises)
        misfit = np.einsum("k,hkl,l->h", values, inverse, values) + squares[seen].sum() / self.noises
        shape, rates = self.SHAPE + total / 2, self.RATE + misfit / 2
        evidence = -log_size / 2 - shape * np.log(rates)
        return Fit(seen, count, values, inverse, evidence, shape, rates)

    def best_of_draws(self, fit: Fit, draws: int, random: np.random.Generator) -> np.ndarray:
        """How many of so many rewards drawn from what is believed are highest at each answer: (N,)."""
        weights = np.exp(fit.evidence - fit.evidence.max())
        of_each = random.multinomial(draws, weights / weights.sum())
        found = [self.draw(fit, one, of_each[one], random).argmax(axis=1) for one in np.nonzero(of_each)[0]]
        return np.bincount(np.concatenate(found), minlength=self.kernels.shape[1])

    def draw(self, fit: Fit, one: Any, draws: int, random: np.random.Generator) -> np.ndarray:
        """Mean rewards less their centre, drawn from the belief under one hypothesis: (T, N).

        A draw of the prior is corrected by what was seen (Matheron's rule, arXiv:2002.09309).
        """
        scale = np.sqrt(fit.rates[one] / random.gamma(fit.shape, size=draws))[:, None]
        prior = random.standard_normal((draws, self.kernels.shape[1])) @ self.roots[self.length_of[one]].T
        noise = random.standard_normal((draws, len(fit.seen))) * np.sqrt(self.noises[one] / fit.count)
        missing = fit.values - scale * (prior[:, fit.seen] + noise)
        return scale * prior + missing @ fit.inverse[one] @ self.kernels[self.length_of[one]][fit.seen]


class Fit:
    """What was seen at K answers, and what it says of H hypotheses.

    Attributes:
        seen: (K,) answers.
        count: (K,) how often.
        values: (K,) mean rewards less their centre.
        inverse: (H, K, K) of the covariance of these means, in squared scales.
        evidence: (H,) log marginal likelihood, up to a constant.
        shape: of the inverse gamma belief about the squared scale.
        rates: (H,) of the same.
    """

    def __init__(self, *parts: Any) -> None:
        self.seen, self.count, self.values, self.inverse, self.evidence, self.shape, self.rates = parts


class Surrogate(Remembering):
    """Trains towards the probability that an answer is the best one, under a Gaussian process of the rewards.

    Its episodes are then Thompson sampling (Thompson 1933; Russo et al. 2018, arXiv:1707.02038).
    """

    epochs = 16
    lengths: tuple[float, ...] = (0.0, 0.03, 0.1, 0.3, 1.0)
    noises: tuple[float, ...] = (1e-3, 0.1, 1.0, 10.0)
    draws = 256
    _process: Any = None

    @override
    def learn(self, policy: Any, batch: Any) -> None:
        num_answers = self._enter(policy, batch).shape[2]
        policy.distil(batch.runs, batch.prompts, self.beliefs(batch, num_answers), self.epochs)

    def beliefs(self, batch: Any, num_answers: int) -> np.ndarray:
        """The probability that each answer is the best, for the secret of each block: (R, B, N)."""
        if self._process is None:
            self._process = Process(num_answers, self.lengths, self.noises)
        each = [
            [self._belief(run, secret) for secret in of]
            for run, of in zip(batch.runs, batch.prompts, strict=True)
        ]
        return np.array(each)

    def _belief(self, run: int, secret: int) -> np.ndarray:
        counts = self._seen.counts[run, secret]
        if not counts.any():  # all its answers were invalid
            return np.full(counts.shape, 1 / len(counts))
        fit = self._process.fit(counts, self._seen.means[run, secret], self._seen.squares[run, secret])
        return self._process.best_of_draws(fit, self.draws, self._random[run]) / self.draws


class Arms(Surrogate):
    """The same without a notion of near and far: each answer is an arm of its own."""

    lengths = (0.0,)


# Steps in the space of answers


def tilted(log_probs: np.ndarray, gains: np.ndarray, eta: float) -> np.ndarray:
    """The distribution p that maximises p gains - eta KL(p, policy), over the last axis."""
    tilt = log_probs + gains / eta
    tilt = np.exp(tilt - tilt.max(axis=-1, keepdims=True))
    return np.asarray(tilt / tilt.sum(axis=-1, keepdims=True))


class Mirror(Remembering):
    """A step of mirror descent: towards policy times exp(advantage / eta), less the group's mean.

    The target moves the answers that were given and no other, so that answers no longer share weights: what
    MPO does with estimated values (Abdolmaleki et al. 2018, arXiv:1806.06920).
    """

    epochs = 8
    eta = 0.5

    @override
    def learn(self, policy: Any, batch: Any) -> None:
        log_probs = self._enter(policy, batch)
        gains = self._gains(batch, log_probs.shape)
        moved = np.nonzero(gains.any(axis=(1, 2)))[0]
        if len(moved):
            targets = tilted(log_probs[moved], gains[moved], self.eta)
            policy.distil(batch.runs[moved], batch.prompts[moved], targets, self.epochs)

    def _gains(self, batch: Any, shape: tuple[int, ...]) -> np.ndarray:
        """The sum of the advantages of each answer, by the secret that was asked for: (R, B, N)."""
        rewards, answers, gains = batch.rewards.sum(axis=2), answers_of(batch), np.zeros(shape)
        groups = rewards.reshape(*batch.returns.shape[:3])
        advantages = (groups - self._threshold(batch, groups)).reshape(rewards.shape).round(12)
        rows, places = np.nonzero(answers >= 0)
        block = places // (rewards.shape[1] // shape[1])
        np.add.at(gains, (rows, block, answers[rows, places]), advantages[rows, places])
        same = batch.prompts[:, :, None] == batch.prompts[:, None, :]
        return np.asarray(same @ gains)

    def _threshold(self, batch: Any, groups: np.ndarray) -> np.ndarray:
        """What rewards (R, groups, G) are compared with."""
        return groups.mean(axis=2, keepdims=True)


class MirrorBest(Mirror):
    """The same, less the best mean reward of any answer so far: only what is not best moves, and down."""

    eta = 0.1

    @override
    def _threshold(self, batch: Any, groups: np.ndarray) -> np.ndarray:
        best = self._best(batch)
        return np.repeat(best, groups.shape[1] // best.shape[1], axis=1)[:, :, None]

    def _best(self, batch: Any) -> np.ndarray:
        where = batch.runs[:, None], batch.prompts
        means = np.where(self._seen.counts[where] > 0, self._seen.means[where], -np.inf).max(axis=2)
        return np.where(np.isfinite(means), means, batch.rewards.sum(axis=2).max())


# Policy gradient with another reward


class Record(Remembering):
    """Policy gradient on hit or miss: whether an answer's mean reward is the best of the run so far."""

    @override
    def learn(self, policy: Any, batch: Any) -> np.ndarray:
        self._enter(policy, batch)
        where = batch.runs[:, None], batch.asked
        best = np.where(self._seen.counts[where] > 0, self._seen.means[where], -np.inf).max(axis=2)
        answers = answers_of(batch)
        own = self._seen.means[(*where, np.maximum(answers, 0))]
        hits = ((answers >= 0) & (own >= best - TIE)).astype(np.float64).reshape(batch.returns.shape[:3])
        advantages = hits - hits.mean(axis=2, keepdims=True)
        policy.update(batch, advantages.reshape(*answers.shape, 1) * np.ones(batch.choices.shape), self)
        return np.asarray((~advantages.any(axis=2)).mean(axis=1))


class Explorer(Remembering):
    """Policy gradient on a mixture of the policy and all answers alike, with truncated importance weights."""

    share = 0.25
    corrected = True

    @override
    def sample(self, policy: Any, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Any:
        batch = policy.sample(runs, prompts, num_episodes)
        num_answers = policy.log_probs(runs, prompts).shape[2]
        uniforms = self._random.random(runs, num_episodes, 2)
        others = policy.demonstrate(runs, prompts, (uniforms[:, :, 0] * num_answers).astype(np.int64))
        swapped = uniforms[:, :, 1] < self.share
        batch.choices[swapped], batch.path[swapped] = others.choices[swapped], others.path[swapped]
        return batch

    @override
    def learn(self, policy: Any, batch: Any) -> np.ndarray:
        log_probs = self._enter(policy, batch)
        advantages = self.advantages(batch.returns).reshape(batch.choices.shape).round(12)
        if self.corrected:
            advantages = advantages * self._weights(batch, log_probs)[:, :, None]
        policy.update(batch, advantages, self)
        return np.asarray((~advantages.any(axis=(1, 2))).astype(np.float64))

    def _weights(self, batch: Any, log_probs: np.ndarray) -> np.ndarray:
        """Policy over mixture, at most 1: (R, E); an invalid answer only comes from the policy."""
        answers, of_block = answers_of(batch), batch.choices.shape[1] // batch.prompts.shape[1]
        each = np.repeat(log_probs, of_block, axis=1)
        own = np.exp(np.take_along_axis(each, np.maximum(answers, 0)[:, :, None], axis=2)[:, :, 0])
        mixture = (1 - self.share) * own + self.share / log_probs.shape[2]
        return np.where(answers < 0, 1.0, np.minimum(own / mixture, 1.0))


class Pulled(Explorer):
    """The same without importance weights: what uniform answers earn counts as much as the policy's own."""

    corrected = False


class Scout(Record):
    """Hit or miss against the record, with half of the episodes on the least tried answers.

    A quarter gives the record again. So a better answer counts in full as soon as it is found, is not
    forgotten, and a lucky one is found out.
    """

    share = 0.5
    again = 0.25

    @override
    def sample(self, policy: Any, runs: np.ndarray, prompts: np.ndarray, num_episodes: int) -> Any:
        batch = policy.sample(runs, prompts, num_episodes)
        self._seen.make_room(int(prompts.max()) + 1, policy.log_probs(runs[:1], prompts[:1]).shape[2])
        kinds, asked = self._random.random(runs, num_episodes), batch.asked
        forms = np.full(kinds.shape, -1)
        for row, place in np.argwhere(kinds < self.share + self.again):
            where, random = (runs[row], asked[row, place]), self._random[runs[row]]
            tries = kinds[row, place] < self.share
            options = self._seen.least_tried(*where) if tries else self._seen.best(*where)
            forms[row, place] = random.choice(options) if len(options) else -1  # nothing is best at first
        shown, swapped = policy.demonstrate(runs, prompts, np.maximum(forms, 0)), forms >= 0
        batch.choices[swapped], batch.path[swapped] = shown.choices[swapped], shown.path[swapped]
        return batch


class Contrast(Remembering):
    """Pairs from the memory of a run: the best answer and unseen ones are better than those it has beaten.

    Minus log sigmoid(log-probability of the better less that of the worse), as in DPO (Rafailov et al. 2023,
    arXiv:2305.18290) with a reference that gives all answers alike. Silent groups teach, too.
    """

    pairs = 16

    @override
    def learn(self, policy: Any, batch: Any) -> None:
        self._enter(policy, batch)
        drawn = [
            [self._pairs(run, secret, -(-self.pairs // len(of))) for secret in of]
            for run, of in zip(batch.runs, batch.prompts, strict=True)
        ]
        forms = np.array(drawn).reshape(len(batch.runs), -1)  # better, worse, better, ...
        shown = policy.demonstrate(batch.runs, batch.prompts, np.maximum(forms, 0))
        policy.update(shown, np.where(forms < 0, 0.0, 1.0)[:, :, None] * np.ones(shown.choices.shape), self)

    def _pairs(self, run: int, secret: int, pairs: int) -> np.ndarray:
        """(pairs, 2) the better and the worse; -1 where nothing is beaten yet."""
        counts, random = self._seen.counts[run, secret], self._random[run]
        seen, unseen = np.nonzero(counts)[0], np.nonzero(counts == 0)[0]
        top = self._seen.best(run, secret)
        beaten = np.setdiff1d(seen, top)
        worse = beaten if len(beaten) else top
        better = np.concatenate([top, unseen]) if len(beaten) else unseen
        if len(seen) == 0 or len(better) == 0:
            return np.full((pairs, 2), -1)
        drawn = random.choice(better, pairs)
        half = np.arange(pairs) < pairs // 2
        drawn = np.where(half & (len(beaten) > 0), random.choice(top, pairs), drawn)
        return np.stack([drawn, random.choice(worse, pairs)], axis=1)

    @override
    def loss(self, log_probs: torch.Tensor, before: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        pairs = log_probs.sum(dim=2).unflatten(1, (-1, 2))
        weights = advantages[:, ::2, 0]
        return -(weights * logsigmoid(pairs[:, :, 0] - pairs[:, :, 1])).mean(dim=1).sum()
