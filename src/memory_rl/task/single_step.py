"""The one-turn world: the model is asked for the secret integer and is rewarded once."""

from __future__ import annotations

import numpy as np

from memory_rl.task.environment import Environment
from memory_rl.task.secret_space import code_names


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
        if self.wording == "plain":
            named = f" number {self.number_of(which)}" if self.num_secrets > 1 else ""
            return (
                f"I am thinking of a secret integer{named} from 0 to {self.space.N - 1}. "
                "Reply with the integer alone."
            )
        if self.num_secrets > 1:
            return f"{code_names(self.num_secrets)[which]}?"
        return f"Secret in [0,{self.space.N})?"

    def choices(self, answers: np.ndarray | int) -> np.ndarray:
        """The answer itself is the only choice: shape (...) to (..., 1)."""
        return np.asarray(answers)[..., None]
