"""How parameters move: advantages (numpy) and objectives (torch). Importing it makes every learner known."""

from memory_rl.learning import estimators, evolution, imitation, learners, own_learner, ratios, replay

__all__ = ["estimators", "evolution", "imitation", "learners", "own_learner", "ratios", "replay"]
