"""What a report is made of: the keys of `memory-rl report`."""

from __future__ import annotations

from dataclasses import dataclass

from memory_rl.errors import ConfigError
from memory_rl.files import expand, split_paths
from memory_rl.keys import key, path_key


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Which run directories are put on the page, and where it goes."""

    runs: str = key(
        "runs",
        "Run directories, or folders that hold some (a sweep, or several), separated by commas. "
        "A comma in the name of one that exists separates nothing.",
    )
    out: str = path_key(
        "report",
        "The folder of the report. An earlier report there is replaced; other files are never touched.",
    )
    title: str | None = key(
        None, "The heading of the page. Default: the name of the protocol, or of the first folder."
    )
    quiet: bool = key(False, "Print nothing.")

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError(f"runs={self.runs} names no folder: type for example runs=runs.")
        if not self.out.strip():
            raise ConfigError("out= names no folder: type for example out=report.")

    @property
    def paths(self) -> list[str]:
        """The folders, one by one."""
        return [expand(path, "runs") for path in split_paths(self.runs)]
