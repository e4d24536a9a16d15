import copy

import pytest
import torch
from samples import some_images
from scipy.stats import binom, norm
from torch import nn

from miue import Images
from miue.errors import InputError
from miue.models import build
from miue.poisons import options, perturb
from miue.poisons.methods.pue import NoisyWeights, certify, learnability_bound, noisy_accuracies
from miue.training.loop import accuracy

TINY = {"preset": "quick", "device": "cpu", "pass_batch": 16, "batch": 16, "batches_per_epoch": 3}
THRESHOLDS = 100
SHARE = 1 / THRESHOLDS


class Threshold(nn.Module):
    """Two classes; class 1 where the mean of the weights, scaled to unit variance, exceeds the image's level.

    Along the direction of equal weights the accuracy rises as a staircase, so that its quantiles under Gaussian noise,
    and the worst shift, are known.
    """

    def __init__(self, mean, d=9):
        super().__init__()
        self.weights = nn.Parameter(torch.full((d,), mean / d**0.5))

    def forward(self, x):
        level = x[:, 0, 0, 0]
        position = self.weights.sum() / len(self.weights) ** 0.5
        logits = torch.stack([level, position.expand(len(x))], dim=1)
        return logits, logits


def staircase():
    """Images of class 1 whose levels are spread evenly over [0, 1)."""
    levels = torch.linspace(0, 254, THRESHOLDS).round().to(torch.uint8)
    x = levels[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    return Images(x, torch.ones(THRESHOLDS, dtype=torch.int64), ["0", "1"])


def height(position):
    """The accuracy of `Threshold` at a position, up to the width of a stair."""
    return min(max(position * 255 / 254, 0.0), 1.0)


def test_noisy_accuracies_have_the_known_distribution_and_leave_the_network_alone():
    network = Threshold(0.5)
    before = copy.deepcopy(network.state_dict())
    found = noisy_accuracies(network, staircase(), sigma=0.1, draws=300)
    assert found == sorted(found)
    for q in (0.1, 0.5, 0.9):
        assert found[int(q * 300)] == pytest.approx(height(0.5 + 0.1 * norm.ppf(q)), abs=0.03)
    assert torch.equal(before["weights"], network.weights)
    assert accuracy(network, staircase()) == pytest.approx(0.5, abs=SHARE)


@pytest.mark.parametrize("eta", [0.0, 0.05, 0.1])
def test_the_bound_is_just_above_the_worst_shift(eta):
    """Truth: the q-quantile of the accuracy is highest when all of eta points along the staircase."""
    network, sigma, q = Threshold(0.4), 0.1, 0.7
    truth = height(0.4 + eta + sigma * norm.ppf(q))
    bound = certify(network, staircase(), etas=[eta], sigma=sigma, q=q, draws=300)[eta]
    assert truth - SHARE <= bound <= truth + 0.06

    shifted = copy.deepcopy(network)
    with torch.no_grad():
        shifted.weights += eta / len(shifted.weights) ** 0.5
    under_noise = noisy_accuracies(shifted, staircase(), sigma=sigma, draws=300, seed=1)
    assert sum(a <= bound for a in under_noise) / 300 >= q - 0.02


def test_the_bound_fails_as_rarely_as_it_promises_and_hardly_more_rarely():
    """Uniform draws, so that the quantile is q' itself; one order statistic lower would break the promise."""
    setting = {"eta": 0.5, "sigma": 1.0, "q": 0.6, "confidence": 0.9}
    quantile = norm.cdf(norm.ppf(0.6) + 0.5)
    draws = torch.rand(4000, 25, generator=torch.Generator().manual_seed(0)).sort().values.double()
    ranks = {row.index(learnability_bound(row, **setting)) for row in draws[:20].tolist()}
    assert len(ranks) == 1
    held = (draws >= quantile).double().mean(0)
    assert held[min(ranks)] >= 0.9 > held[min(ranks) - 1]
    assert held[min(ranks)] == pytest.approx(binom.cdf(min(ranks), 25, quantile), abs=0.02)


def test_too_few_draws_say_nothing():
    accuracies = [0.1] * 100
    assert learnability_bound(accuracies, eta=0.1, sigma=0.25) == 0.1
    assert learnability_bound(accuracies, eta=0.25, sigma=0.25) == 1.0
    assert learnability_bound([0.1] * 1000, eta=0.25, sigma=0.25) == 0.1
    assert learnability_bound([0.1] * 1000, eta=0.34, sigma=0.25) == 1.0


def test_a_larger_distance_share_or_confidence_never_lowers_the_bound():
    accuracies = torch.rand(300, generator=torch.Generator().manual_seed(0)).tolist()
    base = {"eta": 0.1, "sigma": 0.25, "q": 0.5, "confidence": 0.9}
    for name, values in {"eta": (0, 0.1, 0.2), "q": (0.5, 0.7, 0.9), "confidence": (0.5, 0.9, 0.99)}.items():
        bounds = [learnability_bound(accuracies, **{**base, name: value}) for value in values]
        assert bounds == sorted(bounds) and bounds[0] < bounds[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"etas": [-1.0]}, "eta: -1.0; a distance must be 0 or above"),
        ({"sigma": 0.0}, "sigma: 0.0; it must be above 0"),
        ({"q": 1.0}, "q: 1.0; it must lie between 0 and 1"),
        ({"confidence": float("nan")}, "confidence: nan; it must lie between 0 and 1"),
        ({"draws": 0}, "draws: 0; it must be above 0"),
    ],
)
def test_a_certificate_of_nothing_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        certify(Threshold(0.5), staircase(), **{"etas": [0.1], "draws": 2, **arguments})


def generators():
    return torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)


def test_noise_is_fresh_spares_the_weights_and_lets_gradients_through():
    network = build("small_resnet", 4, size=8).eval()
    before = copy.deepcopy(network.state_dict())
    noisy = NoisyWeights(network, 0.1, *generators()).eval()
    x = torch.rand(4, 3, 8, 8)
    one, two = noisy(x)[0], noisy(x)[0]
    assert not torch.allclose(one, two)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    one.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    silent = NoisyWeights(network, 1e-12, *generators()).eval()
    assert torch.allclose(silent(x)[0], network(x)[0], atol=1e-5)


@pytest.mark.parametrize("scope", ["class", "sample"])
def test_the_perturbed_images_are_fitted_even_under_noise_and_the_notes_tell(scope):
    images = some_images(n=48)
    poison = perturb(
        images, "pue", **TINY, epochs=6, scope=scope, steps=4, draws=2, epsilon="32/255", step=4 / 255, cache=False
    )
    rounds = poison.record["notes"]["rounds"]
    assert [row["round"] for row in rounds] == list(range(1, len(rounds) + 1))
    assert rounds[-1]["accuracy_on_perturbed"] > 0.9 > rounds[0]["accuracy_on_perturbed"]
    assert rounds[-1]["surrogate_loss"] < rounds[0]["surrogate_loss"]


def test_a_class_shares_its_delta():
    grey = Images(torch.full((24, 3, 8, 8), 128, dtype=torch.uint8), torch.arange(24) % 3)
    delta = perturb(grey, "pue", **TINY, epochs=2, cache=False).delta
    for label in range(3):
        assert len(delta[grey.y == label].unique(dim=0)) == 1
    assert len(delta.unique(dim=0)) == 3


def test_presets_cost_what_they_promise():
    assert options("pue", "quick").passes < 30 and options("pue", "laptop").passes <= 120
    paper = options("pue", "paper")
    assert (paper.sigma, paper.draws, paper.scope, paper.step * 255) == (0.25, 60, "class", pytest.approx(0.8))
