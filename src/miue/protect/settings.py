"""What a protected copy is made with.

The defaults were chosen by measurement: 2,000 photographs of Imagenette at 224 px, protected, and made 64 px small
for half-width small_resnets of 20 epochs, two for each copy (`benchmarks/protection.py`, parts sizes and trainers). Of
the 57 and 52 % that they learn from originals, weave made at 64 px with drifting stripes leaves 20 and 20 %; behind
JPEG 75 it leaves 22 and 24 % (originals 58 and 53 %), behind JPEG 50 after the image was made small 16 and 29 % (51 and
52 %), behind a notch filter 19 and 21 % (56 and 50 %). Straight stripes leave 17 and 15 %, 18 and 20 %, 15 and 30 %,
but behind that filter 59 and 52 %. With four grey levels in the place of eight one victim of two does not find straight
stripes (24 and 54 %).
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
    method: str = "weave:drift=0.025"
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
