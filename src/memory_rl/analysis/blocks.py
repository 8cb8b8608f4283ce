"""Which learners are compared, and on which secrets: a block of both in which no cell is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import polars as pl

from memory_rl.errors import first_few

Key = tuple[str, int | None, int]
"""A cell of the block for each learner: the name of the task, base and seed, which make the secrets."""

_KEY = {"task_name": pl.String, "base": pl.Int64, "seed": pl.Int64}


@dataclass(frozen=True)
class Block:
    """Learners that are compared, and the secrets on which all of them have runs.

    Attributes:
        learners: their names.
        keys: what counts.
        entered: by the name of every learner, what it has runs on.
    """

    learners: list[str]
    keys: frozenset[Key]
    entered: dict[str, frozenset[Key]]

    @property
    def tasks(self) -> list[str]:
        """The names of those that count, with some of their secrets at least."""
        return sorted({task for task, _, _ in self.keys})

    def compared(self, runs: pl.DataFrame) -> pl.DataFrame:
        """The runs of its learners on its secrets."""
        return self._marked(runs).filter("counts", pl.col("learner_name").is_in(self.learners))

    def shown(self, runs: pl.DataFrame) -> pl.DataFrame:
        """All runs but those of its learners on other secrets of its tasks."""
        inside = pl.col("learner_name").is_in(self.learners) & pl.col("task_name").is_in(self.tasks)
        return self._marked(runs).filter(~inside | pl.col("counts"))

    def _marked(self, runs: pl.DataFrame) -> pl.DataFrame:
        keys = pl.DataFrame([*self.keys], schema=_KEY, orient="row").with_columns(counts=pl.lit(value=True))
        marked = runs.join(keys, on=[*_KEY], how="left", nulls_equal=True, maintain_order="left")
        return marked.with_columns(pl.col("counts").fill_null(value=False))

    def notes(self) -> Iterator[str]:
        """Sentences on the learners and secrets that are left out, and why."""
        for learner, has in self.entered.items():
            if learner not in self.learners:
                yield f"{learner} is not ranked, since it has no runs on {self._places(self.keys - has)}."
        everywhere = frozenset[Key]().union(*self.entered.values())
        alike: dict[tuple[str, str, str], list[str]] = {}
        for task in sorted({task for task, _, _ in everywhere - self.keys}):
            out = frozenset(key for key in everywhere - self.keys if key[0] == task)
            alike.setdefault(self._left_out(task, out), []).append(task)
        for (one, several, why), tasks in alike.items():
            yield f"{first_few(tasks)} {one if len(tasks) == 1 else several}, since {why}."

    def _left_out(self, task: str, out: frozenset[Key]) -> tuple[str, str, str]:
        """What is said of one task and of several, and why; tasks of the same reason share a sentence."""
        lacking = [one for one in self.learners if not out <= self.entered[one]]
        who = f"{first_few(lacking)} {'has' if len(lacking) == 1 else 'have'}"
        if task in self.tasks:
            without = f"without {_seeds(out)}"
            return f"counts {without}", f"count {without}", f"{who} no runs there"
        nowhere = all(out.isdisjoint(self.entered[one]) for one in lacking)
        return (
            "does not count",
            "do not count",
            f"{who} no runs {'there' if nowhere else 'on some of the seeds'}",
        )

    def _places(self, missing: frozenset[Key]) -> str:
        """Tasks by their names, with the seeds where only some of what counts is missing."""
        found = []
        for task in sorted({task for task, _, _ in missing}):
            of_task = {key for key in missing if key[0] == task}
            whole = of_task == {key for key in self.keys if key[0] == task}
            found.append(task if whole else f"{task} with {_seeds(of_task)}")
        return first_few(found)


def find_block(runs: pl.DataFrame) -> Block:
    """The block of the most cells; of equal ones that of the most learners. It is empty without two learners.

    Looked at are what each learner has runs on, and what the n learners with the most have in common.
    """
    names = ["learner_name", *_KEY]
    entered = dict[str, frozenset[Key]]()
    for learner, *key in runs.select(names).unique().sort(names).iter_rows():
        entered[learner] = entered.get(learner, frozenset()) | {(key[0], key[1], key[2])}
    by_size = sorted(entered.values(), key=len, reverse=True)
    choices = {*by_size, *accumulate(by_size, frozenset.intersection)}
    blocks = [([one for one, has in entered.items() if keys <= has], keys) for keys in choices if keys]
    several = [block for block in blocks if len(block[0]) > 1]
    learners, keys = max(several, key=_worth, default=([], frozenset()))
    return Block(learners, keys, entered)


def _worth(block: tuple[Sequence[str], Collection[Key]]) -> tuple[int, int, list[str]]:
    learners, keys = block
    return len(learners) * len(keys), len(learners), sorted(map(str, keys))


def _seeds(keys: Collection[Key]) -> str:
    bases = ("" if base is None else f"base_seed={base} " for _, base, _ in keys)
    return first_few(sorted(f"{base}seed={key[2]}" for base, key in zip(bases, keys, strict=True)))
