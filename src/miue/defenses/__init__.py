"""Defenses: what someone who trains may do about perturbations; one dict of names."""

from typing import Any

from miue.defenses.adversarial import AdversarialTraining
from miue.defenses.augmentations import CutMix, Cutout, GaussianBlur, GaussianNoise, Mixup
from miue.defenses.avatar import Avatar
from miue.defenses.base import Defense
from miue.defenses.d_vae import DVAE
from miue.defenses.projection import OrthogonalProjection
from miue.defenses.squeezing import ISS
from miue.defenses.ueraser import UEraser
from miue.errors import choose, override
from miue.specs import parse

__all__ = ["DEFENSES", "Defense", "build"]

DEFENSES: dict[str, type[Defense]] = {
    "adversarial_training": AdversarialTraining,
    "cutout": Cutout,
    "cutmix": CutMix,
    "mixup": Mixup,
    "gaussian_blur": GaussianBlur,
    "gaussian_noise": GaussianNoise,
    "iss": ISS,
    "ueraser": UEraser,
    "orthogonal_projection": OrthogonalProjection,
    "d_vae": DVAE,
    "avatar": Avatar,
}
"""The defenses by name, each a class of options."""


def build(name: str, **changes: Any) -> Defense:
    """Make a defense by its name.

    Args:
        name: one of `DEFENSES`, with options if wanted: "iss:kind=jpeg".
        **changes: options that differ from the defaults.

    Raises:
        InputError: unknown name or option, or a value that does not fit.

    Example:
        >>> import miue
        >>> miue.defenses.build("adversarial_training", steps=3).record()["steps"]
        3
    """
    name, changes = parse(name, changes)
    return override(DEFENSES[choose("defense", name, DEFENSES)](), changes, name)
