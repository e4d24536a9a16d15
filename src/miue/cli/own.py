"""Commands for somebody's own images: a protected copy of a folder, and what a folder teaches."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from miue import audit as auditing
from miue import protect as protecting
from miue.cli import options
from miue.errors import printable
from miue.pgd import in_levels
from miue.poisons import METHODS
from miue.protect import report
from miue.protect.making import Protected
from miue.protect.settings import Settings
from miue.protect.survival import survival

Folder = Annotated[Path, typer.Argument(help="Folder of images, with a folder in it for each class or person.")]
DEFAULTS = Settings(seed=0)


def _default(name: str) -> str:
    return f"(default: {getattr(DEFAULTS, name)})"


def protect(
    images: Folder,
    out: Annotated[Path, typer.Option(help="Folder of the copy: publish/ may be published, private/ must not be.")],
    reference: Annotated[
        Path | None, typer.Option(help="Folder of other images, left as they are, for a single class to differ from.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(METHODS)} that keeps a budget {_default('method')}.")
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option(help=f"Budget; 8/255 is 8 of 255 grey levels {_default('epsilon')}.")
    ] = None,
    surrogate: Annotated[str | None, typer.Option(help=f"Networks, joined by a plus {_default('surrogate')}.")] = None,
    preset: Annotated[str | None, typer.Option(help=f"quick, laptop or paper {_default('preset')}.")] = None,
    size: Annotated[
        int | None, typer.Option(help=f"Pixels at which the perturbation is made {_default('size')}.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random (default: drawn).")] = None,
    format_: Annotated[str | None, typer.Option("--format", help=f"png or jpeg {_default('format')}.")] = None,
    quality: Annotated[int | None, typer.Option(help=f"Of JPEG, 1 to 100 {_default('quality')}.")] = None,
    orientation: Annotated[
        str | None, typer.Option(help=f"What EXIF says of it: apply or keep {_default('orientation')}.")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(help=f"strip or keep EXIF, the place included {_default('metadata')}.")
    ] = None,
    animated: Annotated[
        str | None, typer.Option(help=f"Of several frames: the first, or refuse {_default('animated')}.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Images in memory at once (default: one a core).", min=1)] = None,
    verify: Annotated[bool, typer.Option(help="Only hold what is there against the manifest and originals.")] = False,
    victims: Annotated[
        bool, typer.Option("--victims/--no-victims", help="Train small networks on the copy for the report.")
    ] = True,
) -> None:
    """Make a protected copy of a folder of images, and a report of how little or how much that protects.

    The same command goes on where it was stopped, and adds images that are new. Originals are only read.
    """
    if verify:
        wrong = protecting.check(images, out)
        typer.echo(f"checked: {'all as they were written' if not wrong else f'{len(wrong)} are wrong'}")
        raise typer.Exit(bool(wrong))
    given: dict[str, Any] = {
        "method": method, "epsilon": epsilon, "surrogate": surrogate, "preset": preset, "size": size, "seed": seed,
        "format": format_, "quality": quality, "orientation": orientation, "metadata": metadata, "animated": animated,
    }  # fmt: skip
    made = protecting.images(images, out, reference=reference, workers=workers, **given)
    _tell(made)
    left = survival(images, made, size=report.SEEN)
    found, classes = None, {row["class"] for row in made.rows}
    if bare := classes - {row["class"] for row in made.rows if row["source"] not in made.gone}:
        typer.echo(f"note: no networks are trained, for no original is left of {printable(', '.join(sorted(bare)))}")
    elif victims and len(classes) > 1:
        found = auditing.images(made.publish, images, size=report.SEEN)
        tell_audit(found)
    typer.echo(f"report: {report.write(images, made, left, found)}")
    typer.echo(f"to publish: {made.publish}")
    typer.echo(f"not to be published: {made.private}, which tells how to undo the perturbation")


def _tell(made: Protected) -> None:
    about = made.settings
    typer.echo(f"images: {len(made.rows)} protected, {made.new} of them now")
    classes = Counter(row["class"] for row in made.rows)
    told = ", ".join(f"{printable(name)} ({count})" for name, count in classes.most_common(8))
    typer.echo(f"classes: {told}" + (f" and {len(classes) - 8} others" if len(classes) > 8 else ""))
    typer.echo(f"budget: epsilon {in_levels(about.epsilon)}")
    if about.metadata == "strip":
        typer.echo("metadata: stripped, the place where an image was taken included; its colour profile stays")
    for told, count in (
        ("could not be read and are not in the copy", made.unreadable),
        ("are protected and no longer in the folder", made.gone),
        ("lie in more than one class, which weakens both", made.twice),
    ):
        if count:
            typer.echo(f"note: {len(count)} {told}: {_first(count)}")
    if made.left_out:
        typer.echo("left out: " + ", ".join(f"{what}: {count}" for what, count in made.left_out.most_common()))


def _first(files: Mapping[str, str] | list[str]) -> str:
    shown = [f"{file} ({files[file]})" if isinstance(files, Mapping) else file for file in list(files)[:5]]
    return printable(", ".join(shown)) + (f" and {len(files) - 5} others" if len(files) > 5 else "")


def audit(
    folder: Folder,
    against: Annotated[Path | None, typer.Option(help="Folder of the originals.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Network to train; repeatable (default: two small).")] = None,
    recipe: options.RecipeName = auditing.RECIPE,
    size: Annotated[int, typer.Option(help="Pixels to which images are resized.")] = 64,
    seeds: Annotated[int, typer.Option(help="How often each network is trained.", min=1)] = 2,
    backbone: Annotated[Path | None, typer.Option(help="File of a victim whose features are taken over.")] = None,
    most: Annotated[int, typer.Option(help="Images that are trained on; of more, so many are drawn.", min=2)] = 1000,
    out: options.Record = None,
) -> None:
    """Say how much small networks learn of a folder of images, and whether it looks perturbed."""
    how: dict[str, Any] = {} if model is None else {"models": model}
    found = auditing.images(
        folder, against, recipe=recipe, size=size, seeds=range(seeds), backbone=backbone, most=most, **how
    )
    tell_audit(found)
    options.report(out, found.to_json())


def tell_audit(found: auditing.Audit) -> None:
    """Print an audit."""
    asked = "originals" if found.compared else "images"
    typer.echo(
        f"accuracy on held-out {asked}, %, mean of {len(found.record['seeds'])} (range); guessing has "
        f"{found.record['chance']:.0%}"
    )
    for row in found.victims.to_dict("records"):
        told = f"{row['learned']:6.1%} ({row['low']:.1%} to {row['high']:.1%})"
        if "originals" in row:
            told += f", trained on the originals {row['originals']:.1%}"
        typer.echo(f"  {row['victim']:32} {row['countermeasure']:20} {told}")
    for name, value in found.compared.items():
        typer.echo(f"{name}: {'none' if value is None else f'{value:.3g}'}")
    for sign in found.signs:
        said = "" if sign.limit is None else f" (speaks of a perturbation above {sign.limit:g})"
        typer.echo(f"sign: {sign.about}: {sign.value:.2f}{said}")
    if found.signs:
        typer.echo(f"perturbed: {'likely' if found.perturbed else 'no sign of it'}")
    for file, why in found.unreadable.items():
        typer.echo(printable(f"not read: {file} ({why})"))
