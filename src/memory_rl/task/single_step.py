"""The one-turn world: the model is asked for the secret integer and is rewarded once."""

from __future__ import annotations

import numpy as np

from memory_rl.task.environment import Environment


class SingleStep(Environment):
    """One question, N possible answers, one reward."""

    @property
    def num_steps(self) -> int:
        """One."""
        return 1

    @property
    def num_choices(self) -> int:
        """N."""
        return self.space.N

    def prompt(self, step: int, which: int = 0) -> str:
        """Asks for the secret."""
        plain = self.wording == "plain"
        return f"{self.subject(which)}. Reply with the integer alone." if plain else f"{self.subject(which)}?"

    def choices(self, answers: np.ndarray | int) -> np.ndarray:
        """The answer itself is the only choice: shape (...) to (..., 1)."""
        return np.asarray(answers)[..., None]
