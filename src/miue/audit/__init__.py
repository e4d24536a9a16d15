"""How learnable is a folder of images, and does it look perturbed?

Networks are trained on four fifths of the folder, and asked about the other fifth. Where the originals are at hand they
are asked about the originals of that fifth, as those are what somebody will show them, and networks trained on the
originals of the four fifths are beside them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from miue.audit import reading, victims
from miue.audit.signs import Sign
from miue.audit.signs import signs as signs_of
from miue.audit.victims import Trainer, accuracy
from miue.data.choosing import subset
from miue.data.decoding import check_size
from miue.data.images import Images
from miue.errors import InputError
from miue.mi import with_controls
from miue.mi.statistics import prediction_disagreement
from miue.models import check
from miue.poisons.measures import visibility
from miue.progress import track
from miue.storage import provenance
from miue.training import features, recipes
from miue.victim import train_victim

__all__ = ["Audit", "Sign", "images"]

HELD_OUT = 0.2
RECIPE = "quick:batch=32:epochs=30:lr=0.1"
"""Of networks from scratch. A folder has few images: in batches of 128 they are too few steps to find either what the
images show or what was added."""
COUNTERMEASURES = {
    "none": "nothing",
    "iss:kind=grayscale": "make it grey",
    "iss:kind=jpeg": "JPEG, quality 10",
    "notch": "damp what stands out in the spectra of a class",
}
"""What is done to images before training, by name, and in the words of a report."""
FEWEST = 10  # images of a class with which a fifth tells something


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        victims: one row for each way to train and each countermeasure: `victim`, `countermeasure`, `learned` and `low`
            to `high`, accuracy on held-out images, mean and range over seeds, in [0, 1]; where originals are given,
            those are the images asked about, and `originals`, `originals_low`, `originals_high` are the same of
            training on the originals.
        signs: of a perturbation.
        compared: where originals are given: `psnr` (dB) and `ssim` of the copies, `disagreement` (share of images of
            which the victim names another class than of their copy), `information` and its `ceiling` (nats) between
            features of image and copy; else empty.
        record: sizes, seeds, recipe, images, machine; JSON.
        unreadable: files that could not be read, or have no original where originals are given, and why.
    """

    victims: pd.DataFrame
    signs: list[Sign]
    compared: dict[str, float | None]
    record: dict[str, Any]
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def perturbed(self) -> bool:
        """Whether a sign speaks of a perturbation."""
        return any(sign.speaks for sign in self.signs)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON."""
        told = asdict(self)
        rows = self.victims.to_dict("records")
        return told | {"victims": rows, "perturbed": self.perturbed}


def images(
    folder: str | Path,
    against: str | Path | None = None,
    *,
    models: Sequence[str] = ("small_resnet:width=0.5", "vgg11:width=0.25"),
    recipe: str = RECIPE,
    size: int = 64,
    seeds: Sequence[int] = (0, 1),
    backbone: str | Path | None = None,
    most: int = 1000,
) -> Audit:
    """Audit a folder of images.

    Args:
        folder: holds a folder for each class; or what `miue.protect.images` made.
        against: the folder of the originals, with files of the same names, whatever their endings.
        models: networks that are trained from scratch, the first one with countermeasures as well.
        recipe: how they are trained.
        size: pixels to which images are resized and cropped.
        seeds: of splits and networks; two or more show a spread.
        backbone: file of a victim that was trained on other images, whose features are taken over; weights of
            torchvision are found by themselves, where they lie on this machine.
        most: images that are trained on and asked about, classes in proportion: of more, so many are drawn.

    Raises:
        InputError: a folder that cannot be read, too few classes or images, originals of none of them.
    """
    check_size(size)
    recipes.recipe(recipe)
    for model in models:
        check(model)
    if not seeds:
        raise InputError("seeds: none; give one at least")
    shown, unreadable = reading.gather(Path(folder), size)
    clean = None
    if against is not None:
        originals, others = reading.gather(Path(against), size, "against")
        unreadable |= {f"against: {file}": why for file, why in others.items()}
        shown, clean, without = reading.paired(shown, originals)
        unreadable |= dict.fromkeys(without, "has no original")
    count = min(most, len(shown))
    shown = subset(shown, "most", count, 0)
    clean = None if clean is None else subset(clean, "most", count, 0)
    trainers = victims.chosen(list(models), recipe, backbone)
    rows = [
        {"victim": trainer.name, "countermeasure": against_it} | _learned(trainer, against_it, shown, clean, seeds)
        for trainer, against_it in track(_ways(trainers), "victims")
    ]
    few = min(shown.y.bincount(minlength=len(shown.classes)).tolist()) < FEWEST
    record = {
        "data": shown.record(),
        "against": None if clean is None else clean.record(),
        "size": size,
        "seeds": list(seeds),
        "recipe": recipe,
        "held_out": HELD_OUT,
        "chance": float(shown.y.bincount().max()) / len(shown),
        **provenance.collect("cpu"),
    }
    compared = {} if clean is None else _compared(shown, clean, models[0], recipe, seeds[0])
    return Audit(pd.DataFrame(rows), [] if few else signs_of(shown, seeds[0]), compared, record, unreadable)


def _ways(trainers: list[Trainer]) -> list[tuple[Trainer, str]]:
    return [(trainer, name) for trainer in trainers for name in (COUNTERMEASURES if trainer.squeezed else ("none",))]


def _learned(
    trainer: Trainer, countermeasure: str, shown: Images, clean: Images | None, seeds: Sequence[int]
) -> dict[str, float]:
    """Accuracy on held-out images: mean, lowest and highest of the seeds."""
    defense = None if countermeasure == "none" else countermeasure
    asked = shown if clean is None else clean
    found: dict[str, float] = {}
    for name, source in (("", shown), ("originals", clean)):
        if source is None:
            continue
        values = []
        for seed in seeds:
            seen, held_out = reading.split(source, HELD_OUT, seed)
            values.append(accuracy(trainer.train(source.subset(seen), defense, seed), asked.subset(held_out)))
        names = ("learned", "low", "high") if not name else (name, f"{name}_low", f"{name}_high")
        found |= dict(zip(names, (sum(values) / len(values), min(values), max(values)), strict=True))
    return found


def _compared(shown: Images, clean: Images, model: str, recipe: str, seed: int) -> dict[str, float | None]:
    """What copies and originals differ by, to the eye and to a victim that was trained on the copies."""
    victim = train_victim(shown, model=model, recipe=recipe, seed=seed, cache=False)
    z, z_shown = features(victim, clean), features(victim, shown)
    named = [victim.model.head(rows).argmax(1) for rows in (z, z_shown)]
    measured = with_controls(z, z_shown, clean.y)
    return {
        **visibility(clean, shown),
        "disagreement": prediction_disagreement(*named),
        "information": measured.mi.value,
        "ceiling": measured.ceiling.value,
    }
