"""The folder of a sweep: a copy of its file, how each run stands, and a table of what came out."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from miue.storage import files
from miue.sweeps.spec import Planned, Spec

SPEC, STATUS, RESULTS, TRIALS, LOGS = "sweep.yaml", "status.json", "results.csv", "trials.csv", "logs"
WAITING, RUNNING, INTERRUPTED = "waiting", "running", "interrupted"
DONE, BEFORE, FAILED = "done", "done before", "failed"


class Record:
    """What is written about a sweep.

    `status.json` holds engine, times, process and, for each run, number, varied parameters, state, seconds, folder
    (inside the folder of runs), error and last lines. `results.csv` has a row for each run that is done: its folder,
    its parameters, and the numbers and words of its metrics as `metrics.NAME`. Where metrics have `trials`,
    `trials.csv` has a row for each of them, behind what varies in the sweep.

    Args:
        folder: of the sweep; it exists.
        spec: the sweep.
        about: what is known of the engine.
    """

    def __init__(self, folder: Path, spec: Spec, about: dict[str, Any]) -> None:
        self.folder = folder
        self._rows: dict[int, dict[str, Any]] = {}
        self._trials: dict[int, list[dict[str, Any]]] = {}
        blank: dict[str, Any] = {"state": WAITING, "seconds": None, "folder": None, "error": None, "last": []}
        self.runs = {run.number: {"number": run.number, "varied": run.varied, **blank} for run in spec.runs}
        self.status: dict[str, Any] = {
            "state": RUNNING,
            "template": spec.template.name,
            **about,
            "process": os.getpid(),
            "started": _now(),
            "ended": None,
            "runs": list(self.runs.values()),
        }
        (folder / LOGS).mkdir(exist_ok=True)
        written = spec.path.read_bytes()
        with files.atomic(folder / SPEC) as part:
            part.write_bytes(written)
        self.write()

    def note(self, number: int, state: str, **changes: Any) -> None:
        """Take down that a run is in another state, and what else is known of it; `write` brings it to disk."""
        self.runs[number] |= {"state": state, **changes}

    def keep(self, planned: Planned, run: str, metrics: dict[str, Any]) -> None:
        """Take the metrics of a run that is done, whose folder is named `run`, into the tables."""
        (flat,) = pd.json_normalize([metrics]).to_dict("records")
        single = {f"metrics.{name}": value for name, value in flat.items() if not isinstance(value, list)}
        self._rows[planned.number] = {"run": run, **planned.values, **single}
        # A trial's own fields say more exactly what was measured than the parameters of the same names.
        trials = metrics.get("trials") or []
        self._trials[planned.number] = [{"run": run, **planned.varied, **trial} for trial in trials]

    def close(self, state: str) -> None:
        """Write how the sweep ended; a run that was at work is then interrupted."""
        for run in self.runs.values():
            if run["state"] == RUNNING:
                run["state"] = INTERRUPTED
        self.status |= {"state": state, "ended": _now()}
        self.write()

    def write(self) -> None:
        """Write `status.json` and the tables, each atomically."""
        files.write_json(self.folder / STATUS, self.status)
        _write_table(self.folder / RESULTS, [self._rows[number] for number in sorted(self._rows)])
        _write_table(self.folder / TRIALS, [row for number in sorted(self._trials) for row in self._trials[number]])


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        with files.atomic(path) as part:
            pd.DataFrame(rows).to_csv(part, index=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
