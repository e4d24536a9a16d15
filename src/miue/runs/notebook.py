"""Executed notebooks: what is wrong with one, and how one is rid of this machine's folders."""

import hashlib
import re
from pathlib import Path
from typing import Any

from miue.errors import InputError
from miue.storage import files


def code_cells(notebook: Any) -> list[tuple[int, Any]]:
    """Return the code cells that are not blank, each with its number (from 1, over all cells)."""
    return [
        (number, cell)
        for number, cell in enumerate(notebook.cells, 1)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def tagged(notebook: Any, tag: str) -> list[int]:
    """Return the places, from 0, of the cells that have this tag."""
    return [place for place, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", [])]


def flaws(notebook: Any) -> list[str]:
    """Return why an executed notebook is no good result, one line each: unexecuted cells and errors.

    The notebook's own metadata is not asked: after the death of a kernel papermill's says that every cell
    was completed.
    """
    found = []
    for number, cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"cell {number}: {output.ename}: {output.evalue}".splitlines()[0])
        if cell.execution_count is None:
            found.append(f"cell {number} was not executed")
    return found


def complaints(notebook: Any) -> list[str]:
    """Return what code cells wrote to standard error, one line each; a page of the book shows none."""
    return [
        f"cell {number} wrote to standard error: {output.text.strip().splitlines()[-1]}"
        for number, cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr" and output.text.strip()
    ]


def shorten(value: Any, folders: dict[Path, str]) -> Any:
    """Return a copy of JSON-like `value` in which no text names one of the `folders`.

    Args:
        value: dicts, lists, texts, numbers. Images (the items of a dict named `image/...`) stay as they
            are: base64 may spell a short path by chance.
        folders: absolute folder -> what stands for it.
    """
    if isinstance(value, dict):
        pairs = value.items()
        return type(value)({k: v if k.startswith("image/") else shorten(v, folders) for k, v in pairs})
    if isinstance(value, list):
        return [shorten(item, folders) for item in value]
    if isinstance(value, str):
        for folder in sorted(folders, key=lambda path: len(str(path)), reverse=True):
            if folder != Path(folder.anchor):
                value = re.sub(rf"(?<![\w.]){re.escape(str(folder))}(?![\w-])", folders[folder], value)
    return value


def headings(notebook: Any) -> list[str]:
    """Return for each cell the heading that stands last at or above it; "" before the first."""
    found, last = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            titles = [line.lstrip("# ") for line in cell.source.splitlines() if re.match("#+ ", line)]
            last = titles[-1] if titles else last
        found.append(last)
    return found


def plain(text: str) -> str:
    """Return `text` without the escape codes that colour a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def load(path: Path) -> Any:
    """Read an `.ipynb` file as an nbformat node.

    Raises:
        InputError: nbformat is not installed, or the file is no notebook.
    """
    try:
        import nbformat

        return nbformat.read(path, as_version=4)
    except ImportError:
        raise InputError("nbformat: not installed; runs need the packages of miue[book]") from None
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"notebook: {path} is no notebook ({error})".splitlines()[0]) from None


def save(notebook: Any, path: Path) -> None:
    """Write an nbformat node as `.ipynb`, atomically."""
    import nbformat

    with files.atomic(path) as part, open(part, "w", encoding="utf-8") as out:
        nbformat.write(notebook, out)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as `sha256sum` prints it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
