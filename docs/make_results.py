"""Makes docs/results.md, its five figures and the answer in the README from the study's files.

python docs/make_results.py             writes them
python docs/make_results.py --check     says which of them are not what the files give; exit code 1 if any

The files are answer.parquet and answer_choices.json (see studies/ship_answer.py), answer_again.parquet (see
studies/answer_again.py), and the protocols answer and answer-*. The texts come from the templates beside this
script, in which no result is typed.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import jinja2
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from results_figures import figures, fingerprint, svg
from results_verdicts import Verdicts
from results_words import Words

from memory_rl.analysis.protocol import Protocol, load_protocol, shipped_protocols
from memory_rl.analysis.study_numbers import StudyNumbers
from memory_rl.analysis.study_table import from_table
from memory_rl.errors import ConfigError, MemoryRLError
from memory_rl.files import write_whole

ROOT = Path(__file__).parents[1]
PAGE, README, FIGURES = "docs/results.md", "README.md", "docs/figures"
WIDTH, _GLUE = 110, "\0"
START, END = "<!-- answer: made by docs/make_results.py -->\n", "<!-- end of answer -->\n"


def words_of(root: Path = ROOT, protocol: Protocol | None = None) -> Words:
    """What the study's files of a checkout say."""
    numbers = StudyNumbers.of(from_table(pl.read_parquet(root / "studies/answer.parquet")))
    choices = json.loads((root / "studies/answer_choices.json").read_text(encoding="utf-8"))
    names = [name for name in shipped_protocols() if name.startswith("answer-")]
    place = root / "studies/answer_again.parquet"
    again = from_table(pl.read_parquet(place)) if place.is_file() else []
    verdicts = Verdicts(numbers, protocol or load_protocol("answer"), [*map(load_protocol, names)], again)
    return Words(numbers, verdicts, choices)


def texts(words: Words, root: Path = ROOT) -> dict[str, str]:
    """The texts by their places in a checkout."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=jinja2.select_autoescape(["html"]),
    )
    asked = {**words.functions(), "figures": [name for name, _ in figures(words)]}
    page, answer = (
        wrapped(environment.get_template(name).render(asked))
        for name in ("results.md.j2", "readme_answer.md.j2")
    )
    readme = (root / README).read_text(encoding="utf-8")
    if not 0 <= readme.find(START) < readme.find(END):
        raise ConfigError(f"{README} lacks the line {START.strip()} or {END.strip()}: restore it.")
    before, _, rest = readme.partition(START)
    after = rest.partition(END)[2]
    return {PAGE: page, README: f"{before}{START}{answer}{END}{after}"}


def wrapped(text: str) -> str:
    """Markdown with lines of at most `WIDTH`, but in tables, and one blank line between blocks."""
    blocks = re.split(r"\n(?:[ \t]*\n)+", text.strip("\n"))
    return "\n\n".join(block if _is_kept(block) else _filled(block) for block in blocks) + "\n"


def _is_kept(block: str) -> bool:
    return block.lstrip().startswith(("|", "#", "```", "<!--", "!["))


def _filled(block: str) -> str:
    items = re.split(r"\n(?=- )", block)
    return "\n".join(_one_filled(item) for item in items)


def _one_filled(item: str) -> str:
    """A paragraph or an item of a list, in which no line begins as an item of a list would."""
    words = re.sub(r" (?=(?:\d+[.)]|[-+*]) )", _GLUE, " ".join(item.split()))
    indent = "  " if item.startswith("- ") else ""
    lines = textwrap.wrap(
        words, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(_GLUE, " ")


def stale(words: Words, root: Path = ROOT) -> list[str]:
    """The places of texts and figures that are not what the files give."""
    made = [
        place
        for place, text in texts(words, root).items()
        if (root / place).read_text(encoding="utf-8") != text
    ]
    for name, spec in figures(words):
        place = root / FIGURES / f"{name}.svg"
        if not place.is_file() or fingerprint(spec) not in place.read_text(encoding="utf-8"):
            made.append(f"{FIGURES}/{name}.svg")
    return made


def write(words: Words, root: Path = ROOT) -> None:
    """Writes texts and figures."""
    for place, text in texts(words, root).items():
        write_whole(root / place, text)
    for name, spec in figures(words):
        write_whole(root / FIGURES / f"{name}.svg", svg(spec))


def main(arguments: list[str]) -> int:
    """The exit code."""
    if arguments not in ([], ["--check"]):
        print("type python docs/make_results.py, or add --check", file=sys.stderr)
        return 2
    if not arguments:
        write(words_of())
        return 0
    wrong = stale(words_of())
    if wrong:
        print(f"not what studies/answer.parquet gives: {', '.join(wrong)}. Run python docs/make_results.py.")
    return int(bool(wrong))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MemoryRLError as error:
        sys.exit(str(error))
