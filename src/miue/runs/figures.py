"""The figures of an executed notebook as files of their own, named as the template names them."""

import base64
import re
from pathlib import Path
from typing import Any

from miue.runs.notebook import code_cells
from miue.storage.files import atomic

FIGURES = "figures"
SVG, PNG = "image/svg+xml", "image/png"


def extract(notebook: Any, folder: Path) -> None:
    """Write each image in the notebook's outputs to `folder` as NAME.svg and NAME.png, as far as they are there.

    An image that is there in both formats keeps the SVG alone in the notebook, which would otherwise double in size
    and show nothing more. NAME is the cell's `mystnb.figure.name`, else `cell-NUMBER`; the second image of a cell
    is NAME-2. The folder is made when there is an image.
    """
    for number, cell in code_cells(notebook):
        given = cell.metadata.get("mystnb", {}).get("figure", {}).get("name") or f"cell-{number}"
        name = re.sub(r"[^\w.-]", "_", given)
        shown = [output for output in cell.outputs if {SVG, PNG} & set(output.get("data", {}))]
        for place, output in enumerate(shown, 1):
            file = folder / (name if place == 1 else f"{name}-{place}")
            if SVG in output.data:
                _write(file.with_name(f"{file.name}.svg"), output.data[SVG].encode())
            if PNG in output.data:
                _write(file.with_name(f"{file.name}.png"), base64.b64decode(output.data[PNG]))
            if SVG in output.data and PNG in output.data:
                del output.data[PNG]
                output.get("metadata", {}).pop(PNG, None)


def _write(file: Path, content: bytes) -> None:
    with atomic(file) as part:
        part.write_bytes(content)
