"""Records of earlier versions in the words of the present one, so that old files and published pages still read.

Version 4 says surrogate where 3 and before said source, and trials where they said entries. Since 3 perturbation and
victim have streams of their own, so `victim_seed` and `twin` stand in each row; since 2 surrogate, budget and ratio do.
"""

from collections.abc import Mapping
from typing import Any

from miue import poisons, specs

VERSION = 4
NEW_NAMES = {"source": "surrogate", "sources": "surrogates", "source_epochs": "surrogate_epochs", "entries": "trials"}


def renamed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields under their present names: a row, the parameters of a run, or its metrics with their rows."""
    found = {NEW_NAMES.get(name, name): value for name, value in fields.items()}
    if isinstance(rows := found.get("trials"), list):
        found["trials"] = [renamed(row) if isinstance(row, Mapping) else row for row in rows]
    return found


def settled(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with all fields of a `Trial`, also where it was measured before version 3.

    One seed then went to surrogate and victim alike, so that the victim had its own seed and, where it was of the
    surrogate's architecture, the surrogate's weights and order. Perturbations took what their presets take.
    """
    row = renamed(row)
    if "twin" in row:
        return row
    method = poisons.METHODS.get(specs.parse(str(row.get("method")))[0])
    twin = method is not None and method.outer is not None and row.get("victim") == row.get("surrogate")
    added = {"victim_seed": row.get("seed"), "twin": "weights+order" if twin else "none"}
    return {**row, **added, "passes_allowed": row.get("passes")}
