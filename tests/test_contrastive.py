"""Networks that learn without labels: the losses by known answers, and what they learn."""

import pytest
import torch
from samples import some_images

import miue
from miue.errors import InputError
from miue.training.contrastive import OBJECTIVES, pretrained, vicreg


def test_vicreg_is_the_published_formula():
    torch.manual_seed(0)
    first, second = torch.randn(20, 6), torch.randn(20, 6) * 0.5
    expected = 25 * (first - second).square().mean()
    for views in (first, second):
        expected += 25 / 2 * torch.relu(1 - (views.var(0) + 1e-4).sqrt()).mean()
        covariance = torch.cov(views.T)
        expected += (covariance - covariance.diag().diag()).square().sum() / 6
    assert torch.allclose(vicreg(torch.cat([first, second])), expected, rtol=1e-4)


def test_vicreg_is_low_where_units_are_apart_and_high_where_all_is_one_point():
    torch.manual_seed(0)
    apart = torch.linalg.qr(torch.randn(64, 8))[0] * 64**0.5
    apart = apart - apart.mean(0)
    assert vicreg(apart.repeat(2, 1)) < 1 < 24 < vicreg(torch.ones(128, 8))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_labels_are_not_looked_at_and_the_seed_decides(objective):
    images = some_images(n=32)
    other = miue.Images(images.x, images.y.roll(1), images.classes)
    how = {"model": "small_resnet:width=0.25", "objective": objective, "epochs": 2, "batch": 16}
    made = [miue.features(pretrained(given, seed=seed, **how), images) for given, seed in
            ((images, 0), (other, 0), (images, 1))]  # fmt: skip
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_features_tell_digits_better_than_those_of_a_network_that_learned_nothing(objective):
    from sklearn.linear_model import LogisticRegression

    train, test = miue.load("digits_m", n_train=1000, n_test=500)
    scores = []
    for epochs in (1, 20):
        network = pretrained(train, objective=objective, epochs=epochs, lr=1e-3 if epochs > 1 else 1e-9)
        probe = LogisticRegression(max_iter=2000).fit(miue.features(network, train), train.y)
        scores.append(probe.score(miue.features(network, test), test.y))
    assert scores[1] > scores[0] + 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"objective": "byol"}, "objective"), ({"epochs": 0}, "epochs: 0"), ({"batch": 3}, "batch: 3")],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        pretrained(some_images(), **changes)
