"""Sizes beyond which things get too large, and the learning rates that are used unless one is given."""

MAX_N = {"local": (2048, 512), "tabular": (4096, 4096), "tinker": (4096, 512)}
"""By backend, in single_step and multi_step: beyond these N a table or trie of all answers gets too large."""

MAX_N_OF_PATHS = 2**20
"""Beyond this the tokens of all answers take too much memory even where only some are scored."""

MAX_ANSWERS_KEPT = 2**26
"""Of all runs and secrets: the distributions over more of them take gigabytes."""

MAX_TABULATED_N = 4096
"""Beyond this the table of all answers and secrets is too large, for channels without a closed form."""

STEP_SIZES = {
    "local": {"adam": 5e-4, "sgd": 0.03},
    "tabular": {"adam": 0.3, "sgd": 1.0},
    # The Tinker cookbook's rule for a LoRA on Llama-3.1-8B, 5e-4 (2000 / 4096)^0.781, rounded.
    "tinker": {"adam": 3e-4},
    "shared": {"adam": 0.1, "sgd": 1.0},
    "full": {"adam": 2e-4, "sgd": 0.03},
}
"""The learning rate of each backend, or kind of adapter of the local one, and optimiser, unless one is given."""
