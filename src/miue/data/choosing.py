"""Which images of a data set are taken: so many, classes in proportion, or fewer from class to class."""

import numpy as np
import torch

from miue.data.images import Images
from miue.errors import InputError


def subset(images: Images, argument: str, wanted: int | None, seed: int) -> Images:
    """Draw so many images, classes in proportion and at least one of each; all for None. Order stays.

    Raises:
        InputError: fewer than classes, or more than there are; it names the `argument`.
    """
    if wanted is None or wanted == len(images):
        return images
    if not len(images.classes) <= wanted <= len(images):
        raise InputError(
            f"{argument}: {wanted}; {images.name} has {len(images)} images of {len(images.classes)} classes, "
            f"so it must be {len(images.classes)}..{len(images)}"
        )
    counts = images.y.bincount(minlength=len(images.classes)).numpy()
    if counts.min() * wanted < len(images) or wanted > len(images) - len(counts):
        chosen = _of_each(images.y.numpy(), counts, wanted, seed)  # scikit-learn would refuse, or leave a class out
    else:
        from sklearn.model_selection import train_test_split  # a second to import, and only needed here

        chosen, _ = train_test_split(
            np.arange(len(images)), train_size=wanted, stratify=images.y.numpy(), random_state=seed % 2**32
        )
    return images.subset(torch.from_numpy(np.sort(chosen)))


def _of_each(labels: np.ndarray, counts: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Choose one image of each class and the rest in proportion, by largest remainders; a class may be empty."""
    first = np.minimum(counts, 1)
    share = (counts - first) * (wanted - first.sum()) / max(1, len(labels) - first.sum())
    taken = first + np.floor(share).astype(np.int64)
    taken[np.argsort(np.floor(share) - share, kind="stable")[: wanted - taken.sum()]] += 1
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:n] for c, n in enumerate(taken)])


def long_tailed(images: Images, ratio: float, seed: int = 0) -> Images:
    """Take a part in which class sizes fall from class to class by one factor, in the order of the class numbers.

    Class c of C keeps a share ratio^(-c / (C - 1)) of its images, and at least one (Cui, Jia, Lin, Song & Belongie,
    "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019); the name tells it.

    Args:
        images: of two classes or more.
        ratio: how many times more the first class keeps than the last, 1 or above; 1 keeps all.
        seed: of which images are kept.
    """
    if ratio == 1:
        return images
    shuffled = torch.from_numpy(np.random.default_rng(seed).permutation(len(images)))
    kept = []
    for label in range(len(images.classes)):
        members = shuffled[images.y.cpu()[shuffled] == label]
        kept.append(members[: max(1, round(len(members) * ratio ** (-label / (len(images.classes) - 1))))])
    return images.subset(torch.cat(kept).sort().values).renamed(f"{images.name}, long-tailed {ratio:g}:1")
