"""What a published record says about its run, in words: the box at the head of its page, its row in the index."""

import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from miue.errors import InputError
from miue.experiments.trials import trained
from miue.publishing import leaderboard
from miue.runs import notebook, parameters

SCALES = {
    "quick": "quick: small images or few, a small network, few epochs; not the paper's scale",
    "laptop": "laptop: a part of the data, a small network; not the paper's scale",
    "paper": "paper: presets and recipes of the paper",
    leaderboard.UNKNOWN: "",
}
VERSIONS = {"miue": "miue", "torch": "PyTorch", "python": "Python"}


def facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Say what a run was: data, scale, seeds, versions, hardware, commit, times, as far as its record tells.

    Args:
        record: of a published page, of any age.
    """
    given, made = record.get("parameters", {}), record.get("provenance", {})
    found = {
        "Data": data(record),
        "Scale": SCALES[scale(record)],
        "Seeds": ", ".join(map(str, given.get("seeds", []))),
        "Versions": ", ".join(f"{label} {made[name]}" for name, label in VERSIONS.items() if made.get(name)),
        "Hardware": "; ".join(_all(record, "device")),
        "Commit": commits(record),
        "Time": time(record),
    }
    return {name: text for name, text in found.items() if text}


def brief(record: Mapping[str, Any]) -> str:
    """Say in a line on what a page was measured, how often and where."""
    given, data = record.get("parameters", {}), record.get("metrics", {}).get("data", {})
    rows = _rows(record)
    seeds, many = len({row.get("seed") for row in rows}), "s" if len(rows) > 1 else ""
    parts = [
        f"{data['data']}, {data['n']:,} images" if {"data", "n"} <= data.keys() else "",
        f"preset {given['preset']}" if "preset" in given else "",
        f"recipe {given['recipe']}" if "recipe" in given else "",
        f"{seeds} perturbation seed{'s' if seeds > 1 else ''}, {len(rows)} trial{many}" if rows else "",
        "; ".join(_all(record, "device")),
    ]
    return " · ".join(filter(None, parts))


def scale(record: Mapping[str, Any]) -> str:
    """The scale of a run, as `leaderboard.scale` names it."""
    given = record.get("parameters", {})
    return leaderboard.scale(given.get("preset"), given.get("recipe"))


def data(record: Mapping[str, Any]) -> str:
    """Name and number of the training images, and what is told of shape, classes, test images and content."""
    metrics = record.get("metrics", {})
    train, test = metrics.get("data", {}), metrics.get("test", {})
    if not {"data", "n"} <= train.keys():
        return ""
    parts = [f"{train['data']}, {train['n']:,} training images"]
    if "shape" in train:
        parts.append(f"of {' x '.join(map(str, train['shape']))} in {train['n_classes']} classes")
    first: Mapping[str, Any] = next(iter(metrics.get("trials", [])), {})
    if tested := test.get("n") or first.get("n_test"):
        parts.append(f"and {tested:,} for testing")
    content = train.get("content_hash")
    return " ".join(parts) + (f"; content hash {content}" if content else "")


def time(record: Mapping[str, Any]) -> str:
    """Day and wall time of the run, and what its perturbations and victims took whenever they were made."""
    wall, started = record.get("wall_seconds"), record.get("started")
    if wall is None or started is None:
        return ""
    day = datetime.fromisoformat(started).strftime("%d %B %Y").lstrip("0")
    kept = "the cache and the records file" if record.get("parameters", {}).get("records") else "the cache"
    text = f"{duration(wall)} on {day}, with what lay in {kept}"
    steps = making(record)
    return f"{text}; making its perturbations and victims took {duration(steps)}" if steps else text


def commits(record: Mapping[str, Any]) -> str:
    """The commit of the run, and those that its trials were measured with where they are others."""
    own, *others = [*_all(record, "commit"), ""]
    others = [commit for commit in others if commit]
    return f"{own}; trials were measured with {', '.join(others)}" if others else own


def duration(seconds: float) -> str:
    """Write a time with the figures that matter: "15 s", "1 min 56 s", "3.2 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{seconds / 3600:.1f} h"


def command(record: Mapping[str, Any], page: Path) -> str:
    """Write the command line that runs the experiment again: the parameters that differ from their defaults.

    Args:
        record: of a published page.
        page: its notebook, whose own parameters cell holds the defaults of its time.
    """
    defaults = _defaults(page)
    changed = {k: v for k, v in record.get("parameters", {}).items() if k not in defaults or defaults[k] != v}
    lines = [f"miue run {Path(record.get('template', page.stem)).stem}"]
    lines += [f"-p {shlex.quote(f'{name}={_written(value)}')}" for name, value in changed.items()]
    return " \\\n    ".join(lines)


def _defaults(page: Path) -> dict[str, Any]:
    """The defaults that a notebook declares; none, where it declares them in a way that is no longer read."""
    try:
        made = notebook.load(page)
        source = made.cells[notebook.tagged(made, "parameters")[0]].source
        return {name: one.default for name, one in parameters.read(source).items()}
    except (InputError, IndexError):
        return {}


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_written, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _all(record: Mapping[str, Any], name: str) -> list[str]:
    """The distinct values of a field in provenance and trials, that of the run first."""
    values = [record.get("provenance", {}).get(name), *(row.get(name) for row in _rows(record))]
    return list(dict.fromkeys(str(value) for value in values if value))


def _rows(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The trials of a record; none of one that measured none."""
    return record.get("metrics", {}).get("trials", [])


def making(record: Mapping[str, Any]) -> float:
    """Seconds that all perturbations and victims of a record took, each once, whenever they were made."""
    seconds: dict[tuple[Any, ...], float] = {}
    for row in _rows(record):
        made = tuple(row.get(name) for name in ("method", "seed", "surrogate", "epsilon"))
        seconds[made] = row.get("perturbation_seconds") or 0.0
        seconds[trained(row)] = row.get("victim_seconds") or 0.0
    return sum(seconds.values())
