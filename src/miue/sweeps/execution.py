"""Sweeps carried out: what is done is skipped, what fails does not stop the rest, and the same command goes on."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from miue import progress
from miue.errors import InputError, choose
from miue.experiments.plan import Plan
from miue.progress import track
from miue.runs import Run, limits, lock
from miue.runs.execution import folder_name, plan_of
from miue.runs.run_folder import finished
from miue.storage.cache import any_threads
from miue.storage.files import cache_dir
from miue.sweeps import cluster, local
from miue.sweeps.lines import Lines
from miue.sweeps.order import Order, Report
from miue.sweeps.record import BEFORE, DONE, FAILED, INTERRUPTED, LOGS, RUNNING, Record
from miue.sweeps.spec import Planned, Spec

ENGINES = ("local", "parsl")
FOLDER = "sweeps"
"""Folder of the sweeps' folders, beside those of the runs."""

Engine = Callable[[Sequence[Order]], Generator[Report | None, None, None]]
"""Carries orders out and yields the report of each as it ends; None while there is nothing new."""


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
    engine: str = "local",
    config: str | None = None,
    slots: int | None = None,
    retries: int = 1,
    timeout: float = limits.CELL,
    limit: float = limits.RUN,
) -> Outcome:
    """Make every run of a sweep that is not done yet, side by side, and return how each ended.

    Runs share the cache: of two that need the same perturbation or victim, one makes it and the other waits. The
    folder `out/sweeps/<name>-<hash>` holds a copy of the sweep's file, `status.json`, `results.csv`, `trials.csv`
    and a log for each run; see `Record`.

    Args:
        spec: what `read` returned.
        out: folder of run folders.
        engine: "local", processes of this machine; or "parsl", workers wherever `config` starts them.
        config: for Parsl: a shipped configuration, or a Python file of the user's own that defines `config`.
        slots: for local: runs side by side. Default: one for each GPU, else one for every four cores.
        retries: how often a run is started again whose process (or Parsl worker) was killed.
        timeout: seconds that one cell may take.
        limit: seconds that one run may take.

    Raises:
        InputError: an argument does not fit; nothing was started.
        KeyboardInterrupt: after Ctrl-C; what was running has been stopped, and what is done is kept.
    """
    if retries < 0 or not min(timeout, limit) > 0:
        raise InputError(f"retries, timeout, limit: {retries}, {timeout:g} s, {limit:g} s; 0 or above, and above 0 s")
    folder = Path(out).resolve() / FOLDER / spec.name
    work, about = _engine(engine, config, slots, retries, folder)
    with lock.alone(folder):
        record = Record(folder, spec, about)
        orders = _orders(spec, record, Path(out).resolve(), timeout, limit)
        before = len(spec.runs) - len(orders)
        progress.say(f"sweep {folder.name}: {len(spec.runs)} runs, {before} done before; {_told(about)}")
        state = INTERRUPTED
        try:
            _carry_out(spec, orders, work, record)
            state = DONE if all(run["state"] in (DONE, BEFORE) for run in record.runs.values()) else FAILED
        except KeyboardInterrupt:
            progress.say(f"sweep {folder.name}: stopped; what is done is kept, and the same command goes on from there")
            raise
        finally:
            record.close(state)
    return Outcome(folder, list(record.runs.values()))


def check(engine: str = "local", config: str | None = None, slots: int | None = None) -> None:
    """Refuse who cannot make the runs of a sweep; see `run` for the arguments.

    Raises:
        InputError: an argument does not fit.
    """
    _engine(engine, config, slots, 0, Path())


@contextmanager
def as_worker(engine: str = "local", slots: int | None = None) -> Iterator[None]:
    """Have as many threads as a run of the local engine, so that plans look for what such a run would find.

    What workers of Parsl have, only their machines know; the number of this process stays then.
    """
    before = torch.get_num_threads()
    if engine == "local":
        torch.set_num_threads(int(local.slots(slots)[0]["OMP_NUM_THREADS"]))
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


def _engine(
    name: str, config: str | None, slots: int | None, retries: int, folder: Path
) -> tuple[Engine, dict[str, Any]]:
    """Return what carries orders out, and what is recorded of it."""
    choose("engine", name, ENGINES)
    if name == "local":
        if config is not None:
            raise InputError(f"config: {config!r} is for the engine parsl; the engine is local")
        places = local.slots(slots)
        about = {"engine": name, "slots": len(places), "environment": places}
        return lambda orders: local.work(orders, places, retries), about
    if slots is not None:
        raise InputError(f"slots: {slots} is for the local engine; with parsl the configuration says how many")
    if config is None:
        raise InputError(f"config: missing; the engine parsl needs a file, or one of {', '.join(cluster.SHIPPED)}")
    loaded = cluster.load(config)
    cluster.check_folder(folder)
    return lambda orders: cluster.work(orders, loaded, folder / "parsl", retries), {"engine": name, "config": config}


def _told(about: dict[str, Any]) -> str:
    if about["engine"] == "parsl":
        return f"through Parsl, with the configuration {about['config']}"
    first = about["environment"][0]
    device = "a GPU each" if "CUDA_VISIBLE_DEVICES" in first else "on the CPU"
    return f"{about['slots']} side by side, {device}, OMP_NUM_THREADS={first['OMP_NUM_THREADS']}"


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
            record.note(planned.number, BEFORE, folder=before.folder.name)
            record.keep(planned, before.folder.name, before.metrics)
            continue
        order = Order(
            number=planned.number,
            template=str(spec.template.path),
            parameters=planned.values,
            out=str(out),
            log=str(record.folder / LOGS / f"{planned.number}.log"),
            timeout=timeout,
            limit=limit,
            environment=environment,
        )
        for stale in (Path(order.log), order.report):
            stale.unlink(missing_ok=True)
        orders.append(order)
    return orders


def _carry_out(spec: Spec, orders: Sequence[Order], work: Engine, record: Record) -> None:
    planned = {run.number: run for run in spec.runs}
    lines = Lines(spec.runs, orders, record.folder / LOGS)
    record.write()
    with closing(work(orders)) as news:
        for report in news:
            started = lines.look()
            for number in started:
                record.note(number, RUNNING)
            if report:
                _take(report, planned[report.number], lines.end(report), record)
            if started or report:
                record.write()


def _take(report: Report, planned: Planned, seconds: float, record: Record) -> None:
    name = Path(report.folder).name if report.folder else None
    state = FAILED if report.error else DONE
    about = {"seconds": round(seconds, 1), "folder": name, "error": report.error, "last": report.last}
    record.note(report.number, state, **about)
    if name and not report.error:
        record.keep(planned, name, report.metrics)
