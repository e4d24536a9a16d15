"""EntF: centres and distances by known answers; pushed and pulled features; a surrogate that is attacked."""

import pytest
import torch
from samples import some_images

from miue.errors import InputError
from miue.poisons import options, perturb
from miue.poisons.methods.entf import class_centres, distances
from miue.training import loop

SMALL = {
    "epochs": 4,
    "lr": 0.05,
    "batch": 12,
    "steps": 12,
    "step": 4 / 255,
    "pass_batch": 24,
    "surrogate_epsilon": 2 / 255,
}


def make(images, **settings):
    common = {"preset": "quick", "device": "cpu", "surrogate": "small_resnet", "epsilon": 16 / 255, "cache": False}
    return perturb(images, "entf", **common | SMALL | settings)


def numbers(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def images():
    return some_images(classes=3)


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_centres_and_distances_are_the_ones_of_the_paper(classes):
    features, labels = numbers(120, 7), torch.arange(120) % classes
    centres = class_centres(features, labels, classes)
    own, other = distances(features, centres, labels)
    for i in range(0, 120, 7):
        far = [float((features[i] - features[labels == c].mean(0)).square().mean()) for c in range(classes)]
        assert float(own[i]) == pytest.approx(far.pop(labels[i]), rel=1e-4)
        assert float(other[i]) == pytest.approx(min(far), rel=1e-4)


def test_a_class_without_images_is_nobodys_nearest():
    features, labels = numbers(6, 4) + 5, torch.tensor([0, 0, 0, 2, 2, 2])
    centres = class_centres(features, labels, 4)
    own, other = distances(features.requires_grad_(), centres, labels)
    assert own.isfinite().all() and other.isfinite().all()
    (gradient,) = torch.autograd.grad((own + other).sum(), features)
    assert gradient.isfinite().all()
    with pytest.raises(InputError, match="images: all are of one class"):
        class_centres(features, torch.full((6,), 3), 4)


def test_push_moves_features_away_from_their_class_and_pull_towards_another(images):
    push, pull = (make(images, kind=kind).record["notes"] for kind in ("push", "pull"))
    assert push["before"] == pull["before"], "both begin with the same surrogate"
    assert push["after"]["own"] > 2 * push["before"]["own"]
    assert pull["after"]["other"] < 0.8 * pull["before"]["other"]
    assert push["after"]["own"] > pull["after"]["own"] and pull["after"]["other"] < push["after"]["other"]


def test_the_surrogate_is_attacked_within_its_radius(images, monkeypatch):
    met = []
    epochs = loop.epochs

    def note(*given, **how):
        met.append(how["defense"])
        return epochs(*given, **how)

    monkeypatch.setattr(loop, "epochs", note)
    weak, strong = (make(images, surrogate_epsilon=e / 255).record["notes"]["epochs"] for e in (1, 32))
    assert [(round(255 * one.epsilon), one.steps) for one in met] == [(1, 1), (32, 1)]
    assert weak[-1]["surrogate_loss"] < strong[-1]["surrogate_loss"]


def test_the_paper_preset_is_the_published_one():
    paper = options("entf", "paper")
    assert (paper.kind, paper.steps, paper.surrogate.epochs, paper.surrogate_steps) == ("push", 300, 100, 10)
    assert (255 * paper.step, 255 * paper.surrogate_epsilon) == pytest.approx((0.4, 4))
    assert paper.passes == 1100 + 300 + 2
    assert options("entf", "quick").passes == 60 and options("entf", "laptop").passes <= 165
