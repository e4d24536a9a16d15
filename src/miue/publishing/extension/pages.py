"""What Jupyter Book leaves open: outputs that follow the package's code, results that are what their record says.

- Chapters are executed again after every change of `src/miue` and of the files that chapters read: myst-nb's cache
  looks at code cells only, so a hash of both goes into the path of the cache.
- A page under `book/results/` is refused unless its record says that the run ended well and the notebook is
  the one that was executed, whole and without an error.
- A result gets the title of its card, or its template's with data and scale; the finding of its card with its figure, a
  box with what its run was, and figures with names of their own: pages of one template would name them alike. Its code
  is folded, and what shows nothing left out: the notebook to take away has it.
- A page that comes or goes renders all pages anew: each shows the table of contents. Pages that list the contents are
  written after any change, and are read for that: sphinx-codeautolink knows the names in what was read only.
- `{miue-parameters} NAME` shows the parameters of a template.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from miue.errors import InputError
from miue.publishing.chapters import cache_of
from miue.publishing.extension import findings
from miue.publishing.extension.records import RESULTS, results, table
from miue.runs import notebook, run_folder, template

HEADER = "\n\n```{miue-header}\n```\n"


def set_cache(app: Sphinx, config: Any) -> None:
    """Give myst-nb an execution cache of this version of the code, and remove those of other versions."""
    current = cache_of(Path(app.srcdir))
    for outdated in set(current.parent.glob("code-*")) - {current}:
        shutil.rmtree(outdated)
    config.nb_execution_cache_path = str(current)


def renew_contents(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> set[str]:
    """Return the pages to read again beside those that changed: all if one came or went, else those with contents."""
    if added or removed:
        return set(env.found_docs)
    return {env.config.root_doc}.union(*env.files_to_rebuild.values()) if changed else set()


def refuse_bad_results(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Raise ExtensionError for the first page of a result that cannot be trusted.

    Looks at all pages in each build, not only at those that changed: it may be the record that has.
    """
    for name in results(env):
        if wrong := _wrong(Path(env.doc2path(name))):
            raise ExtensionError(f"{name}: this result is not published, because {wrong}")


def tell_apart(app: Sphinx, name: str, source: list[str]) -> None:
    """Say in the title of a result on what it was measured, and below what it found; fold its record and its code.

    Its name goes before those of its figures.
    """
    if name not in results(app.env):
        return
    record = run_folder.read_object(Path(app.srcdir) / f"{name}.json")
    text, cells = source[0], json.loads(source[0])["cells"]
    for figure in {cell["metadata"].get("mystnb", {}).get("figure", {}).get("name") for cell in cells} - {None}:
        own = f"{name.removeprefix(RESULTS)}-{figure}"
        text = re.sub(rf"(?<![\w-]){re.escape(figure)}(?![\w-])", own, text)
    page = json.loads(text)
    first = page["cells"][0]
    heading, _, rest = "".join(first["source"]).partition("\n")
    heading, finding = _title(heading, record), ""
    if card := findings.written(app, name.removeprefix(RESULTS)):
        titled = re.search(r"^:title: *(.+)$", card["options"], re.MULTILINE)
        heading = f"# {titled[1]}" if titled else heading
        finding = f"\n\n:::{{miue-finding}} {card['page']}\n:alone:\n{card['options']}\n{card['text']}:::"
    first["source"] = heading + finding + HEADER + rest
    for cell in page["cells"]:
        if cell["cell_type"] == "code":
            kept = [tag for tag in cell["metadata"].get("tags", []) if tag != "hide-input"]
            cell["metadata"]["tags"] = [*kept, "hide-input" if cell["outputs"] else "remove-input"]
    source[0] = json.dumps(page, ensure_ascii=False)


def _title(heading: str, record: dict[str, Any]) -> str:
    """The template's own heading with data, number of images and scale, as the record has them."""
    data = record.get("metrics", {}).get("data", {})
    if not {"data", "n"} <= data.keys():
        return heading
    joint = "" if heading.endswith("?") else ":"
    preset = record["parameters"].get("preset", "no preset")
    return f"{heading}{joint} {data['data']}, {data['n']:,} images, {preset}"


def _wrong(page: Path) -> str:
    """Why the page is no good result, "" if it is one."""
    record = run_folder.read_object(page.with_suffix(".json"))
    if page.suffix != ".ipynb":
        return "it is no executed notebook (.ipynb)"
    if not record:
        return f"its record {page.stem}.json is missing or unreadable"
    if record.get("state") != "done":
        return f"its run did not end well: {record.get('state')!r}, {record.get('error')}"
    try:
        wrong = run_folder.notebook_problems(page, str(record.get("notebook_sha256")))
        first = notebook.load(page).cells[:1]
    except InputError as error:
        return str(error)
    titled = first and first[0].cell_type == "markdown" and first[0].source.startswith("# ")
    return "; ".join(wrong) or ("" if titled else "its first cell is no title")


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
        return [table(["Parameter", "Type", "Default", "Meaning"], rows)]


def _code(text: str) -> nodes.literal:
    return nodes.literal(text, text)


def connect(app: Sphinx) -> None:
    """Connect all of it to Sphinx."""
    app.connect("config-inited", set_cache)
    app.connect("env-get-outdated", renew_contents)
    app.connect("env-before-read-docs", refuse_bad_results)
    app.connect("source-read", tell_apart)
    app.add_directive("miue-parameters", ParameterTable)
