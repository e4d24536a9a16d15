"""Digits-M: handwritten digits blended into photographs, made from what scikit-learn ships, with no download.

The recipe is MNIST-M's (Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015): a digit d
over a photograph patch p becomes |p - d|. All arithmetic is on integers and all draws come from one seeded generator
in a fixed order, so the set is the same on every machine.

The same images can be labelled by more than their digit. Then a class is a set of labels, joined by a plus in its name,
as `miue.models.heads` reads it: "pairs" draws two smaller digits side by side, and their set is the class (55 of them);
"captions" tells digit, photograph and place ("seven+temple+high+left", 80 classes).
"""

from itertools import combinations_with_replacement, product

import numpy as np
import torch
from PIL import Image

from miue.data.arrays import whole
from miue.data.images import Images
from miue.errors import InputError, choose

SIZE, DIGIT, MARGIN = 32, 24, 3  # px: image, digit, largest shift from the middle
MOST = 1_000_000  # images, 3 GB
TRAIN_DIGITS = 1297  # of 1,797; the other 500 are for testing
TRAIN_WIDTH = 0.6  # of each photograph; test patches come from the rest
LABELS = ("digits", "pairs", "captions")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHOTOGRAPHS = ("temple", "flower")  # that scikit-learn ships, in its order
PAIRS = list(combinations_with_replacement(range(10), 2))
NAMES = {"digits": "Digits-M", "pairs": "Digits-M, pairs", "captions": "Digits-M, captions"}
Place = tuple[int, int, int]  # photograph, low or not, right or not
CAPTIONS = list(product(range(10), range(2), range(2), range(2)))  # digit, photograph, low or not, right or not


def make(n_train: int = 3000, n_test: int = 1000, seed: int = 0, labels: str = "digits") -> tuple[Images, Images]:
    """Draw (train, test), 3 x 32 x 32 uint8; no digit and no photograph pixel is in both.

    Args:
        n_train, n_test: images, from 10 to a million.
        seed: of all draws.
        labels: one of `LABELS`; "captions" are of the same images as "digits".

    Raises:
        InputError: fewer than ten images asked for, or more than a million; other labels.
    """
    choose("labels", labels, LABELS)
    for argument, count in (("n_train", n_train), ("n_test", n_test)):
        if whole(argument, count, 10, ", for digits_m has ten classes") > MOST:
            raise InputError(f"{argument}: {count}; digits_m is drawn in memory, so it must be at most {MOST}")
    from sklearn.datasets import load_sample_images  # a second to import, and only needed here

    rng = np.random.default_rng(seed)
    digits, numbers = _digits(SIZE // 2 if labels == "pairs" else DIGIT)
    order = rng.permutation(len(digits))
    photos = [np.asarray(photo, dtype=np.int16) for photo in load_sample_images().images]
    edges = [round(photo.shape[1] * TRAIN_WIDTH) for photo in photos]
    left = [photo[:, :edge] for photo, edge in zip(photos, edges, strict=True)]
    right = [photo[:, edge:] for photo, edge in zip(photos, edges, strict=True)]
    parts = []
    for chosen, patches, count in (
        (order[:TRAIN_DIGITS], left, n_train),
        (order[TRAIN_DIGITS:], right, n_test),
    ):
        each = 2 if labels == "pairs" else 1
        which = np.concatenate([rng.permutation(chosen) for _ in range(-(-each * count // len(chosen)))])[
            : each * count
        ]
        drawn = [_blend(digits[own], patches, rng) for own in which.reshape(count, each)]
        x = torch.from_numpy(np.stack([pixels for pixels, _ in drawn]))
        shown, told = numbers[which].reshape(count, each), [place for _, place in drawn]
        parts.append(Images(x, *_labelled(shown, told, labels), name=NAMES[labels]))
    return parts[0], parts[1]


def _labelled(shown: np.ndarray, places: list[Place], labels: str) -> tuple[torch.Tensor, list[str] | None]:
    """Labels, (N,) int64, and class names, of the digits (N, 1 or 2) in each image and of what else was drawn."""
    if labels == "digits":
        return torch.from_numpy(shown[:, 0]), None
    if labels == "pairs":
        found = [PAIRS.index(tuple(sorted(pair))) for pair in shown.tolist()]
        return torch.tensor(found), ["+".join(dict.fromkeys(map(str, pair))) for pair in PAIRS]
    found = [CAPTIONS.index((digit, *place)) for (digit,), place in zip(shown.tolist(), places, strict=True)]
    ways = (WORDS, PHOTOGRAPHS, ("high", "low"), ("left", "right"))
    return torch.tensor(found), ["+".join(way[i] for way, i in zip(ways, own, strict=True)) for own in CAPTIONS]


def _digits(size: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    small, numbers = load_digits(return_X_y=True)
    levels = (small.reshape(-1, 8, 8).astype(np.int64) * 255 // 16).astype(np.uint8)
    large = [np.asarray(Image.fromarray(d).resize((size, size), Image.Resampling.BICUBIC)) for d in levels]
    return np.stack(large).astype(np.int16), numbers.astype(np.int64)


def _blend(digits: np.ndarray, photos: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, Place]:
    """Draw one image of one digit or two, and tell where they lie; those of two fill half of the width each."""
    which = int(rng.integers(len(photos)))
    photo = photos[which]
    top = rng.integers(photo.shape[0] - SIZE + 1)
    left = rng.integers(photo.shape[1] - SIZE + 1)
    side = digits.shape[1]
    canvas = np.zeros((SIZE, SIZE, 1), dtype=np.int16)
    for place, digit in enumerate(digits):
        down, across = rng.integers(-MARGIN, MARGIN + 1, size=2)
        row = (SIZE - side) // 2 + down
        column = (SIZE - side) // 2 + across if len(digits) == 1 else place * side
        canvas[row : row + side, column : column + side, 0] = digit
    patch = photo[top : top + SIZE, left : left + SIZE]
    return np.abs(patch - canvas).astype(np.uint8).transpose(2, 0, 1), (which, int(down >= 0), int(across >= 0))
