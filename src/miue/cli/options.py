"""What commands share: their common options, loading images, training the victim that options describe."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from miue import defenses, seeds, specs
from miue.data import loading
from miue.data.images import Images
from miue.errors import InputError
from miue.models import MODELS, check
from miue.poisons import Poison
from miue.ranks import launched
from miue.storage.files import atomic, check_writable, write_json
from miue.training import recipes
from miue.victim import Victim, train_victim


def writable(path: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before any work is done for it; of several processes the first one does."""
    if path is not None and launched().number == 0:
        check_writable(path)
    return path


def at_least(option: str, least: float, *, above: bool = False) -> Callable[[float | None], float | None]:
    """A check of a number, where one is given: NaN is refused too, which typer's own bounds let pass."""

    def checked(value: float | None) -> float | None:
        if value is not None and not (value > least if above else value >= least):
            raise InputError(
                f"{option}: {value:g}; it must be {f'above {least:g}' if above else f'{least:g} or above'}"
            )
        return value

    return checked


Data = Annotated[str, typer.Option(help=f"Data set: {', '.join(loading.DATASETS)}.")]
Root = Annotated[Path | None, typer.Option(help="Folder of downloads and unpacked sets (default: $MIUE_DATA, data/).")]
NTrain = Annotated[int | None, typer.Option(help="Training images, classes in proportion (default: all).")]
NTest = Annotated[int | None, typer.Option(help="Test images, classes in proportion (default: all).")]
Size = Annotated[int | None, typer.Option(help="Height and width in pixels; folder: only (default: 224).")]
Model = Annotated[str, typer.Option(help=f"Network, with options as in resnet18:width=0.25: {', '.join(MODELS)}.")]
PoisonFile = Annotated[Path | None, typer.Option(help="Perturbation file to add to the training images.")]
RecipeName = Annotated[str, typer.Option(help=f"Training recipe: {', '.join(recipes.RECIPES)}.")]
Seed = Annotated[
    int, typer.Option(help="Seed of everything random in this step.", callback=lambda seed: seeds.checked(seed))
]
Record = Annotated[Path | None, typer.Option(help="File for the record (.json).", callback=writable)]
Table = Annotated[Path | None, typer.Option(help="File for the table (.csv).", callback=writable)]
CellLimit = Annotated[
    float, typer.Option(help="Seconds that one cell may take.", callback=at_least("--cell-limit", 0, above=True))
]
RunLimit = Annotated[
    float, typer.Option(help="Seconds that a whole run may take.", callback=at_least("--limit", 0, above=True))
]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Override one field, as NAME=VALUE; repeatable.")]
DefenseName = Annotated[
    str | None, typer.Option(help=f"Defense, with options as in iss:kind=jpeg: {', '.join(defenses.DEFENSES)}.")
]


def load(name: str, root: Path | None, n_train: int | None, n_test: int | None, size: int | None) -> loading.Split:
    """Load images and say which."""
    train_images, test_images = loading.load(name, root, n_train, n_test, size)
    typer.echo(f"data: {train_images} for training, {len(test_images)} for testing, hash {train_images.content_hash}")
    return train_images, test_images


def perturbed(
    images: Images, file: Path | None, ratio: float = 1.0, classes: list[str] | None = None
) -> tuple[Images, dict[str, Any]]:
    """Add the perturbation in `file`, where there is one, to a part of the images; what made it comes with them."""
    if file is None:
        return images, {"method": "clean"}
    poison = Poison.read(file)
    told = poison.record
    typer.echo(f"perturbation: {told.get('method', 'unknown')}, up to {told.get('levels', '?')} of 255 grey levels")
    if classes or ratio != 1:
        poison = poison.part(images, ratio=ratio, classes=classes)
    return poison.apply(images), {k: v for k, v in poison.record.items() if k != "notes"}


def report(out: Path | None, record: dict[str, Any]) -> None:
    """Write a record, where a file for it is named."""
    if out is not None:
        write_json(out, record)
        typer.echo(f"record: {out}")


def report_table(out: Path | None, table: pd.DataFrame, *, index: bool) -> None:
    """Write a table, where a file for it is named."""
    if out is not None:
        with atomic(out) as part:
            table.to_csv(part, index=index)
        typer.echo(f"table: {out}")


def trained(
    data: str,
    root: Path | None,
    n_train: int | None,
    n_test: int | None,
    size: int | None,
    poison: Path | None,
    model: str,
    recipe: str,
    seed: int,
    set_: list[str] | None,
    defense: str | None = None,
    ratio: float = 1.0,
    classes: list[str] | None = None,
) -> tuple[Victim, Images, Images, dict[str, Any]]:
    """Train (or find) the victim that the options describe; clean images, those shown and its record come with it."""
    changes = specs.pairs(set_ or [], "--set")
    recipes.recipe(recipe, **changes)
    check(model)
    against = None if defense is None else defenses.build(defense)
    images, test = load(data, root, n_train, n_test, size)
    shown, made_by = perturbed(images, poison, ratio, classes)
    victim = train_victim(shown, test, model=model, recipe=recipe, seed=seed, defense=against, **changes)
    history = [vars(epoch) for epoch in victim.history]
    accuracy = {"test_accuracy_last": victim.accuracy, "test_accuracy_best": victim.best}
    record = {**victim.record, "poison": made_by, "metrics": accuracy, "history": history}
    return victim, images, shown, record
