"""What is left of a perturbation once an image has been handled: cheap to measure, without any training."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from miue import seeds
from miue.data import photographs
from miue.progress import track
from miue.protect.handling import HANDLINGS, handled
from miue.protect.making import Protected

SAMPLE = 48  # images that are looked at


def survival(folder: Path, made: Protected, size: int) -> pd.DataFrame:
    """Measure how much of the perturbation training would still see.

    Images whose originals are gone are left out.

    Args:
        folder: the originals.
        made: the protected copy.
        size: pixels to which images are resized for training.

    Returns:
        One row for each of `HANDLINGS` that keeps the place of pixels: `handling`; `left`, the share of the
        perturbation as training sees it without that handling that is still there: the scalar product of what is there
        with it, over its own with itself; and `added`, the length of what is there besides, which storing an image
        anew adds, over the perturbation's own. What is left may drown in it.
    """
    rows = [row for row in made.rows if row["source"] not in made.gone]
    places = torch.randperm(len(rows), generator=seeds.stream(0, "probe"))[:SAMPLE].tolist()
    names = [name for name in HANDLINGS if "crop" not in name]
    products, energies = (dict.fromkeys(names, 0.0) for _ in range(2))
    for row in track([rows[place] for place in places], "handling images"):
        pictures = [photographs.read(file).picture for file in (folder / row["source"], made.publish / row["name"])]
        whole = None
        for name in names:
            one, other = (handled(picture, name, size).astype(np.float64) for picture in pictures)
            whole = other - one if whole is None else whole
            products[name] += float(((other - one) * whole).sum())
            energies[name] += float(np.square(other - one).sum())
    told, total = pd.DataFrame({"handling": names}), max(products[names[0]], 1e-9)
    told["left"] = told["handling"].map(products) / total
    told["added"] = (told["handling"].map(energies) / total - told["left"] ** 2).clip(lower=0) ** 0.5
    return told
