"""Several networks as one: each image goes through one of them, and each of them is trained."""

import pytest
import torch
from samples import some_images

import miue
from miue.errors import InputError
from miue.models import build
from miue.models.stages import layers
from miue.storage.code import foreign_code

BOTH = "mlp2+small_resnet:width=0.5"


def test_every_image_is_answered_by_one_network_in_turn():
    both = build(BOTH, 3, size=16, seed=1).eval()
    x = torch.rand(7, 3, 16, 16)
    _, features = both(x)
    first, second = both.body.features
    assert features.shape == (7, first + second)
    assert not features[0::2, first:].any() and not features[1::2, :first].any()
    for place, body in enumerate(both.body.bodies):
        own = features[place::2, :first] if place == 0 else features[place::2, first:]
        assert torch.allclose(own, body((x[place::2] - 0.5) / 0.25), atol=1e-6)


def test_both_are_trained_and_shape_the_perturbation():
    images = some_images(n=60, classes=3, size=16)
    victim = miue.train_victim(images, model=BOTH, recipe="quick:epochs=1", seed=2, cache=False)
    fresh = miue.train_victim(images, model=BOTH, recipe="quick:epochs=2", seed=2, cache=False)
    for one, other in zip(victim.model.body.bodies, fresh.model.body.bodies, strict=True):
        assert any((a != b).any() for a, b in zip(one.parameters(), other.parameters(), strict=True))
    made = {
        name: miue.perturb(images, "em:epochs=1", surrogate=name, preset="quick", seed=1, cache=False).delta
        for name in (BOTH, "mlp2")
    }
    assert (made[BOTH] != made["mlp2"]).any()


def test_a_batch_too_small_for_all_goes_to_the_first():
    both = build("vgg11:width=0.25+vgg11:width=0.25", 3, size=16).train()
    _, features = both(torch.rand(3, 3, 16, 16))
    assert not features[:, both.body.features[0] :].any()


def test_each_of_them_is_checked():
    with pytest.raises(InputError, match="model: 'resnet1' does not exist"):
        miue.models.check("small_resnet+resnet1")
    with pytest.raises(InputError, match="the stages of a Network are unknown"):
        layers(build(BOTH, 3, size=16))


def test_it_is_known_by_its_name_to_the_cache(monkeypatch):
    assert foreign_code(*miue.models.builders(BOTH)) == []
    monkeypatch.setitem(miue.models.MODELS, "mlp2", foreign)
    assert foreign_code(*miue.models.builders("small_resnet+mlp2")) == ["test_dealt.foreign"]


def foreign(channels, size, width):
    """A network of somebody's own."""
