"""The command that publishes runs."""

from pathlib import Path
from typing import Annotated

import typer


def publish(
    folder: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", metavar="RUN...")],
    name: Annotated[
        str | None, typer.Option(help="Name of the page, for one run (default: from template, data and scale).")
    ] = None,
    book: Annotated[Path, typer.Option(help="The repository that holds the book.")] = Path("."),
) -> None:
    """Copy the executed pages of runs that ended well into book/results/: all of them, or none."""

    from miue.publishing import publication

    for page in publication.publish(folder, name, book):
        typer.echo(f"page: {page}")
