import math

import pytest
import torch
import torch.nn.functional as F
from samples import some_images

import miue
from miue.data.images import Images
from miue.errors import InputError
from miue.models.heads import Captions, LabelSets, label_sets, recall, with_head

CLASSES = ["a", "a+b", "b+c", "c+a+b"]


def test_scores_are_log_probabilities_of_sets_and_the_loss_is_binary_cross_entropy():
    torch.manual_seed(0)
    head, features = LabelSets(6, CLASSES), torch.randn(20, 6)
    labels, sets = label_sets(CLASSES)
    assert labels == ["a", "b", "c"] and sets.int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1]]
    there = head.of_labels(features).sigmoid()
    for number, own in enumerate(sets):
        expected = torch.where(own, there, 1 - there).prod(1).log()
        assert torch.allclose(head(features)[:, number], expected, atol=1e-5)
    y = torch.arange(20) % 4
    of_labels = F.binary_cross_entropy_with_logits(head.of_labels(features), sets[y].float(), reduction="none")
    assert torch.allclose(head.loss(head(features), y), of_labels.sum(1).mean(), atol=1e-6)


def test_captions_that_differ_are_told_apart_by_angle_and_the_loss_is_that_of_both_directions():
    torch.manual_seed(0)
    head, features = Captions(6, ["a red cat", "a dog", "a red dog"], 5), torch.randn(4, 6)
    assert head.get_buffer("bags").tolist() == [[1, 1, 0, 1], [1, 0, 1, 0], [1, 0, 1, 1]]
    scores = head(features)
    assert scores.abs().max() <= 1 / 0.07 + 1e-4
    assert torch.allclose(head(7 * features), scores, atol=1e-4)
    y = torch.tensor([0, 1, 1, 0])  # nobody asks for the third caption
    columns = scores.log_softmax(0)
    to_images = -((columns[0, 0] + columns[3, 0]) / 2 + (columns[1, 1] + columns[2, 1]) / 2) / 2
    assert torch.allclose(head.loss(scores, y), (F.cross_entropy(scores, y) + to_images) / 2)


def test_recall_counts_both_directions():
    scores = torch.tensor([[4.0, 1, 2], [3, 2, 1], [1, 2, 3], [1, 3, 2]])
    y = torch.tensor([0, 1, 0, 1])
    assert recall(scores, y, 1) == (0.5, 1.0)  # the third caption has no image, and is not asked for
    assert recall(scores, y, 2) == (0.75, 1.0)
    assert recall(scores, y, 10) == (1.0, 1.0)
    assert recall(scores, torch.tensor([1, 1, 0, 0]), 1) == (0.0, 0.0)


@pytest.mark.parametrize("head", [LabelSets, Captions])
def test_such_a_network_perturbs_and_learns_and_its_seed_decides(head):
    drawn = some_images(n=48, classes=4, size=12)
    images = Images(drawn.x, drawn.y, CLASSES, name="sets")
    model = with_head("small_resnet:width=0.25", head, CLASSES)
    weights = [miue.models.build(model, 4, size=12, seed=seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["head.weight"], weights[2]["head.weight"])
    poison = miue.perturb(images, "mi_ue:sets=true", surrogate=model, preset="quick", epochs=2, cache=False)
    assert poison.delta.abs().max() == 8
    victims = [
        miue.train_victim(poison.apply(images), images, model=model, recipe="quick:epochs=8:lr=0.05", seed=seed)
        for seed in (0, 0)
    ]
    assert victims[0].accuracy == victims[1].accuracy
    losses = [epoch.loss for epoch in victims[0].history]
    assert all(math.isfinite(loss) for loss in losses) and losses[-1] < losses[0]


def test_a_head_for_other_classes_is_refused():
    images = some_images(n=24, classes=3, size=12)
    with pytest.raises(InputError, match="classes: 4 are named for a head, and the images have 3"):
        miue.train_victim(images, model=with_head("mlp2", LabelSets, CLASSES), recipe="quick:epochs=1")
