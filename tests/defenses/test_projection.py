"""Orthogonal projection: what is learned linearly is gone, and what is left is images."""

import torch
from samples import fitted, some_images

from miue.data.images import Images
from miue.defenses import build
from miue.defenses.detection import linear_probe
from miue.defenses.projection import OrthogonalProjection, mean_image, project_out
from miue.training import loop, recipes


def smooth(n=600, seed=0):
    """Images of middling brightness, so that little is clipped."""
    generator = torch.Generator().manual_seed(seed)
    x = (128 + 25 * torch.randn(n, 3, 8, 8, generator=generator)).clamp(0, 255).to(torch.uint8)
    return Images(x, torch.arange(n) % 4)


def with_pattern(images, levels=16):
    generator = torch.Generator().manual_seed(9)
    pattern = levels * (2 * torch.randint(2, (len(images.classes), *images.shape), generator=generator) - 1)
    return images.plus(pattern[images.y].to(torch.int8))


def test_basis_is_orthonormal_and_nothing_is_left_in_its_span():
    images = with_pattern(smooth())
    basis = OrthogonalProjection(epochs=5).basis(images, 0)
    assert basis.shape == (192, 4)
    torch.testing.assert_close(basis.T @ basis, torch.eye(4), atol=1e-5, rtol=0)
    left = project_out(images.x.float() / 255, basis).flatten(1) @ basis
    assert left.abs().max() < 1e-5


def test_prepared_images_keep_only_the_mean_in_that_span_up_to_rounding():
    images = with_pattern(smooth())
    defense = OrthogonalProjection(epochs=5)
    basis, centre = defense.basis(images, 0), mean_image(images)
    deviation = defense.prepare(images, 0).x.float() / 255 - centre
    before = (images.x.float() / 255 - centre).flatten(1) @ basis
    after = deviation.flatten(1) @ basis
    # A unit vector's sum of 192 rounding errors of a standard deviation of 0.29 levels has that deviation too.
    assert after.std() < 1.1 * 0.29 / 255
    assert before.std() > 10 * after.std()


def test_class_wise_noise_is_linearly_separable_before_and_not_after():
    images = with_pattern(smooth())
    before = linear_probe(images)
    after = linear_probe(OrthogonalProjection(epochs=60).prepare(images, 0))  # few images need more epochs
    assert before.held_out > 0.95
    assert after.held_out < 0.45  # chance is 0.25


def test_published_form_projects_the_images_themselves():
    images = smooth(n=64)
    defense = build("orthogonal_projection", epochs=1, keep_mean=False)
    expected = project_out(images.x.float() / 255, defense.basis(images, 0)).clamp(0, 1) * 255
    assert torch.equal(defense.prepare(images, 0).x, expected.round().to(torch.uint8))


def test_labels_ids_and_order_stay_and_the_seed_decides():
    images = some_images(n=40).subset(torch.arange(39, -1, -1))
    defense = OrthogonalProjection(epochs=1)
    once, again, other = (defense.prepare(images, seed) for seed in (0, 0, 1))
    assert torch.equal(once.y, images.y) and torch.equal(once.ids, images.ids) and once.classes == images.classes
    assert torch.equal(once.x, again.x) and not torch.equal(once.x, other.x)


def test_any_batching_gives_the_same_mean(monkeypatch):
    images = some_images(n=40)
    whole = mean_image(images)
    monkeypatch.setattr("miue.defenses.pixels.VALUES", 1)
    torch.testing.assert_close(mean_image(images), whole)
    torch.testing.assert_close(whole, images.x.float().mean(0) / 255)


def test_a_victim_trains_on_the_projected_images():
    recipe = recipes.recipe("quick", epochs=1)
    options = {"epochs": 1, "fit_batch": 16}
    network = fitted(some_images(), "small_resnet", recipe, defense=build("orthogonal_projection", **options))
    assert 0 <= loop.accuracy(network, some_images()) <= 1
