"""One contract for every defense."""

import json
import random

import numpy as np
import pytest
import torch
from moments import moment
from samples import some_images

from miue import specs
from miue.defenses import DEFENSES, Defense, build
from miue.errors import InputError


def some_noise(images, steps):
    """What a diffusion model says the noise is."""
    return images / 2


SMALL = {
    "adversarial_training": {"steps": 2},
    "ueraser": {"draws": 2},
    "orthogonal_projection": {"epochs": 2},
    "d_vae": {"epochs": 1, "width": 4, "latent": 4},
    "sda_an": {"epochs": 1, "steps": 2, "width": 0.1},
    "avatar": {"denoise": some_noise, "steps": 2},
}

VARIANTS = ("cutout:hole=4", "iss:kind=grayscale", "iss:kind=bit_depth", "ueraser:draws=1", "coin:alpha=0.5")

KINDS = {
    "rgb": {"n": 24, "size": 8},
    "grey": {"n": 16, "channels": 1, "classes": 3, "size": 16},
    "100 classes": {"n": 100, "classes": 100, "size": 8},
    "64 px": {"n": 6, "classes": 3, "size": 64},
}


@pytest.fixture(scope="module", params=[*DEFENSES, *VARIANTS])
def defense(request):
    name, options = specs.parse(request.param)
    return build(name, **{**SMALL.get(name, {}), **options})


def shuffled(**kind):
    """Images whose ids are not their positions."""
    images = some_images(**kind)
    return images.subset(torch.randperm(len(images), generator=torch.Generator().manual_seed(1)))


def global_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def draws(defense, images, count, seed=0):
    """What `count` batches of all `images` become."""
    now = moment(images, seed)
    return [defense.batch(*images.batch(torch.arange(len(images))), now) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_images_stay_images_and_labels_stay_labels(defense, kind):
    images = shuffled(**kind)
    pixels, before = images.x.clone(), global_states()
    prepared = defense.prepare(images, 0)
    assert prepared.x.dtype == torch.uint8 and prepared.x.shape == images.x.shape
    assert torch.equal(prepared.y, images.y) and torch.equal(prepared.ids, images.ids)
    assert prepared.classes == images.classes
    assert torch.equal(images.x, pixels), "the images given were changed"

    x, y = prepared.batch(torch.arange(len(prepared)))
    given, now = x.clone(), moment(prepared)
    for _ in range(4):
        seen, targets = defense.batch(x, y, now)
        assert seen.dtype == torch.float32 and seen.shape == x.shape and not seen.requires_grad
        assert seen.min() >= 0 and seen.max() <= 1
        if targets.ndim == 1:
            assert torch.equal(targets, y)
        else:
            assert targets.shape == (len(y), len(images.classes)) and targets.min() >= 0
            assert torch.allclose(targets.sum(1), torch.ones(len(y)))
    assert torch.equal(x, given), "the batch given was changed"
    assert global_states() == before, "a global random state was changed"


def test_the_seed_and_the_generator_decide(defense):
    images = some_images(n=24, size=16)
    one, same = defense.prepare(images, 3), defense.prepare(images, 3)
    assert torch.equal(one.x, same.x)
    for first, second in zip(draws(defense, one, 2), draws(defense, one, 2), strict=True):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_something_changes_for_most_images(defense):
    images = some_images(n=24, size=16)
    prepared = defense.prepare(images, 0)
    shares = [(seen != images.x / 255).flatten(1).any(1).float().mean() for seen, _ in draws(defense, prepared, 8)]
    assert max(shares) > 0.9
    assert sum(shares) > 0.25 * len(shares)


def test_random_batches_differ_from_draw_to_draw(defense):
    images = some_images(n=24, size=16)
    overrides_batch = type(defense).batch is not Defense.batch
    seen = draws(defense, images, 8)
    assert any(not torch.equal(seen[0][0], other[0]) for other in seen[1:]) == overrides_batch


@pytest.mark.parametrize("name", DEFENSES)
def test_unknown_options_are_refused_and_records_are_json(name):
    with pytest.raises(InputError, match=f"{name} option: 'speed' does not exist"):
        build(name, speed=1)
    defense = build(name, **SMALL.get(name, {}))
    assert json.loads(json.dumps(defense.record())) == defense.record()
    assert defense == build(name, **SMALL.get(name, {}))


def test_unknown_defenses_are_refused():
    with pytest.raises(InputError, match="defense: 'prayer' does not exist; choose one of adversarial_training, "):
        build("prayer")
