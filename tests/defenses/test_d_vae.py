"""D-VAE on images that are easy to rebuild: plain colour gradients under a class-wise pattern."""

from functools import cache

import pytest
import torch
from samples import fitted, some_images

from miue.data.images import Images
from miue.defenses import build
from miue.defenses.d_vae import DVAE, Disentangler, Stage
from miue.defenses.pixels import rewrite
from miue.errors import InputError
from miue.training import loop, recipes

TINY = {"epochs": 1, "width": 4, "latent": 4}


def gradients(n=128, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    level = 80 + 90 * torch.rand(n, 3, 1, 1, generator=generator)
    slope = 5 * torch.randn(n, 3, 1, 1, generator=generator)
    x = level + slope * torch.linspace(-1, 1, size).view(1, 1, 1, -1).expand(-1, -1, size, -1)
    return Images(x.to(torch.uint8), torch.arange(n) % 4)


def pattern(images, levels=24):
    generator = torch.Generator().manual_seed(9)
    signs = 2 * torch.randint(2, (len(images.classes), *images.shape), generator=generator) - 1
    return (levels * signs)[images.y].to(torch.int8)


@cache
def stages():
    """The pixels of clean images, the pattern, and the pixels after stage one and in the end."""
    clean = gradients()
    delta = pattern(clean)
    perturbed = clean.plus(delta)
    defense = DVAE(epochs=8, fit_batch=8, width=4, latent=8)
    first = defense.train(perturbed, Stage(1.0, 0.01), 0, "test")
    rough = rewrite(perturbed, lambda x, y: x - first(x, y).perturbation)
    return clean.x.float(), delta.float(), rough.x.float(), defense.prepare(perturbed, 0).x.float()


def left(x, clean, delta):
    """The share of the pattern that is left in x."""
    return float(((x - clean) * delta).mean() / delta.square().mean())


@pytest.mark.slow
def test_stage_one_brings_the_images_nearer_to_the_clean_ones():
    clean, delta, rough, _ = stages()
    assert (rough - clean).square().mean() < 0.7 * delta.square().mean()
    assert left(rough, clean, delta) < 0.8


@pytest.mark.slow
def test_in_the_end_the_class_wise_pattern_is_gone_and_the_images_are_not():
    clean, delta, _, after = stages()
    assert abs(left(after, clean, delta)) < 0.1
    assert (after - clean).square().mean() < delta.square().mean()
    brightness = torch.stack([x.mean((1, 2, 3)) for x in (clean, after)])
    assert torch.corrcoef(brightness)[0, 1] > 0.5


def test_rate_is_held_near_its_limit():
    images = gradients()
    rates = []
    for limit in (0.2, 2.0):
        network = DVAE(epochs=4, fit_batch=8, width=4).train(images, Stage(limit, 0.5), 0, "test")
        x, y = images.batch(torch.arange(len(images)))
        rates.append(float(network(x.float() / 255, y).rate.detach()))
    assert rates[0] < 0.4 < rates[1] < 2.5


def test_labels_ids_and_order_stay_and_the_seed_decides():
    images = some_images(n=40).subset(torch.arange(39, -1, -1))
    once, again, other = (DVAE(**TINY).prepare(images, seed) for seed in (0, 0, 1))
    assert torch.equal(once.y, images.y) and torch.equal(once.ids, images.ids) and once.classes == images.classes
    assert torch.equal(once.x, again.x) and not torch.equal(once.x, other.x)


@pytest.mark.parametrize(("channels", "size"), [(1, 9), (3, 13)])
def test_images_of_any_channels_and_odd_size_keep_their_shape(channels, size):
    images = some_images(n=9, channels=channels, size=size)
    assert DVAE(**TINY, fit_batch=4).prepare(images, 0).shape == images.shape


def test_training_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    DVAE(**TINY).prepare(some_images(n=8), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_perturbation_starts_at_zero_and_the_code_is_its_mean_in_evaluation():
    network = Disentangler((3, 8, 8), 4, 4, 4).eval()
    x, y = torch.rand(5, 3, 8, 8), torch.arange(5) % 4
    once, again = network(x, y), network(x, y)
    assert once.perturbation.abs().max() == 0
    assert torch.equal(once.reconstruction, again.reconstruction)


def test_options_out_of_range_are_refused():
    with pytest.raises(InputError, match="fine_rate: 0"):
        DVAE(fine_rate=0.0)


def test_a_victim_trains_on_the_purified_images():
    network = fitted(some_images(), "small_resnet", recipes.recipe("quick", epochs=1), defense=build("d_vae", **TINY))
    assert 0 <= loop.accuracy(network, some_images()) <= 1
