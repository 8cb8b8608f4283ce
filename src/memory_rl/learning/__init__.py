"""How parameters move: advantages (numpy) and objectives (torch). Importing it makes every learner known."""

from memory_rl.learning import estimators, learners, own_learner, ratios

__all__ = ["estimators", "learners", "own_learner", "ratios"]
