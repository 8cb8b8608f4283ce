"""What a budget decides where runs get stuck, and how sure the losses are, from finished run directories.

    python studies/budgets_and_losses.py DIR [DIR ...]          (seconds; prints three tables)

Table 1, each directory at budgets up to its own: bits per episode if every run had been censored there, the
share stuck with its Clopper-Pearson interval, the median of the others. Table 2, of those with a listed
ledger: the losses of exploration and absorption, with 95 % intervals of a bootstrap over the runs, paired: a
run gives its observer and its policy. Table 3, where there are two or more: how much faster the first is than
each other one, with the interval of a bootstrap over the runs of both. Directories that are joined by + are
one population: such as runs/s1+runs/s2+runs/s3.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

import memory_rl
from memory_rl.analysis.collect import Cell, find_cells
from memory_rl.analysis.survival import MemorisationTimes, memorisation_times

BUDGETS = (200, 500, 1000, 4000, 10_000, 40_000)
DRAWS = 4000
_OF_A_RUN = ("episodes", "memorised")


def joined(found: list[MemorisationTimes]) -> MemorisationTimes:
    """Several populations as one."""
    return MemorisationTimes(*(np.concatenate([getattr(one, name) for one in found]) for name in _OF_A_RUN))


def policies(cells: list[Cell]) -> MemorisationTimes:
    """Episodes until the policies memorised."""
    return joined([cell.times for cell in cells])


def observers(cells: list[Cell]) -> MemorisationTimes:
    """Episodes until the ideal observers of the same runs knew as much."""
    return joined(
        [
            memorisation_times(
                memory_rl.ledger_from_episodes(cell.path).rename({"observer_bits": "bits_known"}),
                cell.information,
                cell.config["memorised_at"],
            )
            for cell in cells
        ]
    )


def rate(known: MemorisationTimes, chosen: np.ndarray | slice = slice(None)) -> float:
    """Memorised runs an episode, of some runs."""
    return known.memorised[chosen].sum() / known.episodes[chosen].sum()


def interval(values: list[float]) -> str:
    """95 %, as text."""
    return f"[{np.quantile(values, 0.025):.3g}, {np.quantile(values, 0.975):.3g}]"


def by_budget(populations: dict[str, list[Cell]]) -> Table:
    """Table 1."""
    table = Table("runs", "budget", "bits per episode", "stuck [95 %]", "median of the others")
    for name, cells in populations.items():
        known = policies(cells)
        for budget in (budget for budget in BUDGETS if budget <= max(known.episodes.max(), BUDGETS[0])):
            there = known.memorised & (known.episodes <= budget)
            censored = MemorisationTimes(np.where(there, known.episodes, budget), there)
            stuck, runs = int((~there).sum()), len(there)
            low, high = binomtest(stuck, runs).proportion_ci()
            share = f"{stuck} of {runs}: {stuck / runs:.2f} [{low:.2f}, {high:.2f}]"
            median = np.median(known.episodes[there]) if there.any() else math.nan
            table.add_row(
                name, f"{budget}", f"{rate(censored) * cells[0].information:.3g}", share, f"{median:g}"
            )
    return table


def losses(populations: dict[str, list[Cell]], random: np.random.Generator) -> Table:
    """Table 2."""
    table = Table("runs", "exploration [95 %]", "absorption [95 %]")
    for name, cells in populations.items():
        try:
            policy, observer = policies(cells), observers(cells)
        except memory_rl.MemoryRLError:  # scored by paths: not every answer is listed
            continue
        best = 1 / cells[0].summary["ceilings"]["ideal_questioner"]["to_reach"]
        draws = [random.integers(len(policy.episodes), size=len(policy.episodes)) for _ in range(DRAWS)]
        explored = interval([best / rate(observer, draw) for draw in draws])
        absorbed = interval([rate(observer, draw) / rate(policy, draw) for draw in draws])
        table.add_row(
            name,
            f"{best / rate(observer):.3g} {explored}",
            f"{rate(observer) / rate(policy):.3g} {absorbed}",
        )
    return table


def ratios(populations: dict[str, list[Cell]], random: np.random.Generator) -> Table:
    """Table 3."""
    table = Table("faster", "than", "ratio of bits per episode [95 %]")
    (first, cells), *others = populations.items()
    ours = policies(cells)

    def drawn(known: MemorisationTimes) -> float:
        return rate(known, random.integers(len(known.episodes), size=len(known.episodes)))

    for name, slower in others:
        theirs = policies(slower)
        bits = cells[0].information / slower[0].information
        draws = [bits * drawn(ours) / drawn(theirs) for _ in range(DRAWS)]
        table.add_row(first, name, f"{bits * rate(ours) / rate(theirs):.3g} {interval(draws)}")
    return table


if __name__ == "__main__":
    console = Console()
    given = {words: find_cells(words.split("+")) for words in sys.argv[1:]}
    console.print(by_budget(given))
    console.print(losses(given, np.random.default_rng(0)))
    if len(given) > 1:
        console.print(ratios(given, np.random.default_rng(0)))
