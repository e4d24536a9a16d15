"""Digits-M: handwritten digits blended into photographs, made from what scikit-learn ships, with no download.

The recipe is MNIST-M's (Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015): a digit d
over a photograph patch p becomes |p - d|. All arithmetic is on integers and all draws come from one seeded generator
in a fixed order, so the set is the same on every machine.
"""

import numpy as np
import torch
from PIL import Image

from miue.data.arrays import whole
from miue.data.images import Images
from miue.errors import InputError

SIZE, DIGIT, MARGIN = 32, 24, 3  # px: image, digit, largest shift from the middle
MOST = 1_000_000  # images, 3 GB
TRAIN_DIGITS = 1297  # of 1,797; the other 500 are for testing
TRAIN_WIDTH = 0.6  # of each photograph; test patches come from the rest


def make(n_train: int = 3000, n_test: int = 1000, seed: int = 0) -> tuple[Images, Images]:
    """Draw (train, test): ten classes, 3 x 32 x 32 uint8; no digit and no photograph pixel is in both.

    Raises:
        InputError: fewer than ten images asked for, or more than a million.
    """
    for argument, count in (("n_train", n_train), ("n_test", n_test)):
        if whole(argument, count, 10, ", for digits_m has ten classes") > MOST:
            raise InputError(f"{argument}: {count}; digits_m is drawn in memory, so it must be at most {MOST}")
    from sklearn.datasets import load_sample_images  # a second to import, and only needed here

    rng = np.random.default_rng(seed)
    digits, labels = _digits()
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
        which = np.concatenate([rng.permutation(chosen) for _ in range(-(-count // len(chosen)))])[:count]
        x = np.stack([_blend(digits[digit], patches, rng) for digit in which])
        parts.append(Images(torch.from_numpy(x), torch.from_numpy(labels[which]), name="Digits-M"))
    return parts[0], parts[1]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    small, labels = load_digits(return_X_y=True)
    levels = (small.reshape(-1, 8, 8).astype(np.int64) * 255 // 16).astype(np.uint8)
    large = [np.asarray(Image.fromarray(d).resize((DIGIT, DIGIT), Image.Resampling.BICUBIC)) for d in levels]
    return np.stack(large).astype(np.int16), labels.astype(np.int64)


def _blend(digit: np.ndarray, photos: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    photo = photos[rng.integers(len(photos))]
    top = rng.integers(photo.shape[0] - SIZE + 1)
    left = rng.integers(photo.shape[1] - SIZE + 1)
    down, across = (SIZE - DIGIT) // 2 + rng.integers(-MARGIN, MARGIN + 1, size=2)
    canvas = np.zeros((SIZE, SIZE, 1), dtype=np.int16)
    canvas[down : down + DIGIT, across : across + DIGIT, 0] = digit
    patch = photo[top : top + SIZE, left : left + SIZE]
    return np.abs(patch - canvas).astype(np.uint8).transpose(2, 0, 1)
