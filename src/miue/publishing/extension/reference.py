"""Links to the reference: wherever a name of the package is written, by whichever path it was imported.

A name stands in the reference as people type it, `miue.load`. Annotations, and imports in the cells of chapters, know
it by the module that defines it, `miue.data.loading.load`, or by one that hands it on.
"""

import re
from pkgutil import resolve_name
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import ObjectEntry
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import stringify_annotation
from sphinx_codeautolink import clean_ipython
from sphinx_codeautolink.extension.block import BUILTIN_BLOCKS, CodeBlockAnalyser

from miue.data.arrays import Array

ARRAY = stringify_annotation(Array, "smart")
RANGED = re.compile(r"~typing\.Annotated\[(\w+), (?:~miue\.errors\.Range)?\(.*?\)\]")


def add_homes(app: Sphinx, env: BuildEnvironment) -> None:
    """Let each function, method and property of the reference be found under the module that defines it, too."""
    known = env.domains["py"].objects
    for name, entry in list(known.items()):
        found = resolve_name(name)
        found = getattr(found, "fget", found)  # of a property
        if hasattr(found, "__qualname__"):
            home = f"{found.__module__}.{found.__qualname__}"
            known.setdefault(home, ObjectEntry(entry.docname, entry.node_id, entry.objtype, aliased=True))


def keep_formulas(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Show an indented block of a docstring as it stands: it is a formula, or code."""
    for place in range(len(lines) - 1, 1, -1):
        before, blank, line = lines[place - 2 : place + 1]
        if before and not before.startswith(" ") and not blank and line.startswith("    "):
            lines[place:place] = [".. code-block:: none", ""]


def shorten(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Write `Array` in signatures for what that stands for, and types without ranges and words, which texts tell."""
    short = (signature or "").replace(ARRAY, "~miue.data.arrays.Array")
    return RANGED.sub(r"\1", short) or signature, returned


def leave_section(analyser: CodeBlockAnalyser, node: nodes.section) -> None:
    """Forget the title of a section, if it has one: exercises and proofs are sections without."""
    del analyser.title_stack[-1:]


def connect(app: Sphinx) -> None:
    """Connect all of it to Sphinx."""
    CodeBlockAnalyser.depart_section = leave_section  # its own breaks off where there is no title
    BUILTIN_BLOCKS["python"] = clean_ipython  # cells of pages that are not executed
    app.connect("autodoc-process-docstring", keep_formulas, priority=400)  # before napoleon reads sections, at 500
    app.connect("autodoc-process-signature", shorten)
    app.connect("env-updated", add_homes, priority=400)  # before sphinx-codeautolink looks names up, at 500
