"""TUE: its two losses by known answers, its surrogate, and what the weights of the losses do."""

import math
from functools import partial

import pytest
import torch
from samples import some_images

from miue.data.images import Images
from miue.errors import InputError
from miue.models import build
from miue.pgd import Budget, pgd
from miue.poisons import options, perturb
from miue.poisons.methods.tue import class_separability
from miue.training.contrastive import OBJECTIVES, Projecting, nt_xent, train_round, two_views

SMALL = {"preset": "quick", "device": "cpu", "batch": 24}


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def by_the_formula(delta, labels):
    """The discriminant, pair by pair."""
    centres, widths = [], []
    for label in labels.unique():
        members = delta[labels == label]
        centres.append(members.mean(0))
        widths.append(sum((m - members.mean(0)).square().sum().sqrt() for m in members) / len(members))
    pairs = [(i, j) for i in range(len(centres)) for j in range(len(centres)) if i != j]
    ratios = [(widths[i] + widths[j] + 1e-5) / ((centres[i] - centres[j]).norm() + 1e-5) for i, j in pairs]
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_separability_is_the_published_ratio(classes):
    delta, labels = numbers(60, 3, 4, 4) - 0.5, torch.arange(60) % classes + 7
    assert float(class_separability(delta, labels)) == pytest.approx(float(by_the_formula(delta, labels)), rel=1e-4)


def test_separability_falls_as_classes_part_and_not_with_scale():
    labels = torch.arange(40) % 4
    noise, pattern = numbers(40, 3, 4, 4) - 0.5, numbers(4, 3, 4, 4, seed=1)[labels] - 0.5
    values = [float(class_separability(noise + strength * pattern, labels)) for strength in (0, 1, 10)]
    assert values[0] > 2 * values[1] > 4 * values[2]
    assert float(class_separability(7 * noise, labels)) == pytest.approx(values[0], rel=1e-3)


def test_separability_passes_only_the_distances_of_centres_on():
    """The members of a class get one gradient in common; coincident or lonely members make no NaN."""
    delta, labels = (numbers(40, 12) - 0.5).requires_grad_(), torch.arange(40) % 4
    (gradient,) = torch.autograd.grad(class_separability(delta, labels), delta)
    assert torch.allclose(gradient[labels == 2], gradient[2].expand(10, -1)) and gradient[2].abs().sum() > 0
    for start, labels in ((torch.zeros(60, 12), torch.arange(60) % 30), (numbers(6, 12), torch.arange(6))):
        (gradient,) = torch.autograd.grad(class_separability(start.requires_grad_(), labels), start)
        assert gradient.isfinite().all()
    assert float(class_separability(numbers(5, 12), torch.zeros(5))) == 0


def test_nt_xent_at_its_known_values():
    views = torch.eye(6).repeat(2, 1)
    expected = math.log(math.exp(2) + 10) - 2
    assert float(nt_xent(views, 0.5)) == pytest.approx(expected, rel=1e-5)
    assert float(nt_xent(3 * views, 0.5)) == pytest.approx(expected, rel=1e-5)
    assert float(nt_xent(torch.ones(12, 4), 0.5)) == pytest.approx(math.log(11), rel=1e-5)
    assert nt_xent(views.roll(1, 0)[torch.cat([torch.arange(6), torch.arange(11, 5, -1)])], 0.5) > expected


def test_two_views_differ_stay_in_range_and_pass_gradients_on():
    images_ = numbers(5, 3, 8, 8).requires_grad_()
    views = two_views(images_, crop=2, jitter=0.4, generator=torch.Generator().manual_seed(0))
    assert views.shape == (10, 3, 8, 8) and views.min() >= 0 and views.max() <= 1
    assert not torch.equal(views[:5], views[5:])
    (gradient,) = torch.autograd.grad(views.sum(), images_)
    assert (gradient > 0).float().mean() > 0.5
    still = two_views(images_, crop=0, jitter=0.0, generator=torch.Generator().manual_seed(0))
    same = (still[:5] == images_).flatten(1).all(1) | (still[:5] == images_.flip(3)).flatten(1).all(1)
    assert same.all()


VIEWS = {"crop": 1, "jitter": 0.1}


@pytest.fixture(scope="module")
def surrogate():
    """A surrogate after 30 rounds on plain colours, its losses, and the images."""
    colours = (255 * numbers(32, 3, 1, 1)).to(torch.uint8).expand(-1, -1, 8, 8).contiguous()
    images = Images(colours, torch.arange(32) % 4)
    network = Projecting(build("small_resnet", 4, size=8), seed=0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    order, augmentation = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    views = partial(two_views, generator=augmentation, **VIEWS)
    losses = [
        train_round(network, images, optimizer, OBJECTIVES["simclr"], views, batch=32, share=1.0, order=order)
        for _ in range(30)
    ]
    return network.eval().requires_grad_(False), losses, images


def test_the_surrogate_learns_to_find_the_other_view(surrogate):
    _, losses, _ = surrogate
    assert losses[0] > 0.8 * math.log(63) and losses[-1] < losses[0] - 0.5


def test_descent_makes_views_easier_to_match_not_only_the_views_that_it_saw(surrogate):
    network, _, images = surrogate
    x, seeds = images.x.float() / 255, iter(range(10))

    def loss(shown, seed):
        views = two_views(shown, generator=torch.Generator().manual_seed(seed), **VIEWS)
        return nt_xent(network(views)[0], 0.5)

    def seen(shown, labels):
        return loss(shown, next(seeds))

    start = torch.zeros_like(images.x, dtype=torch.int8)
    delta = pgd(seen, images.x, images.y, start, budget=Budget(16 / 255), step=4 / 255, steps=10)
    clean, perturbed = (sum(float(loss(shown, seed)) for seed in range(20, 25)) / 5 for shown in (x, x + delta / 255))
    assert perturbed < clean - 0.02


def test_separability_alone_parts_the_classes_within_the_budget_and_needs_no_surrogate():
    images = some_images(n=64)
    poison = perturb(images, "tue", rounds=6, steps=4, contrastive=0.0, **SMALL, cache=False)
    trace = poison.record["notes"]["rounds"]
    assert poison.record["passes"] == 0 and "surrogate_loss" not in trace[0]
    assert trace[-1]["separability"] < 0.5 * trace[0]["separability"]
    assert poison.delta.abs().max() == 8 and poison.delta.float().abs().mean() > 6


def test_the_contrastive_loss_takes_part():
    images = some_images(n=48)
    both, alone, other = (
        perturb(images, "tue", rounds=2, contrastive=weight, separability=csd, **SMALL, cache=False)
        for weight, csd in ((1.0, 0.1), (0.0, 0.1), (1.0, 0.0))
    )
    assert [row["round"] for row in both.record["notes"]["rounds"]] == [1, 2]
    assert all(row["surrogate_loss"] > 0 for row in both.record["notes"]["rounds"])
    assert not torch.equal(both.delta, alone.delta) and not torch.equal(both.delta, other.delta)
    last = [poison.record["notes"]["rounds"][-1]["separability"] for poison in (both, other)]
    assert last[0] < last[1]


def test_the_paper_preset_is_the_published_one():
    """40 epochs of 98 batches of 512, a pgd pass of 20 steps after every 20 batches."""
    paper = options("tue", "paper")
    assert (paper.rounds, paper.share, paper.steps, paper.batch) == (200, 0.2, 20, 512)
    assert (paper.step * 255, paper.separability, paper.temperature, paper.lr) == pytest.approx((0.8, 0.1, 0.5, 1e-3))
    assert options("tue", "quick").passes < 30 and options("tue", "laptop").passes < 120


def test_weights_that_leave_no_loss_are_refused():
    with pytest.raises(InputError, match="contrastive: 0, separability: 0; at least one must be above 0"):
        options("tue", "quick", contrastive=0, separability=0)
