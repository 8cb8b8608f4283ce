"""What a hosted policy costs, counted as it is spent, and the hard stop before it is too much.

A token is counted as the service bills it: prefilled (a prompt that is read, once however many samples are
drawn from it), sampled, or trained (an input of a datum, in each pass over it). What the SDK sends again
after a lost connection is counted once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from memory_rl.errors import TokensSpentError


@dataclass(frozen=True)
class Cost:
    """Tokens and requests.

    Attributes:
        prefilled: tokens of prompts.
        sampled: tokens drawn.
        trained: tokens of a forward and backward pass.
        requests: calls of the SDK that ask the service for work.
    """

    prefilled: int = 0
    sampled: int = 0
    trained: int = 0
    requests: int = 0

    @property
    def tokens(self) -> int:
        """Of all three kinds."""
        return self.prefilled + self.sampled + self.trained

    def __add__(self, other: Cost) -> Cost:
        return Cost(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> Cost:
        return Cost(*(count * times for count in astuple(self)))

    def __str__(self) -> str:
        parts = f"{self.sampled:,} sampled, {self.prefilled:,} prefilled and {self.trained:,} trained"
        return f"{self.tokens:,} tokens ({parts}) in {self.requests:,} requests"


class Spending:
    """Counts what is spent, and says stop.

    Args:
        limit: the most tokens of all kinds, or None.

    Attributes:
        on_change: called after each round of requests, to keep the counts where a kill cannot lose them.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.on_change: Callable[[], None] = lambda: None
        self._tokens: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()

    @property
    def spent(self) -> Cost:
        """So far."""
        return Cost(**self._tokens, requests=self._requests.total())

    def ask(
        self, client: Any, request: str, *given: Any, prefilled: int = 0, trained: int = 0, **named: Any
    ) -> Any:
        """Counts a request of a client of the SDK and the tokens that it costs, and makes it: a promise."""
        self.count(prefilled=prefilled, trained=trained)
        self._requests[request] += 1
        return getattr(client, request)(*given, **named)

    def count(self, **tokens: int) -> None:
        """Adds tokens by kind."""
        self._tokens.update(tokens)

    def reserve(self, cost: Cost) -> None:
        """Makes sure that this much may still be spent.

        Raises:
            TokensSpentError: if it may not.
        """
        if self.limit is not None and self.spent.tokens + cost.tokens > self.limit:
            raise TokensSpentError(
                f"max_tokens_total={self.limit} leaves {self.limit - self.spent.tokens} tokens, and the next "
                f"update may need {cost.tokens}"
            )

    def as_dict(self) -> dict[str, Any]:
        """As summary.json has it."""
        tokens = {kind: self._tokens[kind] for kind in ("sampled", "prefilled", "trained")}
        return {
            "tokens": {**tokens, "total": self._tokens.total()},
            "requests": {**dict(sorted(self._requests.items())), "total": self._requests.total()},
        }

    def restore(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Takes back what `as_dict` gave."""
        self._tokens, self._requests = Counter(counts["tokens"]), Counter(counts["requests"])
        del self._tokens["total"], self._requests["total"]
