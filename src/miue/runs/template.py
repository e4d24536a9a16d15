"""Templates: notebooks in MyST Markdown under `book/experiments/`, found by name and read with jupytext."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import miue
from miue.errors import InputError
from miue.runs import parameters

EXPERIMENTS = Path("book") / "experiments"


@dataclass(frozen=True)
class Template:
    """A template that has been read: its notebook (an nbformat node) and its parameters by name."""

    name: str
    path: Path
    root: Path  # the repository, or for a template outside of one, its folder
    notebook: Any
    parameters: dict[str, parameters.Parameter]

    @property
    def relative(self) -> str:
        """Path of the template inside the repository: what is written into records, in place of `path`."""
        return self.path.relative_to(self.root).as_posix()


def read(template: str | Path) -> Template:
    """Return the template of that name, or the one at that path (`.md`).

    Names are looked for in `book/experiments/` of the working directory and of each folder above it, then
    in the checkout that the package is installed from.

    Raises:
        InputError: there is none (the message lists what exists), it has no cell tagged `parameters` or
            two, or that cell is not made of annotated assignments; or jupytext is not installed.
    """
    path = _find(template)
    notebook = read_markdown(path)
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        raise InputError(f"template {path.name}: {len(tagged)} cells are tagged `parameters`; it must be one")
    return Template(
        name=path.stem,
        path=path,
        root=next((folder for folder in path.parents if (folder / EXPERIMENTS).is_dir()), path.parent),
        notebook=notebook,
        parameters=parameters.read(tagged[0].source, path.stem),
    )


def read_markdown(path: Path) -> Any:
    """Return the notebook that a MyST Markdown file holds; its outputs are empty.

    Raises:
        InputError: jupytext is not installed.
    """
    try:
        import jupytext
    except ImportError:
        raise InputError("jupytext: not installed; runs need the packages of miue[book]") from None
    return jupytext.read(path, fmt={"extension": ".md", "format_name": "myst"})


def _find(template: str | Path) -> Path:
    if isinstance(template, Path) or template.endswith(".md"):
        path = Path(template)
        if not path.is_file():
            raise InputError(f"template: {str(template)!r} is no file")
        return path.resolve()
    folders = list(_folders())
    for folder in folders:
        if (path := folder / f"{template}.md").is_file():
            return path
    known = sorted({path.stem for folder in folders for path in folder.glob("*.md")} - {"index"})
    raise InputError(
        f"template: {template!r} does not exist; choose one of {', '.join(known) or '(no template found)'}, "
        "or give the path of a .md file"
    )


def _folders() -> Iterator[Path]:
    here = Path.cwd()
    checkout = Path(miue.__file__).resolve().parents[2]
    for root in (here, *here.parents, checkout):
        if (root / EXPERIMENTS).is_dir():
            yield root / EXPERIMENTS
