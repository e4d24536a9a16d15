"""Templates: notebooks in MyST Markdown under `book/experiments/`, found by name and read with jupytext."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import miue
from miue import specs
from miue.data import loading
from miue.errors import InputError
from miue.runs import parameters
from miue.runs.notebook import tagged

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
    def plan(self) -> str | None:
        """Source of the cell tagged `plan`, which sets from the parameters what will be measured; None without one."""
        return next((self.notebook.cells[place].source for place in tagged(self.notebook, "plan")), None)

    @property
    def data_root(self) -> Path:
        """Where the data of its runs lie: `$MIUE_DATA`, else the folder `data` of the repository."""
        return Path(os.environ.get("MIUE_DATA") or self.root / "data").resolve()

    def check(self, given: Mapping[str, object]) -> dict[str, Any]:
        """Return the values of all parameters; those that are not given are at their default.

        A notebook works in a folder of its own, so the paths in `records`, `data` and `FILE.py:NAME` are settled here.

        Raises:
            InputError: see `parameters.check`; or the folder of images does not exist.
        """
        values = parameters.check(given, self.parameters, self.name)
        values = {name: _settled(value) for name, value in values.items()}
        if "data" in values:
            values["data"] = loading.settled(values["data"], self.data_root)
        if values.get("records") is not None:
            values["records"] = str(Path(values["records"]).resolve())
        return values

    @property
    def digest(self) -> str:
        """SHA-256 of all cells, also of those that come from the template that it extends."""
        cells = [[cell.cell_type, cell.source, cell.metadata] for cell in self.notebook.cells]
        return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()

    @property
    def relative(self) -> str:
        """Path of the template inside the repository: what is written into records, in place of `path`."""
        return self.path.relative_to(self.root).as_posix()


def read(template: str | Path) -> Template:
    """Return the template of that name, or the one at that path (`.md`).

    A template whose front matter says `miue: {extends: NAME}` holds its own title and parameters; what follows them
    comes from the template NAME in the same folder.

    Names are looked for in `book/experiments/` of the working directory and of each folder above it, then
    in the checkout that the package is installed from.

    Raises:
        InputError: there is none (the message lists what exists), it has no cell tagged `parameters` or
            two, or that cell is not made of annotated assignments; what it extends does not exist; or jupytext is
            not installed.
    """
    path = _find(template)
    notebook = read_markdown(path)
    own = _parameters_cell(notebook, path)
    if base := notebook.metadata.get("miue", {}).get("extends"):
        notebook.cells += _continuation(path.with_name(f"{base}.md"), path)
    return Template(
        name=path.stem,
        path=path,
        root=next((folder for folder in path.parents if (folder / EXPERIMENTS).is_dir()), path.parent),
        notebook=notebook,
        parameters=parameters.read(notebook.cells[own].source, path.stem),
    )


def _parameters_cell(notebook: Any, path: Path) -> int:
    """The place of the one cell tagged `parameters`."""
    places = tagged(notebook, "parameters")
    if len(places) != 1:
        raise InputError(f"template {path.name}: {len(places)} cells are tagged `parameters`; it must be one")
    return places[0]


def _continuation(base: Path, extending: Path) -> list[Any]:
    """The cells behind the parameters of the template that another one extends: what both have in common."""
    if not base.is_file():
        raise InputError(f"template {extending.name}: it extends {base.stem}, and {base.name} is not beside it")
    notebook = read_markdown(base)
    return notebook.cells[_parameters_cell(notebook, base) + 1 :]


def read_markdown(path: Path) -> Any:
    """Return the notebook that a MyST Markdown file holds; its outputs are empty.

    Raises:
        InputError: it is no such file, or jupytext is not installed.
    """
    try:
        import jupytext
    except ImportError:
        raise InputError("jupytext: not installed; runs need the packages of miue[book]") from None
    try:
        return jupytext.read(path, fmt={"extension": ".md", "format_name": "myst"})
    except OSError:
        raise
    except Exception as error:  # bytes that are no UTF-8; and whatever the readers of Markdown and YAML make of others
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"template {path.name}: it cannot be read as MyST Markdown in UTF-8 ({reason})") from None


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


def _settled(value: Any) -> Any:
    if isinstance(value, list):
        return [_settled(one) for one in value]
    return specs.settled(value) if isinstance(value, str) else value
