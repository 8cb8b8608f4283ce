"""What a package index shows, and whom the package is for."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _long_description(readme: str) -> str:
    """The README with the substitutions that the build makes, in their order."""
    for one in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        readme = re.sub(one["pattern"], one["replacement"], readme)
    return readme


def test_no_link_of_the_long_description_leads_nowhere():
    text = _long_description((ROOT / "README.md").read_text())
    assert re.findall(r"\]\((?!https?:)[^)]*\)", text) == []
    assert "glossary" in text  # the words of a link stay
    assert "venv" in text


def test_what_becomes_of_a_link_and_a_picture():
    made = "![a\nfigure](docs/a.svg)\n\nsee [these\nwords](pages/b.md#c) and [that](https://arxiv.org/abs/1)"
    assert _long_description(made) == "see these\nwords and [that](https://arxiv.org/abs/1)"


def test_metadata_names_the_python_that_is_tested():
    project = PROJECT["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.11" in project["classifiers"]
    assert project["license"] == "Apache-2.0"
    assert (ROOT / project["license-files"][0]).is_file()


def test_every_direct_dependency_has_its_exact_version():
    """Those of extras, too, but for one that is installed in an environment of its own, and this package."""
    listed = {_plain(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["project"]["optional-dependencies"].items()
    wanted = [*PROJECT["project"]["dependencies"], *(one for _, names in extras for one in names)]
    assert {_plain(one) for one in wanted} - listed == {"memory-rl", "tinker-cookbook"}


def _plain(requirement: str) -> str:
    """The name of a requirement, as package indices compare it."""
    return re.split(r"[\[<>=]", requirement)[0].strip().lower().replace("_", "-")
