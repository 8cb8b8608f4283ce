"""The keys of a sweep itself, and how its arguments part into these and the axes of its grid."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

import chz

from memory_rl.config import SFTConfig, TrainConfig, parse_config
from memory_rl.errors import ConfigError, suggest

MANAGED = ("log_path", "quiet", "resume")
"""Keys of a cell that the sweep itself sets."""

OPERATIONAL = (
    *MANAGED,
    "threads",
    "checkpoint_every",
    "save_adapters",
    "wandb_project",
    "trackio_project",
    "tensorboard",
)
"""Keys that change nothing in what is measured: cells that differ in them alone are the same cell."""

TUNING_SEED = 1_000_000

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The candidates of a tuning, as multiples of the rate that a condition has without it."""


@chz.chz(typecheck=True)
class SweepConfig:
    """A grid of experiments. Beside these keys every key of train and sft-train is an axis: values with
    commas between them.
    """

    protocol: str | None = chz.field(
        default=None, doc="The name of a shipped protocol, such as quick, or the path of one: fixes the grid."
    )
    grid: str | None = chz.field(
        default=None,
        doc="A YAML file with a grid: a list of entries, each with command: train or sft and keys, a list being an axis.",
    )
    conditions: str | None = chz.field(
        default=None,
        doc="Of a grid on the command line: any of sft, binary, log_distance, binned_log_distance, multi_step, sft_multi_step, file.py:Name.",
    )
    log_path: str | None = chz.field(
        default=None,
        doc="The sweep's directory, or any URL that fsspec can write. Default: a new one under sweeps/.",
    )
    executor: Literal["inline", "processes", "ray"] = chz.field(
        default="inline", doc="Where cells run: in this process, in local ones, or on a Ray cluster."
    )
    workers: int | None = chz.field(
        default=None,
        doc="Processes at once (executor=processes, or ray without an address). Default: one a CPU core.",
    )
    ray_address: str | None = chz.field(
        default=None, doc="Of a running Ray cluster, such as auto or host:6379. Default: one on this machine."
    )
    retries: int = chz.field(default=3, doc="How often a cell is begun again after its worker was lost.")
    dry_run: bool = chz.field(
        default=False, doc="List the cells with estimated episodes and time, and run nothing."
    )
    tune: bool = chz.field(
        default=False,
        doc="Choose the learning rate of each condition and N on secrets of their own, then report on fresh ones.",
    )
    tune_rates: str | None = chz.field(
        default=None,
        doc="The candidates, with commas between them. Default: 0.1, 0.3, 1, 3 and 10 times the rate that the condition has without tuning.",
    )
    tune_seed: int = chz.field(
        default=TUNING_SEED, doc="The seed of the tuning secrets; none of the reported seeds."
    )
    tune_runs: int | None = chz.field(
        default=None, doc="Runs of each candidate. Default: as many as the cell has."
    )
    quiet: bool = chz.field(default=False, doc="Print nothing but what failed.")

    @chz.validate
    def _check_grid(self) -> None:
        if self.protocol is not None and self.grid is not None:
            raise ConfigError(
                f"protocol={self.protocol} and grid={self.grid} are two grids: give one of them."
            )
        for key in ("protocol", "grid"):
            if getattr(self, key) is not None and self.conditions is not None:
                raise ConfigError(
                    f"conditions={self.conditions} has no meaning with {key}={getattr(self, key)}, which lists its own: leave one of them out."
                )
        if self.protocol is not None and self.tune:
            raise ConfigError(
                f"tune=True cannot be added to protocol={self.protocol}, which fixes its tuning: copy the protocol and set tune there."
            )

    @chz.validate
    def _check_executor(self) -> None:
        if self.workers is not None and self.executor == "inline":
            raise ConfigError(
                f"workers={self.workers} has no meaning with executor=inline: add executor=processes or leave workers out."
            )
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers={self.workers} is too small: use workers=1 or more.")
        if self.retries < 0:
            raise ConfigError(f"retries={self.retries} is too small: use retries=0 or more.")
        if self.ray_address is not None and self.executor != "ray":
            raise ConfigError(
                f"ray_address={self.ray_address} has no meaning with executor={self.executor}: add executor=ray or leave ray_address out."
            )
        if self.ray_address is not None and self.ray_address.startswith("ray://"):
            raise ConfigError(
                f"ray_address={self.ray_address} is of a Ray Client: run the sweep on a machine of the cluster and give host:6379, or auto."
            )
        if self.ray_address is not None and self.workers is not None:
            raise ConfigError(
                f"workers={self.workers} has no meaning with ray_address={self.ray_address}, whose nodes say what they can do: leave workers out."
            )
        if self.executor == "ray" and importlib.util.find_spec("ray") is None:
            raise ConfigError(
                "executor=ray needs Ray, which is not installed: type pip install 'memory-rl[ray]', or use executor=processes."
            )

    @chz.validate
    def _check_tuning(self) -> None:
        if not self.tune:
            for key in ("tune_rates", "tune_runs"):
                if getattr(self, key) is not None:
                    raise ConfigError(
                        f"{key}={getattr(self, key)} has no meaning without tuning: add tune=True or leave {key} out."
                    )
        self.tuning  # noqa: B018  # raises if a value is bad

    @property
    def tuning(self) -> Tuning | None:
        """How rates are chosen, or None where they are given."""
        if not self.tune:
            return None
        rates = None if self.tune_rates is None else [rate.strip() for rate in self.tune_rates.split(",")]
        return read_tuning({"rates": rates, "seed": self.tune_seed, "num_runs": self.tune_runs}, "tune_")


@dataclass(frozen=True)
class Tuning:
    """How learning rates are chosen.

    Attributes:
        rates: the candidates, ascending; None for multiples of each condition's own.
        factors: these multiples, ascending.
        seed: of the tuning secrets.
        num_runs: of each candidate; None for as many as the cell has.
        together: keys: cells that differ in them alone, beside seed and runs, share one rate, chosen on one
            of them.
        chosen_on: selections (keys with a value, or a list of values): that one is the first cell that fits
            the first of these that any cell fits. If none does, it is the middle one.
    """

    rates: tuple[float, ...] | None = None
    factors: tuple[float, ...] = FACTORS
    seed: int = TUNING_SEED
    num_runs: int | None = None
    together: tuple[str, ...] = ()
    chosen_on: tuple[Mapping[str, Any], ...] = ()


def read_tuning(values: dict[str, Any], prefix: str = "tune: ") -> Tuning:
    """The tuning of a protocol, a grid file or the command line.

    Args:
        values: any of rates or factors (lists), seed, num_runs, together (a list of keys) and chosen_on (a
            list of selections).
        prefix: what the keys are called by.

    Raises:
        ConfigError: one sentence about the first unknown key or bad value.
    """
    names = ("rates", "factors", "seed", "num_runs", "together", "chosen_on")
    for name, value in values.items():
        if name not in names:
            raise ConfigError(f"{prefix}{name}={value} is not a known key: {suggest(name, names)}")
    rates, seed, num_runs = values.get("rates"), values.get("seed", TUNING_SEED), values.get("num_runs")
    for name, number, least in (("seed", seed, 0), ("num_runs", num_runs, 1)):
        if number is not None and (type(number) is not int or number < least):
            raise ConfigError(
                f"{prefix}{name}={number} is not an integer of at least {least}: type for example {prefix}{name}=16."
            )
    factors, together = values.get("factors"), _read_keys(values.get("together"), f"{prefix}together")
    if rates is not None and factors is not None:
        raise ConfigError(
            f"{prefix}factors={factors} has no meaning with rates={rates}: leave one of them out."
        )
    return Tuning(
        None if rates is None else _read_rates(rates, f"{prefix}rates"),
        FACTORS if factors is None else _read_rates(factors, f"{prefix}factors"),
        seed,
        num_runs,
        together,
        _read_selections(values.get("chosen_on"), f"{prefix}chosen_on", together),
    )


def _read_keys(keys: Any, name: str) -> tuple[str, ...]:
    if keys is None:
        return ()
    if not isinstance(keys, list) or not keys:
        raise ConfigError(
            f"{name}={keys} is not a list of keys: give one or more, such as [num_secrets, batch_size]."
        )
    _check_keys(keys, name)
    return tuple(keys)


def _read_selections(selections: Any, name: str, together: tuple[str, ...]) -> tuple[Mapping[str, Any], ...]:
    if selections is None:
        return ()
    if not together:
        raise ConfigError(
            f"{name}={selections} has no meaning where each cell is tuned by itself: add together, or leave chosen_on out."
        )
    if not isinstance(selections, list) or not all(
        isinstance(selection, dict) and selection for selection in selections
    ):
        raise ConfigError(
            f"{name}={selections} is not a list of selections: give one or more, such as [{{num_secrets: 16, order: cycle}}]."
        )
    for selection in selections:
        _check_keys(selection, name)
    return tuple(selections)


def _check_keys(keys: Iterable[Any], name: str) -> None:
    for key in keys:
        if key not in cell_keys():
            raise ConfigError(
                f"{name} has {key}, which is no key of a cell: {suggest(str(key), cell_keys())}"
            )


def _read_rates(rates: Any, name: str) -> tuple[float, ...]:
    try:
        numbers = {float(rate) for rate in rates}
    except (TypeError, ValueError):
        numbers = set()
    if len(numbers) < 2 or not all(rate > 0 and math.isfinite(rate) for rate in numbers):
        shown = ",".join(map(str, rates)) if isinstance(rates, list) else rates
        raise ConfigError(
            f"{name}={shown} is not a choice of positive numbers: give two or more, such as 0.0003,0.001,0.003."
        )
    return tuple(sorted(numbers))


def cell_keys() -> dict[str, Any]:
    """The keys that a cell may have, with their types."""
    return {
        key: hint
        for kind in (SFTConfig, TrainConfig)
        for key, hint in get_type_hints(kind).items()
        if key not in MANAGED
    }


def read_arguments(words: Iterable[str]) -> tuple[SweepConfig, dict[str, str]]:
    """Parts key=value arguments into the sweep's own keys and those of its cells, whose values are still
    texts with commas.

    Raises:
        ConfigError: one sentence about the first argument that is not key=value, unknown, given twice or bad.
    """
    own, of_cells = get_type_hints(SweepConfig), cell_keys()
    mine: list[str] = []
    axes: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r} is not of the form key=value: type for example N=16,64.")
        if key in own:
            mine.append(word)
        elif key not in of_cells:
            raise ConfigError(f"{key}={text} is not a known key: {suggest(key, [*own, *of_cells])}")
        elif key in axes:
            raise ConfigError(
                f"{key} is given twice ({axes[key]} and {text}): give it once, with commas between its values."
            )
        else:
            axes[key] = text
    config = parse_config(SweepConfig, mine)
    fixed = next(
        (f"{key}={getattr(config, key)}" for key in ("protocol", "grid") if getattr(config, key) is not None),
        None,
    )
    for key, text in axes.items():
        if fixed is not None and key not in OPERATIONAL:
            raise ConfigError(
                f"{key}={text} cannot be added to {fixed}, which fixes its cells: copy that file and change {key} there."
            )
    return config, axes
