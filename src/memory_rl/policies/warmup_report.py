"""How a format warm-up ended, and whether runs may start from there."""

from __future__ import annotations

import math
from dataclasses import dataclass

from memory_rl.errors import ModelError


@dataclass(frozen=True)
class WarmupReport:
    """How a warm-up ended.

    Attributes:
        head_steps: optimiser steps of the head.
        steps: optimiser steps of all parameters, or of the adapter and then of all parameters.
        divergence: KL(target || policy) in bits; from uniform, minus the mean bits known.
        divergence_error: its standard error, 0 where it was computed from all answers.
        tokens: that went through the model, the steps of the head apart.
        seconds: that it took when it was made.
        whole_steps: those of the steps that trained all parameters because the adapter did not suffice.
        reached: whether the divergence is within the tolerance.
    """

    head_steps: int
    steps: int
    divergence: float
    divergence_error: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    whole_steps: int = 0
    reached: bool = True

    def check(self, accepted: float | None, instead: str, target: str = "uniform") -> None:
        """Refuses a base model that is too far from its target to start from.

        Args:
            accepted: `warmup_tolerance`, bits from the target.
            instead: what else may help, such as another model_name.
            target: what the answers were to be like.

        Raises:
            ModelError: if neither the tolerance of the warm-up nor the accepted one is reached.
        """
        if self.reached or (accepted is not None and self.divergence <= accepted):
            return
        start = ""
        if math.isfinite(self.divergence):
            start = f"add warmup_tolerance={_rounded_up(self.divergence)} to start from there, or "
        raise ModelError(
            f"the format warm-up stopped {self.divergence:.3f} bits from {target} after "
            f"{self.head_steps + self.steps} steps: {start}use {instead}."
        )


def _rounded_up(bits: float) -> str:
    """With two digits, and not less."""
    unit = 10.0 ** (math.floor(math.log10(bits)) - 1)
    return f"{math.ceil(bits / unit) * unit:.6g}"
