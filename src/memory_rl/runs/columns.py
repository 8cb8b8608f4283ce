"""The columns of a run's tables. They do not change without a new `memory_rl.runs.manifest.SCHEMA`."""

from __future__ import annotations

from typing import Any

import polars as pl

METRICS_SCHEMA: dict[str, Any] = {
    "run": pl.Int32,
    **dict.fromkeys(("secret", "seed", "update", "episode"), pl.Int64),
    **dict.fromkeys(("bits_known", "content_bits", "format_bits", "confidence"), pl.Float64),
    **dict.fromkeys(("observer_bits", "asked_bits", "asked_variance"), pl.Float64),
    **dict.fromkeys(("reward_mean", "invalid_fraction", "zero_advantage_fraction"), pl.Float64),
    "learning_rate": pl.Float64,
}
"""One row per run and evaluation.

update: optimiser steps so far; episode: episodes so far. confidence: the probability of the likeliest valid
answer. observer_bits, asked_bits, asked_variance: the ledger so far (see `memory_rl.information.ledger`),
null if none is kept. The fractions and the mean reward are those of the episodes since the last evaluation,
null where there are none. zero_advantage_fraction: of groups.
"""

EPISODES_SCHEMA = {
    "run": pl.Int32,
    "update": pl.Int64,
    "episode": pl.Int64,
    "step": pl.Int32,
    "answer": pl.Int64,
    "reward": pl.Float64,
    "count": pl.Int64,
}
"""One row per run, episode and step.

update: optimiser steps that the run had made when it answered; episode from 1, step from 0; answer null where
it was invalid or forfeited. count: 1; but silent episodes that were skipped have a row for each answer and
reward, at the first episode that had them, with the number of those that did before the next update. With
scoring=paths such a row has the answer -2, for any answers that were not S.
"""

OF_SEVERAL_SECRETS = {"secrets_memorised": pl.Int64}
"""More columns of metrics.parquet, if a run has several secrets: how many have P(S) >= memorised_at.

Bits are then sums over all secrets, and `secret` is null. confidence is the k-th greatest of the secrets', if
k must be memorised.
"""

PROMPT = "prompt"
"""A column of episodes.parquet and secrets.parquet, if a run has several secrets: which of them, from 0."""

SECRETS_SCHEMA = {
    "run": pl.Int32,
    "episode": pl.Int64,
    PROMPT: pl.Int32,
    "secret": pl.Int64,
    "bits_known": pl.Float64,
    "observer_bits": pl.Float64,
}
"""One row per run, evaluation and secret: what the policy and the ideal observer know of it.

The observer's is null if no ledger is kept.
"""

LEDGER_SCHEMA = {
    "run": pl.Int32,
    "episode": pl.Int64,
    "asked_bits": pl.Float64,
    "asked_variance": pl.Float64,
    "observer_bits": pl.Float64,
}
"""One row per run and episode: the ledger after it."""

TIMING_SCHEMA = {"episode": pl.Int64, "seconds": pl.Float64}
"""Seconds since the start of training at which all active runs had seen this many episodes."""

FILM_SCHEMA = {
    "run": pl.Int32,
    "episode": pl.Int64,
    "answer": pl.Int32,
    "policy": pl.Float32,
    "observer": pl.Float32,
}
"""One row per episode and answer of run 0, at some evaluations and the last one.

policy: P(answer); observer: the ideal observer's posterior.
"""
