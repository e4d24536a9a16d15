"""Show what the cache holds (show), or empty it by kind and age (clear).

Results of the cache can be made again, which takes their time; checkpoints let a stopped computation go on. The folder
is $MIUE_CACHE, else ~/.cache/miue. What another process is making is never deleted.
"""

import math
import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.filesize import decimal

from miue.errors import InputError, choose
from miue.storage import keeping
from miue.storage.files import cache_dir

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode="markdown")
UNITS = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


@app.command()
def show() -> None:
    """Tell what the cache holds: kind, number of files, bytes, and when its oldest and newest were written."""
    typer.echo(f"cache: {cache_dir()}")
    _table(keeping.entries())


@app.command()
def clear(
    kind: Annotated[
        list[str] | None, typer.Option(help=f"What to delete, repeatable (default: all): {', '.join(keeping.KINDS)}.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Only what was written longer ago than this, in hours, days or weeks: 12h, 30d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be deleted; delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
) -> None:
    """Delete what lies in the cache, by kind and age, after asking; say what was freed."""
    kinds = [choose("--kind", one, keeping.KINDS) for one in kind or keeping.KINDS]
    before = _before(older_than)
    chosen = [entry for entry in keeping.entries() if entry.kind in kinds and entry.changed < before]
    free = [entry for entry in chosen if not keeping.busy(entry)]
    typer.echo(f"cache: {cache_dir()}")
    _table(free)
    if len(free) < len(chosen):
        typer.echo(f"left alone, for another process is making them: {len(chosen) - len(free)}")
    if dry_run or not free:
        typer.echo("nothing is deleted")
        return
    if not yes:
        typer.confirm("delete all of this?", abort=True)
    deleted = keeping.totals(keeping.clear(free))
    typer.echo(f"freed: {decimal(sum(total.size for total in deleted))}")


def _table(found: Sequence[keeping.Entry]) -> None:
    """Print what there is of each kind, and of all together."""
    summed = keeping.totals(found)
    rows = [("kind", "files", "bytes", "oldest", "newest")]
    for total in summed:
        oldest, newest = (f"{datetime.fromtimestamp(at):%Y-%m-%d %H:%M}" for at in (total.oldest, total.newest))
        rows.append((total.kind, f"{total.files:,}", decimal(total.size), oldest, newest))
    files, size = sum(total.files for total in summed), sum(total.size for total in summed)
    rows.append(("all", f"{files:,}", decimal(size), "", ""))
    for row in rows:
        typer.echo("{:13}  {:>9}  {:>9}  {:16}  {}".format(*row).rstrip())


def _before(age: str | None) -> float:
    """The time before which something of this age was written, in seconds since 1970; without an age, any time is."""
    if age is None:
        return math.inf
    found = re.fullmatch(r"(\d+)([hdw])", age.strip())
    if not found:
        raise InputError(f"--older-than: {age!r}; write a whole number and h, d or w: 12h, 30d, 4w")
    return time.time() - int(found[1]) * UNITS[found[2]]
