"""What rollouts could tell: bits delivered, silent groups, pass rates, with intervals over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from memory_rl.analysis.statistics import Estimate
from memory_rl.information.reward_laws import POINTS, chance_of_change
from memory_rl.rollouts.groups import MOST_LEVELS, Groups
from memory_rl.rollouts.rows import Rollouts
from memory_rl.rollouts.stretch import LevelLaw, Stretch

if TYPE_CHECKING:
    import polars as pl

STRETCHES = 10
_NOTHING = 1e-9
"""Points of a law with less mass than this are left out."""

OTHER_SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
_FURTHEST = 4
"""Other sizes of groups are looked at up to so many times the usual one."""


@dataclass(frozen=True)
class Account:
    """What a stretch of training could tell; every share is of its groups, every rate a rollout.

    Attributes:
        first_step, last_step: of the stretch.
        rollouts, groups, prompts: how many.
        tokens: sampled; None where the log does not say.
        reward: the mean.
        bits: at most delivered a rollout: the entropy of the reward given the prompt; 0, without an interval,
            where no group varied.
        estimators: the same by other estimates, from name to bits.
        bits_per_1000_tokens: the same for 1,000 sampled tokens.
        advantage_bits: what the advantages can carry a rollout; None for graded rewards, of which it is
            `bits`.
        silent, right, wrong, between: groups of equal rewards, of those all right, all wrong, all the same in
            between.
        silent_rollouts, silent_tokens: spent on silent groups.
        kl: the last divergence from where training began that was logged in it, in nats a token.
    """

    first_step: int
    last_step: int
    rollouts: int
    groups: int
    prompts: int
    tokens: float | None
    reward: Estimate
    bits: Estimate
    estimators: Mapping[str, float]
    bits_per_1000_tokens: Estimate | None
    advantage_bits: Estimate | None
    silent: Estimate
    right: Estimate
    wrong: Estimate
    between: Estimate
    silent_rollouts: int
    silent_tokens: float | None
    kl: float | None


def account_of(stretch: Stretch, kl: pl.DataFrame | None) -> Account:
    """The account of a stretch.

    Args:
        stretch: its groups.
        kl: step and kl of the run.
    """
    chosen, graded = stretch.chosen, stretch.groups.graded
    silent = (chosen["distinct"] == 1).cast(float).to_numpy()
    sizes, steps, bits = chosen["size"].to_numpy(), chosen["step"], stretch.bits()
    spent = chosen["tokens"].fill_null(0).to_numpy() if stretch.groups.tells_tokens else None
    shares = {name: stretch.share(name) for name in ("silent", "right", "wrong", "between")}
    per_tokens = None if spent is None else 1000 * bits * stretch.rollouts / stretch.total(spent)

    def told(drawn: np.ndarray) -> Estimate:
        return Estimate(0.0) if silent.all() else stretch.estimate(drawn)  # else: next to nothing, by the law

    return Account(
        first_step=int(steps.min()),  # type: ignore[arg-type]
        last_step=int(steps.max()),  # type: ignore[arg-type]
        rollouts=int(sizes.sum()),
        groups=len(chosen),
        prompts=stretch.num_prompts,
        tokens=None if spent is None else float(spent.sum()),
        reward=stretch.estimate(stretch.total(chosen["reward"].to_numpy() * sizes) / stretch.rollouts),
        bits=told(bits),
        estimators=stretch.estimators(),
        bits_per_1000_tokens=None if per_tokens is None else told(per_tokens),
        advantage_bits=None if graded else stretch.estimate(stretch.advantage_bits()),
        **shares,
        silent_rollouts=int(silent @ sizes),
        silent_tokens=None if spent is None else float(silent @ spent),
        kl=_last_kl(kl, int(steps.min()), int(steps.max())),  # type: ignore[arg-type]
    )


def _last_kl(kl: pl.DataFrame | None, first: int, last: int) -> float | None:
    if kl is None:
        return None
    logged = kl.filter(kl["step"].is_between(first, last))
    return float(logged["kl"][-1]) if len(logged) else None


@dataclass(frozen=True)
class PassRates:
    """The law of pass rates over groups, Beta(a, b) by empirical Bayes; if graded, of the best level.

    Attributes:
        a, b: its parameters.
        mean: a / (a + b).
        hard, easy: the mass below 5 % and above 95 %.
        points, weights: the law that is fitted from there on, by which bits and silent groups are told.
    """

    a: Estimate
    b: Estimate
    mean: Estimate
    hard: Estimate
    easy: Estimate
    points: Sequence[float]
    weights: Sequence[float]


@dataclass(frozen=True)
class OtherSize:
    """What groups of another size would have carried, from the law of pass rates.

    Attributes:
        size: G.
        silent: the share of groups without a signal.
        advantage_bits: a rollout; None for graded rewards.
    """

    size: int
    silent: Estimate
    advantage_bits: Estimate | None


@dataclass(frozen=True)
class Unvarying:
    """Prompts that never varied in all the rewards that the log has of them.

    Attributes:
        prompts: how many of them.
        share: of all prompts.
        right, wrong: how many had the highest or the lowest reward of the run in each rollout.
        rewards: the median number of rewards of one.
        rollouts, tokens: spent on them.
        chance: that the next group of one of them varies, on average, if its pass rate stays: the risk of
            leaving them out. The posterior mean under the law of all prompts.
    """

    prompts: int
    share: Estimate
    right: int
    wrong: int
    rewards: float
    rollouts: int
    tokens: float | None
    chance: float


@dataclass(frozen=True)
class RunAccount:
    """The account of a run.

    Attributes:
        whole: all of it.
        stretches: in order.
        rates: the law of pass rates; None of rewards with more than `MOST_LEVELS` levels.
        others: for groups of each of `OTHER_SIZES`, up to four times the usual size.
        unvarying: None if each prompt varied.
        usual_size: the size that most groups have.
    """

    whole: Account
    stretches: Sequence[Account]
    rates: PassRates | None
    others: Sequence[OtherSize]
    unvarying: Unvarying | None
    usual_size: int


def account_run(rollouts: Rollouts, groups: Groups, stretches: int = STRETCHES) -> RunAccount:
    """Accounts for a run.

    Args:
        rollouts: for its divergences.
        groups: of it.
        stretches: in how many parts of equally many steps it is looked at; fewer, if it has fewer steps.
    """
    frame, whole = groups.frame, Stretch(groups, groups.frame)
    steps = frame["step"].unique().sort().to_numpy()
    parts = np.array_split(steps, min(stretches, len(steps)))
    chosen = [frame.filter(frame["step"].is_between(int(part[0]), int(part[-1]))) for part in parts]
    usual = int(frame["size"].mode().min())  # type: ignore[arg-type]
    others = [
        OtherSize(
            size,
            whole.estimate(whole.silent_at(size)),
            None if groups.graded else whole.estimate(whole.advantage_bits_at(size)),
        )
        for size in sorted({*OTHER_SIZES, usual})
        if size <= _FURTHEST * usual
    ]
    return RunAccount(
        account_of(whole, rollouts.kl),
        [account_of(Stretch(groups, one), rollouts.kl) for one in chosen],
        _pass_rates(whole) if len(groups.values) <= MOST_LEVELS else None,
        others,
        _unvarying(whole, usual),
        usual,
    )


def _pass_rates(whole: Stretch) -> PassRates:
    from scipy.special import betainc

    a, b = whole.laws[-1].beta
    numbers = {
        "a": a,
        "b": b,
        "mean": a / (a + b),
        "hard": betainc(a, b, 0.05),
        "easy": 1 - betainc(a, b, 0.95),
    }
    estimates = {name: whole.estimate(drawn) for name, drawn in numbers.items()}
    weights = whole.laws[-1].weights[0]
    met = weights > _NOTHING
    law = weights[met] / weights[met].sum()
    return PassRates(**estimates, points=POINTS[met].tolist(), weights=law.tolist())


def _unvarying(whole: Stretch, size: int) -> Unvarying | None:
    """Prompts all of whose rewards have one level, each level with the law of its share over prompts."""
    import polars as pl

    groups = whole.groups
    prompts = groups.frame.group_by("prompt").agg(
        pl.col("size", "tokens").sum(), pl.col("right", "wrong").all()
    )
    hits = groups.levels.join(groups.frame.select("group", "prompt"), on="group")
    hits = hits.group_by("prompt", "level").agg(pl.col("hits").sum()).join(prompts, on="prompt")
    same = hits.filter(pl.col("hits") == pl.col("size"))
    if not len(same):
        return None
    once = 1 / groups.frame.select(pl.len().over("prompt")).to_series()  # a prompt counts once
    firm = groups.frame["prompt"].is_in(same["prompt"].implode()) * once
    return Unvarying(
        prompts=len(same),
        share=whole.estimate(whole.total(firm.to_numpy()) / whole.total(once.to_numpy())),
        right=int(same["right"].sum()),
        wrong=int(same["wrong"].sum()),
        rewards=float(same["size"].median()),  # type: ignore[arg-type]
        rollouts=int(same["size"].sum()),
        tokens=float(same["tokens"].sum()) if groups.tells_tokens else None,
        chance=float(_chances(prompts, hits, same, size).mean()),
    )


def _chances(prompts: pl.DataFrame, hits: pl.DataFrame, same: pl.DataFrame, size: int) -> np.ndarray:
    """For each prompt that never varied the chance that its next group does."""
    import polars as pl

    found = []
    for level in same["level"].unique():
        of_level = hits.filter(pl.col("level") == level).select("prompt", "hits")
        shares = prompts.join(of_level, on="prompt", how="left").with_columns(pl.col("hits").fill_null(0))
        kinds = shares.group_by("size", "hits").len().sort("size", "hits").to_numpy().astype(float)
        law = LevelLaw(kinds[:, 0], kinds[:, 1], kinds[None, :, 2], 1)
        seen = same.filter(pl.col("level") == level)["size"].to_numpy()
        found.append(chance_of_change(POINTS, law.weights[0], seen, size))
    return np.concatenate(found)
