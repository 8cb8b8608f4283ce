"""Makes docs/results.md, its five figures and the answer in the README from the study's files.

python docs/make_results.py             writes them
python docs/make_results.py --check     says which of them are not what the files give; exit code 1 if any

The files are studies/answer.parquet and answer_choices.json (see studies/ship_answer.py) and the protocol. The
texts come from results.md.j2 and readme_answer.md.j2 beside this script, in which no result is typed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jinja2
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from results_figures import figures, fingerprint, svg
from results_words import Words

from memory_rl.analysis.protocol import Protocol, load_protocol
from memory_rl.analysis.study_numbers import StudyNumbers
from memory_rl.analysis.study_table import from_table

ROOT = Path(__file__).parents[1]
PAGE, README, FIGURES = "docs/results.md", "README.md", "docs/figures"
START, END = "<!-- answer: made by docs/make_results.py -->\n", "<!-- end of answer -->\n"


def words_of(root: Path = ROOT, protocol: Protocol | None = None) -> Words:
    """What the study's files of a checkout say."""
    numbers = StudyNumbers.of(from_table(pl.read_parquet(root / "studies/answer.parquet")))
    choices = json.loads((root / "studies/answer_choices.json").read_text(encoding="utf-8"))
    return Words(numbers, protocol or load_protocol("answer"), choices)


def texts(words: Words, root: Path = ROOT) -> dict[str, str]:
    """The texts by their places in a checkout."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    asked = {**words.functions(), "figures": [name for name, _ in figures(words)]}
    page, answer = (
        environment.get_template(name).render(asked).strip() + "\n"
        for name in ("results.md.j2", "readme_answer.md.j2")
    )
    before, _, rest = (root / README).read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    return {PAGE: page, README: f"{before}{START}{answer}{END}{after}"}


def stale(words: Words, root: Path = ROOT) -> list[str]:
    """The places of texts and figures that are not what the files give."""
    made = [
        place for place, text in texts(words, root).items() if (root / place).read_text(encoding="utf-8") != text
    ]
    for name, spec in figures(words):
        place = root / FIGURES / f"{name}.svg"
        if not place.is_file() or fingerprint(spec) not in place.read_text(encoding="utf-8"):
            made.append(f"{FIGURES}/{name}.svg")
    return made


def write(words: Words, root: Path = ROOT) -> None:
    """Writes texts and figures."""
    for place, text in texts(words, root).items():
        (root / place).write_text(text, encoding="utf-8")
    for name, spec in figures(words):
        (root / FIGURES / f"{name}.svg").write_text(svg(spec), encoding="utf-8")


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
    sys.exit(main(sys.argv[1:]))
