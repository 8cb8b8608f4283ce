"""A page that follows runs while they go on: built anew where something has changed, until all have ended."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from memory_rl.analysis.collect import SWEEP, find_folders, survey
from memory_rl.errors import RunDirectoryError
from memory_rl.files import as_path, write_whole
from memory_rl.reporting.listing import how_ended, sweeps_in
from memory_rl.reporting.page import hash_of
from memory_rl.reporting.provenance import read_of_sweep
from memory_rl.reporting.report import PAGE, write_report
from memory_rl.reporting.settings import ReportConfig
from memory_rl.reporting.sheets import say
from memory_rl.reporting.wording import asset
from memory_rl.runs.interruption import sigterm_raises
from memory_rl.runs.lock import is_locked
from memory_rl.runs.store import MANIFEST, SUMMARY

_LOOK, _RELOAD = 2.0, 5  # seconds
_STATUS = '<p class="warning" role="status">'


def make_report(config: ReportConfig) -> Path:
    """Writes the report and returns the path of its page; with `watch` once nothing of it runs any more.

    Raises:
        MemoryRLError: as `memory_rl.reporting.report.write_report`.
        KeyboardInterrupt: if it is stopped; the page is as it was last written, and reloads itself no more.
    """
    if not config.watch:
        return write_report(config)
    page = Path(config.out) / PAGE
    try:
        with sigterm_raises():
            _follow(config, page)
            return write_report(config)
    except BaseException as error:
        _stop_reloading(page)
        if isinstance(error, KeyboardInterrupt) and page.exists():
            error.add_note(f"{page} shows what there is of it")
        raise


def _follow(config: ReportConfig, page: Path) -> None:
    """Builds the page whenever something has changed, as long as something runs."""
    before: object = None
    while is_running(config.paths):
        now = _state(config.paths)
        if now != before:
            progress = _progress(config.paths)
            write_report(config, lambda text, said=progress: _followed(text, said))  # type: ignore[misc]
            if not config.quiet:
                say(f"{progress}: {page}")
        before = now
        time.sleep(_LOOK)


def is_running(paths: Sequence[str | Path]) -> bool:
    """Whether a process is at work on one of the runs or sweeps at, below or just above the paths."""
    folders = [as_path(path) for path in paths]
    around = (above for folder in folders for above in (folder, *folder.absolute().parents[:2]))
    sweeps = {*(one for folder in folders for one in sweeps_in(folder)), *around}
    if any(is_locked(sweep) for sweep in sweeps if (sweep / SWEEP).is_file()):
        return True
    try:
        return any(how_ended(cell) == "running" for cell in survey(folders).cells)
    except RunDirectoryError:  # there is nothing yet, which whoever writes the page will say
        return False


def _state(paths: Sequence[str | Path]) -> list[tuple[str, int, int]]:
    """What can be seen of all run directories without reading a file."""
    try:
        folders = [folder for folder, _ in find_folders(paths)]
    except RunDirectoryError:
        folders = []
    files = (folder / name for folder in folders for name in (MANIFEST, SUMMARY))
    found = [(str(file), file.stat()) for file in files if file.exists()]
    return [(name, stat.st_mtime_ns, stat.st_size) for name, stat in found]


def _progress(paths: Sequence[str | Path]) -> str:
    """How far all is, as the start of a sentence."""
    try:
        found = survey(paths)
        complete, there = sum(cell.completed for cell in found.cells), len(found.cells) + len(found.damages)
    except RunDirectoryError:
        complete = there = 0
    records = [read_of_sweep(sweep).get("cells") for path in paths for sweep in sweeps_in(Path(path))]
    total = max(there, sum(len(record) for record in records if isinstance(record, list)))
    return f"{complete} of {total} {'is' if total == 1 else 'are'} complete"


def _followed(page: str, progress: str) -> str:
    """A page that says how far all is, and loads itself again."""
    said = f"{progress} at {datetime.now():%H:%M:%S}; this page loads itself again every {_RELOAD} seconds."
    script = _script()
    allowed = page.replace("script-src ", f"script-src {hash_of(script)} ", 1)
    shown = allowed.replace("<body>", f"<body>\n{_STATUS}{html.escape(said)}</p>", 1)
    before, end, after = shown.rpartition("</body>")
    return f"{before}<script>{script}</script>{end}{after}"


def _script() -> str:
    return asset("reload.js").replace("SECONDS", str(_RELOAD))


def _stop_reloading(page: Path) -> None:
    """Has a page that is left as it is load itself no more."""
    script = f"<script>{_script()}</script>"
    if page.is_file() and script in (text := page.read_text(encoding="utf-8")):
        sentence = f"; this page loads itself again every {_RELOAD} seconds."
        ended = text.replace(sentence, ", when this page was last written.", 1)
        write_whole(page, ended.replace(script, ""))
