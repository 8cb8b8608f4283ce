"""What stands in templates/: styles, scripts, and what the report says about each figure and table."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml


def asset(name: str) -> str:
    """A file of templates/."""
    return (resources.files("memory_rl.reporting") / "templates" / name).read_text(encoding="utf-8")


@cache
def wording(kind: str, name: str) -> dict[str, Any]:
    """Title and reading of one of the "figures" or "tables"."""
    return dict(yaml.safe_load(asset("wording.yaml"))[kind][name])
