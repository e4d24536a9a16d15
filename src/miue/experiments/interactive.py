"""Figures that follow a slider or a pointer: Vega draws them in the reader's browser, without server or network.

A page of the book loads Vega from its own files where it holds such a figure; what cannot run it (print, a phone
without scripts, a notebook elsewhere) has the drawing of its first state.
"""

import html
import json
from typing import Any

import altair as alt
import vl_convert

FONT = "DejaVu Sans, sans-serif"


class Interactive:
    """A chart to be the last value of a cell.

    Args:
        chart: of Altair; its data must be in it.
        alt: what is seen, in words.
    """

    def __init__(self, chart: Any, alt: str) -> None:
        look = {"font": FONT, "background": "white", "view": {"stroke": None}, "axis": {"grid": False}}
        self.spec = {**chart.to_dict(), "config": look}
        self.alt = alt

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """As HTML for the book, whose pages bring the library, and as a still for all others."""
        still = vl_convert.vegalite_to_svg(self.spec)
        spec = json.dumps(self.spec).replace("<", "\\u003c")
        inner = f'<script type="application/json">{spec}</script><div role="img">{still}</div>'
        shown = f'<div class="miue-interactive" role="figure" aria-label="{html.escape(self.alt)}">{inner}</div>'
        return {"text/html": shown, "image/svg+xml": still}


def slider(name: str, low: float, high: float, step: float, start: float, label: str) -> Any:
    """A parameter for expressions of a chart, which a slider under it sets."""
    return alt.param(name=name, value=start, bind=alt.binding_range(min=low, max=high, step=step, name=label))
