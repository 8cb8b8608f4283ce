"""The command line: memory-rl train | sft-data-gen | sft-train, each with key=value arguments. The scripts at the root of a checkout call it, too.

Exit codes: 0 done, 2 bad input (one sentence on standard error), 130 interrupted from the keyboard.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from memory_rl.config import SFTConfig, SFTDataConfig, TrainConfig, WorldConfig, describe_keys, parse_config
from memory_rl.errors import ConfigError, MemoryRLError, suggest


def _run(config: Any) -> None:
    from memory_rl.api import run_experiment
    from memory_rl.training.environments import ceilings, make_environment

    known = ceilings(config, make_environment(config))["bits_by_reward"]
    if known < math.log2(config.N) and not config.quiet:
        print(f"note: several answers earn the top reward; a policy spread over them knows {known:.3g} of {math.log2(config.N):.3g} bits.")
    result = run_experiment(config)
    if not config.quiet:
        from memory_rl.reporting.terminal import results_table, show

        show(results_table(result.summary, str(result.path)))


def _write_data(config: Any) -> None:
    from memory_rl.api import write_sft_data

    folder = write_sft_data(config)
    if not config.quiet:
        print(f"wrote {config.num_train} training and {config.num_test} test examples to {folder}")


_COMMANDS: dict[str, tuple[type[WorldConfig], Callable[[Any], None], str]] = {
    "train": (TrainConfig, _run, "reinforcement learning: memory-rl train env_type=single_step N=64 reward_type=binary"),
    "sft-data-gen": (SFTDataConfig, _write_data, "examples of one secret: memory-rl sft-data-gen N=64 fixed_secret=42"),
    "sft-train": (SFTConfig, _run, "supervised learning: memory-rl sft-train N=64 fixed_secret=42"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the command and its key=value arguments; default: those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(words)
    except MemoryRLError as error:
        print(f"memory-rl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("memory-rl: interrupted; what was measured is kept.", file=sys.stderr)
        return 130


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print("usage: memory-rl COMMAND key=value ...   (COMMAND --help lists the keys)\n")
        print("\n".join(f"  {name:<14}{about}" for name, (_, _, about) in _COMMANDS.items()))
        return 0
    if words[0] not in _COMMANDS:
        raise ConfigError(f"{words[0]!r} is not a command: {suggest(words[0], _COMMANDS)}")
    kind, run, _ = _COMMANDS[words[0]]
    if {"-h", "--help"} & set(words[1:]):
        print(describe_keys(kind))
        return 0
    run(parse_config(kind, words[1:]))
    return 0
