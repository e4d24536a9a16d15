"""How a sweep stands: said line by line while it goes on, and written into the sweep's folder."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from miue import progress
from miue.runs import Run
from miue.storage import files, provenance
from miue.sweeps.order import Report, tail
from miue.sweeps.spec import Spec

SPEC, STATUS, RESULTS, TRIALS, LOGS = "sweep.yaml", "status.json", "results.csv", "trials.csv", "logs"
WAITING, RUNNING, INTERRUPTED = "waiting", "running", "interrupted"
DONE, BEFORE, FAILED = "done", "done before", "failed"

SECONDS_BETWEEN_LOOKS = 15.0
"""Least time between two reports of where the runs are."""


class Record:
    """What is written and said about a sweep.

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
        self.planned = {run.number: run for run in spec.runs}
        self._rows: dict[int, dict[str, Any]] = {}
        self._trials: dict[int, list[dict[str, Any]]] = {}
        self._began: dict[int, float] = {}  # of what is running
        self._took: list[float] = []
        self._shown: dict[int, str] = {}
        self._looked, self._most = time.monotonic(), 1
        blank: dict[str, Any] = {"state": WAITING, "seconds": None, "folder": None, "error": None, "last": []}
        self.runs = {run.number: {"number": run.number, "varied": run.varied, **blank} for run in spec.runs}
        self.status: dict[str, Any] = {
            "state": RUNNING,
            "template": spec.template.name,
            **about,
            "process": os.getpid(),
            "started": provenance.now(),
            "ended": None,
            "runs": list(self.runs.values()),
        }
        (folder / LOGS).mkdir(exist_ok=True)
        written = spec.path.read_bytes()
        with files.atomic(folder / SPEC) as part:
            part.write_bytes(written)
        self.write()

    def log(self, number: int) -> Path:
        """The file that takes what a run says; it appears when the run starts."""
        return self.folder / LOGS / f"{number}.log"

    def skip(self, number: int, run: Run) -> None:
        """Take down that a run was done before; `write` brings it to disk."""
        self.runs[number] |= {"state": BEFORE, "folder": run.folder.name}
        self._keep(number, run.folder.name, run.metrics)

    def look(self) -> None:
        """Say and write which runs have started since the last look, and say now and then what they are at."""
        present = {log.stem for log in (self.folder / LOGS).glob("*.log")}
        new = [number for number in self._in(WAITING) if str(number) in present]
        for number in new:
            self.runs[number]["state"] = RUNNING
            self._began[number] = time.monotonic()
            progress.say(f"run {number} of {len(self.runs)} started: {self.planned[number].label}")
        self._most = max(self._most, len(self._began))
        if time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._looked = time.monotonic()
            for number in self._began:
                self._show(number)
        if new:
            self.write()

    def end(self, report: Report) -> None:
        """Say and write how a run ended, and say how far the sweep is."""
        number, name = report.number, Path(report.folder).name if report.folder else None
        seconds = time.monotonic() - self._began.pop(number, time.monotonic())
        self._took.append(seconds)
        state = FAILED if report.error else DONE
        about = {"seconds": round(seconds, 1), "folder": name, "error": report.error, "last": report.last}
        self.runs[number] |= {"state": state, **about}
        if name and not report.error:
            self._keep(number, name, report.metrics)
        ending = f"failed: {report.error}" if report.error else f"done in {progress.duration(seconds)}"
        failed, left = len(self._in(FAILED)), self._left()
        counts = f"{len(self._in(DONE, BEFORE))} of {len(self.runs)} done" + (f", {failed} failed" if failed else "")
        rest = "" if left is None else f", about {progress.duration(left)} left"
        progress.say(f"run {number} of {len(self.runs)} {ending} ({counts}{rest})")
        self.write()

    def close(self) -> None:
        """Write how the sweep ended; a run that was at work is then interrupted."""
        stopped, failed = self._in(WAITING, RUNNING), self._in(FAILED)
        for number in self._in(RUNNING):
            self.runs[number]["state"] = INTERRUPTED
        self.status |= {"state": INTERRUPTED if stopped else FAILED if failed else DONE, "ended": provenance.now()}
        self.write()

    def write(self) -> None:
        """Write `status.json` and the tables, each atomically."""
        files.write_json(self.folder / STATUS, self.status)
        _write_table(self.folder / RESULTS, [self._rows[number] for number in sorted(self._rows)])
        _write_table(self.folder / TRIALS, [row for number in sorted(self._trials) for row in self._trials[number]])

    def _in(self, *states: str) -> list[int]:
        return [number for number, run in self.runs.items() if run["state"] in states]

    def _keep(self, number: int, run: str, metrics: dict[str, Any]) -> None:
        """Take the metrics of a run that is done, whose folder is named `run`, into the tables."""
        planned = self.planned[number]
        (flat,) = pd.json_normalize([metrics]).to_dict("records")
        single = {f"metrics.{name}": value for name, value in flat.items() if not isinstance(value, list)}
        self._rows[number] = {"run": run, **planned.values, **single}
        # A trial's own fields say more exactly what was measured than the parameters of the same names.
        self._trials[number] = [{"run": run, **planned.varied, **trial} for trial in metrics.get("trials") or []]

    def _show(self, number: int) -> None:
        line = "".join(tail(self.log(number), 1))
        if line and line != self._shown.get(number):
            self._shown[number] = line
            progress.say(f"  run {number}: {line}")

    def _left(self) -> float | None:
        """Seconds left if runs go on to take as long as those that ended, as many side by side as there were."""
        mean, now = sum(self._took) / len(self._took), time.monotonic()
        waiting = self._in(WAITING, RUNNING)
        each = (max(0.0, mean - (now - self._began.get(number, now))) for number in waiting)
        return sum(each) / self._most if waiting else None


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        with files.atomic(path) as part:
            pd.DataFrame(rows).to_csv(part, index=False)
