"""Figures that follow a slider or a pointer: Vega draws them in the reader's browser, without server or network.

A page of the book loads Vega from its own files where it holds such a figure; what cannot run it (print, a phone
without scripts, a notebook elsewhere) has the drawing of its first state.
"""

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert
from PIL import Image
from torch import Tensor

FONT = "DejaVu Sans, sans-serif"
PNG = "data:image/png;base64,"


class Interactive:
    """A chart to be the last value of a cell.

    Args:
        chart: of Altair; its data must be in it. The views of an `alt.concat` with `columns` stand below one another
            on a phone.
        alt: what is seen, in words.
        stops: for a slider that counts places in a list, by its name: what stands at each of them, shown beside it.
        play: name of a slider that a button moves from its start to its end, unless the reader wants little motion.
    """

    def __init__(
        self, chart: Any, alt: str, *, stops: Mapping[str, Sequence[float]] | None = None, play: str | None = None
    ) -> None:
        look = {"font": FONT, "background": "white", "view": {"stroke": None}, "axis": {"grid": False}, "aria": False}
        shown = {name: [f"{stop:,g}" for stop in values] for name, values in (stops or {}).items()}
        self.spec = {**chart.to_dict(), "config": look, "usermeta": {"stops": shown, "play": play}}
        self.alt = alt

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """As HTML for the book, whose pages bring the library, and as a still for all others."""
        still = vl_convert.vegalite_to_svg(self.spec)
        spec = json.dumps(self.spec, separators=(",", ":")).replace("<", "\\u003c")
        for place, image in enumerate(dict.fromkeys(re.findall(f'"({PNG}[^"]+)"', still))):
            spec = spec.replace(image, f"image {place}")  # which interactive.js takes from the still
        inner = f'<script type="application/json">{spec}</script><div aria-hidden="true">{still}</div>'
        shown = f'<div class="miue-interactive" role="figure" aria-label="{html.escape(self.alt)}">{inner}</div>'
        return {"text/html": shown, "image/svg+xml": still}


def slider(name: str, low: float, high: float, step: float, start: float, label: str) -> Any:
    """A parameter for expressions of a chart, which a slider under it sets."""
    return alt.param(name=name, value=start, bind=alt.binding_range(min=low, max=high, step=step, name=label))


def png(image: Tensor) -> str:
    """Write (3, H, W) uint8 as the `url` of an image mark, which so holds the image itself."""
    with io.BytesIO() as file:
        Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(file, "png", optimize=True)
        return f"{PNG}{base64.b64encode(file.getvalue()).decode()}"
