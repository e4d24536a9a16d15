"""What is particular to cutout, CutMix, Mixup, blur and noise."""

import pytest
import torch
from moments import moment
from samples import some_images

from miue import Images
from miue.defenses import build
from miue.errors import InputError


def flat(level=255, n=40, size=32, channels=3, classes=4):
    return Images(torch.full((n, channels, size, size), level, dtype=torch.uint8), torch.arange(n) % classes)


def batch_of(name, images, seed=0, **options):
    return build(name, **options).batch(images.x, images.y, moment(images, seed))


@pytest.mark.parametrize(
    ("options", "size", "hole"), [({}, 32, 16), ({}, 9, 4), ({"hole": 8}, 32, 8), ({"hole": 5}, 8, 5)]
)
def test_cutout_cuts_one_square_of_the_right_size_in_every_channel(options, size, hole):
    seen, targets = batch_of("cutout", flat(size=size, n=100), **options)
    assert targets.ndim == 1
    cut = seen != 1
    assert torch.equal(seen[cut], torch.full_like(seen[cut], 0.5))
    assert torch.equal(cut, cut[:, :1].expand_as(cut))
    heights, widths = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert torch.equal(cut[:, 0].sum((1, 2)), heights * widths), "no rectangle"
    for sides in (heights, widths):
        assert sides.max() == hole and sides.min() >= hole // 2  # half of it may hang over the edge
    assert len({tuple(map(tuple, c.nonzero().tolist())) for c in cut[:, 0]}) > 10, "the same hole everywhere"


def test_a_hole_as_large_as_the_image_is_refused_before_training():
    with pytest.raises(InputError, match="cutout option hole: 16; in images of 16 pixels it must be below 16"):
        build("cutout", hole=16).prepare(some_images(size=16), 0)


def test_mixup_weighs_images_and_labels_alike():
    levels = torch.tensor([0, 85, 170, 255], dtype=torch.uint8)
    images = Images(levels[:, None, None, None].expand(4, 3, 8, 8).clone(), torch.arange(4))
    shares = []
    for seed in range(20):
        seen, targets = batch_of("mixup", images, seed, probability=1.0)
        assert torch.allclose(targets @ (levels / 255), seen.mean((1, 2, 3)), atol=1e-5)
        assert ((targets > 0).sum(1) <= 2).all()
        own = targets.diagonal()
        assert torch.allclose(own, own[:1].expand(4))  # one proportion for the batch
        shares.append(float(own[0]))
    assert min(shares) < 0.3 and max(shares) > 0.7  # Beta(1, 1) is uniform


def test_cutmix_weighs_labels_by_the_area_pasted():
    levels = torch.tensor([0, 85, 170, 255], dtype=torch.uint8)
    images = Images(levels[:, None, None, None].expand(4, 3, 16, 16).clone(), torch.arange(4))
    pasted = []
    for seed in range(10):
        seen, targets = batch_of("cutmix", images, seed, probability=1.0)
        assert torch.isin((seen * 255).round(), levels.float()).all(), "pasted, not blended"
        own = (seen == (images.x / 255)).float().mean((1, 2, 3))
        assert torch.allclose(targets.diagonal(), own, atol=1e-5)
        pasted.append(float(1 - own[0]))
    assert max(pasted) > 0.3


@pytest.mark.parametrize(
    ("defense", "least", "most"), [("mixup", 200, 200), ("cutmix", 70, 130), ("mixup:probability=0.5", 70, 130)]
)
def test_mixup_mixes_all_batches_and_cutmix_half_of_them(defense, least, most):
    images, now = some_images(n=8), moment(some_images(n=8))
    built = build(defense)
    assert least <= sum(built.batch(images.x, images.y, now)[1].ndim == 2 for _ in range(200)) <= most


def test_the_three_taps_of_the_blur_are_gaussian():
    x = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    x[0, 0, 2, 2] = 255
    images = Images(x, torch.tensor([0]), ["a", "b"])
    taps = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2)
    taps /= taps.sum()
    blurred = build("gaussian_blur").prepare(images, 0).x[0, 0]
    assert torch.equal(blurred[1:4, 1:4], (255 * taps[:, None] * taps).round().to(torch.uint8))
    assert blurred[0].sum() == 0


def test_a_sigma_that_blurs_nothing_is_refused():
    with pytest.raises(InputError, match=r"gaussian_blur option sigma: 0\.1 moves no pixel by half a grey level"):
        build("gaussian_blur", sigma=0.1)
    smallest = build("gaussian_blur", sigma=0.3)
    checks = flat(0, n=2, size=8)
    checks.x[:, :, ::2, ::2] = 255
    assert not torch.equal(smallest.prepare(checks, 0).x, checks.x)


def test_kernels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="kernel: 4; it must be odd"):
        build("gaussian_blur", kernel=4)
    with pytest.raises(InputError, match="kernel: 17 is too large for images of 8 pixels"):
        build("gaussian_blur", kernel=17).prepare(some_images(), 0)


def test_noise_has_the_standard_deviation_asked_for_and_is_fresh():
    images = flat(128)
    defense, now = build("gaussian_noise"), moment(images)
    first, second = (255 * defense.batch(images.x, images.y, now)[0] - 128 for _ in range(2))
    for noise in (first, second):
        assert abs(noise.mean()) < 0.2 and abs(noise.std() - 8) < 0.1
    assert abs((first * second).mean()) < 1
    assert build("gaussian_noise", sigma=2).sigma == 2
