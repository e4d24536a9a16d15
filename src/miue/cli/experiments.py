"""Commands that run experiments, publish them and build the book."""

from pathlib import Path
from typing import Annotated

import typer

from miue.errors import InputError


def run(
    template: Annotated[str, typer.Argument(help="Name of a template in book/experiments/, or a path.")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="Parameter, as NAME=VALUE; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of run folders.")] = Path("runs"),
    force: Annotated[bool, typer.Option(help="Run again although an identical run is done.")] = False,
    cell_limit: Annotated[float, typer.Option(help="Seconds that one cell may take.")] = 4 * 3600.0,
    limit: Annotated[float, typer.Option(help="Seconds that the whole run may take.")] = 12 * 3600.0,
) -> None:
    """Execute an experiment template with checked parameters."""
    from miue import runs

    given = {}
    for pair in parameter or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"-p: {pair!r}; write it as NAME=VALUE")
        given[name] = value
    done = runs.run(template, given, out=out, force=force, timeout=cell_limit, limit=limit)
    typer.echo(f"run: {done.folder}")


def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="Name of the page, which says data and scale.")],
    book: Annotated[Path, typer.Option(help="The repository that holds the book.")] = Path("."),
) -> None:
    """Copy the executed page of a run that ended well into book/results/."""
    from miue import runs

    typer.echo(f"page: {runs.publish(folder, name, book)}")


def book(
    root: Annotated[Path, typer.Argument(help="The repository that holds the book.")] = Path("."),
) -> None:
    """Run the default experiment and every chapter, render the book, check its pages."""
    from miue import book as builder

    typer.echo(f"book: {builder.build(root)}")
