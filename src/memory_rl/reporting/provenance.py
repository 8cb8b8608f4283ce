"""Where the numbers of a report come from: sweeps and their protocols, commands, versions and code."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory_rl.analysis.collect import SWEEP, Cell, Damage
from memory_rl.analysis.protocol import Protocol, load_protocol
from memory_rl.analysis.verdicts import Verdict, judge
from memory_rl.errors import ConfigError
from memory_rl.experiment import command_line
from memory_rl.files import read_json
from memory_rl.runs.store import SUMMARY

PROTOCOL = "protocol.yaml"


@dataclass(frozen=True)
class Judgement:
    """A sweep's protocol and what it says of the sweep's cells.

    Attributes:
        folder: the sweep.
        protocol: as it was written before the first run.
        verdicts: in the order of its hypotheses.
        changed: whether the file is no longer the one that sweep.json names.
        command: the command line of the sweep, if known.
    """

    folder: Path
    protocol: Protocol
    verdicts: list[Verdict]
    changed: bool
    command: str | None

    @property
    def says(self) -> bool:
        """Whether there is anything to say of it: a protocol without hypotheses only ranks."""
        return bool(self.verdicts) or self.changed


def judge_sweeps(paths: Iterable[str | Path], cells: Sequence[Cell]) -> list[Judgement]:
    """Judges each sweep with a protocol among the paths, on all cells that it holds.

    A cell belongs to the nearest folder above it that holds a protocol, up to the path that was given.
    """
    roots = [Path(path) for path in paths]
    folders = defaultdict(list)
    for cell in cells:
        folders[_sweep_of(cell, roots)].append(cell)
    return [
        _judge(folder, protocol, folders[folder])
        for folder in filter(None, folders)
        if (protocol := _protocol_of(folder)) is not None
    ]


def _sweep_of(cell: Cell, roots: Sequence[Path]) -> Path | None:
    above = (folder for folder in (cell.path, *cell.path.parents) if any(map(folder.is_relative_to, roots)))
    return next((folder for folder in above if (folder / PROTOCOL).is_file()), None)


def _protocol_of(folder: Path) -> Protocol | None:
    """The protocol of a sweep, unless it is damaged."""
    try:
        return load_protocol(folder / PROTOCOL)
    except ConfigError:
        return None


def damages_of_sweeps(paths: Iterable[str | Path], cells: Iterable[Cell]) -> Iterator[Damage]:
    """The files of the sweeps among the paths that cannot be read; nothing is judged or noted by them."""
    roots = [Path(path) for path in paths]
    above = dict.fromkeys(folder for cell in cells for folder in cell.path.parents)
    for folder in (folder for folder in above if any(map(folder.is_relative_to, roots))):
        if (folder / SWEEP).exists():
            yield from filter(None, (_damage_of(folder / name) for name in (SWEEP, SUMMARY)))
        if (folder / PROTOCOL).exists():
            try:
                load_protocol(folder / PROTOCOL)
            except ConfigError as error:
                yield Damage(folder / PROTOCOL, str(error))


def _damage_of(path: Path) -> Damage | None:
    try:
        read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return Damage(path, f"{path} cannot be read ({error}): restore it.")
    return None


def _judge(folder: Path, protocol: Protocol, cells: Sequence[Cell]) -> Judgement:
    sweep = read_of_sweep(folder)
    noted = (sweep.get("protocol") or {}).get("sha256")
    changed = noted not in (None, protocol.sha256)
    return Judgement(folder, protocol, judge(protocol, cells), changed, sweep.get("command"))


def read_of_sweep(folder: Path, name: str = SWEEP) -> dict[str, Any]:
    """What a JSON file of a sweep holds; nothing if it is missing or damaged."""
    try:
        return read_json(folder / name)
    except (OSError, ValueError):
        return {}


def command_of(cell: Cell) -> str:
    """The command that makes this cell again; a comment, where an object in Python had a part in it."""
    command = cell.manifest.get("command") or command_line(cell.experiment)
    return str(command or f"# {cell.path}: no command makes this again, since an object in Python was given.")


def versions(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Each library, and the code itself, with the versions that were used."""
    used = defaultdict(list)
    for cell in cells:
        for name, version in cell.manifest.get("versions", {}).items():
            used[name].append(version)
    return [(name, _listed(values)) for name, values in (*used.items(), ("commit", map(_code, cells)))]


def _code(cell: Cell) -> str:
    code = cell.manifest.get("code") or {}
    changes = " with changes" if code.get("changed") else ""
    return f"{code['commit']}{changes}" if code.get("commit") else "no checkout"


def _listed(values: Iterable[Any]) -> str:
    counts = Counter(str(value) for value in values if value is not None).most_common()
    if len(counts) == 1:
        return counts[0][0]
    return ", ".join(f"{value} ({count} cells)" for value, count in counts)
