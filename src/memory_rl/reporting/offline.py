"""Altair charts that need no network to be seen: as SVG, in Jupyter and in editors alike.

Altair's own answer to a notebook is a page that loads its scripts from elsewhere.
"""

from __future__ import annotations

from typing import Any

import altair as alt

from memory_rl.reporting.lettering import drawn


def _shown(chart: alt.LayerChart | alt.ConcatChart) -> dict[str, str]:
    """What a notebook shows of a chart, by kind of content."""
    return {"image/svg+xml": drawn(chart.to_dict()), "text/plain": type(chart).__name__}


class OfflineLayers(alt.LayerChart):
    """One panel of layers."""

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        return _shown(self)


class OfflinePanels(alt.ConcatChart):
    """Several panels under one title."""

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> dict[str, str]:
        return _shown(self)
