"""What is read off a perturbation: how visible it is, and how plainly it tells the class."""

import math

import pytest
import torch
from samples import some_images

from miue.poisons import perturb
from miue.poisons.measures import class_share, patch_reader, visibility


@pytest.fixture(scope="module")
def images():
    return some_images(n=120, size=12)


def with_delta(images, delta):
    """A perturbation of these levels, of (N, C, H, W) or what can be broadcast to it."""
    whole = torch.zeros(len(images), *images.shape, dtype=torch.int8) + delta.to(torch.int8)
    return perturb(images, lambda *given: whole, cache=False)


def test_what_does_not_differ_cannot_be_seen(images):
    assert visibility(images, images) == {"psnr": None, "ssim": pytest.approx(1)}


def test_the_ratio_is_that_of_the_mean_squared_difference(images):
    grey = images.with_pixels(torch.full_like(images.x, 100))
    other = images.with_pixels(torch.full_like(images.x, 108))
    seen = visibility(grey, other)
    assert seen["psnr"] == pytest.approx(20 * math.log10(255 / 8), abs=1e-3)
    noisy = perturb(images, "random", epsilon="64/255", cache=False).apply(images)
    assert visibility(images, noisy)["ssim"] < 0.95


def test_energy_lies_in_class_means_where_a_class_shares_its_delta(images):
    generator = torch.Generator().manual_seed(0)
    of_class = torch.randint(-8, 9, (4, *images.shape), generator=generator)
    free = torch.randint(-8, 9, (120, *images.shape), generator=generator)
    middle = images.with_pixels(images.x.clamp(8, 247))
    assert class_share(with_delta(middle, of_class[images.y]), middle) == pytest.approx(1)
    assert class_share(with_delta(middle, free), middle) == pytest.approx(4 / 120, rel=0.2)


def test_a_patch_reader_reads_local_signs_of_the_class_and_nothing_in_noise(images):
    generator = torch.Generator().manual_seed(0)
    middle = images.with_pixels(images.x.clamp(8, 247))
    tiles = torch.randint(-8, 9, (4, 3, 3, 3), generator=generator).repeat(1, 1, 4, 4)
    free = torch.randint(-8, 9, (120, *images.shape), generator=generator)
    assert patch_reader(with_delta(middle, tiles[images.y]), middle) > 0.9
    assert patch_reader(with_delta(middle, free), middle) < 0.55


def test_rows_are_matched_by_id(images):
    generator = torch.Generator().manual_seed(0)
    middle = images.with_pixels(images.x.clamp(8, 247))
    poison = with_delta(middle, torch.randint(-8, 9, (4, *images.shape), generator=generator)[images.y])
    turned = middle.subset(torch.arange(119, -1, -1))
    assert class_share(poison, turned) == pytest.approx(1)
