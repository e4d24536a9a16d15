"""Sweeps carried out: what is done is skipped, what fails does not stop the rest, and the same command goes on."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from miue import progress
from miue.errors import InputError
from miue.experiments.plan import Plan
from miue.progress import track
from miue.runs import Run
from miue.runs.execution import CELL, RUN, folder_name, plan_of
from miue.runs.run_folder import alone, finished
from miue.storage.cache import any_threads
from miue.storage.files import cache_dir
from miue.sweeps import engine
from miue.sweeps.order import Order
from miue.sweeps.record import FAILED, Record
from miue.sweeps.spec import Planned, Spec

FOLDER = "sweeps"
"""Folder of the sweeps' folders, beside those of the runs."""


@dataclass(frozen=True)
class Outcome:
    """A sweep that went to its end: its folder, and for each run what `status.json` there holds of it."""

    folder: Path
    runs: list[dict[str, Any]]

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The runs that failed."""
        return [run for run in self.runs if run["state"] == FAILED]


def run(
    spec: Spec,
    *,
    out: str | Path = "runs",
    config: str = "local",
    slots: int | None = None,
    retries: int = 1,
    timeout: float = CELL,
    limit: float = RUN,
) -> Outcome:
    """Make every run of a sweep that is not done yet, side by side, and return how each ended.

    Runs share the cache: of two that need the same perturbation or victim, one makes it and the other waits. The
    folder `out/sweeps/<name>-<hash>` holds a copy of the sweep's file, `status.json`, `results.csv`, `trials.csv`
    and a log for each run; see `Record`.

    Args:
        spec: what `read` returned.
        out: folder of run folders.
        config: of Parsl: "local", processes of this machine; another shipped one; or a Python file of the user's own
            that defines `config`.
        slots: for local: runs side by side. Default: one for each GPU, else one for every four cores.
        retries: how often a run is started again whose process (or worker) was killed.
        timeout: seconds that one cell may take.
        limit: seconds that one run may take.

    Raises:
        InputError: an argument does not fit; nothing was started.
        KeyboardInterrupt: after Ctrl-C; what was running has been stopped, and what is done is kept.
    """
    if retries < 0 or not min(timeout, limit) > 0:
        raise InputError(f"retries, timeout, limit: {retries}, {timeout:g} s, {limit:g} s; 0 or above, and above 0 s")
    folder = Path(out).resolve() / FOLDER / spec.name
    chosen = engine.load(config, slots)
    engine.check_folder(chosen, folder)
    with alone(folder):
        record = Record(folder, spec, {"config": config, "slots": len(chosen.slots), "environment": chosen.slots})
        orders = _orders(spec, record, Path(out).resolve(), timeout, limit)
        before = len(spec.runs) - len(orders)
        progress.say(f"sweep {folder.name}: {len(spec.runs)} runs, {before} done before; {chosen}")
        try:
            with closing(engine.work(orders, chosen, folder / "parsl", retries)) as news:
                for report in news:
                    record.look()
                    if report:
                        record.end(report)
        except KeyboardInterrupt:
            progress.say(f"sweep {folder.name}: stopped; what is done is kept, and the same command goes on from there")
            raise
        finally:
            record.close()
    return Outcome(folder, list(record.runs.values()))


@contextmanager
def as_worker(config: str = "local", slots: int | None = None) -> Iterator[None]:
    """Have as many threads as a run of a slot, so that plans look for what such a run would find.

    What workers elsewhere have, only their machines know; the number of this process stays then.

    Raises:
        InputError: with these arguments `run` could not make the runs of a sweep.
    """
    before, places = torch.get_num_threads(), engine.load(config, slots).slots
    if places:
        torch.set_num_threads(int(places[0]["OMP_NUM_THREADS"]))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def plans(spec: Spec, out: str | Path) -> dict[int, Plan | None]:
    """Return what each run of a sweep that is not done would make, by its number; nothing is started.

    None stands for a run of a template that has no `plan` cell. Speeds and results are those of this process's number
    of threads; see `as_worker`.

    Raises:
        InputError: the images are not there, or a plan cell fails.
    """
    todo = [run for run in spec.runs if not find(spec, run, out)]
    if spec.template.plan is None:
        return {run.number: None for run in todo}
    return {run.number: plan_of(spec.template, run.values) for run in track(todo, "planning, runs")}


def find(spec: Spec, planned: Planned, out: str | Path) -> Run | None:
    """Return the finished run that `planned` asks for, if there is one."""
    return finished(Path(out).resolve() / folder_name(spec.template, planned.values))


def _orders(spec: Spec, record: Record, out: Path, timeout: float, limit: float) -> list[Order]:
    """Return the runs that are to be made; those that are done are noted as such."""
    environment = {
        "MIUE_DATA": str(spec.template.data_root),
        "MIUE_CACHE": str(cache_dir().resolve()),
        "MIUE_ANY_THREADS": "1" if any_threads() else "0",
    }
    orders = []
    for planned in spec.runs:
        if before := find(spec, planned, out):
            record.skip(planned.number, before)
            continue
        order = Order(
            number=planned.number,
            template=str(spec.template.path),
            parameters=planned.values,
            out=str(out),
            log=str(record.log(planned.number)),
            timeout=timeout,
            limit=limit,
            environment=environment,
        )
        for stale in (Path(order.log), order.report):
            stale.unlink(missing_ok=True)
        orders.append(order)
    record.write()
    return orders
