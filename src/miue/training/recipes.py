"""Recipes: how a network is trained, as named data.

What the recipes bring, with small_resnet on clean images and two cores of an AMD EPYC: `quick` and `laptop` 89 % on
Digits-M (3,000 images, about 25 s, one seed) and 60 % on CIFAR-10 (JPEG-75 copy) (4,000 images, about 65 s, three
seeds). `standard` and `paper` are for whole data sets on a GPU and were not measured here.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from miue.errors import Count, InputError, NotNegative, Options, Positive, Range, Whole, choose, override
from miue.precision import PRECISIONS
from miue.specs import parse

SCHEDULES = ("constant", "cosine", "one_cycle", "steps")


@dataclass(frozen=True)
class Recipe(Options):
    """How a network is trained by SGD on cross-entropy.

    Args:
        epochs: passes over the data (or rounds of `batches_per_epoch` batches).
        lr: the (largest) learning rate.
        schedule: `constant`; `cosine`, stepped by epoch; `one_cycle`, stepped by batch; or `steps`: a tenth after 40 %
            and again after 80 % of the epochs.
        batch: images in a batch, at least 2, for batch norm.
        momentum, nesterov, weight_decay: of SGD; momentum is below 1, and above 0 where it is Nesterov's.
        flip: mirror at random.
        crop: pixels of padding for a random crop.
        clip_norm: largest gradient norm, or None.
        batches_per_epoch: batches in an epoch where that is not a pass over the data.
        precision: one of `miue.precision.PRECISIONS`; float16 is trained with a loss scale that adapts.
    """

    epochs: Count
    lr: Positive
    schedule: Annotated[str, SCHEDULES]
    batch: Annotated[int, Range(2)] = 128
    momentum: Annotated[float, Range(0, 1, below=True)] = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 5e-4
    flip: bool = False
    crop: Whole = 0
    clip_norm: Positive | None = None
    batches_per_epoch: Count | None = None
    precision: Annotated[str, PRECISIONS] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self.momentum:
            raise InputError("nesterov: True with momentum 0; it must be false, or momentum above 0")


_ONE_CYCLE = Recipe(epochs=15, lr=0.1, schedule="one_cycle", nesterov=True, flip=True, crop=2)

RECIPES: dict[str, Recipe] = {
    "quick": _ONE_CYCLE,
    "laptop": _ONE_CYCLE,
    # The authors' own victim recipe; published comparisons mostly use lr 0.1, weight decay 5e-4, 60 epochs.
    "paper": Recipe(epochs=200, lr=0.5, schedule="cosine", weight_decay=1e-4, flip=True, crop=4),
    "standard": Recipe(epochs=60, lr=0.1, schedule="cosine", flip=True, crop=4),
    "adversarial": Recipe(epochs=100, lr=0.1, schedule="steps", flip=True, crop=4),
}


def recipe(name: str, **changes: Any) -> Recipe:
    """Look up a recipe by name (one of `RECIPES`, or "laptop:epochs=10") and override fields of it.

    Raises:
        InputError: unknown name or field, or a value of the wrong type.

    Example:
        >>> from miue.training import recipe
        >>> recipe("laptop:epochs=10", crop=0).epochs
        10
    """
    name, changes = parse(name, changes)
    return override(RECIPES[choose("recipe", name, RECIPES)], changes, "recipe")
