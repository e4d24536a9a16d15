"""What is particular to COIN."""

import torch
from moments import moment
from samples import some_images
from scipy.ndimage import map_coordinates

from miue import Images
from miue.defenses import build
from miue.defenses.coin import interpolate


def slopes(size=32, n=8):
    """Images whose grey level says in which column (channel 0), or in which row (channel 1) a pixel stood."""
    along = (4 * torch.arange(size, dtype=torch.uint8)).expand(size, size)
    return Images(torch.stack([along, along.T, along]).expand(n, -1, -1, -1).contiguous(), torch.arange(n) % 2)


def displacements(alpha, size=32):
    """How far away each pixel was read, (B, 2, rows, columns), where no edge was passed."""
    images, inside = slopes(size), slice(4, size - 4)
    seen, _ = build("coin", alpha=alpha).batch(images.x, images.y, moment(images))
    return ((seen * 255 - images.x) / 4)[:, :2, inside, inside], seen


def test_places_are_uniform_within_alpha_and_each_pixel_has_its_own():
    away, _ = displacements(alpha=2.0)
    assert away.abs().max() <= 2 + 1e-4
    assert away.abs().max() > 1.99
    assert abs(away.mean()) < 0.03 and abs(away.std() - 2 / 3**0.5) < 0.02
    across, beside = away[:, 0].flatten(), away[:, 1].flatten()
    assert abs(torch.corrcoef(torch.stack([across, beside]))[0, 1]) < 0.05
    for one, next_one in ((away[..., 1:], away[..., :-1]), (away[1:], away[:-1])):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), next_one.flatten()]))[0, 1]) < 0.05


def test_all_channels_are_read_at_the_same_place():
    _, seen = displacements(alpha=3.2)
    assert torch.equal(seen[:, 0], seen[:, 2])


def test_between_pixels_it_interpolates_as_scipy_does_and_beyond_the_edge_the_image_begins_again():
    images = some_images(n=2, size=9).x / 255
    draws = torch.rand(2, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    rows, columns = 40 * draws - 20
    seen = interpolate(images, rows, columns)
    for image, row, column, read in zip(images, rows, columns, seen, strict=True):
        for channel, found in zip(image, read, strict=True):
            expected = map_coordinates(channel.numpy(), [row.numpy(), column.numpy()], order=1, mode="grid-wrap")
            assert torch.allclose(found, torch.from_numpy(expected), atol=1e-4)


def test_on_average_a_point_is_spread_over_the_reach_of_alpha():
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[0, 0, 0, 3] = 255
    images = Images(image.expand(4000, -1, -1, -1).contiguous(), torch.arange(4000) % 2)
    mean = build("coin").batch(images.x, images.y, moment(images))[0].mean((0, 1))
    along = torch.tensor([1, 2, 2, 2, 1]) / 8  # of uniform places up to two pixels away, each read between two pixels
    expected = torch.zeros(8, 8)
    expected[:5, 1:6] = along[:, None] * along
    assert torch.allclose(mean, expected.roll(-2, 0), atol=0.02)


def test_a_filter_of_its_own_for_each_class_is_no_longer_the_same_for_all_images_of_the_class():
    images = some_images(n=1, channels=1, size=16).x.expand(64, -1, -1, -1)
    seen, _ = build("coin").batch(images, torch.zeros(64, dtype=torch.long), moment(some_images(n=1)))
    assert seen.var(0).mean() > 0.2 * seen.mean(0).var()
