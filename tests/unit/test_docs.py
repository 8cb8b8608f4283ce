"""The pages of docs/ and the README: their links, and what the site makes of them."""

import importlib.util
import re
from pathlib import Path

import markdown
import pytest
import yaml
from markdown_it import MarkdownIt
from pathspec import GitIgnoreSpec

import memory_rl
from memory_rl.catalogue import experiment_keys
from memory_rl.reporting.headline import headline

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
MADE = {"docs/reference/keys.md", "docs/reference/other_keys.md"}
"""Pages that exist on the site alone."""

_spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site_pages.py")
site_pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(site_pages)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    """In a checkout, as a repository's browser shows it."""
    assert [link for link in _links(page.read_text()) if not _leads(link, page)] == []


def test_files_that_code_and_comments_name_exist():
    texts = [
        path.read_text() for folder in ("src", "tests", "studies") for path in (ROOT / folder).rglob("*.py")
    ]
    named = {name for text in texts for name in re.findall(r"\bdocs/[\w/]+\.md", text)} - MADE
    assert "docs/report.md" in named
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_site_reads_a_page_as_commonmark_does(page):
    """Python-Markdown, for which lists are changed first, finds the same lists and tables."""
    text = page.read_text()
    ours = markdown.markdown(
        site_pages.for_python_markdown(text), extensions=["tables", "pymdownx.superfences"]
    )
    theirs = MarkdownIt("commonmark").enable("table").render(text)
    assert _skeleton(ours) == _skeleton(theirs)


def test_the_readme_is_short_and_shows_what_the_first_command_prints(tmp_path):
    """In its words: the digits depend on the machine."""
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 120
    said = readme.split("<!-- first command -->")[1].split("```")[3].strip()
    result = memory_rl.train(N=64, backend="tabular", figures=False, log_path=str(tmp_path / "run"))
    assert re.sub(r"\d[\d.]*", "#", " ".join(said.split())) == re.sub(r"\d[\d.]*", "#", headline(result.cell))


def test_links_of_the_site():
    text = (
        "[a](docs/gpu.md#time) [b](CHANGELOG.md) [c](src/memory_rl/studies/quick.yaml) [d](https://x.org/a)"
    )
    changed = (
        "[a](gpu.md#time) [b](changes.md) [c](source/src/memory_rl/studies/quick.yaml) [d](https://x.org/a)"
    )
    assert site_pages.with_links(text, "index.md") == changed
    assert site_pages.with_links("[t](docs/tutorial.ipynb)", "index.md") == "[t](tutorial.md)"
    assert site_pages.with_links("[t](tutorial.ipynb)", "tutorial.md") == "[t](tutorial.ipynb)"
    text = "[a](../gpu.md) [b](laws.md#verdicts) [c](#here) [d](../../README.md) [e](../../studies/ideas.py)"
    changed = (
        "[a](../gpu.md) [b](laws.md#verdicts) [c](#here) [d](../index.md) [e](../source/studies/ideas.py)"
    )
    assert site_pages.with_links(text, "semantics/ranking.md") == changed


def test_intervals_stay_whole_in_tables():
    """With spaces that do not break; a link after a number is no interval, and text keeps its spaces."""
    text = "at 39 [37.9, 40.2]\n| 39 [37.9, 40.2] of 2 | 816 [208, -] | in 3 [8, 9](a.md) |"
    kept, row = site_pages.with_whole_intervals(text).split("\n")
    assert kept == "at 39 [37.9, 40.2]"
    assert row == "| 39\u00a0[37.9,\u00a040.2] of 2 | 816\u00a0[208,\u00a0-] | in 3 [8, 9](a.md) |"


def test_of_the_scripts_beside_the_pages_the_site_has_those_that_a_page_links():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    excluded = GitIgnoreSpec.from_lines(config["exclude_docs"].splitlines())
    scripts = {path.name for path in (ROOT / "docs").glob("*.py")}
    linked = {link for page in PAGES for link in _links(page.read_text())}
    assert {name for name in scripts if not excluded.match_file(name)} == scripts & linked
    assert not excluded.match_file("source/studies/ideas.py")


def test_the_reference_has_every_key_once():
    made = site_pages._every_key()
    headings = re.findall(r"^### `(\w+)` \{#(\w+)\}$", made, re.MULTILINE)
    assert headings == [(word, word.lower()) for word in experiment_keys()]
    entry = made.split("### `reward_noise`")[1].split("### ")[0]
    assert "`number`, from 0 below 1, default `0.0`" in entry
    assert "Probability that a reward is replaced" in entry


@pytest.mark.parametrize(
    ("value", "text"),
    [(64, "64"), (2**53, "2^53"), (2**63 - 1, "2^63 - 1"), (10**15, "10^15"), (0.5, "0.5"), (1024, "1,024")],
)
def test_numbers_of_ranges(value, text):
    assert site_pages._number(value) == text


def _links(text):
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"(?s)```.*?```", "", text))


def _leads(link, page):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if str(target.relative_to(ROOT)) in MADE:
        return True
    return target.exists() and (not anchor or anchor in _anchors(target.read_text()))


def _anchors(text):
    """Of headings, as repositories' browsers make them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"(?s)```.*?```", "", text), re.MULTILINE)
    return {
        re.sub(r"[^\w\s-]", "", re.sub(r"\]\([^)]*\)", "]", title).lower()).strip().replace(" ", "-")
        for title in titles
    }


def _skeleton(html):
    return re.findall(r"</?(?:ul|ol|li|table|tr|pre|h[1-6])\b", html)
