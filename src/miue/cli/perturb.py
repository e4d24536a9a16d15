"""Commands that perturb images, read perturbations made elsewhere, and train victims."""

from pathlib import Path
from typing import Annotated, Any

import typer

from miue import poisons, specs
from miue.cli import options
from miue.errors import InputError
from miue.models import check
from miue.pgd import in_levels
from miue.poisons import METHODS, arrays, foreign, perturb, shards
from miue.ranks import joined

OutFile = Annotated[Path, typer.Option(help="File to write (.safetensors).", callback=options.writable)]


def poison(
    out: OutFile,
    method: Annotated[
        str, typer.Option(help=f"Method, with options as in em:scope=class: {', '.join(METHODS)}.")
    ] = "mi_ue",
    data: options.Data = "digits_m",
    root: options.Root = None,
    n_train: options.NTrain = None,
    size: options.Size = None,
    surrogate: options.Model = "small_resnet",
    epsilon: Annotated[str, typer.Option(help="Budget, a fraction of the pixel range; 8/255 is 8 levels.")] = "8/255",
    preset: Annotated[str, typer.Option(help="Preset: quick, laptop, paper.")] = "laptop",
    seed: options.Seed = 0,
    set_: options.Changes = None,
) -> None:
    """Perturb training images and write the perturbation to a file.

    Started by torchrun, several processes share the images: FILE then names the shards that they write beside it.
    """
    with joined() as ranks:
        budget = in_levels(epsilon)
        changes = specs.pairs(set_ or [], "--set")
        poisons.options(method, preset, **changes)
        check(surrogate)
        if poisons.find(method)[1].bounded:
            typer.echo(f"budget: epsilon {budget}")
        else:
            typer.echo(f"budget: {method} keeps none; epsilon is not used")
        images, _ = options.load(data, root, n_train, None, size)
        made = perturb(
            images, method, surrogate=surrogate, epsilon=epsilon, seed=seed, preset=preset, ranks=ranks, **changes
        )
        shards.save(made, out, images, ranks)
        typer.echo(f"largest change: {made.record['levels']} of 255 grey levels")
        typer.echo(f"{method}: {len(images)} images, made in {made.record['seconds']:.0f} s on {made.record['device']}")
        typer.echo(f"perturbation: {out}")


def adopt(
    file: Annotated[Path, typer.Argument(help="File of another program: .npy, .pt, .pth or .safetensors.")],
    out: OutFile,
    data: options.Data = "cifar10",
    root: options.Root = None,
    n_train: options.NTrain = None,
    size: options.Size = None,
    kind: Annotated[str, typer.Option(help="What the file holds: perturbation, or images that are perturbed.")] = (
        "perturbation"
    ),
    scale: Annotated[
        str,
        typer.Option(help=f"What its values are, {', '.join(arrays.SCALES)}: fractions of the pixel range, or levels."),
    ] = "auto",
    layout: Annotated[str, typer.Option(help=f"Order of its axes: {', '.join(arrays.LAYOUTS)}.")] = "auto",
    rows: Annotated[str, typer.Option(help=f"What a row is for: {', '.join(foreign.ROWS)}.")] = "auto",
    labels: Annotated[Path | None, typer.Option(help="File of labels in the order of FILE (default: in FILE).")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the array, where FILE holds several.")] = None,
    epsilon: Annotated[str | None, typer.Option(help="Budget that it is said to keep; needed for images.")] = None,
    trust_order: Annotated[bool, typer.Option(help="Vouch for the order where nothing in FILE proves it.")] = False,
) -> None:
    """Turn a perturbation made elsewhere into a file that `miue train --poison` takes, its order checked."""
    given: dict[str, Any] = dict(kind=kind, labels=labels, scale=scale, layout=layout, rows=rows, epsilon=epsilon)
    foreign.check(file, **given)
    images, _ = options.load(data, root, n_train, None, size)
    made = foreign.read(file, images, key=key, trust_order=trust_order, **given)
    made.save(out)
    if epsilon is not None:
        typer.echo(f"budget: epsilon {in_levels(epsilon)}")
    largest = made.record["levels"]
    typer.echo(f"perturbation: {out}, {len(images)} images, at most {largest} of 255 grey levels")


def train(
    data: options.Data = "digits_m",
    root: options.Root = None,
    n_train: options.NTrain = None,
    n_test: options.NTest = None,
    size: options.Size = None,
    poison: options.PoisonFile = None,
    model: options.Model = "small_resnet",
    recipe: options.RecipeName = "laptop",
    seed: options.Seed = 0,
    defense: options.DefenseName = None,
    ratio: Annotated[float, typer.Option(help="Share of the images that are perturbed, 0 to 1.")] = 1.0,
    only: Annotated[list[str] | None, typer.Option(help="Perturb this class only; repeatable.")] = None,
    set_: options.Changes = None,
    out: options.Record = None,
) -> None:
    """Train a victim on (perturbed) images and measure it on clean test images."""
    if not 0 <= ratio <= 1:
        raise InputError(f"--ratio: {ratio:g}; it must lie between 0 and 1")
    if poison is None and (only or ratio != 1):
        given = "--only" if only else "--ratio"
        raise InputError(f"{given}: a part of what? Name the perturbation with --poison, or leave {given} out")
    victim, _, _, record = options.trained(
        data, root, n_train, n_test, size, poison, model, recipe, seed, set_, defense, ratio, only
    )
    for epoch in victim.history:
        typer.echo(
            f"epoch {epoch.epoch:3d}  loss {epoch.loss:.4f}  train {epoch.train_accuracy:.1%}  "
            f"clean test {epoch.test_accuracy:.1%}"
        )
    typer.echo(f"clean test accuracy: last {victim.accuracy:.2%}, best epoch {victim.best:.2%}")
    options.report(out, record)
