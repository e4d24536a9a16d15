"""Images small enough to train on in a blink, and what every notebook in MyST Markdown begins with; and patience."""

import time

import torch

from miue import Images, train_victim

FRONT_MATTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""


def some_images(n=48, classes=4, channels=3, size=8, seed=0):
    """Noise images with labels in turn; `size` 8 keeps a training epoch at milliseconds."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)
    return Images(x, torch.arange(n) % classes, [f"class {c}" for c in range(classes)], name="noise")


def fitted(images, model, recipe, test=None, **how):
    """A network trained on `images`, which the cache neither knows nor keeps."""
    return train_victim(images, test, model=model, recipe=recipe, cache=False, **how).model


def wait(condition, seconds=120):
    """What `condition` returns, as soon as that is something."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    assert found
    return found
