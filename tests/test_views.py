"""Views: what they change and what they keep, by images whose views are known."""

import math

import pytest
import torch

from miue.training.views import _coloured, _cropped, _turned, draw_views


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def views(images, strength, seed=0):
    return draw_views(images, strength=strength, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_views_differ_stay_in_range_and_pass_gradients_on(channels, strength):
    images = numbers(6, channels, 12, 10).requires_grad_()
    seen = views(images, strength)
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1
    assert torch.equal(seen, views(images, strength)) and not torch.equal(seen, views(images, strength, seed=1))
    (gradient,) = torch.autograd.grad(seen.sum(), images)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_a_stronger_view_is_farther_from_the_image():
    images = numbers(64, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    far = [float((views(images, strength) - images).abs().mean()) for strength in (0.0, 0.5, 1.0)]
    assert far == sorted(far) and far[2] > 1.2 * far[0]


def test_a_crop_shows_a_part_of_the_image_at_its_size_or_larger():
    """On a ramp, what a view spans is the width of its crop; where it begins is in the image."""
    ramp = torch.linspace(0, 1, 32).expand(400, 1, 32, 32)
    drawn = numbers(5, 400)
    spans = {s: (seen := _cropped(ramp, drawn, s)).amax((1, 2, 3)) - seen.amin((1, 2, 3)) for s in (0.0, 1.0)}
    assert spans[0.0].min() > math.sqrt(3 / 4) - 0.07 and spans[0.0].max() <= 1
    assert 0.15 < spans[1.0].min() < 0.45 and spans[1.0].max() > 0.9
    right = _cropped(ramp, drawn, 1.0)[..., -1].mean((1, 2)) > _cropped(ramp, drawn, 1.0)[..., 0].mean((1, 2))
    assert torch.equal(right, drawn[2] >= 0.5), "half of them are mirrored"


def test_without_strength_colours_stay_and_with_it_some_images_lose_theirs():
    images, drawn = numbers(400, 3, 4, 4), numbers(6, 400, seed=1)
    assert torch.equal(_coloured(images, drawn, 0.0), images)
    seen = _coloured(images, drawn, 1.0)
    grey = (seen.amax(1) - seen.amin(1)).amax((1, 2)) < 1e-6
    assert torch.equal(grey, drawn[5] < 0.2)
    same = (seen == images).flatten(1).all(1)
    assert torch.equal(same, (drawn[4] >= 0.8) & ~grey)


def test_the_hue_turns_about_the_grey_axis():
    images = numbers(5, 3, 4, 4)
    third = torch.full((5, 1, 1, 1), 2 * math.pi / 3)
    assert torch.allclose(_turned(images, third), images.roll(1, 1), atol=1e-6)
    assert torch.allclose(_turned(images, 0.1 * third).mean(1), images.mean(1), atol=1e-6)
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(_turned(grey, 0.1 * third), grey, atol=1e-6)
