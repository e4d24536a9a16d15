"""Detection: do these images look perturbed?

Perturbations that work are easier to learn than images are, so that a network trained on some of the perturbed
images knows the others suspiciously well, and suspiciously soon. Two questions follow, each answered with a share of
the images held out: how much a linear network finds in the pixels (`linear_probe`; Yu, Zhang, Chen, Yin & Liu,
"Availability Attacks Create Shortcuts", KDD 2022, show that class-wise and many sample-wise perturbations are linearly
separable), and how much a small convolutional network finds within few epochs (`learnability`). Neither number means
much alone, since some clean images are easy too: `detect` compares with clean images of the same kind.

Zhu, Yu & Gao, "Detection and Defense of Unlearnable Examples", AAAI 2024, ask the same of a network of two layers,
`learnability(images, model="mlp2")` here, and accuse where it knows more than 70 % of held-out images. Their second
test, `shifted_probe`, asks a network that was trained on images of other levels.

With a random class-wise pattern of 8 levels on 3,000 images of Digits-M the linear network knows 100 % of the
held-out images, against 26 % of clean ones and 25 % under random noise (one run each; seconds on one core).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from miue import seeds
from miue.data.images import Images
from miue.errors import InputError
from miue.models import build_for
from miue.training import loop, recipes
from miue.training.recipes import Recipe

__all__ = ["Probe", "detect", "learnability", "linear_probe", "shifted_probe"]

LINEAR = Recipe(epochs=20, lr=0.01, schedule="one_cycle", weight_decay=0.0, precision="float32")
FEW_EPOCHS = recipes.recipe("quick", epochs=4, flip=False, crop=0)  # augmentation would hide what is looked for


@dataclass(frozen=True)
class Probe:
    """How well a network knows images.

    Args:
        train: accuracy on the images it was trained on, in [0, 1].
        held_out: accuracy on the others, perturbed alike, in [0, 1].
        n: images trained on.
        chance: accuracy of always naming the most frequent class, in (0, 1].
    """

    train: float
    held_out: float
    n: int
    chance: float


def linear_probe(images: Images, *, share: float = 0.2, recipe: Recipe = LINEAR, seed: int = 0) -> Probe:
    """Train a linear network on the pixels, standardised, and ask it about held-out images.

    Args:
        images: (perturbed) images; to ask about perturbations alone, make images of them: `128 + delta` as uint8.
        share: of every class that is held out, in (0, 1).
        recipe: of the training.
        seed: of the split, the weights and the order.

    Raises:
        InputError: a class is too small to be split so; fewer than two classes, or images below 8 px.
    """
    return _learn(images, "linear", recipe, share, seed, "linear probe")


def learnability(
    images: Images,
    *,
    model: str = "small_resnet",
    share: float = 0.2,
    recipe: Recipe = FEW_EPOCHS,
    seed: int = 0,
) -> Probe:
    """Train a small network for few epochs and ask it about held-out images, which are perturbed alike.

    Arguments and errors are those of `linear_probe`; `model` is one of `miue.models.MODELS`.
    """
    return _learn(images, model, recipe, share, seed, "learned probe")


def shifted_probe(
    images: Images,
    *,
    shift: float = -0.5,
    model: str = "small_resnet",
    share: float = 0.2,
    recipe: Recipe = FEW_EPOCHS,
    seed: int = 0,
) -> Probe:
    """Train as `learnability` does, on images whose pixels are all shifted, and ask about unshifted held-out ones.

    The bias-shifting noise test of Zhu, Yu & Gao: what is learned of the content of images at other levels than their
    own helps little with unshifted ones, while what is learned of a perturbation, which is added, holds at all levels.
    They take a ResNet-18, a shift of 0.5 or -0.5 and no augmentation, and accuse where more than 70 % of held-out
    images are known. Here the network is smaller, and the epochs are few. Weights, split and order are those of
    `learnability` with the same seed, so that the two differ in nothing but the shift.

    Args:
        images: as in `linear_probe`, which tells the errors too.
        shift: what is added to every pixel, as a fraction of the pixel range; the result is not clipped.
        model: one of `miue.models.MODELS`.
        share, recipe, seed: as in `learnability`.

    Returns:
        A `Probe`; its `train` is the accuracy on the shifted images.
    """
    return _learn(images, model, recipe, share, seed, "learned probe", shift)


class _Shifted(nn.Module):
    """A network that is shown images brighter or darker than they are."""

    def __init__(self, network: nn.Module, shift: float) -> None:
        super().__init__()
        self.network, self.shift = network, shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = self.network(x + self.shift)
        return logits, features


def _learn(images: Images, model: str, recipe: Recipe, share: float, seed: int, role: str, shift: float = 0.0) -> Probe:
    """Train a network on most of the images, shifted if so asked, and ask it about the others as they are."""
    seen, held_out = split(images, share, seed)
    own = seeds.derived(seed, role)
    network = build_for(images, model, seed=seeds.derived(own, "victim weights"))
    learner = _Shifted(network, shift) if shift else network
    for _ in loop.epochs(learner, seen, recipe, seed=own):
        pass
    return Probe(
        train=loop.accuracy(learner, seen),
        held_out=loop.accuracy(network, held_out),
        n=len(seen),
        chance=float(held_out.y.bincount().max()) / len(held_out),
    )


def split(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Split images at random into (1 - share, share) of every class.

    Raises:
        InputError: `share` is out of range, or a class would be missing from one side.
    """
    if not 0 < share < 1:
        raise InputError(f"share: {share}; it must lie between 0 and 1")
    seen, held_out = [], []
    for members in members_of(images, seed, "probe"):
        cut = round(share * len(members))
        if not 0 < cut < len(members):
            raise InputError(
                f"share: {share} of a class of {len(members)} is {cut}; each side needs one image at least"
            )
        held_out.append(members[:cut])
        seen.append(members[cut:])
    return images.subset(torch.cat(seen)), images.subset(torch.cat(held_out))


def members_of(images: Images, seed: int, role: str) -> list[Tensor]:
    """The places of each class's images, in random order; classes without images are left out."""
    generator = seeds.stream(seed, role)
    order = torch.randperm(len(images), generator=generator)
    labels = images.y.cpu()[order]
    return [order[labels == label] for label in labels.unique()]


def detect(images: Images, clean: Images, *, margin: float = 0.15, share: float = 0.2, seed: int = 0) -> dict[str, Any]:
    """Compare images with clean ones of the same kind: one row of a table.

    Both are cut to the same number of images of each class, since accuracy grows with it.

    Args:
        images: images under suspicion.
        clean: images that are known to be clean: same classes, same shape, other images or the same.
        margin: a probe whose held-out accuracy exceeds that on clean images by more raises suspicion, in [0, 1].
        share: of every class that is held out, in (0, 1).
        seed: of everything random.

    Returns:
        `linear_held_out`, `linear_held_out_clean`, `learned_held_out`, `learned_held_out_clean`, `chance` and the other
        fields of `Probe` likewise; `n`; and `perturbed`, true where one of the two margins is exceeded.

    Raises:
        InputError: the two differ in shape or classes, or a class has too few images.
    """
    if images.shape != clean.shape or images.classes != clean.classes:
        raise InputError(f"clean: {clean} cannot be compared with {images}; shape and classes must be the same")
    images, clean = _cut_alike(images, clean, seed)
    row: dict[str, Any] = {"data": images.name, "n": len(images)}
    excess = []
    for name, probe in (("linear", linear_probe), ("learned", learnability)):
        suspect, reference = probe(images, share=share, seed=seed), probe(clean, share=share, seed=seed)
        row |= {f"{name}_train": suspect.train, f"{name}_held_out": suspect.held_out}
        row |= {f"{name}_train_clean": reference.train, f"{name}_held_out_clean": reference.held_out}
        row["chance"] = suspect.chance
        excess.append(suspect.held_out - reference.held_out)
    return row | {"perturbed": max(excess) > margin}


def _cut_alike(one: Images, other: Images, seed: int) -> tuple[Images, Images]:
    """As many images of each class from both: as many as the one that has fewer of it holds."""
    first, second = (members_of(images, seed, "probe cut") for images in (one, other))
    if len(first) != len(second):
        raise InputError(f"clean: it has images of {len(second)} classes, the others of {len(first)}")
    counts = [min(len(a), len(b)) for a, b in zip(first, second, strict=True)]
    cut = [torch.cat([a[:n] for a, n in zip(members, counts, strict=True)]) for members in (first, second)]
    return one.subset(cut[0]), other.subset(cut[1])
