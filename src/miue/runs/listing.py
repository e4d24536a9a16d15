"""Runs side by side: a table over a folder of runs, and what differs between two."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from miue.errors import InputError, choose
from miue.experiments.text import aligned
from miue.experiments.trials import NONE, Trial
from miue.progress import duration
from miue.runs.run_folder import STATUS, Run, held, load

LOST = "lost"
"""State of a run that says it is running while no process is at work on it."""

IDENTITY = (*(field.name for field in fields(Trial)), "estimator")
"""What tells the rows of a list of measurements apart."""

COLUMNS = ("run", "state", "template", "data", "n_train", "preset", "seeds", "test_accuracy", "started", "wall_seconds")
"""What is shown of each run on a terminal."""


def state(run: Run) -> str:
    """The state of a run: running, done, failed, interrupted, or lost where its process was killed."""
    return LOST if run.state == "running" and not held(run.folder) else run.state


def listed(folder: str | Path, where: Mapping[str, str] | None = None, sort: str | None = None) -> pd.DataFrame:
    """Return a table of the runs in `folder`.

    Args:
        folder: of run folders.
        where: only runs whose column or parameter of that name has this value, compared as text; a list is written
            with commas.
        sort: column or parameter to sort by; by default the time when a run was started.

    Returns:
        One row for each run: `run` (its folder's name), `state`, `template`, `data`, `n_train`, `preset`, `seeds`,
        `test_accuracy` (by method, its range over undefended victims), `started` and `wall_seconds`, then all
        parameters that are no column yet.

    Raises:
        InputError: there is no such folder, or no run has what is asked for.
    """
    if not Path(folder).is_dir():
        raise InputError(f"folder: {folder} does not exist; give a folder of runs")
    rows = [_row(run) for run in _runs(Path(folder))]
    table = pd.DataFrame(rows, dtype=object) if rows else pd.DataFrame(columns=["run"])
    for name, value in (where or {}).items():
        table = table[table[choose("--where", name, table)].map(written) == value]
    by = choose("--sort", sort or ("started" if "started" in table else "run"), table)
    return table.sort_values(by, key=_sortable, kind="stable").reset_index(drop=True)


def shown(table: pd.DataFrame) -> str:
    """Write the first columns of `listed` as lines of text for a terminal."""
    if table.empty:
        return "no such run"
    table = table[[name for name in COLUMNS if name in table]].copy()
    table["wall_seconds"] = ["" if pd.isna(seconds) else duration(seconds) for seconds in table["wall_seconds"]]
    table["started"] = table["started"].str[:16]
    table["test_accuracy"] = [
        ", ".join(f"{method} {_percent(values)}" for method, values in of_run.items())
        for of_run in table["test_accuracy"]
    ]
    return aligned(table.rename(columns={"wall_seconds": "took"}).map(written))


def differences(one: Run, other: Run) -> pd.DataFrame:
    """Return what differs between two runs.

    Returns:
        One row for each parameter, fact of provenance and number: `part`, `name`, the two values `one` and `other`
        (None where there is none), and `relative`, other / one - 1, for numbers. Rows of a list of measurements are
        matched by what they are of (method, victim, seed and so on) where that tells them apart, other lists by
        place.
    """
    made_by = [run.status.get("provenance", {}) for run in (one, other)]
    parts = {
        "state": [{"state": state(run), "template": run.status.get("template")} for run in (one, other)],
        "parameters": [run.parameters for run in (one, other)],
        "provenance": made_by,
        # Metrics repeat what the provenance says.
        "metrics": [
            {name: value for name, value in run.metrics.items() if name not in own}
            for run, own in zip((one, other), made_by, strict=True)
        ],
    }
    rows = []
    for part, (first, second) in parts.items():
        left, right = dict(_flat(first)), dict(_flat(second))
        for name in dict.fromkeys([*left, *right]):
            a, b = left.get(name), right.get(name)
            if a != b:
                rows.append({"part": part, "name": name, "one": a, "other": b, "relative": _relative(a, b)})
    return pd.DataFrame(rows, columns=["part", "name", "one", "other", "relative"], dtype=object)


def accuracies(run: Run) -> dict[str, tuple[float, float]]:
    """The lowest and highest clean test accuracy of undefended victims, by method, in [0, 1]; empty without any."""
    found: dict[str, list[float]] = {}
    rows = run.metrics.get("trials")
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or row.get("defense", NONE) != NONE:
            continue
        if isinstance(row.get("test_accuracy"), float | int):
            found.setdefault(str(row.get("method")), []).append(float(row["test_accuracy"]))
    return {method: (min(values), max(values)) for method, values in found.items()}


def _row(run: Run) -> dict[str, Any]:
    data = run.metrics.get("data")
    images = data.get("n") if isinstance(data, dict) else None
    parameters = run.parameters
    return {
        "run": run.folder.name,
        "state": state(run),
        "template": Path(str(run.status.get("template"))).stem,
        "data": parameters.get("data"),
        "n_train": parameters.get("n_train") or images,
        "preset": parameters.get("preset"),
        "seeds": parameters.get("seeds"),
        "test_accuracy": accuracies(run),
        "started": run.status.get("started"),
        "wall_seconds": run.status.get("wall_seconds"),
        **{name: value for name, value in parameters.items() if name not in COLUMNS},
    }


def _runs(folder: Path) -> Iterator[Run]:
    for path in sorted(folder.glob(f"*/{STATUS}")):
        try:
            yield load(path.parent)
        except InputError:  # no record of a run, or a damaged one
            continue


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the plain values in nested JSON, each with its path."""
    if isinstance(value, Mapping):
        pairs = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        labels = [_label(item, place) for place, item in enumerate(value)]
        if len(set(labels)) < len(labels):
            labels = [str(place) for place in range(len(value))]
        pairs = [(f"{name}[{label}]", item) for label, item in zip(labels, value, strict=True)]
    else:
        yield name, value
        return
    for path, item in pairs:
        yield from _flat(item, path)


def _label(item: Any, place: int) -> str:
    known = [str(item[key]) for key in IDENTITY if key in item] if isinstance(item, dict) else []
    return ", ".join(known) or str(place)


def _relative(one: Any, other: Any) -> float | None:
    numbers = all(isinstance(value, float | int) and not isinstance(value, bool) for value in (one, other))
    return other / one - 1 if numbers and one else None


def _percent(values: tuple[float, float]) -> str:
    low, high = (f"{100 * value:.0f}" for value in values)
    return f"{low} %" if low == high else f"{low}–{high} %"


def written(value: Any) -> str:
    """Write a value of `listed` as text: lists with commas, dicts as JSON, nothing for what is missing."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None or value != value else str(value)


def _sortable(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return column.map(written) if numbers.isna().all() else numbers
