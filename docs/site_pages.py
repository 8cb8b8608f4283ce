"""What of the docs site is made, not written: its start page, the tutorial, the changes, and every key.

A hook of MkDocs, see mkdocs.yml. The start page is the README, the tutorial the notebook with its outputs,
and the keys come from the catalogue that `--help` prints. A link to a file outside docs/ leads to a copy.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from memory_rl import cli
from memory_rl.catalogue import experiment_keys

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

    from memory_rl.keys import Key

ROOT = Path(__file__).parents[1]
_FROM_ROOT = {"index.md": "README.md", "changes.md": "CHANGELOG.md"}
"""Pages that are files of the checkout's root."""
_PAGES = {name: page for page, name in _FROM_ROOT.items()} | {"docs/tutorial.ipynb": "tutorial.md"}
"""Where on the site a file of the checkout is shown."""
_INTERVAL = re.compile(r"(?<=\d) \[[\d.]+, (?:[\d.]+|-|beyond)\](?!\()")
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=(?:#[^)]*)?\))")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages that are made, and the files outside docs/ to which any page links."""
    from mkdocs.structure.files import File

    made = {page: (ROOT / name).read_text(encoding="utf-8") for page, name in _FROM_ROOT.items()}
    made |= {"reference/keys.md": _every_key(), "reference/other_keys.md": _other_keys()}
    tutorial, pictures = _tutorial()
    for page, text in {**made, "tutorial.md": tutorial, **pictures}.items():
        files.append(File.generated(config, page, content=text))
    pages = [*files.documentation_pages()]
    targets = {link_target(link, one.src_uri) for one in pages for link in _LINK.findall(one.content_string)}
    for name in sorted(name for name in targets if name.startswith("source/")):
        origin = str(ROOT / name.removeprefix("source/"))
        files.append(File.generated(config, name, abs_src_path=origin))
    return files


def _tutorial() -> tuple[str, dict[str, bytes]]:
    """The notebook as a page, with the outputs that are kept in it, and its pictures by name."""
    from nbconvert import MarkdownExporter

    folder = {"output_files_dir": "tutorial_files"}
    page, made = MarkdownExporter().from_filename(ROOT / "docs" / "tutorial.ipynb", resources=folder)
    return f"{page}\n[The notebook itself](tutorial.ipynb)\n", made["outputs"]


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes a page that is written for a repository fit for the site."""
    return for_python_markdown(with_whole_intervals(with_links(markdown, page.file.src_uri)))


def link_target(link: str, page: str) -> str:
    """Where on the site a relative link of a page leads; as it is if nothing is there."""
    folder = "." if page in _FROM_ROOT else f"docs/{PurePosixPath(page).parent}"
    path = os.path.normpath(f"{folder}/{link}")
    shown = _PAGES.get(path)
    if shown not in (None, page):
        return shown
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" if (ROOT / path).is_file() else link


def with_links(markdown: str, page: str) -> str:
    """A page with its relative links as they are on the site."""
    folder = PurePosixPath(page).parent
    return _LINK.sub(lambda found: os.path.relpath(link_target(found[1], page), folder), markdown)


def with_whole_intervals(markdown: str) -> str:
    """A page in whose tables no line is broken between a number and its interval, or within that."""
    return re.sub(
        r"^\|.*",
        lambda row: _INTERVAL.sub(lambda found: found[0].replace(" ", "\u00a0"), row[0]),
        markdown,
        flags=re.M,
    )


def for_python_markdown(markdown: str) -> str:
    """Lists as Python-Markdown wants them: blank lines before them and after blocks, four spaces a level."""
    lines: list[str] = []
    fenced = in_list = has_blocks = False
    for line in markdown.splitlines():
        bare = line.lstrip()
        after_blank = not lines or not lines[-1].strip()
        item = not fenced and re.match(r"([-*]|\d+\.) ", line) is not None
        starts_block = bare != "" and bare == line and not fenced and (after_blank or bare[0] == "#")
        if item and not after_blank and (has_blocks or not in_list):
            lines.append("")
        if item or starts_block:
            in_list, has_blocks = item, False
        if in_list and bare not in ("", line):
            has_blocks |= after_blank
            line = " " * (4 if line.startswith("    ") and not fenced else 2) + line
        lines.append(line)
        fenced ^= bare.startswith("```")
    return "\n".join(lines) + "\n"


def _every_key() -> str:
    parts: dict[str, list[Key]] = {}
    for one in experiment_keys().values():
        parts.setdefault(one.part, []).append(one)
    lines = [
        "# Every key",
        "Keys of `memory-rl train`, and those of `memory-rl sft-train` that are about neither rewards nor "
        "teachers; `memory_rl.train` and `memory_rl.sft` take them as keyword arguments. In a sweep each is "
        "an axis. `--help` prints the same.",
        *(f"- [{cli._HEADINGS[part][0].upper()}{cli._HEADINGS[part][1:]}](#{part})" for part in parts),
    ]
    for part, keys in parts.items():
        lines += [f"## {cli._HEADINGS[part][0].upper()}{cli._HEADINGS[part][1:]} {{#{part}}}"]
        lines += [line for one in keys for line in _about(one)]
    return _page(lines)


def _other_keys() -> str:
    lines = ["# Keys of other commands"]
    known = experiment_keys()
    for name, command in cli._COMMANDS.items():
        if name in ("train", "sft-train"):
            continue
        lines += [f"## memory-rl {name}", f"{command.about[0].upper()}{command.about[1:]}.", "For example:"]
        lines += ["```sh\n" + "\n".join(f"memory-rl {name} {one}" for one in command.examples) + "\n```"]
        shared = [w for w, one in command.keys().items() if w in known and known[w].doc == one.doc]
        if shared:
            links = ", ".join(f"[`{word}`](keys.md#{word.lower()})" for word in shared)
            lines += [f"As in an experiment: {links}."]
        lines += [line for w, one in command.keys().items() if w not in shared for line in _about(one, name)]
    return _page(lines)


def _about(one: Key, command: str = "") -> Iterator[str]:
    """A key: its heading, its type, range and default, and what it means."""
    name = "-".join(filter(None, (command, one.word.lower())))
    yield f"### `{one.word}` {{#{name}}}"
    facts = [f"`{cli._type_of(one)}`", _range(one), "" if one.default is None else f"default `{one.default}`"]
    yield ", ".join(filter(None, facts))
    clauses = (f"`{clause}`" for clause in one.needs.split() if not clause.startswith("signal=reward"))
    needs = ", ".join(clauses).replace("|", "` or `")
    yield _escaped(one.doc) + (f" Only with {needs}." if needs else "")


def _range(one: Key) -> str:
    low, high = one.within
    parts = (
        "" if one.above is None else f"above {_number(one.above)}",
        "" if low is None else f"from {_number(low)}",
        "" if one.below is None else f"below {_number(one.below)}",
        "" if high is None else f"to {_number(high)}",
    )
    return " ".join(filter(None, parts))


def _number(value: float) -> str:
    """A number, large ones as powers."""
    for base, least in ((2, 2**11), (10, 10**4)):
        for more, text in ((0, ""), (1, " - 1")):
            power = round(math.log(value + more, base)) if value + more > least else 0
            if power and base**power - more == value:
                return f"{base}^{power}{text}"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _escaped(text: str) -> str:
    """A sentence in which no character is an instruction of Markdown."""
    return re.sub(r"([_*<>|\[\]`])", r"\\\1", text)


def _page(blocks: list[str]) -> str:
    """Blocks with blank lines between them; entries of one list stay together."""
    return "\n\n".join(blocks).replace("\n\n- ", "\n- ") + "\n"
