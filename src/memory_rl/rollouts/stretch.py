"""Groups as counts that are summed again for every resample of prompts, and laws fitted to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from memory_rl.analysis.statistics import Estimate, proportion, resampled_counts
from memory_rl.information import reward_entropy, reward_laws
from memory_rl.information.reward_laws import POINTS
from memory_rl.rollouts.groups import MOST_LEVELS, Groups

if TYPE_CHECKING:
    import polars as pl

RESAMPLES = 399
BATCHES = 2000
"""More prompts than this are resampled in so many batches, each of equally many."""


class Stretch:
    """The groups of a stretch as counts a batch of prompts, and the same for every resample of batches.

    Args:
        groups: of the whole run.
        chosen: those of the stretch, a part of its frame.
    """

    def __init__(self, groups: Groups, chosen: pl.DataFrame) -> None:
        import polars as pl

        ranks = chosen.select(pl.col("prompt").rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
        self.groups, self.chosen = groups, chosen
        self.num_prompts = int(ranks.max()) + 1
        self.num_batches = min(self.num_prompts, BATCHES)
        self._batch = ranks % self.num_batches

    @cached_property
    def _weights(self) -> np.ndarray:
        """How often each batch counts: (1 + resamples, batches), all once first."""
        drawn = resampled_counts(self.num_batches, RESAMPLES).astype(float)
        return np.concatenate([np.ones((1, self.num_batches)), drawn])

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of a number over groups, and in each resample: (groups,) to (1 + resamples,)."""
        return self._weights @ np.bincount(self._batch, values, minlength=self.num_batches)

    def share(self, name: str) -> Estimate:
        """The share of groups for which a column is true; if all or none, as of that many prompts."""
        values = self.chosen[name].cast(float).to_numpy()
        if np.ptp(values) == 0:  # no resample differs, and yet the next prompt may
            return proportion(self.num_prompts if values[0] else 0, self.num_prompts)
        return self.estimate(self.total(values) / self.total(np.ones(len(values))))

    def estimate(self, drawn: np.ndarray) -> Estimate:
        """A number and its resamples (1 + resamples,) as an estimate."""
        return Estimate.from_bootstrap(drawn[0], drawn[1:], self.num_batches)

    @cached_property
    def laws(self) -> list[LevelLaw]:
        """Of each level of the reward; of more than `MOST_LEVELS` one law of all."""
        import polars as pl

        levels = self.groups.levels.join(self.chosen.select("group", "size"), on="group")
        batches = pl.DataFrame({"group": self.chosen["group"], "batch": self._batch})
        levels = levels.join(batches, on="group")
        count = len(self.groups.values)
        if count > MOST_LEVELS:
            return [self._law(levels, count)]
        return [self._law(levels.filter(pl.col("level") == level), 1) for level in range(count)]

    def _law(self, levels: pl.DataFrame, multiplicity: int) -> LevelLaw:
        import polars as pl

        met = levels.group_by("size", "hits", "batch").len("count")
        of_size = pl.DataFrame({"size": self.chosen["size"], "batch": self._batch})
        every = of_size.group_by("size", "batch").len("all").with_columns(pl.col("all") * multiplicity)
        some = met.group_by("size", "batch").agg(pl.col("count").sum().alias("some"))
        missed = every.join(some, on=["size", "batch"], how="left").with_columns(pl.col("some").fill_null(0))
        missed = missed.select(
            "size", hits=pl.lit(0, pl.Int64), batch="batch", count=pl.col("all") - pl.col("some")
        )
        cells = pl.concat(
            [met.select(pl.col("size", "hits", "batch", "count").cast(pl.Int64)), missed.cast(pl.Int64)]
        )
        cells = cells.filter(pl.col("count") > 0).sort("size", "hits")
        kinds = cells.select("size", "hits").unique(maintain_order=True).with_row_index("kind")
        placed = cells.join(kinds, on=["size", "hits"])
        table = np.zeros((self.num_batches, len(kinds)))
        np.add.at(table, (placed["batch"].to_numpy(), placed["kind"].to_numpy()), placed["count"].to_numpy())
        return LevelLaw(
            kinds["size"].to_numpy(), kinds["hits"].to_numpy(), self._weights @ table, multiplicity
        )

    @cached_property
    def rollouts(self) -> np.ndarray:
        """In the stretch, and in each resample."""
        return self.total(self.chosen["size"].cast(float).to_numpy())

    def bits(self) -> np.ndarray:
        """Bits delivered a rollout, and in each resample: by the law that is quoted."""
        return sum((law.bits() for law in self.laws), np.zeros(1)) / self.rollouts

    def silent_at(self, size: int) -> np.ndarray:
        """The share of groups that would be silent at another size, and in each resample."""
        return sum((law.multiplicity * law.equal_at(size) for law in self.laws), np.zeros(1))

    def advantage_bits_at(self, size: int) -> np.ndarray:
        """Bits a rollout that the advantages of pass or fail can carry at a size, and in each resample."""
        return reward_laws.advantage_bits(POINTS, self.laws[-1].weights, size)

    def advantage_bits(self) -> np.ndarray:
        """The same at the sizes that the groups have, each as often as it has rollouts."""
        sizes = self.chosen["size"].to_numpy()
        parts = [
            self.total(np.where(sizes == size, sizes, 0.0)) * self.advantage_bits_at(int(size))
            for size in np.unique(sizes)
        ]
        return sum(parts, np.zeros(1)) / self.rollouts

    def estimators(self) -> dict[str, float]:
        """Bits delivered a rollout by each estimate."""
        named: dict[str, Callable[[LevelLaw], np.ndarray]] = {
            "plug_in": lambda law: reward_entropy.plug_in(law.sizes, law.hits),
            "miller_madow": lambda law: reward_entropy.miller_madow(law.sizes, law.hits),
            "grassberger": lambda law: reward_entropy.grassberger(law.sizes, law.hits),
            "beta": lambda law: reward_entropy.under_beta(
                law.sizes, law.hits, *(float(one[0]) for one in law.beta)
            ),
        }
        found = {
            name: sum(law.summed(part(law))[0] for law in self.laws) / self.rollouts[0]
            for name, part in named.items()
        }
        return {name: float(value) for name, value in found.items()} | {"law": float(self.bits()[0])}


class LevelLaw:
    """How often rewards have one level: counts of groups by size and hits, and the law behind them.

    Args:
        sizes, hits: (M,) the kinds of groups.
        counts: (1 + resamples, M) how many there are of each.
        multiplicity: how many levels the law is of.
    """

    def __init__(self, sizes: np.ndarray, hits: np.ndarray, counts: np.ndarray, multiplicity: int) -> None:
        self.sizes, self.hits, self.counts, self.multiplicity = sizes, hits, counts, multiplicity

    @cached_property
    def beta(self) -> reward_laws.Beta:
        """The Beta law that fits best, and that of each resample: twice (1 + resamples,)."""
        whole = reward_laws.fit_beta(self.sizes, self.hits, self.counts[0])
        return reward_laws.fit_beta(self.sizes, self.hits, self.counts, whole)

    @cached_property
    def _likely(self) -> np.ndarray:
        return reward_laws.likelihoods(self.sizes, self.hits)

    @cached_property
    def weights(self) -> np.ndarray:
        """The law on `POINTS`, and that of each resample: (1 + resamples, P)."""
        return reward_laws.fit_law(self._likely, self.counts, reward_laws.spread_beta(*self.beta))

    def summed(self, part: np.ndarray) -> np.ndarray:
        """A part of an entropy (M,) or (1 + resamples, M), summed over rollouts: (1 + resamples,)."""
        return (self.counts * self.sizes * part).sum(axis=1)

    def bits(self) -> np.ndarray:
        """The level's part in the entropy of all rollouts: (1 + resamples,)."""
        return self.summed(reward_entropy.under_law(self._likely, self.weights, POINTS))

    def equal_at(self, size: int) -> np.ndarray:
        """The chance that all rewards of a group of some size have the level: (1 + resamples,)."""
        return reward_laws.equal_chance(POINTS, self.weights, size)
