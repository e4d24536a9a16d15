"""Signs that a folder was perturbed, read off the folder alone.

What makes an image unlearnable is faint and tells its class; squeezing the image takes it away and leaves the content.
So a network that knows held-out images of the folder much better than the same images squeezed has learned something
other than content. The class means of what is left of images without their smooth part tell of perturbations that all
images of a class share; lines in the spectra of a class, of stripes that begin anywhere, which networks may find late;
and the highest frequencies of noise of any kind.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from miue import seeds
from miue.data.images import Images
from miue.defenses import build
from miue.defenses.detection import learnability, linear_probe

SQUEEZES = ("iss:kind=jpeg", "gaussian_blur")
"""What takes faint perturbations away and leaves content."""


@dataclass(frozen=True)
class Sign:
    """One number, and from where on it speaks of a perturbation.

    Args:
        about: what it is, in a few words.
        value: as measured.
        limit: what it does not exceed on clean images as a rule; None where it only describes.
    """

    about: str
    value: float
    limit: float | None

    @property
    def speaks(self) -> bool:
        """Whether it exceeds its limit."""
        return self.limit is not None and self.value > self.limit


def signs(images: Images, seed: int = 0) -> list[Sign]:
    """Look for signs of a perturbation.

    Args:
        images: of two classes or more, each of ten images or more.
        seed: of the probes.
    """
    found = []
    squeezed = [build(name).prepare(images, seed) for name in SQUEEZES]
    for about, probe, limit in (
        ("a linear network", linear_probe, 0.12),
        ("a small network after few epochs", learnability, 0.12),
    ):
        known = probe(images, seed=seed).held_out
        least = max(probe(other, seed=seed).held_out for other in squeezed)
        found.append(Sign(f"{about} knows held-out images better than squeezed ones, by", known - least, limit))
    found.append(
        Sign("class means of the fine structure repeat in the other half, correlation", residue(images, seed), 0.25)
    )
    found.append(Sign("a line in the spectra of a class, in nats above its neighbours", line(images, seed), 0.5))
    found.append(Sign("share of energy in the highest frequencies, of what is not smooth", highest(images), None))
    return found


def residue(images: Images, seed: int = 0) -> float:
    """Correlation, between two halves of each class, of the mean of images less their smooth part, in [-1, 1].

    Faint textures of content have no fixed place and average out; what all images of a class share does not. The mean
    over all classes is taken off first, so that what all images share does not count.
    """
    one, other = (half / half.norm(dim=1, keepdim=True).clamp(min=1e-9) for half in _class_means(images, _fine, seed))
    return float((one * other).sum(1).mean())


def line(images: Images, seed: int = 0) -> float:
    """By how much one fine frequency stands out in the spectra of a class and not in those of others, in nats.

    The logarithm of the power less its mean over neighbouring frequencies, for content has smooth spectra. In one half
    of each class the frequency is chosen at which it exceeds the mean over all classes most, in the other half it is
    read there; a mean over classes. Where stripes begin in an image does not count.
    """
    chosen, read = _class_means(images, _lines, seed)
    return float(read.gather(1, chosen.argmax(1, keepdim=True)).mean())


def _class_means(images: Images, of: Callable[[Tensor], Tensor], seed: int) -> list[Tensor]:
    """The mean of something over each class, less that over all classes, for two halves of the images."""
    order = torch.randperm(len(images), generator=seeds.stream(seed, "probe"))
    halves = []
    for half in (order[0::2], order[1::2]):
        sums = torch.zeros(len(images.classes), of(images.batch(half[:1])[0]).numel())
        for index in half.split(256):
            x, y = images.batch(index)
            sums.index_add_(0, y, of(x).flatten(1))
        means = sums / images.y[half].bincount(minlength=len(images.classes)).clamp(min=1)[:, None]
        halves.append(means - means.mean(0))
    return halves


def _fine(x: Tensor) -> Tensor:
    """Images (B, C, H, W) uint8 less their mean over 3 x 3 pixels."""
    levels = x.float()
    return levels - torch.nn.functional.avg_pool2d(torch.nn.functional.pad(levels, (1, 1, 1, 1), "reflect"), 3, 1)


def _lines(x: Tensor) -> Tensor:
    """Log-power of images (B, C, H, W) uint8 less that of neighbouring frequencies; 0 below a quarter cycle a pixel."""
    power = (torch.fft.fft2(_fine(x)).abs().square().mean(1, keepdim=True) + 1).log()
    around = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(power, (1, 1, 1, 1), "circular"), 3, 1)
    down, across = (torch.fft.fftfreq(side).abs() for side in power.shape[2:])
    return (power - around) * (torch.maximum(down[:, None], across) >= 0.25)


def highest(images: Images) -> float:
    """Energy beyond 3/4 of the highest frequency over that beyond 1/4 of it, mean over images, in [0, 1]."""
    _, height, width = images.shape
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = torch.from_numpy(2 * np.maximum(np.abs(down), np.abs(across)))  # 1 at the highest
    total = 0.0
    for index in images.chunks():
        x = images.batch(index)[0].float()
        power = torch.fft.rfft2(x - x.mean((2, 3), keepdim=True)).abs().square().sum(1)
        upper, all_ = (power[:, frequency > least].sum(1) for least in (0.75, 0.25))
        total += float((upper / all_.clamp(min=1e-9)).sum())
    return total / len(images)
