"""What is particular to UEraser."""

from dataclasses import replace

import pytest
import torch
from moments import moment
from samples import some_images

from miue.defenses import build, ueraser


@pytest.fixture
def shades(monkeypatch):
    """Draws of the policy, one after another: the images turned to one grey, 0.1, 0.2, ..."""
    drawn = []

    def policy(x):
        drawn.append(torch.full_like(x, 0.1 * (1 + len(drawn))))
        return drawn[-1]

    monkeypatch.setattr(ueraser, "_policy", lambda device: policy)
    return drawn


def test_each_image_is_trained_on_in_its_own_worst_draw(shades):
    images = some_images(n=5)
    favourite = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])  # the shade that costs each image most
    now = replace(moment(images), losses=lambda p, y: -(p.mean((1, 2, 3)) - favourite).abs())
    seen, targets = build("ueraser").batch(images.x, images.y, now)
    assert len(shades) == 5
    assert torch.allclose(seen, favourite[:, None, None, None].expand_as(seen))
    assert torch.equal(targets, images.y)


@pytest.mark.parametrize(
    ("options", "done", "draws"),
    [({}, 0.0, 5), ({}, 0.49, 5), ({}, 0.5, 1), ({}, 0.99, 1), ({"draws": 1}, 0.0, 1), ({"first_phase": 1.0}, 0.99, 5)],
)
def test_the_worst_of_five_in_the_first_phase_then_one_and_lite_is_one_throughout(shades, options, done, draws):
    images = some_images(n=4)
    build("ueraser", **options).batch(images.x, images.y, moment(images, done=done))
    assert len(shades) == draws


def test_the_worst_of_several_draws_has_a_higher_loss():
    images = some_images(n=48)
    now = moment(images)
    one, five = (build("ueraser", draws=k).batch(images.x, images.y, moment(images, seed=1))[0] for k in (1, 5))
    assert (now.losses(five, images.y) >= now.losses(one, images.y)).float().mean() > 0.8
    assert now.losses(five, images.y).mean() > now.losses(one, images.y).mean()


def test_images_leave_the_perturbations_budget():
    images = some_images(n=24, size=16)
    seen, _ = build("ueraser", draws=1).batch(images.x, images.y, moment(images))
    assert (seen - images.x / 255).abs().mean() > 3 * 8 / 255


def test_every_image_has_fractals_of_its_own_also_in_one_channel():
    images = some_images(n=8, channels=1)
    same = images.x[:1].expand(8, -1, -1, -1)
    seen, _ = build("ueraser", draws=1).batch(same, images.y, moment(images))
    assert seen.shape == (8, 1, 8, 8)
    assert len({tuple(image.flatten().tolist()) for image in seen}) == 8
