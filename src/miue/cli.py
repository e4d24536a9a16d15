"""The command line: perturb, train, measure, run experiments, build the book.

Exit codes: 0 done, 1 failed while running, 2 refused before anything started.
"""

import importlib
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from miue import data, poisons, specs, steps, train
from miue.errors import InputError, choose
from miue.files import atomic
from miue.images import Images
from miue.mi import ESTIMATORS, acceptance, conditional_mi, with_controls
from miue.models import MODELS
from miue.models import check as check_model
from miue.pgd import Budget, parse_epsilon
from miue.poisons import METHODS, Poison
from miue.store import provenance, write_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Why unlearnable examples work: perturb pictures, train victims, measure mutual information.",
)

INTERRUPTED = 130  # what typer makes of Ctrl-C

Data = Annotated[str, typer.Option(help=f"Data set: {', '.join(data.DATASETS)}.")]
Root = Annotated[Path | None, typer.Option(help="Folder of downloads and unpacked sets (default: $MIUE_DATA, data/).")]
NTrain = Annotated[int | None, typer.Option(help="Training pictures, classes in proportion (default: all).")]
NTest = Annotated[int | None, typer.Option(help="Test pictures, classes in proportion (default: all).")]
Size = Annotated[int | None, typer.Option(help="Height and width in pixels; folder: only (default: 224).")]
Model = Annotated[str, typer.Option(help=f"Network, with options as in resnet18:width=0.25: {', '.join(MODELS)}.")]
PoisonFile = Annotated[Path | None, typer.Option(help="Perturbation file to add to the training pictures.")]
RecipeName = Annotated[str, typer.Option(help=f"Training recipe: {', '.join(train.RECIPES)}.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random in this step.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Override one field, as NAME=VALUE; repeatable.")]


def _load(name: str, root: Path | None, n_train: int | None, n_test: int | None, size: int | None) -> data.Split:
    train_images, test_images = data.load(name, root, n_train, n_test, size)
    typer.echo(f"data: {train_images} for training, {len(test_images)} for testing, hash {train_images.content_hash}")
    return train_images, test_images


def _perturbed(images: Images, file: Path | None) -> tuple[Images, dict[str, Any]]:
    if file is None:
        return images, {"method": "clean"}
    poison = Poison.load(file)
    return poison.apply(images), {k: v for k, v in poison.record.items() if k != "notes"}


def _report(out: Path | None, record: dict[str, Any]) -> None:
    if out is not None:
        write_json(out, record)
        typer.echo(f"record: {out}")


@app.command()
def poison(
    out: Annotated[Path, typer.Option(help="File to write (.safetensors).")],
    method: Annotated[str, typer.Option(help=f"Method: {', '.join(METHODS)}.")] = "mi_ue",
    data: Data = "digits_m",
    root: Root = None,
    n_train: NTrain = None,
    size: Size = None,
    model: Model = "small_resnet",
    epsilon: Annotated[str, typer.Option(help="Budget, a fraction of the pixel range.")] = "8/255",
    preset: Annotated[str, typer.Option(help="Preset: quick, laptop, paper.")] = "laptop",
    seed: Seed = 0,
    set_: Changes = None,
) -> None:
    """Perturb training pictures and write the perturbation to a file."""
    budget = Budget(parse_epsilon(epsilon))
    changes = specs.pairs(set_ or [], "--set")
    poisons.options(method, preset, **changes)
    check_model(model)
    typer.echo(f"budget: epsilon {budget.epsilon:.5f} = {budget.levels} of 255 grey levels")
    images, _ = _load(data, root, n_train, None, size)
    made = steps.perturbation(method, images, model=model, epsilon=epsilon, seed=seed, preset=preset, **changes)
    made.save(out)
    typer.echo(f"{method}: {len(images)} pictures, made in {made.record['seconds']:.0f} s on {made.record['device']}")
    typer.echo(f"perturbation: {out}")


@app.command(name="train")
def train_(
    data: Data = "digits_m",
    root: Root = None,
    n_train: NTrain = None,
    n_test: NTest = None,
    size: Size = None,
    poison: PoisonFile = None,
    model: Model = "small_resnet",
    recipe: RecipeName = "laptop",
    seed: Seed = 0,
    set_: Changes = None,
    out: Annotated[Path | None, typer.Option(help="File for the record (.json).")] = None,
) -> None:
    """Train a victim on (perturbed) pictures and measure it on clean test pictures."""
    victim, _, _, _, record = _victim(data, root, n_train, n_test, size, poison, model, recipe, seed, set_)
    for epoch in victim.history:
        typer.echo(
            f"epoch {epoch.epoch:3d}  loss {epoch.loss:.4f}  train {epoch.train_accuracy:.1%}  "
            f"clean test {epoch.test_accuracy:.1%}"
        )
    typer.echo(f"clean test accuracy: last {victim.last:.2%}, best epoch {victim.best:.2%}")
    _report(out, record)


def _victim(
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
) -> tuple[steps.Victim, Images, Images, Images, dict[str, Any]]:
    """Train (or find) the victim that the options describe; its pictures and its record come with it."""
    changes = specs.pairs(set_ or [], "--set")
    train.recipe(recipe, **changes)
    check_model(model)
    images, test = _load(data, root, n_train, n_test, size)
    shown, made_by = _perturbed(images, poison)
    victim = steps.victim(shown, test, model=model, recipe=recipe, seed=seed, **changes)
    history = [vars(epoch) for epoch in victim.history]
    accuracy = {"test_accuracy_last": victim.last, "test_accuracy_best": victim.best}
    record = {**victim.record, "poison": made_by, "metrics": accuracy, "history": history}
    return victim, images, shown, test, record


mi_app = typer.Typer(
    invoke_without_command=True,
    help="Measure mutual information (without COMMAND), or hold an estimator against known truth (check).",
)
app.add_typer(mi_app, name="mi")


@mi_app.callback()
def mi(
    context: typer.Context,
    data: Data = "digits_m",
    root: Root = None,
    n_train: NTrain = None,
    n_test: NTest = None,
    size: Size = None,
    poison: PoisonFile = None,
    model: Model = "small_resnet",
    recipe: RecipeName = "laptop",
    seed: Seed = 0,
    set_: Changes = None,
    estimator: Annotated[str, typer.Option(help=f"Estimator: {', '.join(ESTIMATORS)}.")] = "ksg",
    n_slices: Annotated[int, typer.Option(help="Random directions.", min=1)] = 512,
    out: Annotated[Path | None, typer.Option(help="File for the record (.json).")] = None,
) -> None:
    """Measure what clean and perturbed training pictures share in the features of a victim trained on the latter.

    Beside the sliced mutual information stand its permutation null, its shuffle within classes and its ceiling, and
    what is left of it given the class. `miue mi check ESTIMATOR` holds an estimator against distributions whose truth
    is known.
    """
    if context.invoked_subcommand:
        return
    choose("estimator", estimator, ESTIMATORS)
    victim, images, shown, _, record = _victim(data, root, n_train, n_test, size, poison, model, recipe, seed, set_)
    clean, perturbed = train.features(victim.model, images), train.features(victim.model, shown)
    settings: dict[str, Any] = {"n_slices": n_slices, "seed": seed}
    measured = vars(with_controls(clean, perturbed, images.y, estimator=estimator, **settings))
    measured["given_class"] = conditional_mi(clean, perturbed, images.y, estimator, **settings)
    for name, estimate in measured.items():
        samples = "" if estimate.stderr_samples is None else f", {estimate.stderr_samples:.4f} over samples"
        typer.echo(f"{name:13s} {estimate.value:8.4f} nats (standard error {estimate.stderr:.4f} over slices{samples})")
    records = {name: estimate.record() for name, estimate in measured.items()}
    _report(out, record | {"mutual_information": records, **provenance()})


@mi_app.command()
def check(
    estimator: Annotated[
        str,
        typer.Argument(help=f"{', '.join(acceptance.KNOWN)}; or MODULE:FUNCTION or FILE.py:FUNCTION of two arrays."),
    ],
    n: Annotated[int, typer.Option(help="Samples of each repeat.")] = 5000,
    repeats: Annotated[int, typer.Option(help="Independent draws.")] = 8,
    n_slices: Annotated[int, typer.Option(help="Pairs of directions where the truth is sliced.", min=2)] = 512,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="File for the table (.csv).")] = None,
) -> None:
    """Hold an estimator, of this package or your own, against distributions whose truth is known."""
    chosen = _function(estimator) if ":" in estimator else estimator
    table = acceptance.check(chosen, n=n, repeats=repeats, n_slices=n_slices, seed=seed)
    typer.echo(f"{estimator}: {n} samples, mean of {repeats} repeats, nats")
    typer.echo(table.drop(columns="within").round(4).assign(within=table["within"]).to_string(na_rep="-"))
    if out is not None:
        with atomic(out) as part:
            table.to_csv(part)
        typer.echo(f"table: {out}")


def _function(name: str) -> Callable[..., Any]:
    """Import the caller's own estimator from MODULE:FUNCTION or FILE.py:FUNCTION."""
    place, _, function = name.rpartition(":")
    try:
        found = runpy.run_path(place) if place.endswith(".py") else vars(importlib.import_module(place))
        return found[function]
    except (ImportError, OSError, KeyError) as error:
        raise InputError(f"estimator: {name!r} cannot be imported ({error}); write MODULE:FUNCTION") from None


@app.command()
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


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    name: Annotated[str, typer.Argument(help="Name of the page, which says data and scale.")],
    book: Annotated[Path, typer.Option(help="The repository that holds the book.")] = Path("."),
) -> None:
    """Copy the executed page of a run that ended well into book/results/."""
    from miue import runs

    typer.echo(f"page: {runs.publish(folder, name, book)}")


@app.command()
def book(
    root: Annotated[Path, typer.Argument(help="The repository that holds the book.")] = Path("."),
) -> None:
    """Run the default experiment and every chapter, render the book, check its pages."""
    from miue import book as builder

    typer.echo(f"book: {builder.build(root)}")


def main() -> None:
    """Run the command line and turn errors into one line and an exit code."""
    try:
        app()
    except InputError as error:
        print(f"miue: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            print("miue: interrupted; finished steps are kept in the cache", file=sys.stderr)
        raise
    except (OSError, FloatingPointError, RuntimeError) as error:
        print(f"miue: {error}", file=sys.stderr)
        raise SystemExit(1) from None
