"""Tables and boxes that are made of the records of published pages, anew in each build.

- `{miue-header}`: what the run of this page was, and the command that runs it again; under the title of each result.
- `{miue-results}`: one row for each page.
- `{miue-leaderboard}`: all trials of all pages; the browser sorts and filters it (`_static/leaderboard.js`).
- `{miue-claims}`: what the paper claims and what the trials say about it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from miue.experiments.labels import title
from miue.publishing import claims, leaderboard, summary
from miue.runs import run_folder

RESULTS = "book/results/"
TABLES = "datatables-3.1.5"
"""Folder of the table library in `_static`: DataTables and its ColumnControl, as published."""

COPY_BUTTON = {"clipboard.min.js", "copybutton.js", "copybutton_funcs.js"}


def _number(value: Any) -> str:
    """Write a number, or nothing for one that is missing."""
    return "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value)


def _to(form: str, factor: float = 1) -> Callable[[Any], str]:
    """Make the function that writes a multiple of a number in that form, or nothing for one that is missing."""
    return lambda value: "" if pd.isna(value) else format(factor * value, form)


PERCENT, NATS, COST = _to(".2f", 100), _to(".3f"), _to(".0f")
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "Rank": ("rank", _number),
    "of": ("of", _number),
    "Method": ("method", title),
    "Victim": ("victim", title),
    "Defense": ("defense", title),
    "Accuracy %": ("mean", PERCENT),
    "Lowest": ("low", PERCENT),
    "Highest": ("high", PERCENT),
    "Passes": ("passes", COST),
    "Seconds": ("seconds", COST),
    "Seeds": ("seeds", _number),
    "Victims": ("victims", _number),
    "Scale": ("scale", str),
    "Data": ("data", str),
    "Images": ("n_train", _number),
    "Size": ("size", _number),
    "Budget": ("budget", str),
    "Paper %": ("reported", PERCENT),
    "Difference": ("difference", _to("+.2f", 100)),
    "MI, nats": ("mi", NATS),
    "Shuffled": ("null", NATS),
    "Estimator": ("estimator", str),
    "Recipe": ("recipe", str),
    "Surrogate": ("surrogate", title),
    "Twin": ("twin", str),
    "Passes allowed": ("allowed", str),
    "Perturbed": ("ratio", _number),
    "Cannot be judged": ("mark", str),
}
"""Columns of the leaderboard but the pages, its last: the fields of `leaderboard.rows`, and how each is written. Words
(`title`, `str`) are filtered by choosing from a list."""


def results(env: BuildEnvironment) -> list[str]:
    """Names of the pages of results, as documents: the executed notebooks, and neither index nor leaderboard."""
    own = {f"{RESULTS}index", f"{RESULTS}leaderboard"}
    return sorted(name for name in env.found_docs if name.startswith(RESULTS) and name not in own)


def read(env: BuildEnvironment, name: str) -> dict[str, Any]:
    """Return the record of a page, {} where there is none; what asks is made again when it changes."""
    path = Path(env.srcdir) / f"{name}.json"
    env.note_dependency(str(path))
    return run_folder.read_object(path)


def trials(env: BuildEnvironment) -> pd.DataFrame:
    """Return the trials of all published pages; what asks is made again when a record changes."""
    return leaderboard.trials({name.removeprefix(RESULTS): read(env, name) for name in results(env)})


class Header(SphinxDirective):
    """`{miue-header}`: the box at the head of a result."""

    def run(self) -> list[nodes.Node]:
        """Return an admonition with a list of facts and the command."""
        record = read(self.env, self.env.docname)
        fields = nodes.field_list()
        for name, text in summary.facts(record).items():
            body = nodes.field_body("", nodes.paragraph("", text))
            fields += nodes.field("", nodes.field_name("", name), body)
        line = summary.command(record, Path(self.env.doc2path(self.env.docname)))
        about = "The command of it; what it does not name was left at its default"
        if "-p records=" in line:
            about += ". Trials that its file of records holds are read, not measured; without it all are measured anew"
        told = nodes.paragraph("", f"{about}:")
        command = nodes.literal_block(line, line, language="bash")
        heading = nodes.title("", "This page is one run")
        box = nodes.admonition("", heading, fields, told, command, classes=["note", "miue-run", "dropdown"])
        return [box]


class ResultTable(SphinxDirective):
    """`{miue-results}`: each published page with what its record says of data, scale, time and code."""

    def run(self) -> list[nodes.Node]:
        """Return the table, one row for each page of a result that the book holds."""
        rows = []
        for name in results(self.env):
            record = read(self.env, name)
            given, made = record.get("parameters", {}), record.get("provenance", {})
            data, wall = record.get("metrics", {}).get("data", {}), record.get("wall_seconds")
            texts = [
                f"{data['n']:,}" if "n" in data else None,
                summary.scale(record),
                len(given.get("seeds", [])) or None,
                "; ".join(map(title, given.get("victims") or [given[k] for k in ("victim",) if k in given])),
                made.get("device"),
                summary.duration(taken) if (taken := summary.making(record)) else None,
                None if wall is None else summary.duration(wall),
                made.get("commit"),
            ]
            rows.append([link(name), *(nodes.Text("" if text is None else str(text)) for text in texts)])
        heads = ["Page", "Images", "Scale", "Seeds", "Victims", "Hardware", "Making it all", "This run", "Commit"]
        return [table(heads, rows, [30, 8, 8, 6, 17, 12, 8, 8, 9], "miue-results")]


class Leaderboard(SphinxDirective):
    """`{miue-leaderboard}`: every trial, its seeds summed up."""

    def run(self) -> list[nodes.Node]:
        """Return the table, whole and readable without any script."""
        rows = [
            [
                *(nodes.Text(write(row[name])) for name, write in COLUMNS.values()),
                links(RESULTS + page for page in row["pages"]),
            ]
            for row in leaderboard.rows(trials(self.env)).to_dict("records")
        ]
        made = table([*COLUMNS, "Pages"], rows, kind="miue-leaderboard")
        for cell in list(made.findall(nodes.paragraph)):  # the library shows what a cell holds in its menus, tags too
            cell.replace_self(cell.children)
        kinds = ["miue-list" if write in (title, str) else "miue-value" for _, write in COLUMNS.values()]
        for head, kind in zip(made.findall(nodes.entry), [*kinds, "miue-value"], strict=False):
            head["classes"] += [kind]
        return [nodes.container("", made, classes=["miue-frame"])]


class ClaimTable(SphinxDirective):
    """`{miue-claims}`: claim, paper's number, verdict, numbers and pages."""

    def run(self) -> list[nodes.Node]:
        """Return the table, one row for each claim."""
        rows = []
        for found in claims.verdicts(trials(self.env)):
            judged = nodes.inline("", f" Judged: {found.how}.", classes=["miue-how"])
            claim = nodes.inline("", "", nodes.Text(found.text), judged)
            against = f" Most strongly against it: {found.against}." if found.against else ""
            numbers = nodes.Text(found.numbers + against)
            texts = nodes.Text(found.reported), nodes.strong("", found.verdict), numbers
            rows.append([claim, *texts, links(f"book/{page}" for page in found.pages)])
        heads = ["The paper's claim", "It reports", "Here", "Numbers", "Pages"]
        return [table(heads, rows, [30, 17, 12, 26, 15], "miue-claims")]


def link(name: str, text: str | None = None) -> nodes.Node:
    """Return a link to a page of the book; None: by its title."""
    inner = nodes.inline("", text or name)
    return addnodes.pending_xref(
        "", inner, refdomain="std", reftype="doc", reftarget=f"/{name}", refexplicit=text is not None
    )


def links(names: Iterable[str]) -> nodes.Node:
    """Return links to several pages, each by the name of its file."""
    parts = [node for name in names for node in (nodes.Text(", "), link(name, name.rpartition("/")[2]))]
    return nodes.inline("", "", *parts[1:])


def table(
    heads: list[str], rows: list[list[nodes.Node]], widths: list[int] | None = None, kind: str | None = None
) -> nodes.table:
    """Return a table of cells, each a node; `widths` are relative, `kind` is a class of its style."""

    def row(cells: list[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

    columns = [nodes.colspec(colwidth=width) for width in widths or [1] * len(heads)]
    group = nodes.tgroup("", *columns, cols=len(heads))
    group += nodes.thead("", row([nodes.Text(head) for head in heads]))
    group += nodes.tbody("", *(row(cells) for cells in rows))
    return nodes.table("", group, classes=[*(["colwidths-given"] if widths else []), *([kind] if kind else [])])


def add_static(app: Sphinx, config: Any) -> None:
    """Let pages find the style of these tables and the library that sorts them."""
    config.html_static_path.append(str(Path(app.srcdir) / "book" / "_static"))


def add_library(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Load the library on pages that have a leaderboard, and on no other."""
    if doctree is None or not any("miue-leaderboard" in found["classes"] for found in doctree.findall(nodes.table)):
        return
    # Both libraries mark an event by `delegateTarget`: the copy button would take a click on a column for its own.
    # There is no code to copy on such a page.
    scripts = context["script_files"]
    scripts[:] = [script for script in scripts if not COPY_BUTTON & {Path(str(script.filename)).name}]
    for name in ("dataTables.dataTables", "columnControl.dataTables"):
        app.add_css_file(f"{TABLES}/{name}.min.css")
    for name in ("dataTables", "dataTables.dataTables", "dataTables.columnControl", "columnControl.dataTables"):
        app.add_js_file(f"{TABLES}/{name}.min.js", loading_method="defer")
    app.add_js_file("leaderboard.js", loading_method="defer")


def connect(app: Sphinx) -> None:
    """Connect all of it to Sphinx."""
    app.connect("config-inited", add_static)
    app.connect("html-page-context", add_library)
    app.add_css_file("miue.css", priority=900)
    app.add_directive("miue-header", Header)
    app.add_directive("miue-results", ResultTable)
    app.add_directive("miue-leaderboard", Leaderboard)
    app.add_directive("miue-claims", ClaimTable)
