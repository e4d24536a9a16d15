"""Measure mutual information (without COMMAND), or hold an estimator against known truth (check).

What clean and perturbed training images share in the features of a victim trained on the latter is measured. Beside
the sliced mutual information stand its permutation null, its shuffle within classes and its ceiling, and what is left
of it given the class. Where a class has too few images for the estimator, the last is left out.
"""

from typing import Annotated, Any

import typer

from miue.cli import options
from miue.errors import InputError
from miue.mi import ESTIMATORS, acceptance, conditional_mi, with_controls
from miue.mi.sliced import check_estimator
from miue.specs import load
from miue.storage.provenance import collect as provenance
from miue.training import loop

app = typer.Typer(invoke_without_command=True, add_completion=False, help=__doc__, rich_markup_mode="markdown")


@app.callback()
def mi(
    context: typer.Context,
    data: options.Data = "digits_m",
    root: options.Root = None,
    n_train: options.NTrain = None,
    n_test: options.NTest = None,
    size: options.Size = None,
    poison: options.PoisonFile = None,
    model: options.Model = "small_resnet",
    recipe: options.RecipeName = "laptop",
    seed: options.Seed = 0,
    set_: options.Changes = None,
    estimator: Annotated[str, typer.Option(help=f"Estimator: {', '.join(ESTIMATORS)}.")] = "ksg",
    n_slices: Annotated[int, typer.Option(help="Random directions.", min=1)] = 512,
    out: options.Record = None,
) -> None:
    """Train the victim and measure, unless a command of the group is called."""
    if context.invoked_subcommand:
        return
    check_estimator(estimator)
    victim, images, shown, record = options.trained(
        data, root, n_train, n_test, size, poison, model, recipe, seed, set_
    )
    clean, perturbed = loop.features(victim.model, images), loop.features(victim.model, shown)
    settings: dict[str, Any] = {"n_slices": n_slices, "seed": seed}
    measured = dict(vars(with_controls(clean, perturbed, images.y, estimator=estimator, **settings)))
    left_out = {}
    try:
        measured["given_class"] = conditional_mi(clean, perturbed, images.y, estimator, **settings)
    except InputError as error:  # a class is too small, or its features collapsed
        left_out["given_class"] = str(error)
    for name, estimate in measured.items():
        errors = {estimate.stderr_kind: estimate.stderr, "samples": estimate.stderr_samples}
        told = ", ".join(f"{error:.4f} over {kind}" for kind, error in errors.items() if error is not None)
        typer.echo(f"{name:13s} {estimate.value:8.4f} nats" + (f" (standard error {told})" if told else ""))
    for name, reason in left_out.items():
        typer.echo(f"{name:13s} left out: {reason}")
    records = {name: estimate.record() for name, estimate in measured.items()}
    options.report(out, record | {"mutual_information": records, "left_out": left_out, **provenance()})


@app.command()
def check(
    estimator: Annotated[
        str,
        typer.Argument(help=f"{', '.join(acceptance.KNOWN)}; or MODULE:FUNCTION or FILE.py:FUNCTION of two arrays."),
    ],
    n: Annotated[int, typer.Option(help="Samples of each repeat.")] = 5000,
    repeats: Annotated[int, typer.Option(help="Independent draws.")] = 8,
    n_slices: Annotated[int, typer.Option(help="Pairs of directions where the truth is sliced.", min=2)] = 512,
    seed: options.Seed = 0,
    out: options.Table = None,
) -> None:
    """Hold an estimator, of this package or your own, against distributions whose truth is known."""
    chosen = load("estimator", estimator) if ":" in estimator else estimator
    table = acceptance.check(chosen, n=n, repeats=repeats, n_slices=n_slices, seed=seed)
    typer.echo(f"{estimator}: {n} samples, mean of {repeats} repeats, nats")
    typer.echo(table.drop(columns="within").round(4).assign(within=table["within"]).to_string(na_rep="-"))
    options.report_table(out, table, index=True)
