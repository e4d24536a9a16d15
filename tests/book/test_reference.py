"""The reference: every public name has its place in it, and names in code lead there."""

import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest
from sphinx.util.typing import stringify_annotation

from miue.data.arrays import Array
from miue.publishing.extension.reference import shorten

PAGES = sorted((Path(__file__).parents[2] / "book" / "reference").glob("*.md"))
ROOMS = [
    "miue",
    "miue.data",
    "miue.models",
    "miue.models.heads",
    "miue.models.stages",
    "miue.training",
    "miue.training.contrastive",
    "miue.training.sharpness",
    "miue.victim",
    "miue.poisons",
    "miue.defenses",
    "miue.defenses.detection",
    "miue.protect",
    "miue.audit",
    "miue.mi",
    "miue.mi.bounds",
    "miue.mi.statistics",
    "miue.mi.tasks",
    "miue.mi.acceptance",
    "miue.losses",
    "miue.pgd",
    "miue.precision",
    "miue.ranks",
    "miue.seeds",
    "miue.errors",
    "miue.experiments.comparison",
]


def described(page: Path) -> list:
    """The modules, functions, classes and constants that a page describes."""
    found, room = [], ""
    for kind, name in re.findall(r"^\.\. (?:py:|auto)(\w+):: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        if kind.endswith("module"):
            room = name
        if kind not in ("currentmodule", "type"):
            found.append(resolve_name(name if name.startswith("miue") else f"{room}.{name}"))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_stands_on_exactly_one_page(room):
    places = Counter(id(thing) for page in PAGES for thing in described(page))
    module = import_module(room)
    assert {name: places[id(getattr(module, name))] for name in module.__all__} == dict.fromkeys(module.__all__, 1)
    assert places[id(module)] == 1


def test_signatures_say_what_a_person_hands_over():
    union = stringify_annotation(Array, "smart")
    ranged = "~typing.Annotated[int, ~miue.errors.Range(low=1, text= (of any kind))]"
    written, _ = shorten(None, "function", "f", None, None, f"(x: {union} | None, n: {ranged} = 3)", None)
    assert written == "(x: ~miue.data.arrays.Array | None, n: int = 3)"
