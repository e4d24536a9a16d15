"""Defenses: what someone who trains may do about perturbations; one dict of names."""

from typing import Any

from miue.defenses.adversarial import AdversarialTraining
from miue.defenses.augmentations import CutMix, Cutout, GaussianBlur, GaussianNoise, Mixup
from miue.defenses.avatar import Avatar
from miue.defenses.base import Defense
from miue.defenses.coin import COIN
from miue.defenses.d_vae import DVAE
from miue.defenses.notch import Notch
from miue.defenses.projection import OrthogonalProjection
from miue.defenses.sda_an import SDAAN
from miue.defenses.squeezing import ISS
from miue.defenses.ueraser import UEraser
from miue.errors import InputError, override
from miue.specs import find, parse

__all__ = ["DEFENSES", "Defense", "build"]

DEFENSES: dict[str, type[Defense]] = {
    "adversarial_training": AdversarialTraining,
    "cutout": Cutout,
    "cutmix": CutMix,
    "mixup": Mixup,
    "gaussian_blur": GaussianBlur,
    "gaussian_noise": GaussianNoise,
    "coin": COIN,
    "notch": Notch,
    "iss": ISS,
    "ueraser": UEraser,
    "orthogonal_projection": OrthogonalProjection,
    "sda_an": SDAAN,
    "d_vae": DVAE,
    "avatar": Avatar,
}
"""The defenses by name, each a class of options."""


def build(name: str, **changes: Any) -> Defense:
    """Make a defense by its name.

    Args:
        name: one of `DEFENSES`, with options if wanted ("iss:kind=jpeg"); or "FILE.py:NAME" of a class of your own,
            which is executed. A class that is a frozen dataclass of `miue.errors.Options` has options too.
        **changes: options that differ from the defaults.

    Raises:
        InputError: unknown name or option, or a value that does not fit.

    Example:
        >>> import miue
        >>> miue.defenses.build("adversarial_training", steps=3).record()["steps"]
        3
    """
    name, changes = parse(name, changes)
    made = find("defense", name, DEFENSES)()
    if not callable(getattr(made, "prepare", None)) or not callable(getattr(made, "batch", None)):
        raise InputError(f"defense: {name} has no prepare and batch; it must be a class like miue.defenses.Defense")
    return override(made, changes, name) if changes else made
