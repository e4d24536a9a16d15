"""Shared by all tests: a cache of their own, a handful of images, a folder of them."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from samples import some_images

from miue import cli
from miue.training import loop


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing is read from, or left in, the user's cache."""
    monkeypatch.setenv("MIUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MIUE_DATA", raising=False)


@pytest.fixture
def images():
    return some_images()


@pytest.fixture
def image_folder(tmp_path):
    """PATH with train and val of two classes, images of different sizes and modes."""
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


@pytest.fixture
def miue(monkeypatch, capsys):
    """Call the command line; return exit code, output and errors."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["miue", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def gpu(monkeypatch):
    """A pretend GPU, on which the package works by default; its traffic is counted."""
    import pretend  # registers a device with PyTorch, which only these tests need

    monkeypatch.setattr(torch, "Generator", pretend.Generator)
    asked = loop.default_device
    for module in [module for module in sys.modules.values() if getattr(module, "default_device", None) is asked]:
        monkeypatch.setattr(module, "default_device", lambda: pretend.DEVICE)
    with pretend.running() as traffic:
        yield traffic
