"""The dense world: k turns, of which turn j asks for bit j of the secret and rewards that bit alone.

The most significant bit comes first. The conversation holds the model's own earlier bits. An invalid turn
ends the episode: it and the turns it forfeits earn the lowest level. When N is not a power of two, some bit
strings spell no integer below N: each of their turns is valid, but they are nobody's secret.
"""

from __future__ import annotations

import numpy as np

from memory_rl.config import Wording
from memory_rl.task.environment import Environment
from memory_rl.task.rewards import make_channel
from memory_rl.task.secret_space import SecretSpace


class MultiStep(Environment):
    """k questions of one bit each; the channel of every step is `binary` on the bit."""

    @classmethod
    def with_noise(
        cls, space: SecretSpace, noise: float = 0.0, *, num_secrets: int = 1, wording: Wording = "terse"
    ) -> MultiStep:
        """The environment with reward 1 for a right bit, else 0, flipped with probability `noise`."""
        return cls(space, make_channel("binary", 2, noise=noise), num_secrets, wording)

    @property
    def num_steps(self) -> int:
        """K = k = ceil(log2 N)."""
        return self.space.num_bits

    @property
    def num_choices(self) -> int:
        """A bit."""
        return 2

    def prompt(self, step: int, which: int = 0) -> str:
        """Asks for bit `step` (from 0), most significant first."""
        if step > 0:  # the terse ones are as short as they can be: each stands in 2^step conversations
            return f"Digit {step + 1}?" if self.wording == "plain" else f"{step + 1}?"
        if self.wording == "terse":
            return f"{self.subject(which)}, bit 1?"
        digits = f"{self.num_steps} binary digit{'s' if self.num_steps > 1 else ''}"
        return (
            f"{self.subject(which)}, written with {digits}. "
            "Reply with one digit at a time, 0 or 1, alone. Digit 1?"
        )

    def choices(self, answers: np.ndarray | int) -> np.ndarray:
        """The bits of each answer: shape (...) to (..., k)."""
        return self.space.to_bits(answers)
