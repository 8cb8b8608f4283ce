"""The cells of the study of a real model (real_model.py), the most important first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

RATES = (1e-3, 3e-4)
CONTEST: dict[str, tuple[dict[str, Any], dict[int, int]]] = {
    "SFT": ({"signal": "example"}, {16: 100, 64: 200}),
    "binary": ({"reward_type": "binary"}, {16: 1000, 64: 4000}),
    "8 bins": ({"reward_type": "binned_log_distance", "reward_bins": 8}, {16: 1000, 64: 2000}),
    "log distance": ({"reward_type": "log_distance"}, {16: 1000, 64: 2000}),
    "teacher whole": ({"signal": "teacher", "divergence": "forward"}, {16: 400, 64: 400}),
    "teacher sampled": ({"signal": "teacher", "told": "sampled"}, {16: 1000, 64: 2000}),
    "noisy binary": ({"reward_type": "binary", "reward_noise": 0.05}, {16: 1000, 64: 2000}),
}
"""Keys, and the budget in episodes at each N."""
DENSE: dict[str, Any] = {"env_type": "multi_step", "max_episodes": 400}


@dataclass(frozen=True)
class Cell:
    """A cell of the study.

    Attributes:
        name: of its files.
        keys: of the experiment.
        warmup: "plain", or where turns are kept apart: at the "head", or in "all" layers.
        unrelated: whether later turns are asked for by unrelated words.
        look: whether the turns of the warmed-up model are looked at, and nothing is trained.
    """

    name: str
    keys: dict[str, Any] = field(default_factory=dict)
    warmup: str = "plain"
    unrelated: bool = False
    look: bool = False


def contest(N: int) -> Iterator[Cell]:
    """All signals of one turn, at each step size."""
    for rate in RATES:
        for name, (keys, budget) in CONTEST.items():
            yield Cell(
                f"{name} N={N} {rate:g}", {**keys, "N": N, "max_episodes": budget[N], "learning_rate": rate}
            )


def dense(name: str, N: int = 64, rate: float = 3e-4, **keys: Any) -> Cell:
    """A cell with a reward for each bit; keys of `Cell` among them."""
    of_cell = {word: keys.pop(word) for word in ("warmup", "unrelated") if word in keys}
    return Cell(f"each bit N={N} {rate:g}{name}", {**DENSE, "N": N, "learning_rate": rate, **keys}, **of_cell)


def cells() -> list[Cell]:
    """All cells, the most important first."""
    look = [
        Cell(f"turns N=64{name}", {**DENSE, "N": 64, **keys}, look=True, **of_cell)
        for name, keys, of_cell in (
            ("", {}, {}),
            (", not warmed up", {"warmup": False}, {}),
            (", apart at the head", {}, {"warmup": "head"}),
            (", apart in all layers", {}, {"warmup": "all"}),
            (", terse", {"wording": "terse"}, {}),
            (", unrelated words", {}, {"unrelated": True}),
        )
    ]
    causes = [
        dense(", apart at the head", warmup="head"),
        dense(", apart in all layers", warmup="all"),
        dense(", ppo", algorithm="ppo"),
        dense(", entropy bonus 0.03", entropy_bonus=0.03),
        dense("", rate=1e-4, max_episodes=1200),
        dense(", unrelated words", unrelated=True),
        dense(", last 10 layers", lora_layers="20-29"),
        dense(", groups of 16", group_size=16, max_episodes=1600),
        dense(", first 10 layers", lora_layers="0-9"),
        dense(", terse", wording="terse"),
        dense(", attention alone", lora_targets="attention"),
        dense(", rank 1", lora_rank=1),
        dense(", apart at the head", rate=1e-3, warmup="head"),
        dense("", rate=3e-5, max_episodes=2000),
    ]
    sums = [dense(", sum", N=N, credit="episode") for N in (64, 16)]
    small = [dense("", N=16), dense("", N=16, rate=1e-3), dense(", apart at the head", N=16, warmup="head")]
    exact = [dense(", float32", N=N, dtype="float32") for N in (16, 64)]
    return [
        look[0],
        dense(""),
        *contest(64),
        *look[1:],
        *causes[:4],
        *small,
        *contest(16),
        sums[0],
        *causes[4:8],
        exact[0],
        dense("", rate=1e-3),
        *causes[8:],
        sums[1],
        exact[1],
    ]
