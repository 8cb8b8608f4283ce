"""The command line: memory-rl train | bounds | sft-data-gen | sft-train | sweep | report | list | ...

Arguments are key=value. The scripts at the root of a checkout call it, too.

Exit codes: 0 done, 1 some cells of a sweep failed, 2 bad input or an experiment that failed (one sentence on
standard error), 130 interrupted from the keyboard, 143 interrupted by SIGTERM.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from signal import SIGINT, SIGPIPE
from typing import TYPE_CHECKING, Any, get_args

from memory_rl.api import (
    DataFiles,
    data_files,
    run,
    write_sft_data,
)
from memory_rl.catalogue import bounds_keys, experiment_keys
from memory_rl.config import LEARNERS, Command
from memory_rl.errors import ConfigError, MemoryRLError, MemoryRLWarning, suggest
from memory_rl.experiment import parse_experiment
from memory_rl.files import print_anything
from memory_rl.key_files import FILE_KEYS
from memory_rl.keys import Key, keys_of, members_of, parse, split_words
from memory_rl.plans import make_plan, plan_keys
from memory_rl.reporting.settings import (
    AuditConfig,
    CompareConfig,
    ListConfig,
    ReportConfig,
    with_paths,
)

if TYPE_CHECKING:
    from memory_rl.reporting.sheets import Sheet


def _train(words: list[str], command: Command = "train") -> int:
    run(parse_experiment(words, command))
    return 0


def _sft(words: list[str]) -> int:
    return _train(words, "sft")


def _bounds(words: list[str]) -> int:
    from memory_rl.condition import condition_of, show_ceilings

    show_ceilings(condition_of(split_words(words), typed=False))
    return 0


def _write_data(words: list[str]) -> int:
    files = data_files(split_words(words), typed=False)
    folder = write_sft_data(files)
    if not files.quiet:
        print(f"wrote {files.num_train} training and {files.num_test} test examples to {folder}")
    return 0


def _report(words: list[str]) -> int:
    from memory_rl.reporting.watch import make_report

    words = ["watch=True" if word == "--watch" else word for word in words]
    paths = [word for word in words if "=" not in word and not word.startswith("-")]
    others = [word for word in words if word not in paths]
    config = parse(ReportConfig, [*others, *([f"runs={','.join(paths)}"] if paths else [])])
    page = make_report(config)
    if not config.quiet:
        print(f"wrote {page}: open it in a browser")
    return 0


def _list(words: list[str]) -> int:
    from memory_rl.reporting.listing import list_folders, listing_notes, listing_sheet
    from memory_rl.reporting.sheets import console_for, say, show

    paths, others = with_paths(words)
    config = parse(ListConfig, others)
    frame = list_folders(paths, config.sort, cells=config.cells)
    console = console_for()
    show(listing_sheet(frame, console.width if console.is_terminal else None), console)
    for note in listing_notes(frame):
        say(note)
    return 0


def _compare(words: list[str]) -> int:
    from memory_rl.reporting.comparison import compare_paths

    paths, others = with_paths(words)
    config = parse(CompareConfig, others)
    if not paths:
        raise ConfigError("there is nothing to compare: type for example memory-rl compare runs/a runs/b.")
    found = compare_paths(paths, config.to)
    return _tell([found.sentence], found.sheet(), found.warnings)


def _plan(words: list[str]) -> int:
    paths, others = with_paths(words)
    given = split_words(others)
    plan = make_plan(paths, given, typed=False)
    return _tell(plan.sentences, plan.sheet(), plan.notes, given.get("out"))


def _audit(words: list[str]) -> int:
    from pathlib import Path

    from memory_rl.reporting.audit import audit_path

    paths, others = with_paths(words)
    config = parse(AuditConfig, others)
    if len(paths) != 1:
        given = f"{len(paths)} were given" if paths else "none was given"
        raise ConfigError(f"audit takes one path, and {given}: type for example memory-rl audit runs/grpo.")
    found = audit_path(Path(paths[0]), config)
    return _tell(found.sentences, found.sheet(), found.notes, config.out)


def _tell(sentences: Iterable[str], sheet: Sheet, notes: Iterable[str], out: str | None = None) -> int:
    """Prints an answer: in sentences, in a table, what limits it, and where its page is."""
    from memory_rl.reporting.sheets import say, show

    for sentence in sentences:
        say(sentence)
    show(sheet)
    for note in notes:
        say(f"note: {note}")
    if out:
        say(f"wrote {out}/index.html: open it in a browser")
    return 0


def _sweep(words: list[str]) -> int:
    from memory_rl.experiments import sweep

    return sweep.main(words)


def _keys_of_sft() -> dict[str, Key]:
    own = {
        word: one
        for word, one in experiment_keys().items()
        if word != "signal" and not one.needs.startswith(("signal=reward", "signal=teacher"))
    }
    return {**own, **FILE_KEYS}


def _keys_of_sweep() -> dict[str, Key]:
    from memory_rl.experiments.settings import SweepConfig

    return {**keys_of(SweepConfig), **FILE_KEYS}


@dataclass(frozen=True)
class Subcommand:
    """One of the commands: what it does, its keys, the function that runs it, examples, and what it takes."""

    about: str
    keys: Callable[[], Mapping[str, Key]]
    run: Callable[[list[str]], int]
    examples: tuple[str, str]
    takes: str = ""


_COMMANDS = {
    "train": Subcommand(
        "reinforcement learning",
        lambda: {**experiment_keys(), **FILE_KEYS},
        _train,
        (
            "env_type=single_step N=64 reward_type=binary",
            "env_type=multi_step N=64 algorithm=ppo num_runs=64",
        ),
    ),
    "bounds": Subcommand(
        "ceilings of a reward; nothing is trained",
        lambda: {**bounds_keys(), **FILE_KEYS},
        _bounds,
        ("N=64 reward_type=binned_log_distance reward_bins=8", "env_type=multi_step N=64 reward_noise=0.1"),
    ),
    "sft-data-gen": Subcommand(
        "examples of one secret",
        lambda: {**keys_of(DataFiles), **FILE_KEYS},
        _write_data,
        ("N=64 fixed_secret=42", "N=64 fixed_secret=42 env_type=multi_step"),
    ),
    "sft-train": Subcommand(
        "supervised learning",
        _keys_of_sft,
        _sft,
        ("N=64 fixed_secret=42", "N=64 num_runs=64 learning_rate=0.001"),
    ),
    "sweep": Subcommand(
        "many experiments at once; all keys of train and sft-train are axes, with commas between values",
        _keys_of_sweep,
        _sweep,
        ("conditions=sft,binary,multi_step N=16,64", "protocol=quick log_path=sweeps/quick"),
    ),
    "report": Subcommand(
        "a page over run directories, for any browser",
        lambda: keys_of(ReportConfig),
        _report,
        ("runs=runs out=report", "runs=sweeps/quick title=Quick"),
    ),
    "list": Subcommand(
        "what runs and sweeps there are, how each ended, and what came out",
        lambda: keys_of(ListConfig),
        _list,
        ("sort=rate", "sweeps/quick sort=N"),
        "[FOLDER ...] ",
    ),
    "compare": Subcommand(
        "runs or sweeps side by side: bits per episode, ratios, and who can be told apart",
        lambda: keys_of(CompareConfig),
        _compare,
        ("runs/one runs/other", "sweeps/quick to=first"),
        "RUN RUN ... ",
    ),
    "plan": Subcommand(
        "what an experiment needs: groups and bits from pass rates, runs from a pilot, or episodes for N=",
        plan_keys,
        _plan,
        ("p=0.18 group_size=8 tokens=500 price=0.4", "sweeps/quick ratio=1.2 power=0.9"),
        "[PILOT ... | AUDIT] ",
    ),
    "audit": Subcommand(
        "what the rollouts of a real run could tell: bits delivered, silent groups, pass rates",
        lambda: keys_of(AuditConfig),
        _audit,
        ("runs/grpo out=audit", "rollouts.csv step=iteration prompt=question reward=score"),
        "PATH ",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the command and its key=value arguments; default: those of the process.
    """
    words = sys.argv[1:] if argv is None else argv
    print_anything()
    atexit.register(gc.freeze)  # else Python looks for garbage in all of torch before it ends: a second
    try:
        with _plain_warnings():
            code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + SIGPIPE
    except MemoryRLError as error:
        print(f"memory-rl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        what = "; ".join(["interrupted", *getattr(error, "__notes__", [])])
        print(f"memory-rl: {what}.", file=sys.stderr)
        return 128 + int(getattr(error, "signal", SIGINT))


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows our own warnings as sentences, like errors; others as Python does."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, MemoryRLWarning):
                with suppress(OSError):  # nobody reads it
                    print(f"memory-rl: warning: {message}", file=sys.stderr)
            else:
                shown(message, category, *place, **more)

        warnings.showwarning = show
        yield


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        return _show_commands()
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"memory-rl {version('memory-rl')}")
        return 0
    if words[0] not in _COMMANDS:
        raise ConfigError(f"{words[0]!r} is not a command: {suggest(words[0], _COMMANDS)}")
    if {"-h", "--help"} & {*words[1:]}:
        return _show_keys(words[0], _COMMANDS[words[0]])
    if "--version" in words[1:]:
        return _dispatch(["--version"])
    return _COMMANDS[words[0]].run(words[1:])


def _show_commands() -> int:
    print("usage: memory-rl COMMAND key=value ...\n")
    for name, command in _COMMANDS.items():
        print(_wrapped(f"  {name:<14}", command.about))
    hint = "memory-rl COMMAND --help lists the keys of a command, memory-rl --version says which version "
    print("\n" + _wrapped("", f"{hint}this is."))
    return 0


def _show_keys(name: str, command: Subcommand) -> int:
    called = _called(name)
    print(f"usage: {called} {command.takes}key=value ...\n")
    print(_wrapped("", f"{command.about[0].upper()}{command.about[1:]}.") + "\n\nexamples:")
    for example in command.examples:
        print(_wrapped("  ", f"{called} {example}"))
    part = ""
    for word, one in command.keys().items():
        if one.part != part:
            part = one.part
            print(f"\n{_HEADINGS.get(part, 'keys')}:")
        print(_wrapped("  ", f"{word}={_type_of(one)}"))
        print(_wrapped("      ", _meaning(one)))
    return 0


_HEADINGS = {
    "world": "the world: what is asked",
    "signal": "the signal: what an episode shows of the secret",
    "policy": "the policy: where parameters live",
    "updates": "the learner: how parameters move",
    "settings": "settings of single algorithms",
    "stop": "when a run ends, and how it is measured",
    "keep": "what is kept and shown; changes nothing in what is measured",
    "file": "keys from a file",
    "pilot": "from a pilot: how many runs",
    "rates": "from pass rates (p, groups, and the others), or for N= (the others)",
}
_TYPES = {int: "integer", float: "number", bool: "True|False", str: "text", Any: "text"}


def _type_of(one: Key) -> str:
    if one.word == "algorithm":
        return " | ".join([*LEARNERS, "file.py:Name"])  # spaces let lines break
    members = members_of(one.hint)
    return "|".join(_TYPES.get(member) or "|".join(map(str, get_args(member))) for member in members)


def _meaning(one: Key) -> str:
    default = "" if one.default is None or "Default" in one.doc else f" Default: {one.default}."
    clauses = (clause for clause in one.needs.split() if not clause.startswith("signal=reward"))
    needs = ", ".join(clauses)
    return f"{one.doc}{default}{f' Only with {needs}.' if needs else ''}"


def _wrapped(start: str, text: str) -> str:
    """A text wrapped to the terminal's width and indented under its start; no word is broken."""
    width = min(100, shutil.get_terminal_size().columns)
    return textwrap.fill(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _called(name: str) -> str:
    """How this command was called: as a script of a checkout, or as memory-rl."""
    script = f"{name.replace('-', '_')}.py"
    return f"python {script}" if sys.argv[0].endswith(script) else f"memory-rl {name}"
