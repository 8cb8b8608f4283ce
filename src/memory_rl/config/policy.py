"""Where parameters live: the model, and what of it a run trains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from memory_rl.config.world import Wording
from memory_rl.errors import ConfigError
from memory_rl.keys import key, name_or_path
from memory_rl.limits import FACTORS, SEEDS

Backend = Literal["local", "tabular", "tinker"]

TINY, TINY_TEXT = "tiny", "tiny-text"
BUILT_IN = TINY, TINY_TEXT
"""The names of the built-in models: random features, and the same architecture pretrained on text."""

HOSTED_MODEL = "meta-llama/Llama-3.1-8B"
"""The model of backend=tinker, unless one is given."""


_OF_LORA = "adapter=lora,shared"


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Where parameters live."""

    backend: Backend = key(
        "local",
        "Where the policy lives: local is a PyTorch transformer on this machine, "
        "tabular an exact softmax over the answers, tinker a hosted model.",
    )
    tabular_bits: Literal["positions", "prefixes"] = key(
        "positions",
        "A distribution for each bit's position, or for each prefix of bits.",
        needs="backend=tabular env_type=multi_step",
    )
    model_name: str = name_or_path(
        TINY,
        "tiny or tiny-text (built in), or a Llama-style causal LM: a directory, a hub id or a .gguf file. "
        f"backend=tinker: one of the service; default {HOSTED_MODEL}.",
        needs="backend=local,tinker",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32",
        "What the base model computes in; adapters, losses and probabilities stay float32.",
        needs="backend=local",
    )
    device: Literal["cpu", "cuda", "mps"] | None = key(
        None,
        "Where it computes. Default: cpu for a built-in model; else cuda if there is one, mps, cpu.",
        needs="backend=local",
    )
    gradient_checkpointing: bool = key(
        False,
        "Recompute each layer in the backward pass: same gradients, less memory, a third more work.",
        needs="backend=local",
    )
    base_seed: int = key(
        0,
        "The seed of a built-in base model's weights, and of the text that tiny-text reads; the same base "
        "serves all runs.",
        SEEDS,
        needs="backend=local",
    )
    warmup: bool = key(
        True,
        "Teach the base model the answer format first (uniform answers). Not counted as episodes.",
        needs="backend=local,tinker",
    )
    warmup_tolerance: float | None = key(
        None,
        "Bits from its target from which runs may start where the warm-up does not get as far as it should.",
        (None, 1000),
        above=0,
        needs="backend=local,tinker warmup=True",
    )
    prior_skew: float = key(
        0.0,
        "The base answers a with probability in proportion to (1 + rank of a)^-prior_skew, "
        "with random ranks; at 0 all answers are equally likely.",
        (0, 10),
        needs="backend=local,tabular env_type=single_step warmup=True",
    )
    scoring: Literal["all", "paths"] | None = key(
        None,
        "all: every answer is scored after every update. paths: the secret and some samples alone, "
        "so that the cost hardly grows with N. Default: all up to N=256, and to 2048 where silent "
        "updates are skipped. backend=tinker: paths, for all rewards.",
        needs="backend=local,tinker",
    )
    adapter: Literal["lora", "shared", "full"] = key(
        "lora",
        "What a run trains: lora, shared (one vector for all layers, over frozen matrices), "
        "or full (all weights).",
        needs="backend=local",
    )
    adapter_parameters: int | None = key(
        None, "n, the length of the shared vector.", (1, 2**31), needs="backend=local adapter=shared"
    )
    lora_rank: int = key(
        8,
        "Rank of the adapters; with adapter=shared of the frozen matrices.",
        (1, 2**16),
        needs=f"backend=local,tinker {_OF_LORA}",
    )
    lora_alpha: float = key(
        32.0,
        "Adapters are scaled by lora_alpha / lora_rank.",
        FACTORS,
        needs=f"backend=local {_OF_LORA}",
    )
    lora_targets: Literal["all", "attention", "mlp"] = key(
        "all", "Which matrices get an adapter.", needs=f"backend=local,tinker {_OF_LORA}"
    )
    lora_layers: str | None = key(
        None,
        "Which layers of the model get one, from 0: such as 0-3, 1 or 0-3,8. Default: all.",
        needs=f"backend=local {_OF_LORA}",
    )

    def __post_init__(self) -> None:
        if self.backend == "tinker" and self.model_name == TINY:  # there is no built-in model on the service
            object.__setattr__(self, "model_name", HOSTED_MODEL)
        if self.adapter == "shared" and self.adapter_parameters is None:
            raise ConfigError("adapter=shared needs the number of its parameters: add adapter_parameters=13.")
        if self.adapter == "full" and self.dtype != "float32":
            raise ConfigError(
                f"dtype={self.dtype} does not go with adapter=full, whose small steps it would round away: "
                "leave dtype out."
            )
        if self.lora_layers is not None and not self.adapted_layers:
            raise ConfigError(
                f"lora_layers={self.lora_layers} is not a list of layers: use for example lora_layers=0-3, "
                "lora_layers=1 or lora_layers=0-3,8."
            )

    @property
    def adapted_layers(self) -> tuple[int, ...] | None:
        """The numbers in `lora_layers`, ascending; empty if it is not a list of layers, None if not given."""
        if self.lora_layers is None:
            return None
        parts = [
            re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part.strip())
            for part in self.lora_layers.split(",")
        ]
        ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) if part else range(0) for part in parts]
        return tuple(sorted(set().union(*ranges))) if all(ranges) else ()

    @property
    def default_wording(self) -> Wording:
        """The wording unless one is given; pretrained models hardly answer to the terse one."""
        return "terse" if self.backend == "tabular" or self.model_name == TINY else "plain"
