"""What is particular to image shortcut squeezing."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from samples import fitted, some_images

from miue import Images
from miue.defenses import build
from miue.defenses.squeezing import ISS_KINDS
from miue.errors import InputError
from miue.training import loop, recipes


def squeezed(images, **options):
    return build("iss", **options).prepare(images, 0).x


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_pillows(channels, quality):
    images = some_images(n=3, channels=channels, size=17)
    mode = "L" if channels == 1 else "RGB"
    for before, after in zip(images.x, squeezed(images, quality=quality), strict=True):
        file = BytesIO()
        Image.fromarray(before.permute(1, 2, 0).squeeze(-1).numpy(), mode).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).reshape(17, 17, channels)
        assert np.array_equal(after.permute(1, 2, 0).numpy(), expected)


def test_jpeg_of_quality_10_removes_faint_checks_and_keeps_flat_images():
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    flat = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
    after = squeezed(Images(torch.cat([flat, flat + 8 * checks.to(torch.uint8)]), torch.tensor([0, 1])))
    assert torch.equal(after[0], flat[0])
    assert after[1].float().std() < 1


def test_grayscale_is_the_luma_in_every_channel():
    images = some_images()
    after = squeezed(images, kind="grayscale")
    assert torch.equal(after, after[:, :1].expand_as(after))
    luma = (images.x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    assert (after[:, 0] - luma).abs().max() < 1.1  # rounded down, from weights of four digits
    grey = some_images(channels=1)
    assert torch.equal(squeezed(grey, kind="grayscale"), grey.x)


def test_two_bits_leave_four_levels():
    images = some_images()
    after = squeezed(images, kind="bit_depth")
    assert after.unique().tolist() == [0, 64, 128, 192]
    assert torch.equal(after, images.x // 64 * 64)
    assert torch.equal(squeezed(images, kind="bit_depth", bits=5), images.x // 8 * 8)


@pytest.mark.parametrize("kind", ISS_KINDS)
def test_what_is_squeezed_is_the_perturbed_image(kind):
    images = some_images()
    delta = torch.randint(-8, 9, images.x.shape, generator=torch.Generator().manual_seed(0)).to(torch.int8)
    poisoned = images.plus(delta)
    solid = Images(poisoned.x, images.y, images.classes)
    assert torch.equal(squeezed(poisoned, kind=kind), squeezed(solid, kind=kind))


def test_training_sees_squeezed_images_and_the_test_images_stay(images, monkeypatch):
    seen = []
    monkeypatch.setattr(loop, "move", lambda x, *_: seen.append(x) or x)
    test = some_images(seed=1)
    before = test.x.clone()
    fitted(images, "small_resnet", recipes.recipe("quick", epochs=1), test=test, defense=build("iss", kind="bit_depth"))
    assert {int(level) for x in seen for level in x.unique()} == {0, 64, 128, 192}, "not before crop and flip"
    assert torch.equal(test.x, before)


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="iss option kind: 'png' does not exist; choose one of grayscale, jpeg, bit_d"):
        build("iss", kind="png")
    with pytest.raises(InputError, match="grayscale needs images of 1 or 3 channels, not 4"):
        squeezed(some_images(channels=4), kind="grayscale")
    assert squeezed(some_images(channels=4), kind="bit_depth").shape[1] == 4


def test_images_of_which_either_end_may_be_the_channels_stay_as_they_are():
    images = Images(torch.zeros(4, 8, 8, 8, dtype=torch.uint8), [0, 1, 0, 1], layout="nchw", names=list("abcd"))
    done = build("gaussian_blur").prepare(images, 0)
    assert done.shape == (8, 8, 8) and done.names.tolist() == list("abcd")
