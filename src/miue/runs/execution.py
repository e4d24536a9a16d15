"""Runs: a template executed with checked parameters into a folder of its own."""

import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miue import progress, specs
from miue.data import loading
from miue.errors import InputError
from miue.experiments import plan
from miue.experiments.plan import Plan
from miue.runs import figures, notebook, run_folder, template
from miue.runs.run_folder import METRICS, PROGRESS, STATUS, Run, RunFailed, finished, load, read_object
from miue.runs.template import Template
from miue.runs.watch import SECONDS, shown
from miue.storage import code, files, provenance
from miue.storage.files import cache_dir

CELL, RUN = 24 * 3600.0, 48 * 3600.0
"""Seconds that a cell (a template measures all its trials in one) and a run may take where nothing else is said: long
enough for the paper's scale on one GPU."""

NAMED = ("data", "method", "model", "surrogate", "preset", "n_train")
"""Parameters whose values show in the name of a run's folder."""

RESERVE, RESERVED_BYTES = ".reserve", 65536
"""A file that makes room for the last record when a run has filled the disk."""


def run(
    name: str | Path,
    given: Mapping[str, object] | None = None,
    *,
    out: str | Path = "runs",
    force: bool = False,
    timeout: float = CELL,
    limit: float = RUN,
) -> Run:
    """Execute a template and return the finished run; one that was finished before is returned at once.

    The folder `out/<template>-<parameters>-<hash>` holds the executed notebook, its `figures/` as SVG and PNG,
    `metrics.json` (written by the notebook), `status.json` and `progress.log`. The hash covers the parameters, the
    template, the package's code and the data folder with its contents: a run is taken for the same only if all of them
    are, whatever device and versions it was made with, which its record names. Of two processes that start the same
    run, the second waits for the first.

    Runs that go on at the same time need a process each, as `miue.sweeps` gives them: papermill changes the working
    folder of the whole process.

    Args:
        name: of a template in `book/experiments/`, or the path of one.
        given: values by parameter name; see `parameters.check` for what is read how.
        out: folder of run folders.
        force: run again although an identical run is done.
        timeout: seconds that one cell may take.
        limit: seconds that the whole run may take.

    Raises:
        InputError: the template or a parameter is unknown, a value does not fit, or `out` cannot be written; nothing
            was started.
        RunFailed: a cell raised or took too long, the kernel died, or no metrics were written. The folder
            keeps the notebook as far as it went, and `status.json` says why.
    """
    if not min(timeout, limit) > 0:
        raise InputError(f"timeout, limit: {timeout:g} s and {limit:g} s must both be above 0")
    chosen, values, folder = _prepared(name, given, out)
    # A kernel works in the run's folder; the folders of data and cache are those of the caller.
    env = {"MIUE_DATA": str(chosen.data_root), "MIUE_CACHE": str(cache_dir().resolve()), **waiting()}
    if not force and (before := _finished(folder)):
        return before
    with run_folder.alone(folder):
        if not force and (before := _finished(folder)):  # by the process that we waited for
            return before
        _Execution(chosen, values, folder).go(env, timeout, limit)
    return load(folder)


def waiting() -> dict[str, str]:
    """How threads of a kernel wait for each other, as a variable for OpenMP: asleep; what the user has set stays.

    By default they spin, which slows a kernel down wherever another program has one of its cores.
    """
    return {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}


def dry_run(name: str | Path, given: Mapping[str, object] | None = None, *, out: str | Path = "runs") -> Plan:
    """Return what `run` with the same arguments would make; nothing is started but measurements of speed.

    Raises:
        InputError: what `run` refuses; the template has no `plan` cell; the images are not there.
    """
    chosen, values, folder = _prepared(name, given, out)
    found = plan_of(chosen, values)
    _finished(folder)
    return found


def plan_of(chosen: Template, values: Mapping[str, Any]) -> Plan:
    """Return what a template would make with these values of all its parameters; see `dry_run` for the errors."""
    if chosen.plan is None:
        raise InputError(f"template {chosen.name}: no cell is tagged `plan`, so what it would make cannot be told")
    return plan.of_template(chosen.plan, values, chosen.name, chosen.data_root)


def _prepared(
    name: str | Path, given: Mapping[str, object] | None, out: str | Path
) -> tuple[Template, dict[str, Any], Path]:
    """The template, its checked parameters, and the run's own folder."""
    chosen = template.read(name)
    values = chosen.check(given or {})
    return chosen, values, Path(out).resolve() / folder_name(chosen, values)


def _finished(folder: Path) -> Run | None:
    if before := finished(folder):
        progress.say(f"{folder.name}: done before ({before.status['ended']})")
    return before


def folder_name(chosen: Template, values: dict[str, Any]) -> str:
    """Name of a run's folder: its template, what stands out of its parameters, and a hash of what is asked for."""
    root = chosen.data_root
    images = loading.identity(str(values.get("data")), root)
    key = [values, chosen.digest, code.code_hash("miue"), str(root), images, *_own_code(values)]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:8]
    words = [Path(str(values[name])).name for name in NAMED if values.get(name) is not None]
    parts = ["".join(c if c.isalnum() or c in "._" else "_" for c in word)[:24] for word in words]
    return "-".join([chosen.name, *parts, digest])


def _own_code(values: dict[str, Any]) -> list[str]:
    """Digests of the files of somebody's own that parameters name as `FILE.py:NAME`."""
    texts = [text for value in values.values() for text in (value if isinstance(value, list) else [value])]
    files = {specs.file_of(text) for text in texts if isinstance(text, str)} - {None}
    return sorted(notebook.sha256(file) for file in files if file is not None)


@dataclass
class _Execution:
    """One execution and its record, which is written before it starts, at each cell, and at its end."""

    template: Template
    values: dict[str, Any]
    folder: Path
    started: int = 0
    clock: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        defaults = self.template.parameters
        self.changed = {name: v for name, v in self.values.items() if v != defaults[name].default}
        self.target = self.folder / f"{self.template.name}.ipynb"
        self.headings = notebook.headings(self.template.notebook)
        self.total = len(notebook.code_cells(self.template.notebook))
        if self.changed:  # papermill adds one cell, with the changed parameters, behind the cell of the defaults
            (place,) = notebook.tagged(self.template.notebook, "parameters")
            self.headings.insert(place, self.headings[place])
            self.total += 1
        self.status: dict[str, Any] = {
            "state": "running",
            "template": self.template.relative,
            "parameters": notebook.shorten(self.values, {self.template.root: "."}),
            "cells": {"done": 0, "total": self.total},
            "error": None,
            "started": provenance.now(),
            "ended": None,
            "wall_seconds": None,
            "notebook": self.target.name,
            "notebook_sha256": None,
            "process": {"pid": os.getpid(), "host": socket.gethostname()},
            "provenance": provenance.collect(),
        }

    def go(self, env: dict[str, str], timeout: float, limit: float) -> None:
        """Execute, and record how it ended; raise RunFailed or KeyboardInterrupt if it ended badly."""
        from miue.runs import kernel

        run_folder.clear(self.folder)
        (self.folder / RESERVE).write_bytes(os.urandom(RESERVED_BYTES))
        self.write()
        log = self.folder / PROGRESS
        told = {"MIUE_PROGRESS": str(log)} | ({"MIUE_PROGRESS_SECONDS": str(SECONDS)} if progress.on_terminal() else {})
        error = details = ""
        try:
            with tempfile.TemporaryDirectory() as scratch, shown(log, self.template.name) as move:
                source = Path(scratch) / self.target.name
                notebook.save(self.template.notebook, source)
                kernel.execute(
                    source,
                    self.target,
                    self.changed,
                    env=env | told,
                    timeout=timeout,
                    limit=limit,
                    on_cell=lambda number: move(self.enter(number)),
                )
            self.status["state"] = "done"
        except KeyboardInterrupt:
            self.status["state"], error = "interrupted", "interrupted by the user"
            raise
        except kernel.CellError as caught:
            error, _, details = str(caught).partition("\n")
        except OSError as caught:
            error = str(caught)
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}".splitlines()[0]
        finally:
            self.settle(error)
        if self.status["state"] != "done":
            reason, last = self.status["error"], notebook.plain(details).splitlines()[-12:]
            kept = f"what was done is kept in {self.folder}"
            raise RunFailed("\n".join([f"{self.template.name}: {reason}", *last, kept]), self.folder)
        progress.say(f"{self.folder.name}: done in {self.status['wall_seconds']:.0f} s")

    def enter(self, number: int) -> str:
        """Record that the code cell of that number (from 1, over all cells) starts; return what is shown of it."""
        self.status["cells"]["done"] = self.started
        self.started += 1
        self.write()
        return f"cell {self.started}/{self.total} {self.headings[number - 1]}".strip()

    def settle(self, error: str) -> None:
        """Judge by what lies in the folder, not by what papermill says, and write the final record."""
        (self.folder / RESERVE).unlink(missing_ok=True)
        try:
            flaws = self.clean() if self.target.is_file() else ["no notebook was written"]
        except (InputError, OSError) as unreadable:  # cut off, where the disk was full
            flaws = [str(unreadable)]
        if not read_object(self.folder / METRICS):
            flaws.append(f"the notebook wrote no readable {METRICS}")
        if self.status["state"] != "interrupted" and (error or flaws):
            self.status["state"], error = "failed", error or flaws[0]
        done = self.total if self.status["state"] == "done" else max(0, self.started - 1)
        del self.status["process"]
        self.status |= {
            "cells": {"done": done, "total": self.total},
            "error": error or None,
            "ended": provenance.now(),
            "wall_seconds": round(time.monotonic() - self.clock, 1),
            "notebook_sha256": notebook.sha256(self.target) if self.target.is_file() else None,
        }
        try:
            self.write()
        except OSError as full:
            reason = f"its record could not be written ({full})"
            self.status |= {"state": "failed", "error": f"{error}; {reason}" if error else reason}

    def clean(self) -> list[str]:
        """Write the figures, take this machine's folders out of the executed notebook; return its flaws."""
        executed = notebook.load(self.target)
        figures.extract(executed, self.folder / figures.FIGURES)
        executed.metadata.papermill |= {"input_path": self.template.relative, "output_path": self.target.name}
        executed = notebook.shorten(executed, {self.folder: ".", self.template.root: ".", Path.home(): "~"})
        notebook.save(executed, self.target)
        return notebook.flaws(executed)

    def write(self) -> None:
        """Write the record, atomically."""
        files.write_json(self.folder / STATUS, self.status)
