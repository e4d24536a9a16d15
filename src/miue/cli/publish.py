"""The command that publishes runs."""

from pathlib import Path
from typing import Annotated

import typer

from miue.errors import InputError


def publish(
    folder: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", metavar="RUN...")],
    name: Annotated[
        str | None, typer.Option(help="Name of the page, for one run (default: from template, data and scale).")
    ] = None,
    book: Annotated[Path, typer.Option(help="The repository that holds the book.")] = Path("."),
) -> None:
    """Copy the executed pages of runs that ended well into book/results/: all of them, or none."""

    from miue.publishing import publication

    if name is not None and len(folder) > 1:
        raise InputError(f"--name: {name!r} for {len(folder)} runs; a name is for one run")
    if name is not None or len(folder) == 1:
        pages = [publication.publish(folder[0], name, book)]
    else:
        pages = publication.publish_all(folder, book)
    for page in pages:
        typer.echo(f"page: {page}")
