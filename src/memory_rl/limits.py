"""Ranges of keys, sizes beyond which things get too large, and the default learning rates."""

SEEDS = (0, 2**63 - 1)
"""They are kept in columns of 64 bits."""

ANSWERS = (2, 2**53)
"""N: up to here a float holds every integer."""

EPISODES = (1, 10**15)
"""Of a run; also updates between two evaluations, and tokens of an experiment: more would never end."""

SIZES = (1, 2**20)
"""Of groups, batches, optimiser steps on the same episodes, and of sets of secrets or of examples."""

RUNS = (1, 2**14)
"""In lockstep: beyond it the bootstrap over runs takes gigabytes."""

FACTORS = (1e-6, 1e6)
"""Scales, clips, margins and ratios."""

STEPS = (1e-38, 1e38)
"""Step sizes: about what float32 holds."""

MAX_LISTED_N = 2**24
"""The largest N of a channel with a closed form, whose answers are listed."""

MAX_STEPS = 2**24
"""The most steps of all episodes of all runs in one update, at about 200 bytes each: 3.4 GB."""

MAX_N = {"local": (2048, 512), "tabular": (4096, 4096), "tinker": (4096, 512)}
"""The largest N by backend, in single_step and multi_step, for a table or trie of all answers."""

MAX_N_OF_FILM = 256
"""The largest N with a film: more answers cannot be told apart in a picture."""

MAX_LISTED_FORMS = 2**11
"""The most conversations of several turns that are listed; a warm-up then takes all of them at each step."""

MAX_N_OF_PATHS = 2**20
"""The largest N where only some answers are scored: beyond it the tokens of all take too much memory."""

MAX_TOKENS_OF_SAMPLES = 2**14
"""The most tokens of the samples of a run, or of one of its prompts: one mask says which sees which."""

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
