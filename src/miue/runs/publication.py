"""Publishing: the executed notebook of a good run and its record, copied into the book."""

import re
import shutil
from pathlib import Path

from miue import files, store
from miue.errors import InputError
from miue.runs import notebook
from miue.runs.records import load, problems

RESULTS = Path("book") / "results"


def publish(folder: str | Path, name: str, root: str | Path = ".") -> Path:
    """Copy a run into the book in `root` as `book/results/NAME.ipynb`, with its record `NAME.json` beside it.

    The record holds the run's status (parameters, cells, times, provenance, the notebook's SHA-256) and its
    metrics. The book shows the page only while notebook and record fit each other.

    Returns:
        The path of the page.

    Raises:
        InputError: the run did not end well (the message says why), its cells wrote to standard error, `name`
            is no plain file name, or `root` holds no book.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"name: {name!r} must be made of letters, digits and the signs _ . -")
    root = Path(root).resolve()
    if not (root / "_config.yml").is_file():
        raise InputError(f"book: {root} holds no _config.yml; give the folder of the repository")
    run = load(folder)
    if wrong := problems(run) or notebook.complaints(notebook.load(run.notebook)):
        raise InputError(f"run: {run.folder.name} cannot be published: {'; '.join(wrong)}")
    page = root / RESULTS / f"{name}.ipynb"
    with files.atomic(page) as part:
        shutil.copyfile(run.notebook, part)
    record = run.status | {"notebook": page.name, "metrics": run.metrics}
    # The page first: should we be stopped here, the old record does not fit it, and the book refuses it.
    store.write_json(page.with_suffix(".json"), notebook.shorten(record, {root: ".", Path.home(): "~"}))
    return page
