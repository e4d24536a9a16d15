"""The paper's comparison at its own scale, trial by trial into files of records: for a GPU machine without Jupyter.

    python benchmarks/paper_scale.py records/ --data cifar10
    python benchmarks/paper_scale.py records/ --data folder:imagenette224 --size 224

What costs least for what it tells comes first. Each trial is kept as it is measured, and perturbations and victims keep
their state on the way, so the same command goes on after any stop. Where there is Jupyter, a page is drawn from a file:
`miue run comparison -p records=FILE -p measure=false` with the setting that stands in its first line.
"""

from pathlib import Path
from typing import Annotated

import typer

from miue.experiments.comparison import Records, Setting, Trial, compare

METHODS = ("clean", "random", "mi_ue", "em", "lsp", "ar", "pil", "ops", "cuda", "tap", "sem", "tue", "gue", "rem")
DEFENSE = "adversarial_training:epsilon=4/255"


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the files of records.")],
    data: Annotated[str, typer.Option(help="Data set, as `miue run` takes it.")] = "cifar10",
    n_train: Annotated[int | None, typer.Option(help="Training images (default: all).")] = None,
    n_test: Annotated[int | None, typer.Option(help="Test images (default: all).")] = None,
    size: Annotated[int | None, typer.Option(help="Height and width in pixels, for folder: only.")] = None,
    preset: Annotated[str, typer.Option(help="Effort of the perturbations.")] = "paper",
    recipe: Annotated[str, typer.Option(help="Training of the victims.")] = "paper",
    adversarial: Annotated[str, typer.Option(help="Adversarial training of the victims.")] = "adversarial",
    network: Annotated[str, typer.Option(help="Surrogate and victim.")] = "resnet18",
    seed: Annotated[int, typer.Option(help="Of the perturbations.")] = 0,
    victims: Annotated[int, typer.Option(help="Victims that each perturbation meets, of seeds from `seed` on.")] = 1,
    passes: Annotated[str, typer.Option(help="For a method: equal (at most MI-UE's), own, or a number.")] = "equal",
) -> None:
    """Measure every method, then clean images and MI-UE under adversarial training."""
    common = {"seed": seed, "surrogate": network}
    met = range(seed, seed + victims)
    plain = [Trial(method, network, victim_seed=other, **common) for method in METHODS for other in met]
    defended = [Trial(m, network, DEFENSE, victim_seed=other, **common) for m in ("clean", "mi_ue") for other in met]
    allowed = int(passes) if passes.isdecimal() else passes
    for training, wanted in ((recipe, plain), (adversarial, defended)):
        setting = Setting(data, n_train, n_test, size, preset, training, n_slices=512, passes=allowed)
        name = f"{data.rpartition(':')[2].replace('/', '_')}-{preset}-{training.replace(':', '_')}.jsonl"
        table = compare(wanted, setting, Records(out / name, setting))
        shown = ["method", "defense", "victim_seed", "test_accuracy", "mi", "passes", "perturbation_seconds", "device"]
        print(table[shown].to_string())


if __name__ == "__main__":
    typer.run(main)
