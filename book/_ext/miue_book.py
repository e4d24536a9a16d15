"""What Jupyter Book leaves open: outputs that follow the package's code, results that are what their record says.

- Chapters are executed again after every change of `src/miue`: myst-nb's cache looks at code cells only, so
  the hash of the package's code goes into the path of the cache.
- A page under `book/results/` is refused unless its record says that the run ended well and the notebook is
  the one that was executed, whole and without an error.
- A result gets a title that says also its data and scale, and its figures get names of their own: pages of one template
  would name both alike.
- A page that comes or goes renders all pages anew: each shows the table of contents.
- `{miue-parameters} NAME` shows the parameters of a template, `{miue-results}` what is published: tables made
  from the template and the records themselves.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from miue import store
from miue.errors import InputError
from miue.runs import records, template

RESULTS = "book/results/"
INDEX = RESULTS + "index"
TITLE = re.compile(r'(?<="# )[^"\\]+')
"""The first heading of a notebook's first cell, as it stands in the file."""


def set_cache(app: Sphinx, config: Any) -> None:
    """Give myst-nb an execution cache of this version of the code, and remove those of other versions."""
    caches = Path(app.outdir).parent / ".jupyter_cache"
    current = caches / f"code-{store.code_hash('miue')}"
    for outdated in set(caches.glob("code-*")) - {current}:
        shutil.rmtree(outdated)
    config.nb_execution_cache_path = str(current)


def renew_contents(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> set:
    """Return the pages to read again beside those that changed: all of them, if one came or went."""
    return set(env.found_docs) if added or removed else set()


def refuse_bad_results(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Raise ExtensionError for the first page of a result that cannot be trusted.

    Looks at all pages in each build, not only at those that changed: it may be the record that has.
    """
    for name in _results(env):
        if wrong := _wrong(Path(env.doc2path(name))):
            raise ExtensionError(f"{name}: this result is not published, because {wrong}")


def tell_apart(app: Sphinx, name: str, source: list[str]) -> None:
    """Add data and scale to the title of a result, and put its name before those of its figures, given and used."""
    if not name.startswith(RESULTS) or name == INDEX:
        return
    record = records.read_object(Path(app.srcdir) / f"{name}.json")
    source[0] = TITLE.sub(lambda heading: json.dumps(_title(heading[0], record))[1:-1], source[0], count=1)
    cells = json.loads(source[0])["cells"]
    for figure in {cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells} - {None}:
        own = f"{name.removeprefix(RESULTS)}-{figure}"
        source[0] = re.sub(rf"(?<![\w-]){re.escape(figure)}(?![\w-])", own, source[0])


def _title(heading: str, record: dict[str, Any]) -> str:
    """The template's own heading with data, number of pictures and scale, as the record has them."""
    data = record.get("metrics", {}).get("data", {})
    if not {"data", "n"} <= data.keys():
        return heading
    return f"{heading}: {data['data']}, {data['n']:,} pictures, {record['parameters'].get('preset', 'no preset')}"


def _results(env: BuildEnvironment) -> list[str]:
    return sorted(name for name in env.found_docs if name.startswith(RESULTS) and name != INDEX)


def _wrong(page: Path) -> str:
    """Why the page is no good result, "" if it is one."""
    record = records.read_object(page.with_suffix(".json"))
    if page.suffix != ".ipynb":
        return "it is no executed notebook (.ipynb)"
    if not record:
        return f"its record {page.stem}.json is missing or unreadable"
    if record.get("state") != "done":
        return f"its run did not end well: {record.get('state')!r}, {record.get('error')}"
    try:
        return "; ".join(records.notebook_problems(page, str(record.get("notebook_sha256"))))
    except InputError as error:
        return str(error)


class ParameterTable(SphinxDirective):
    """`{miue-parameters} NAME`: name, type, default and meaning of each parameter of a template."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table; a template that cannot be read is an error of the build."""
        path = Path(self.env.srcdir) / template.EXPERIMENTS / f"{self.arguments[0]}.md"
        self.env.note_dependency(str(path))
        try:
            found = template.read(path).parameters.values()
        except InputError as error:
            raise self.error(str(error)) from error
        rows = [[_code(p.name), _code(p.type_name), _code(repr(p.default)), nodes.Text(p.help)] for p in found]
        return [_table(["Parameter", "Type", "Default", "Meaning"], rows)]


class ResultTable(SphinxDirective):
    """`{miue-results}`: each published page with what its record says of data, scale, time and code."""

    def run(self) -> list[nodes.Node]:
        """Return the table, one row for each page of a result that the book holds."""
        rows = []
        for name in _results(self.env):
            path = Path(self.env.doc2path(name)).with_suffix(".json")
            self.env.note_dependency(str(path))
            record = records.read_object(path)
            given, made = record.get("parameters", {}), record.get("provenance", {})
            link = addnodes.pending_xref(
                "", nodes.inline("", name), refdomain="std", reftype="doc", reftarget=f"/{name}", refexplicit=False
            )
            texts = [
                len(given.get("seeds", [])) or "",
                given.get("victim", ""),
                made.get("device", ""),
                made.get("commit"),
            ]
            rows.append([link, *(nodes.Text("" if text is None else str(text)) for text in texts)])
        return [_table(["Page", "Seeds", "Victim", "Device", "Commit"], rows)]


def _table(heads: list[str], rows: list[list[nodes.Node]]) -> nodes.table:
    def row(cells: list[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

    group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in heads), cols=len(heads))
    group += nodes.thead("", row([nodes.Text(head) for head in heads]))
    group += nodes.tbody("", *(row(cells) for cells in rows))
    return nodes.table("", group)


def _code(text: str) -> nodes.literal:
    return nodes.literal(text, text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it to Sphinx."""
    app.connect("config-inited", set_cache)
    app.connect("env-get-outdated", renew_contents)
    app.connect("env-before-read-docs", refuse_bad_results)
    app.connect("source-read", tell_apart)
    app.add_directive("miue-parameters", ParameterTable)
    app.add_directive("miue-results", ResultTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
