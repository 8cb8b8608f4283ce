"""The secrets: integers in [0, N), how they are drawn, written and read.

What must not change here: one answer is one canonical string, so that P(S) is exact.
"""

from __future__ import annotations

import math
import re
import string
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from memory_rl.seeding import generator

# [0-9], not \d or isdigit(), which admit digits that are not ASCII
_CANONICAL_INTEGER = re.compile(r"0|[1-9][0-9]*")
_LETTERS, _LENGTH = list(string.ascii_letters), 4
_WHITE_SPACE = " \t\r\n"


def parse_integer(text: str, upper: int) -> int | None:
    """The integer in [0, upper) that the text writes in canonical form, or None.

    Canonical: ASCII digits, no sign, no leading zero; white space around it is allowed.
    """
    stripped = text.strip(_WHITE_SPACE)
    if len(stripped) > len(str(upper)) or not _CANONICAL_INTEGER.fullmatch(stripped):
        return None
    value = int(stripped)
    return value if value < upper else None


@lru_cache(maxsize=4)
def code_names(count: int) -> tuple[str, ...]:
    """What the prompts call several secrets: different words of four random letters.

    The first of them are the same whatever the count. Words that share most of their tokens would look alike
    to a model that knows nothing yet, and what it learns of one secret would then move all.
    """
    random, names = generator(0, "code names"), dict[str, None]()
    while len(names) < count:
        names["".join(random.choice(_LETTERS, _LENGTH))] = None
    return tuple(names)


@dataclass(frozen=True)
class SecretSpace:
    """The integers [0, N), N >= 2, each equally likely to be the secret S."""

    N: int

    @property
    def information(self) -> float:
        """log2 N: the bits there are to learn."""
        return math.log2(self.N)

    @property
    def num_bits(self) -> int:
        """The number of binary digits that write any secret: k = ceil(log2 N)."""
        return (self.N - 1).bit_length()

    def draw(self, generator: np.random.Generator) -> int:
        """A secret, uniform on [0, N)."""
        return int(generator.integers(self.N))

    def to_bits(self, secrets: np.ndarray | int) -> np.ndarray:
        """Binary digits, most significant first: integers of shape (...) to bits of shape (..., k)."""
        shifts = np.arange(self.num_bits - 1, -1, -1)
        return (np.asarray(secrets)[..., None] >> shifts) & 1
