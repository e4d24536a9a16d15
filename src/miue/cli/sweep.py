"""The command that runs a template with many parameters."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import typer

from miue.cli.options import CellLimit, RunLimit, at_least
from miue.experiments.plan import Plan, between, together
from miue.experiments.text import aligned
from miue.progress import duration
from miue.runs.execution import CELL, RUN
from miue.storage.provenance import device_name

if TYPE_CHECKING:
    from miue import sweeps


def sweep(
    spec: Annotated[Path, typer.Argument(help="YAML file with template, parameters, grid, list.")],
    out: Annotated[Path, typer.Option(help="Folder of run folders; sweeps/ in it has the sweep's own.")] = Path("runs"),
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="List the runs, which are done, and how long the others would take; start none."
        ),
    ] = False,
    config: Annotated[
        str,
        typer.Option(
            help="Where runs go on: local (this machine), gpu_box, slurm, or a file of your own that defines `config`."
        ),
    ] = "local",
    slots: Annotated[
        int | None, typer.Option(help="For local: runs side by side (default: one for each GPU, or for 4 cores).")
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            help="How often a run is started again after its process was killed.", callback=at_least("--retries", 0)
        ),
    ] = 1,
    cell_limit: CellLimit = CELL,
    limit: RunLimit = RUN,
) -> None:
    """Run a template for every combination of parameters that a file describes; what is done is skipped."""
    from miue import sweeps

    read = sweeps.read(spec)
    if dry_run:
        with sweeps.as_worker(config, slots):
            _list(read, sweeps.plans(read, out))
        return
    outcome = sweeps.run(read, out=out, config=config, slots=slots, retries=retries, timeout=cell_limit, limit=limit)
    _table(read, outcome)
    if outcome.failed:
        count = f"{len(outcome.failed)} of {len(outcome.runs)} runs"
        raise RuntimeError(f"{count} failed; the same command tries them again and skips the rest")


def _list(spec: "sweeps.Spec", plans: dict[int, Plan | None]) -> None:
    rows = []
    for run in spec.runs:
        estimate = between(*plan.seconds) if (plan := plans.get(run.number)) else ""
        rows.append((run.number, "to do" if run.number in plans else "done", estimate, run.label))
    typer.echo(aligned(pd.DataFrame(rows, columns=["run", "state", "estimate", "of"])))
    typer.echo(f"{len(rows)} runs of {spec.template.name}: {len(rows) - len(plans)} done, {len(plans)} to do")
    if told := [plan for plan in plans.values() if plan]:
        typer.echo(f"estimate: {between(*together(told))} of work on {device_name()}; what runs share counts once")


def _table(spec: "sweeps.Spec", outcome: "sweeps.Outcome") -> None:
    for planned, run in zip(spec.runs, outcome.runs, strict=True):
        took = "" if run["seconds"] is None else duration(run["seconds"])
        typer.echo(f"{planned.number:5}  {run['state']:11}  {took:>7}  {planned.label}")
    for run in outcome.failed:
        typer.echo("\n".join([f"run {run['number']} failed: {run['error']}", *(f"    {line}" for line in run["last"])]))
    typer.echo(f"sweep: {outcome.folder}")
