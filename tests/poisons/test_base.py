"""The pgd pass that methods share, and the gradients of the folded network."""

import pytest
import torch

from miue.models import build, forward
from miue.models import frozen as frozen_module
from miue.models.frozen import Frozen
from miue.poisons.passes import balanced_batches


def test_batches_hold_every_image_once_and_every_class_in_proportion():
    labels = torch.cat([torch.zeros(60), torch.ones(30), torch.full((10,), 2)]).long()
    batches = balanced_batches(labels, 20, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(100))
    for batch in batches:
        counts = labels[batch].bincount(minlength=3)
        assert abs(int(counts[0]) - 12) <= 1 and abs(int(counts[1]) - 6) <= 1 and abs(int(counts[2]) - 2) <= 1


def test_repeated_batches_give_small_classes_as_many_places_as_the_largest():
    labels = torch.tensor([0] * 60 + [1] * 7 + [3])
    batches = balanced_batches(labels, 20, torch.Generator().manual_seed(0), repeated=True)
    index = torch.cat(batches)
    assert len(index) == 180 and labels[index].bincount().tolist() == [60, 60, 0, 60]
    assert all(labels[batch].bincount(minlength=4)[[0, 1, 3]].min() >= 5 for batch in batches)
    times = index.bincount()
    assert times[:60].eq(1).all() and times[60:67].min() == 8 and times[67] == 60


@pytest.mark.parametrize(("count", "size", "sizes"), [(3000, 256, {250}), (50_000, 512, {500}), (997, 100, {99, 100})])
def test_batches_are_of_one_size_where_few_more_of_them_make_that_possible(count, size, sizes):
    batches = balanced_batches(torch.arange(count) % 10, size, torch.Generator().manual_seed(0))
    assert {len(batch) for batch in batches} == sizes


def test_the_folded_copy_has_the_networks_gradients():
    torch.manual_seed(0)
    for name in ("small_resnet", "resnet18"):
        network = build(name, 4, size=16)
        network.train()
        forward(network, torch.rand(8, 3, 16, 16))  # statistics that are not the initial ones
        x = torch.rand(4, 3, 16, 16, requires_grad=True)
        frozen = Frozen(network)
        assert network.training
        outputs = (forward(network.eval(), x), frozen(x))
        gradients = [torch.autograd.grad(features.square().sum(), x)[0] for _, features in outputs]
        # A unit that rounding moves across zero changes single entries, hence the norm.
        assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[0].norm()


def test_a_frozen_network_follows_only_when_it_is_told():
    network, x = build("small_resnet:width=0.5", 4, size=16).train(), torch.rand(8, 3, 16, 16)
    frozen = Frozen(network)
    held = [tensor.data_ptr() for tensor in frozen.folded.state_dict().values()]
    before = frozen(x)[0]
    for _ in range(3):
        forward(network, 2 * x)  # the statistics move
    with torch.no_grad():
        network.head.weight.mul_(2)
    assert torch.equal(frozen(x)[0], before)
    frozen.refresh()
    torch.testing.assert_close(frozen(x)[0], forward(network.eval(), x)[0], rtol=1e-4, atol=1e-4)
    assert [tensor.data_ptr() for tensor in frozen.folded.state_dict().values()] == held
    assert not any(weight.requires_grad for weight in frozen.folded.parameters())


def test_images_that_are_taken_in_parts_have_the_same_outputs_and_gradients(monkeypatch):
    network, x = build("small_resnet", 4, size=16), torch.rand(40, 3, 16, 16, requires_grad=True)
    found = []
    for together in (40, 16):
        monkeypatch.setattr(frozen_module, "TOGETHER", together * 16 * 16)
        logits, features = Frozen(network)(x)
        found += [(logits, features, *torch.autograd.grad(features.square().sum() + logits.logsumexp(0).sum(), x))]
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)
