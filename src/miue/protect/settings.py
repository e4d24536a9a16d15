"""What a protected copy is made with.

The defaults were chosen by trial: 3,000 images of CIFAR-10 (JPEG-75 copy), enlarged to 128 px, protected, and made
32 px small again for victims of 15 epochs (one seed; a clean small_resnet has 56 %). EM made at 16 px left small_resnet
13 % and VGG-11 17 %; made at 32 px it left 27 %, since enlarging smooths away more of it; one delta for each class left
52 %, TAP at 16 px 31 %. Batches dealt to small_resnet and VGG-11 made it weaker for both (38 % and, with twice the
rounds, 34 and 23 %). So the perturbation is made at about half the size at which images are likely to be trained on.
On 2,000 photographs of Imagenette at 224 px, for victims at 64 px (20 epochs, two seeds; clean 59 and 63 %), preset
quick left 41 and 55 %, laptop 25 and 38 %.
"""

from dataclasses import dataclass
from typing import Annotated

from miue import poisons
from miue.data.photographs import ENDINGS
from miue.errors import InputError, Options, Range, Seed
from miue.models import check
from miue.pgd import Budget
from miue.specs import parse_epsilon


@dataclass(frozen=True)
class Settings(Options):
    """How images are protected.

    Args:
        seed: of everything random. Who knows it and the method knows more of the perturbation than he should.
        method: one of `miue.poisons.METHODS` that keeps a budget, with options if wanted.
        surrogate: networks whose gradients shape the perturbation, joined by a plus, where the method has any.
        epsilon: the budget, a fraction of the pixel range.
        preset: of the method: "quick", "laptop" or "paper".
        size: pixels at which the perturbation is made, 16 to 512; victims see images at about that size or above it.
        format: "png", or "jpeg".
        quality: of JPEG, 1 to 100.
        orientation: "apply" what EXIF says of it to the pixels, or "keep" both.
        metadata: "strip" or "keep" what EXIF says, the place where an image was taken included.
        animated: the "first" frame of images with several, or "refuse" them.
    """

    seed: Seed
    method: str = "weave"
    surrogate: str = "small_resnet:width=0.5"
    epsilon: str = "8/255"
    preset: str = "laptop"
    size: Annotated[int, Range(16, 512)] = 64
    format: Annotated[str, tuple(ENDINGS)] = "png"
    quality: Annotated[int, Range(1, 100)] = 95
    orientation: Annotated[str, ("apply", "keep")] = "apply"
    metadata: Annotated[str, ("strip", "keep")] = "strip"
    animated: Annotated[str, ("first", "refuse")] = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        Budget(parse_epsilon(self.epsilon))
        _, method, _ = poisons.find(self.method)
        poisons.options(self.method, self.preset)
        if not method.bounded:
            raise InputError(f"method: {self.method} keeps no budget; take one that does")
        check(self.surrogate)

    @property
    def learned(self) -> bool:
        """Whether networks shape the perturbation; else it comes from a formula."""
        return poisons.find(self.method)[1].outer is not None

    @property
    def levels(self) -> int:
        """Grey levels by which a pixel moves at most."""
        return Budget(parse_epsilon(self.epsilon)).levels
