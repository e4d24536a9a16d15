"""The paper's reported numbers, and which of our trials one of them may stand beside."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from miue import defenses, specs
from miue.defenses import DEFENSES
from miue.experiments.trials import NONE

FOLDER = Path(__file__).parent / "reference"
BUDGET, SURROGATE = "8/255", "resnet18"
"""Budget of the paper's comparisons, and the network that made their perturbations."""


@dataclass(frozen=True)
class DataSet:
    """A data set of the paper.

    Args:
        images: regular expression on the names of data sets that show the same images, whatever their encoding.
        pixels: the same, for those that are the paper's pixel by pixel.
        n_classes: how many.
        n_train, n_test: how many training and test images at least.
    """

    images: str
    pixels: str
    n_classes: int
    n_train: int
    n_test: int


DATA = {
    "cifar10": DataSet(r"CIFAR-10( \(JPEG-75 copy\))?", r"CIFAR-10", 10, 50_000, 10_000),
    "cifar100": DataSet(r"CIFAR-100", r"CIFAR-100", 100, 50_000, 10_000),
    # How many images the paper takes is not known to us; ImageNet has about 1,300 of most classes, and 50 to test on.
    "imagenet_subset": DataSet(
        r"folder imagenet.*|Tiny-ImageNet, .*", r"folder imagenet.*, 224 px", 100, 100_000, 5_000
    ),
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "mi_ue_without_distance_term": ("mi_ue", {"zeta": 0}),
    "mi_ue_without_similarity_term": ("mi_ue", {"similarity": False}),
}
"""What the paper calls otherwise than we do, by our name and options."""


@cache
def accuracies() -> dict[tuple[str | None, ...], float]:
    """All accuracies that the paper reports, in [0, 1], by data set, victim, training and method."""
    table = pd.read_csv(FOLDER / "paper_accuracy.csv")
    return (table.set_index(["dataset", "victim", "training", "method"])["test_accuracy_percent"] / 100).to_dict()


def family(trial: Mapping[str, Any]) -> str | None:
    """The paper's name of the data set whose images and classes the trial's are, if it has it."""
    for name, known in DATA.items():
        if re.fullmatch(known.images, trial["data"]) and trial["n_classes"] == known.n_classes:
            return name
    return None


def reported(trial: Mapping[str, Any]) -> float | None:
    """The accuracy in [0, 1] that the paper reports for the trial's images, classes, method, victim and defense.

    The budget must be the paper's and all images perturbed. Encoding, number of images, surrogate and effort may be
    others: whether the two numbers may be subtracted is for `same_setting` to say.

    Args:
        trial: a row of `leaderboard.trials`.
    """
    if trial["ratio"] != 1 or trial["budget"] not in (BUDGET, NONE):
        return None
    names = family(trial), trial["victim"], _training(trial["defense"]), _method(trial["method"])
    return accuracies().get(names)


def same_setting(trial: Mapping[str, Any]) -> bool:
    """Whether the trial's data set, classes, numbers of images and scale are the paper's.

    A copy in JPEG holds other pixels, a recipe with changes is another recipe, and equal passes leave none but MI-UE
    its published schedule.
    """
    name = family(trial)
    if name is None or not re.fullmatch(DATA[name].pixels, trial["data"]):
        return False
    recipe = "paper" if trial["defense"] == NONE else "adversarial"
    return (
        trial["n_train"] >= DATA[name].n_train
        and trial["n_test"] >= DATA[name].n_test
        and (trial["preset"], trial["recipe"]) == ("paper", recipe)
        and trial["surrogate"] in (SURROGATE, NONE)
        and (trial["surrogate"] == NONE or trial["allowed"] == "own" or specs.parse(trial["method"])[0] == "mi_ue")
    )


def _training(defense: str) -> str | None:
    """The paper's name of a training; None for a defense that it does not report."""
    if defense == NONE:
        return "standard"
    if not defense.startswith("adversarial_training"):
        return None
    for levels in (2, 4, 6, 8):
        if defenses.build(defense) == DEFENSES["adversarial_training"](epsilon=levels / 255):  # type: ignore[call-arg]
            return f"at_{levels}"
    return None


def _method(spec: str) -> str | None:
    """The paper's name of a method; None where we changed an option that it does not report."""
    name, options = specs.parse(spec)
    if not options:
        return name
    if name in ("em", "tap") and options.keys() == {"mine"}:
        return f"{name}_with_mine_regulariser"
    return next((theirs for theirs, ours in METHODS.items() if ours == (name, options)), None)
