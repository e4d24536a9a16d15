"""Publishing: the executed notebooks of good runs and their records, copied into the book."""

import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from miue.errors import InputError
from miue.runs import notebook
from miue.runs.run_folder import Run, load, problems, read_object
from miue.storage import files

RESULTS = Path("book") / "results"


def publish(folders: Sequence[str | Path], name: str | None = None, root: str | Path = ".") -> list[Path]:
    """Copy runs into the book in `root`, each as `book/results/NAME.ipynb` with its record `NAME.json`: all, or none.

    The record holds the run's status (parameters, cells, times, provenance, the notebook's SHA-256) and its
    metrics. The book shows the page only while notebook and record fit each other; index, leaderboard and claims
    are made from the records when it is built. A page of that name is replaced.

    Args:
        folders: of the runs.
        name: for one run: letters, digits and . _ - with at least one hyphen; None: see `page_name`.
        root: the repository that holds the book.

    Returns:
        The paths of the pages.

    Raises:
        InputError: a run did not end well (the message says why), its cells wrote to standard error, `name` is no
            such name, none can be made, the one that was made is that of another experiment's page, two runs would
            have the same, a parameter is a path outside of the repository, or `root` holds no book.
    """
    if name is not None and len(folders) > 1:
        raise InputError(f"name: {name!r} for {len(folders)} runs; a name is for one run")
    book = repository(root)
    named: dict[str, Run] = {}
    for run in [_good(folder, book) for folder in folders]:
        own = name_of(run, book) if name is None else _checked(name)
        if own in named:
            both = f"{named[own].folder.name} and {run.folder.name}"
            raise InputError(f"name: {both} would both be {own}; publish them one by one, with --name")
        named[own] = run
    return _copy(named, book)


def name_of(run: Run, book: Path) -> str:
    """Return `page_name` of a run, unless that is the page of another experiment.

    Raises:
        InputError: it is (its template or a parameter differs), or no name can be made.
    """
    name = page_name(run)
    before = read_object(book / RESULTS / f"{name}.json")
    asked, now = before.get("parameters", {}), _shortened(run.parameters, book)
    other = sorted(key for key in asked.keys() | now.keys() if asked.get(key) != now.get(key))
    if before and (other or before.get("template") != run.status.get("template")):
        differs = ", ".join(other) or "template"
        raise InputError(f"name: {name} is the page of another experiment ({differs}); give --name, this or a new one")
    return name


def page_name(run: Run) -> str:
    """Make the name of a page from template, data, number of images, size where it was chosen, and preset.

    Raises:
        InputError: the run's metrics do not say on which data it was.
    """
    data = run.metrics.get("data", {})
    if not {"data", "n"} <= data.keys():
        raise InputError(f"name: {run.folder.name} does not say on which data it was; give a name with --name")
    template, images = Path(run.status.get("template", run.notebook.name)).stem, _slug(data["data"])
    parts = [
        *([] if images.startswith(template) else [template]),
        images,
        data["n"],
        f"{size}px" if (size := run.parameters.get("size")) else "",
        run.parameters.get("preset") or "",
    ]
    return "-".join(str(part) for part in parts if part)


def _slug(data: str) -> str:
    """Write the name of a data set as part of a file's: "CIFAR-10 (JPEG-75 copy)" as "cifar10-jpeg75"."""
    name = re.sub(r"^folder | copy|, \d+ px$", "", data).lower()
    words = re.sub(r"[^a-z0-9._]+", "-", name).strip("-")
    return re.sub(r"(?<=[a-z])-(?=\d)", "", words)


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"name: {name!r} must be made of letters, digits and the signs _ . -")
    if "-" not in name:
        raise InputError(f"name: {name!r} must say data and scale, with a hyphen, as in cifar10-4000-laptop")
    return name


def repository(root: str | Path) -> Path:
    """Return the absolute path of the folder of the repository, which holds the book.

    Raises:
        InputError: it holds none.
    """
    root = Path(root).resolve()
    if not (root / "_config.yml").is_file():
        raise InputError(f"book: {root} holds no _config.yml; give the folder of the repository")
    return root


def _good(folder: str | Path, book: Path) -> Run:
    run = load(folder)
    for name, value in notebook.shorten(run.parameters, {book: "."}).items():
        for text in map(str, value if isinstance(value, list) else [value]):
            path = text.removeprefix("folder:")
            if Path(path).is_absolute() or path.startswith("~"):
                raise InputError(
                    f"{name}: {path} of run {run.folder.name} is a place on this machine, which no page should name; "
                    "run again with a path inside the repository, or under $MIUE_DATA for data"
                )
    if wrong := problems(run) or notebook.complaints(notebook.load(run.notebook)):
        raise InputError(f"run: {run.folder.name} cannot be published: {'; '.join(wrong)}")
    return run


def _copy(named: Mapping[str, Run], root: Path) -> list[Path]:
    """Write all pages and records beside their places first, so that a full disk leaves what was published before."""
    pages = []
    with ExitStack() as stack:
        for name, run in named.items():
            page = root / RESULTS / f"{name}.ipynb"
            # Put in place last to first, the page before its record: should we be stopped in between, the old record
            # does not fit the new page, and the book refuses it.
            record = stack.enter_context(files.atomic(page.with_suffix(".json")))
            files.write_json(record, _shortened(run.status | {"notebook": page.name, "metrics": run.metrics}, root))
            shutil.copyfile(run.notebook, stack.enter_context(files.atomic(page)))
            pages.append(page)
    return pages


def _shortened(value: dict[str, Any], root: Path) -> dict[str, Any]:
    return notebook.shorten(value, {root: ".", Path.home(): "~"})
