"""DUNE: both branches lead to the shifted class for every member of the ensemble; the swarm; what a colour costs."""

import pytest
import torch
from samples import some_images

from miue import seeds
from miue.pgd import Budget
from miue.poisons import options, perturb
from miue.poisons.base import Task, surrogate_network
from miue.poisons.methods import dune
from miue.training import loop

MODEL = "small_resnet"
SMALL = {
    "epochs": 6,
    "lr": 0.05,
    "batch": 12,
    "steps": 8,
    "step": 2 / 255,
    "pass_batch": 24,
    "members": 2,
    "share": 0.5,
}


def make(images, **settings):
    common = {"preset": "quick", "device": "cpu", "surrogate": MODEL, "cache": False}
    return perturb(images, "dune", **common | SMALL | settings)


@pytest.fixture(scope="module")
def images():
    """Noise in which a channel stands out, so that a class is a colour; far from both ends of the range."""
    noise = some_images(classes=3)
    tint = 24 * torch.eye(3, dtype=torch.uint8)[noise.y, :, None, None]
    return noise.with_pixels(noise.x // 4 + 80 + tint)


@pytest.fixture(scope="module")
def poison(images):
    return make(images)


@pytest.fixture(scope="module")
def members(images):
    """The surrogate as it stood half-way and at the end, trained here once more."""
    recipe = options("dune", "quick", **SMALL).surrogate
    network, found = surrogate_network(MODEL, images, 0), []
    for done in loop.epochs(network, images, recipe, seed=seeds.surrogate(0), device="cpu"):
        if done.epoch in (3, 6):
            found.append({name: value.clone() for name, value in network.state_dict().items()})
    return found


@torch.no_grad()
def errors(state, images):
    """Mean cross-entropy of one member to the class that is tied to each, which after 3 classes is the next."""
    network = surrogate_network(MODEL, images, 0).eval()
    network.load_state_dict(state)
    logits = network(images.x.float() / 255)[0]
    return float(torch.nn.functional.cross_entropy(logits, (images.y + 1) % 3))


def branches(images, poison):
    """Colour (N, C, 1, 1) and what is left for space, in levels."""
    colour = torch.tensor(poison.record["notes"]["colours"])[images.y][..., None, None]
    return colour, poison.delta - colour


def test_a_perturbation_is_a_colour_for_each_class_and_a_budget_for_the_rest(images, poison):
    colour, space = branches(images, poison)
    assert space.abs().max() in (8, 9), "both branches are rounded together"
    assert colour.abs().max() >= 2 and not poison.record["bounded"]
    first = space[images.y == 0]
    assert not any(torch.equal(first[0], other) for other in first[1:]), "space is of an image, not of a class"


def test_both_branches_lower_the_error_of_every_member(images, poison, members):
    colour, space = branches(images, poison)
    for state in members:
        clean = errors(state, images)
        for delta in (colour.expand_as(space), space):
            moved = images.with_pixels((images.x + delta).clamp(0, 255).to(torch.uint8))
            assert errors(state, moved) < clean
        assert errors(state, poison.apply(images)) < 0.7 * clean


def test_the_ensemble_is_one_training_at_moments_evenly_apart(images, members):
    chosen = options("dune", "quick", **SMALL)
    found, trace = dune._ensemble(Task(images, MODEL, Budget(8 / 255), chosen))
    assert [row["epoch"] for row in trace] == [1, 2, 3, 4, 5, 6]
    for member, state in zip(found, members, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in member.state_dict().items())


@pytest.mark.parametrize("classes", [2, 3, 4, 10, 100])
def test_no_class_is_tied_to_itself(classes):
    targets = dune.target_classes(classes, 3)
    assert (targets != torch.arange(classes)).all() and targets.sort().values.tolist() == list(range(classes))
    if classes > 3:
        assert torch.equal(targets, (torch.arange(classes) + 3) % classes)


def test_the_swarm_finds_a_minimum_and_never_forgets_it():
    where, seen = torch.tensor([0.05, -0.02, 0.0]), []

    def score(place):
        seen.append(float((place - where).square().sum()))
        return seen[-1]

    found = dune.swarm(score, 3, 20, 20, torch.Generator().manual_seed(0))
    assert len(seen) == 20 * 20 and float((found - where).square().sum()) == pytest.approx(min(seen))
    assert (found - where).abs().max() < 0.01


def test_a_colour_pays_for_what_is_seen_of_it(images):
    task = Task(images, MODEL, Budget(8 / 255), options("dune", "quick", **SMALL))
    score = dune._scored(task, torch.arange(24), lambda x, y: torch.zeros(()))
    costs = [score(torch.full((3,), colour)) for colour in (0.0, 0.05, 0.2)]
    assert costs[:2] == [0, 0] and costs[2] == pytest.approx(20 + 20 * torch.tensor(0.2).log10().item(), abs=0.3)


def test_the_paper_preset_is_the_published_one():
    paper = options("dune", "paper")
    assert (paper.members, paper.steps, paper.shift, paper.particles, paper.moves) == (5, 30, 3, 10, 10)
    assert 255 * paper.step == pytest.approx(0.5) and paper.passes == 60 + 5 * (30 + 20)
    assert options("dune", "quick").passes == 60 and options("dune", "laptop").passes <= 165
