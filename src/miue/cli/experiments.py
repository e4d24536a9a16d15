"""Commands that run experiments, look at runs and publish them, measure speed and build the book."""

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from miue import runs, specs
from miue.cli.options import CellLimit, RunLimit, Table, report, report_table, writable
from miue.experiments import bench as benchmark
from miue.experiments.text import aligned
from miue.models import MODELS
from miue.precision import PRECISIONS
from miue.progress import duration
from miue.publishing import build as builder
from miue.publishing import copies, printing, publication
from miue.runs import listing
from miue.runs.execution import CELL, RUN

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run(
    template: Annotated[str, typer.Argument(help="Name of a template in book/experiments/, or a path.")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="Parameter, as NAME=VALUE; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    force: Annotated[bool, typer.Option(help="Run again although an identical run is done.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be made and how long it would take; make nothing.")
    ] = False,
    cell_limit: CellLimit = CELL,
    limit: RunLimit = RUN,
) -> None:
    """Execute an experiment template with checked parameters."""
    given = specs.pairs(parameter or [], "-p", as_text=True)
    if dry_run:
        planned, least = runs.dry_run(template, given, out=out), min(cell_limit, limit)
        for line in planned.lines():
            typer.echo(line)
        if planned.seconds[1] > least:
            typer.echo(f"that may be more than the limit of {duration(least)}: give a larger --cell-limit and --limit")
        return
    done = runs.run(template, given, out=out, force=force, timeout=cell_limit, limit=limit)
    typer.echo(f"run: {done.folder}")


def list_runs(
    folder: Annotated[Path, typer.Argument(help="Folder of run folders.")] = Path("runs"),
    where: Annotated[
        list[str] | None, typer.Option(help="Only runs with this NAME=VALUE: a parameter, state, template; repeatable.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Column or parameter to sort by (default: started).")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values, all parameters included.")] = False,
    json_: Json = False,
) -> None:
    """List runs: state, data, parameters, accuracies, times."""
    table = listing.listed(folder, specs.pairs(where or [], "--where", as_text=True), sort)
    if json_:
        typer.echo(table.to_json(orient="records", indent=2, force_ascii=False))
    else:
        typer.echo(table.map(listing.written).to_csv(index=False).rstrip() if csv else listing.shown(table))


def diff(
    one: Annotated[Path, typer.Argument(help="Folder of a run.")],
    other: Annotated[Path, typer.Argument(help="Folder of another run.")],
    json_: Json = False,
) -> None:
    """Compare two runs: parameters, provenance and numbers that differ."""
    found = listing.differences(runs.load(one), runs.load(other))
    if json_:
        typer.echo(json.dumps(found.to_dict(orient="records"), indent=2, ensure_ascii=False))
        return
    relative = [f"{value:+.1%}" if isinstance(value, float) else "" for value in found["relative"]]
    typer.echo("no difference" if found.empty else aligned(found.assign(relative=relative)))


def publish(
    folder: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", metavar="RUN...")],
    name: Annotated[
        str | None, typer.Option(help="Name of the page, for one run (default: from template, data and scale).")
    ] = None,
    book: Annotated[Path, typer.Option(help="The repository that holds the book.")] = Path("."),
) -> None:
    """Copy the executed pages of runs that ended well into book/results/: all of them, or none."""
    for page in publication.publish(folder, name, book):
        typer.echo(f"page: {page}")


def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Network, repeatable (default: small_resnet): {', '.join(MODELS)}; resnet18:width=0.25 too."
        ),
    ] = None,
    size: Annotated[
        list[int] | None, typer.Option(help="Height and width in pixels, repeatable (default: 32).")
    ] = None,
    n_classes: Annotated[int, typer.Option(help="Number of classes.")] = 10,
    channels: Annotated[int, typer.Option(help="Channels of the images.")] = 3,
    precision: Annotated[
        list[str] | None, typer.Option(help=f"Repeatable (default: float32): {', '.join(PRECISIONS)}.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images in a batch.")] = 128,
    again: Annotated[bool, typer.Option(help="Measure networks although a result is kept.")] = False,
    out: Table = None,
    record: Annotated[Path | None, typer.Option(help="File for all of it (.json).", callback=writable)] = None,
) -> None:
    """Measure this machine: networks in images per second, convolutions, and mutual information.

    Estimates of time rest on the speeds of networks. Training is a forward and backward pass with gradients of the
    weights, attack one with gradients of the images, as a step of a perturbation takes it, testing a pass forward.
    Utilisation is a share of what the chip's fastest convolution reaches.
    """

    told = benchmark.report(
        model or ["small_resnet"],
        size or [32],
        precision or ["float32"],
        n_classes=n_classes,
        channels=channels,
        batch=batch,
        again=again,
    )
    table = pd.DataFrame(told["networks"])
    shown = table.drop(columns=["training_work", "attack_work", "measured", "device"])
    typer.echo(told["device"])
    typer.echo(aligned(shown.round(dict.fromkeys(["training", "attack", "testing"], 1)).round(2)))
    for number, rate in told["peaks"].items():
        typer.echo(f"convolutions in {number}: {rate / 1e9:,.0f} GFLOP/s")
    about = told["information"]
    typer.echo(
        f"sliced_mi of {about['n']:,} x {about['width']} features along {about['n_slices']} slices: "
        f"{about['seconds']:.1f} s, {about['slices/s']:.0f} slices a second"
    )
    report_table(out, table, index=False)
    report(record, told)


def book(
    root: Annotated[Path, typer.Argument(help="The repository that holds the book.")] = Path("."),
    pdf: Annotated[bool, typer.Option("--pdf", help="Print it too, to _build/miue.pdf; needs Chromium.")] = False,
    archive: Annotated[
        bool, typer.Option("--zip", help="Pack it too, to _build/miue-book.zip, to be read offline.")
    ] = False,
) -> None:
    """Execute every chapter, render the book, check its pages.

    Copies that are made are linked on the first page.
    """
    if pdf:
        printing.browser()
    first = builder.build(root)
    typer.echo(f"book: {first}")
    if pdf or archive:
        for copy in copies.make(first.parent, pdf=pdf, archive=archive):
            typer.echo(f"copy: {copy}")
