"""Sizes beyond which things get too large, and the learning rates that are used unless one is given."""

MAX_N = {"local": (2048, 512), "tabular": (4096, 4096), "tinker": (4096, 512)}
"""The largest N by backend, in single_step and multi_step, for a table or trie of all answers."""

MAX_N_OF_PATHS = 2**20
"""The largest N where only some answers are scored: beyond it the tokens of all take too much memory."""

MAX_ANSWERS_KEPT = 2**26
"""The most answers of all runs and secrets: distributions over more of them take gigabytes."""

MAX_TABULATED_N = 4096
"""The largest N of channels without a closed form, which need a table of all answers and secrets."""

STEP_SIZES = {
    "local": {"adam": 5e-4, "sgd": 0.03},
    "tabular": {"adam": 0.3, "sgd": 1.0},
    # The Tinker cookbook's rule for a LoRA on Llama-3.1-8B, 5e-4 (2000 / 4096)^0.781, rounded.
    "tinker": {"adam": 3e-4},
    "shared": {"adam": 0.1, "sgd": 1.0},
    "full": {"adam": 2e-4, "sgd": 0.03},
}
"""The default learning rate by backend, or by the kind of adapter of the local one, and by optimiser."""
