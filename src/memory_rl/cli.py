"""The command line: memory-rl train | bounds | sft-data-gen | sft-train | sweep | report, each with key=value
arguments.

The scripts at the root of a checkout call it, too.

Exit codes: 0 done, 1 some cells of a sweep failed, 2 bad input (one sentence on standard error), 130
interrupted from the keyboard, 143 by SIGTERM.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGINT
from typing import Any

from memory_rl.config import BoundsConfig, SFTConfig, SFTDataConfig, TrainConfig, describe_keys, parse_config
from memory_rl.errors import ConfigError, LawBreachWarning, MemoryRLError, TrackerWarning, suggest
from memory_rl.reporting.settings import ReportConfig


def _run(config: Any) -> None:
    from memory_rl.api import run_experiment

    result = run_experiment(config)
    if not config.quiet:
        from memory_rl.reporting.terminal import results_table, show, waterfall_table

        show(waterfall_table(result.summary))
        show(results_table(result.summary, str(result.path)))


def _bounds(config: Any) -> None:
    from memory_rl.api import compute_bounds, tell_limits

    tell_limits(config, compute_bounds(config))


def _write_data(config: Any) -> None:
    from memory_rl.api import write_sft_data

    folder = write_sft_data(config)
    if not config.quiet:
        print(f"wrote {config.num_train} training and {config.num_test} test examples to {folder}")


def _report(config: Any) -> None:
    from memory_rl.reporting.report import write_report

    page = write_report(config)
    if not config.quiet:
        print(f"wrote {page}: open it in a browser")


_COMMANDS: dict[str, tuple[type[Any], Callable[[Any], None], str]] = {
    "train": (
        TrainConfig,
        _run,
        "reinforcement learning: memory-rl train env_type=single_step N=64 reward_type=binary",
    ),
    "bounds": (
        BoundsConfig,
        _bounds,
        "ceilings of a reward, nothing is trained: memory-rl bounds N=64 reward_type=binned_log_distance reward_bins=8",
    ),
    "sft-data-gen": (
        SFTDataConfig,
        _write_data,
        "examples of one secret: memory-rl sft-data-gen N=64 fixed_secret=42",
    ),
    "sft-train": (SFTConfig, _run, "supervised learning: memory-rl sft-train N=64 fixed_secret=42"),
    "report": (
        ReportConfig,
        _report,
        "a page over run directories, for any browser: memory-rl report runs=runs out=report",
    ),
}

_SWEEP = "many experiments at once: memory-rl sweep conditions=sft,binary,multi_step N=16,64"


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the command and its key=value arguments; default: those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        with _plain_warnings():
            return _dispatch(words)
    except MemoryRLError as error:
        print(f"memory-rl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        hint = "".join(f", and {note}" for note in getattr(error, "__notes__", []))
        print(f"memory-rl: interrupted; what was measured is kept{hint}.", file=sys.stderr)
        return 128 + int(getattr(error, "signal", SIGINT))


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows the breach of a law or a failed tracker as a sentence, like errors; other warnings as Python
    does.
    """
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, (LawBreachWarning, TrackerWarning)):
                print(f"memory-rl: warning: {message}", file=sys.stderr)
            else:
                shown(message, category, *place, **more)

        warnings.showwarning = show
        yield


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print("usage: memory-rl COMMAND key=value ...   (COMMAND --help lists the keys)\n")
        print("\n".join(f"  {name:<14}{about}" for name, (_, _, about) in _COMMANDS.items()))
        print(f"  {'sweep':<14}{_SWEEP}")
        return 0
    if words[0] == "sweep":
        from memory_rl.experiments import sweep

        return sweep.main(words[1:])
    if words[0] not in _COMMANDS:
        raise ConfigError(f"{words[0]!r} is not a command: {suggest(words[0], [*_COMMANDS, 'sweep'])}")
    kind, run, _ = _COMMANDS[words[0]]
    if {"-h", "--help"} & set(words[1:]):
        print(describe_keys(kind))
        return 0
    run(parse_config(kind, words[1:]))
    return 0
