"""Where things are kept and shown: all that changes no number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from memory_rl.errors import ConfigError
from memory_rl.keys import key, path_key
from memory_rl.limits import EPISODES


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Where things are kept and shown: exactly the keys that change nothing in what is measured."""

    log_path: str | None = path_key(None, "The run directory. Default: a new one under runs/.")
    resume: bool = key(
        False,
        "Resume the run in log_path from its last checkpoint; one that is complete is only read.",
        needs="log_path",
    )
    checkpoint_every: float | None = key(
        None,
        "Seconds between checkpoints, 0 for one after each update. "
        "Default: 60, or more where one takes over 0.6; with backend=tinker 0.",
        (0, 1e9),
    )
    save_adapters: bool = key(
        False,
        "At the end, keep each run's adapter in adapters/run-<i>/, as PEFT loads it, or transformers.",
        needs="backend=local",
    )
    save_base: bool = key(
        False,
        "Keep the base model of the adapters, too, in adapters/base/, as transformers loads it.",
        needs="save_adapters=True",
    )
    data_dir: str = path_key(
        "data",
        "Where the examples of fixed_secret are; without it each run is shown its own secret.",
        needs="signal=example fixed_secret",
    )
    threads: int = key(
        1,
        "CPU threads. One is enough for the built-in model; a large model wants more.",
        (1, 1024),
        needs="backend=local,tabular",
    )
    tinker_base_url: str | None = key(
        None, "Where the service is. Default: the SDK's own, and so TINKER_BASE_URL.", needs="backend=tinker"
    )
    max_tokens_total: int | None = key(
        None, "The most tokens sampled, prefilled and trained by all runs.", EPISODES, needs="backend=tinker"
    )
    wandb_project: str | None = key(None, "Follow the experiment in this project of Weights & Biases.")
    trackio_project: str | None = key(None, "Follow the experiment in this project of Trackio.")
    tensorboard: bool = key(False, "Write an event file for TensorBoard, in tensorboard/ of log_path.")
    figures: bool = key(True, "Draw the run directory's figures; report.py can do so later, from its tables.")
    role: Literal["default", "best"] | None = key(
        None,
        "Of a cell of a sweep that measures both, which the sweep sets itself: as the package has it, or "
        "with what its tuning chose.",
    )
    verbose: bool = key(False, "Print the device and all ceilings, too, before the run.")
    quiet: bool = key(False, "Print nothing.")

    def __post_init__(self) -> None:
        for word, name in (("wandb_project", self.wandb_project), ("trackio_project", self.trackio_project)):
            if name is not None and not re.fullmatch(r"[\w .-]{1,128}", name):
                raise ConfigError(
                    f"{word}={name} is not the name of a project: use up to 128 letters, digits, spaces, "
                    f"dots, - and _, such as {word}=memory-rl."
                )
        if self.tinker_base_url is not None and not re.match(r"https?://.", self.tinker_base_url):
            raise ConfigError(
                f"tinker_base_url={self.tinker_base_url} is not an address: use one such as "
                "tinker_base_url=http://127.0.0.1:8000."
            )
