"""Shared by all tests: a cache of their own, and pictures small enough to train on in a blink."""

import numpy as np
import pytest
import torch
from PIL import Image

from miue import Images


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing is read from, or left in, the user's cache."""
    monkeypatch.setenv("MIUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MIUE_DATA", raising=False)


def pictures(n=48, classes=4, channels=3, size=8, seed=0):
    """Noise pictures with labels in turn; `size` 8 keeps a training epoch at milliseconds."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)
    return Images(x, torch.arange(n) % classes, [f"class {c}" for c in range(classes)], name="noise")


@pytest.fixture
def images():
    return pictures()


@pytest.fixture
def picture_folder(tmp_path):
    """PATH with train and val of two classes, pictures of different sizes and modes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for name in ("cats", "dogs"):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                shape = (20 + number, 30, 3) if number % 2 else (24, 24)
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pets"
