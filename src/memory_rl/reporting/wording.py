"""What stands in templates/: styles, scripts, and what the report says about each figure and table."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from memory_rl.yaml_words import words_of


def asset(name: str) -> str:
    """A file of templates/."""
    return (resources.files("memory_rl.reporting") / "templates" / name).read_text(encoding="utf-8")


@cache
def wording(kind: str, name: str) -> dict[str, Any]:
    """Title and reading of one of the "figures" or "tables"."""
    return dict(words_of(asset("wording.yaml").encode(), "wording.yaml")[kind][name])
