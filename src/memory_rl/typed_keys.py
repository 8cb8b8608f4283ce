"""The keys as type checkers see them, so that `train(n=64)` is an error before it runs.

Each is described, with its default and range, in config.py; a test holds these types against those.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from memory_rl.config import Backend, EnvType, Wording


class WorldKeys(TypedDict, total=False):
    """What is asked."""

    env_type: EnvType
    N: int
    fixed_secret: int | None
    seed: int
    wording: Wording | None


class RewardKeys(TypedDict, total=False):
    """What is shown."""

    signal: Literal["reward", "example"]
    reward_type: Any
    reward_bins: int | None
    reward_noise: float
    credit: Literal["step", "reward_to_go", "episode"]


class BoundsKeys(WorldKeys, RewardKeys, total=False):
    """All of a channel whose ceilings are asked for."""

    memorised_at: float


class SFTKeys(WorldKeys, total=False):
    """All of supervised learning."""

    num_secrets: int
    order: Literal["uniform", "cycle", "blocks"]
    backend: Backend
    tabular_bits: Literal["positions", "prefixes"]
    model_name: str
    dtype: Literal["float32", "bfloat16", "float16"]
    device: Literal["cpu", "cuda", "mps"] | None
    gradient_checkpointing: bool
    base_seed: int
    warmup: bool
    scoring: Literal["all", "paths"] | None
    adapter: Literal["lora", "shared", "full"]
    adapter_parameters: int | None
    lora_rank: int
    lora_alpha: float
    lora_targets: Literal["all", "attention", "mlp"]
    lora_layers: str | None
    batch_size: int
    optimiser: Literal["adam", "sgd"]
    learning_rate: float | None
    memorised_at: float
    stop_at: float
    memorised_share: float
    max_episodes: int | None
    num_runs: int
    evaluate_every: int | None
    ledger: bool
    log_path: str | None
    resume: bool
    checkpoint_every: float | None
    save_adapters: bool
    data_dir: str
    threads: int
    tinker_base_url: str | None
    max_tokens_total: int | None
    wandb_project: str | None
    trackio_project: str | None
    tensorboard: bool
    quiet: bool


class TrainKeys(SFTKeys, RewardKeys, total=False):
    """All of an experiment."""

    algorithm: Any
    group_size: int
    skip_ahead: bool | None
    baseline: Literal["group", "none"]
    ppo_clip: float
    ppo_epochs: int
    posterior_epochs: int


class DataKeys(WorldKeys, total=False):
    """All of labelled examples."""

    num_train: int
    num_test: int
    data_dir: str
    quiet: bool


class ReportKeys(TypedDict, total=False):
    """All of a report."""

    runs: str
    out: str
    title: str | None
    quiet: bool
