"""The file of a sweep: which template, which parameters stay, which vary; all of it checked before anything starts."""

import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import yaml

from miue.errors import InputError, choose
from miue.runs import template
from miue.runs.template import Template

SECTIONS = ("template", "parameters", "grid", "list")
MOST = 10_000
"""A sweep of more runs than that is a slip of the pen."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: its number, from 1; the checked values of all its parameters, and of those that vary."""

    number: int
    values: dict[str, Any]
    varied: dict[str, Any]

    @property
    def label(self) -> str:
        """What sets this run apart, such as "epsilon=4/255 seeds=0,1"."""
        return " ".join(f"{name}={_short(value)}" for name, value in self.varied.items()) or "as the template has it"


@dataclass(frozen=True)
class Spec:
    """A sweep that has been read: the file, the template, and the runs in their order."""

    path: Path
    template: Template
    runs: tuple[Planned, ...]

    @property
    def name(self) -> str:
        """Name of the sweep's folder: that of the file, and a hash of the template's name and all parameters."""
        whole = json.dumps([self.template.name, [run.values for run in self.runs]], sort_keys=True)
        word = "".join(c if c.isalnum() or c in "._" else "_" for c in self.path.stem)[:40]
        return f"{word}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def read(path: str | Path) -> Spec:
    """Return the sweep that a YAML file describes, every run of it checked as `miue run` checks its parameters.

    The file has the name of a `template` (or the path of one, from the file's own folder); `parameters`, the same for
    all runs; a `grid` of names, each with a list of values, of which every combination is a run; and a `list` of
    parameters that belong together. Where there are both, each item of the list goes through the whole grid.

    Raises:
        InputError: the file cannot be read, is not of this form, gives one name in two places, or describes the same
            run twice; or a run's parameters do not fit the template. The message names the run.
    """
    path = Path(path)
    written = _load(path)
    for section in written:
        choose(f"{path.name}: section", str(section), SECTIONS)
    name = written.get("template")
    if not isinstance(name, str):
        raise _wrong(path, "template", name, "the name of a template")
    chosen = template.read(path.parent / name if name.endswith(".md") else name)
    fixed = _names(path, "parameters", written.get("parameters", {}))
    grid = _grid(path, written.get("grid", {}))
    items = _items(path, written.get("list", [{}]))
    _refuse_repeated(path, fixed, grid, items)
    if (count := math.prod(map(len, grid.values())) * len(items)) > MOST:
        raise InputError(f"{path.name}: it describes {count:,} runs; the most is {MOST:,}")
    runs = []
    every = (item | dict(zip(grid, values, strict=True)) for item in items for values in product(*grid.values()))
    for number, varied in enumerate(every, 1):
        try:
            values = chosen.check(fixed | varied)
        except InputError as error:
            given = ", ".join(f"{name}: {value}" for name, value in varied.items())
            raise InputError(f"{path.name}, run {number}{f' ({given})' if given else ''}: {error}") from None
        runs.append(Planned(number, values, {name: values[name] for name in varied}))
    _refuse_twins(path, runs)
    return Spec(path, chosen, tuple(runs))


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which makes plain values only; a name that stands twice is refused, not overwritten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for name, times in Counter(str(key.value) for key, _ in node.value).items():
            if times > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _load(path: Path) -> dict[Any, Any]:
    try:
        written = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"sweep: {path} cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise InputError(f"sweep: {path} is no plain YAML ({' '.join(str(error).split())})") from None
    if not isinstance(written, dict):
        raise InputError(f"sweep: {path} has none of the sections {', '.join(SECTIONS)}")
    return written


def _wrong(path: Path, section: str, value: Any, wanted: str) -> InputError:
    return InputError(f"{path.name}: {section}: {value!r}; it must be {wanted}")


def _names(path: Path, section: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _wrong(path, section, value, "names of parameters with their values")
    return value


def _grid(path: Path, value: Any) -> dict[str, list[Any]]:
    grid = _names(path, "grid", value)
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise _wrong(path, f"grid: {name}", values, "a list of values")
    return grid


def _items(path: Path, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _wrong(path, "list", value, "a list of parameters with their values")
    return [_names(path, f"list, item {number}", item) for number, item in enumerate(value, 1)]


def _refuse_repeated(path: Path, fixed: dict[str, Any], grid: dict[str, Any], items: list[dict[str, Any]]) -> None:
    for number, item in enumerate(items, 1):
        places = {"parameters": fixed, "grid": grid, f"item {number} of list": item}
        for (one, names), (other, more) in combinations(places.items(), 2):
            if both := sorted(names.keys() & more.keys()):
                raise InputError(f"{path.name}: {both[0]} stands in {one} and in {other}; give it in one of them")


def _refuse_twins(path: Path, runs: list[Planned]) -> None:
    """Check that no two runs are the same, and that none share a file of trials: that has one writer at a time."""
    seen: dict[tuple[str, str], int] = {}
    for run in runs:
        marks = [("have the same parameters", json.dumps(run.values, sort_keys=True))]
        if run.values.get("records"):
            marks.append(("write to the same file of `records`", run.values["records"]))
        for mark in marks:
            if (first := seen.setdefault(mark, run.number)) != run.number:
                raise InputError(f"{path.name}: run {first} and run {run.number} ({run.label}) {mark[0]}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
