"""Tables and boxes that are made of the records of published pages, anew in each build.

- `{miue-header}`: what the run of this page was, and the command that runs it again; under the title of each result.
- `{miue-results}`: one row for each page.
- `{miue-leaderboard}`: all trials of all pages; the browser sorts and filters it (`_static/leaderboard.js`).
- `{miue-claims}`: what the paper claims and what the trials say about it.
"""

from collections.abc import Iterable, Mapping
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

COLUMNS = {
    "Rank": "rank",
    "of": "of",
    "Method": "method",
    "Victim": "victim",
    "Defense": "defense",
    "Accuracy %": "mean",
    "Lowest": "low",
    "Highest": "high",
    "Passes": "passes",
    "Seconds": "seconds",
    "Seeds": "seeds",
    "Victims": "victims",
    "Scale": "scale",
    "Data": "data",
    "Images": "n_train",
    "Size": "size",
    "Budget": "budget",
    "Paper %": "reported",
    "Difference": "difference",
    "MI, nats": "mi",
    "Shuffled": "null",
    "Estimator": "estimator",
    "Recipe": "recipe",
    "Surrogate": "surrogate",
    "Twin": "twin",
    "Protocol": "protocol",
    "Passes allowed": "allowed",
    "Perturbed": "ratio",
    "Cannot be judged": "mark",
    "Pages": "pages",
}
"""Columns of the leaderboard, by the fields of `leaderboard.rows`."""

LISTS = {"method", "victim", "defense", "data", "budget", "surrogate", "scale", "recipe", "estimator"}
LISTS |= {"twin", "protocol", "allowed", "mark"}
"""Those that are filtered by choosing from a list."""

SHARES, NATS = {"mean", "low", "high", "reported", "difference"}, {"mi", "null"}
COSTS = {"passes", "seconds"}


def results(env: BuildEnvironment) -> list[str]:
    """Names of the pages of results, as documents: the executed notebooks, and neither index nor leaderboard."""
    own = {f"{RESULTS}index", f"{RESULTS}leaderboard"}
    return sorted(name for name in env.found_docs if name.startswith(RESULTS) and name not in own)


class OfRecords(SphinxDirective):
    """What all directives here share: they are made again when a record changes."""

    def read(self, name: str) -> dict[str, Any]:
        """Return the record of a page, {} where there is none."""
        path = Path(self.env.doc2path(name)).with_suffix(".json")
        self.env.note_dependency(str(path))
        return run_folder.page_record(path)

    def trials(self) -> pd.DataFrame:
        """Return the trials of all published pages."""
        names = results(self.env)
        return leaderboard.trials({name.removeprefix(RESULTS): self.read(name) for name in names})


class Header(OfRecords):
    """`{miue-header}`: the box at the head of a result."""

    def run(self) -> list[nodes.Node]:
        """Return an admonition with a list of facts and the command."""
        record = self.read(self.env.docname)
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
        box = nodes.admonition("", heading, fields, told, command, classes=["note", "miue-run"])
        return [*outdated(record), box]


class ResultTable(OfRecords):
    """`{miue-results}`: each published page with what its record says of data, scale, time and code."""

    def run(self) -> list[nodes.Node]:
        """Return the table, one row for each page of a result that the book holds."""
        rows = []
        for name in results(self.env):
            record = self.read(name)
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
            shown = nodes.inline("", "", link(name), *outdated(record, nodes.inline, " "))
            rows.append([shown, *(nodes.Text("" if text is None else str(text)) for text in texts)])
        heads = ["Page", "Images", "Scale", "Seeds", "Victims", "Hardware", "Making it all", "This run", "Commit"]
        made = table(heads, rows, [30, 8, 8, 6, 17, 12, 8, 8, 9])
        made["classes"] += ["miue-results"]
        return [made]


class Leaderboard(OfRecords):
    """`{miue-leaderboard}`: every trial, its seeds summed up."""

    def run(self) -> list[nodes.Node]:
        """Return the table, whole and readable without any script."""
        rows = [[self._cell(name, row[name]) for name in COLUMNS.values()] for row in self._rows()]
        made = table(list(COLUMNS), rows)
        made["classes"] += ["miue-leaderboard"]
        for cell in list(made.findall(nodes.paragraph)):  # the library shows what a cell holds in its menus, tags too
            cell.replace_self(cell.children)
        for head, name in zip(made.findall(nodes.entry), COLUMNS.values(), strict=False):
            head["classes"] += ["miue-list" if name in LISTS else "miue-value"]
        return [nodes.container("", made, classes=["miue-frame"])]

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return leaderboard.rows(self.trials()).to_dict("records")

    def _cell(self, name: str, value: Any) -> nodes.Node:
        if name == "pages":
            return links(RESULTS + page for page in value)
        if name in SHARES | NATS | COSTS | {"rank", "of"} and pd.isna(value):
            return nodes.Text("")
        if name in SHARES:
            return nodes.Text(f"{100 * value:{'+' if name == 'difference' else ''}.2f}")
        if name in NATS:
            return nodes.Text(f"{value:.3f}")
        if name in COSTS:
            return nodes.Text(f"{value:.0f}")
        if name in ("method", "victim", "defense", "surrogate"):
            return nodes.Text(title(value))
        return nodes.Text(f"{value:g}" if isinstance(value, float) else str(value))


class ClaimTable(OfRecords):
    """`{miue-claims}`: claim, paper's number, verdict, numbers and pages."""

    def run(self) -> list[nodes.Node]:
        """Return the table, one row for each claim."""
        rows = []
        for found in claims.verdicts(self.trials()):
            judged = nodes.inline("", f" Judged: {found.how}.", classes=["miue-how"])
            claim = nodes.inline("", "", nodes.Text(found.text), judged)
            against = f" Most strongly against it: {found.against}." if found.against else ""
            numbers = nodes.Text(found.numbers + against)
            texts = nodes.Text(found.reported), nodes.strong("", found.verdict), numbers
            rows.append([claim, *texts, links(f"book/{page}" for page in found.pages)])
        made = table(["The paper's claim", "It reports", "Here", "Numbers", "Pages"], rows, [30, 17, 12, 26, 15])
        made["classes"] += ["miue-claims"]
        return [made]


def outdated(
    record: Mapping[str, Any], kind: type[nodes.TextElement] = nodes.paragraph, before: str = ""
) -> list[nodes.Node]:
    """Return the line that a page carries which was measured before twins were told apart; nothing for others."""
    told = nodes.emphasis("", summary.OUTDATED)
    return [kind("", before, told, classes=["miue-outdated"])] if summary.outdated(record) else []


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


def table(heads: list[str], rows: list[list[nodes.Node]], widths: list[int] | None = None) -> nodes.table:
    """Return a table of cells, each a node; `widths` are relative."""

    def row(cells: list[nodes.Node]) -> nodes.row:
        return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))

    columns = [nodes.colspec(colwidth=width) for width in widths or [1] * len(heads)]
    group = nodes.tgroup("", *columns, cols=len(heads))
    group += nodes.thead("", row([nodes.Text(head) for head in heads]))
    group += nodes.tbody("", *(row(cells) for cells in rows))
    return nodes.table("", group, classes=["colwidths-given"] if widths else [])


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
    for name, directive in {
        "header": Header,
        "results": ResultTable,
        "leaderboard": Leaderboard,
        "claims": ClaimTable,
    }.items():
        app.add_directive(f"miue-{name}", directive)
