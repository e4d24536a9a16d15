"""The pgd pass that methods share, and the gradients of the folded network."""

import torch

from miue.models import build, forward
from miue.poisons.base import balanced_batches


def test_batches_hold_every_image_once_and_every_class_in_proportion():
    labels = torch.cat([torch.zeros(60), torch.ones(30), torch.full((10,), 2)]).long()
    batches = balanced_batches(labels, 20, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(100))
    for batch in batches:
        counts = labels[batch].bincount(minlength=3)
        assert abs(int(counts[0]) - 12) <= 1 and abs(int(counts[1]) - 6) <= 1 and abs(int(counts[2]) - 2) <= 1


def test_the_folded_copy_has_the_networks_gradients():
    from torch.fx.experimental.optimization import fuse

    torch.manual_seed(0)
    for name in ("small_resnet", "resnet18"):
        network = build(name, 4, size=16)
        network.train()
        forward(network, torch.rand(8, 3, 16, 16))  # statistics that are not the initial ones
        x = torch.rand(4, 3, 16, 16, requires_grad=True)
        network.eval()
        gradients = [torch.autograd.grad(forward(m, x)[1].square().sum(), x)[0] for m in (network, fuse(network))]
        # A unit that rounding moves across zero changes single entries, hence the norm.
        assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[0].norm()
