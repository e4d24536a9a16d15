import pytest
import torch
from samples import some_images

from miue import seeds
from miue.errors import InputError
from miue.mi.critic import bound
from miue.models.frozen import Frozen
from miue.poisons import options, perturb
from miue.poisons.base import surrogate_network
from miue.poisons.mine_term import Mine
from miue.training import loop

TRAINED = {"batch": 12, "lr": 0.05, "pass_batch": 24, "steps": 20, "step": 3 / 255}
SETTINGS = {"tap": TRAINED | {"epochs": 3}, "em": TRAINED | {"epochs": 1, "batch": 4, "batches_per_epoch": 12}}


@pytest.fixture(scope="module")
def images():
    noise = some_images(classes=3)
    return noise.with_pixels(noise.x // 4 + 80 + 24 * torch.eye(3, dtype=torch.uint8)[noise.y, :, None, None])


def first_surrogate(method, images):
    """The surrogate as it stands in the (first) pgd pass: both methods have trained it on clean images until then."""
    network = surrogate_network("small_resnet", images, 0)
    recipe = options(method, "quick", **SETTINGS[method]).surrogate
    for _ in loop.epochs(network, images, recipe, seed=seeds.surrogate(0), device="cpu"):
        pass
    return network


@pytest.fixture(scope="module")
def surrogate(images):
    return first_surrogate("tap", images)


def term(network, images, rows=None, weight=1.0, seed=5):
    mine = Mine(weight, network, torch.Generator().manual_seed(seed))
    mine.look(network, images)
    mine.begin(torch.arange(len(images)) if rows is None else rows)
    return mine


def learnt(mine, features, steps=40):
    """The estimate after some steps of the critic on fixed features."""
    for _ in range(steps):
        value = mine.estimate(features)
    return float(value.detach())


def test_a_critic_learns_to_tell_pairs_that_belong_together(images, surrogate):
    features = loop.features(surrogate, images)
    mine = term(surrogate, images)
    first = float(mine.estimate(features).detach())
    assert learnt(mine, features) > max(first, 0) + 0.5
    flat = learnt(term(surrogate, images), features.mean(0).expand_as(features))
    assert abs(flat) < 0.01


def test_pairs_are_found_by_the_rows_of_the_batch(images, surrogate):
    features = loop.features(surrogate, images)
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    ordered, shuffled = (
        learnt(term(surrogate, images), features, 3),
        learnt(term(surrogate, images, rows), features[rows], 3),
    )
    mismatched = learnt(term(surrogate, images, rows), features, 3)
    assert ordered == pytest.approx(shuffled, abs=1e-4)
    assert mismatched < ordered - 0.01


def test_a_step_down_its_gradient_lowers_the_estimate(images, surrogate):
    features = loop.features(surrogate, images)
    mine = term(surrogate, images)
    learnt(mine, features, 20)
    features.requires_grad_(True)
    value = mine.estimate(features)
    (gradient,) = torch.autograd.grad(value, features)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    clean = loop.features(surrogate, images)
    centre, scale = clean.mean(0), clean.std()

    def judged(perturbed):
        scores = mine.critic.scores(((clean - centre) / scale)[None], ((perturbed - centre) / scale)[None], len(clean))
        return float(bound("mine", scores).detach())

    assert judged(features) == pytest.approx(float(value.detach()), abs=1e-5)
    assert judged(features - 0.01 * gradient / gradient.norm() * features.norm()) < judged(features)


@pytest.mark.parametrize("method", ["tap", "em"])
def test_the_term_lowers_what_a_fresh_critic_finds(method, images):
    network = first_surrogate(method, images)
    found = {}
    for weight in (0.0, 3.0):
        poison = perturb(
            images, method, preset="quick", device="cpu", epsilon=16 / 255, mine=weight, **SETTINGS[method], cache=False
        )
        features = loop.features(network, poison.apply(images))
        found[weight] = learnt(term(network, images), features, 20)
        assert ("'mine'" in str(poison.record["notes"])) == bool(weight)
    assert found[3.0] < 0.9 * found[0.0]


def test_one_image_has_no_mixed_pairs(images, surrogate):
    mine = term(surrogate, images, torch.tensor([4]))
    assert float(mine.estimate(loop.features(surrogate, images)[4:5])) == 0


def test_without_weight_no_critic_is_trained(images, surrogate):
    mine = term(surrogate, images, weight=0.0)
    before = [value.detach().clone() for value in mine.critic.parameters]
    loss = mine.on_outputs(Frozen(surrogate), lambda logits, features, labels: logits.sum())
    loss(images.x.float() / 255, images.y)
    assert all(torch.equal(a, b) for a, b in zip(before, mine.critic.parameters, strict=True))
    assert mine.notes() == {}


def test_a_delta_for_each_class_takes_no_term():
    with pytest.raises(InputError, match="mine: 0.1 with scope 'class'"):
        options("em", "quick", mine=0.1, scope="class")
