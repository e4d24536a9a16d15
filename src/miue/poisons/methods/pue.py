"""PUE: provably unlearnable examples, and a certificate of how much can be learned from perturbed images.

Wang, Xue, Li, Camtepe & Zhu, "Provably Unlearnable Data Examples", NDSS 2025: error-minimising noise (see
`miue.poisons.methods.em`) whose loss is averaged over networks with Gaussian noise on their weights, so that it stays
low in a neighbourhood of the surrogate; the surrogate is trained under the same noise. `certify` bounds the test
accuracy that networks near a given one reach, by smoothing over the weights.

Each step of a pgd pass costs `draws` passes instead of one; the authors' code takes 60, ten at each of the six scales
0, 0.05, ..., 0.25, and 600 for each batch of the surrogate's training, once its accuracy exceeds 50 %. Here every draw
has its own scale, uniform in [0, sigma], the surrogate trains on one draw for each batch, from the start, and sigma is
0.02 except in the paper preset. Published: one delta per class, steps of 0.8/255, a cost of 210 times EM's.

Measured on 3,000 images of CIFAR-10 (JPEG-75 copy), preset quick, at most 60 passes, two perturbations, victims of
thirty epochs: on clean test images a half-width small_resnet has 12, a quarter-width VGG-11 15, a two-layer perceptron
31 and a linear network 32 %, where clean training has 59, 61, 45 and 34 %.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from miue import seeds
from miue.data.images import Images
from miue.errors import Count, InputError, Positive
from miue.models import forward
from miue.poisons.base import Made, Task
from miue.poisons.methods.em import EM, minimise
from miue.precision import loss_scale, precision
from miue.training import loop
from miue.training.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class PUE(EM):
    """Options of PUE: those of EM, and

    Args:
        sigma: largest standard deviation of the noise on each weight; every draw has a scale uniform in [0, sigma].
        draws: noisy networks that each step averages over.
    """

    scope: Annotated[str, ("sample", "class")] = "class"
    sigma: Positive = 0.02
    draws: Count = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mine:
            raise InputError(f"mine: {self.mine}; PUE takes no MINE term, it must be 0")

    @property
    def passes(self) -> float:
        """As those of EM, each step for as many networks as are drawn."""
        return self.surrogate.epochs * (1 + self.draws * (self.steps if self.scope == "sample" else 1))


_SURROGATE = Recipe(epochs=7, lr=0.1, schedule="constant", clip_norm=5.0, batches_per_epoch=10, precision="float32")
_QUICK = PUE(surrogate=_SURROGATE, pass_batch=128)

PRESETS = {
    "quick": _QUICK,
    "laptop": replace(_QUICK, surrogate=replace(_SURROGATE, epochs=20), draws=5),
    "paper": replace(
        _QUICK, surrogate=replace(_SURROGATE, epochs=100, batches_per_epoch=20), stop_accuracy=0.9, sigma=0.25, draws=60
    ),
}


def pue(task: Task) -> Made:
    """Generate provably unlearnable noise; the notes hold one row per round and why the rounds ended.

    The surrogate, too, trains under the noise, one draw for each batch. Its accuracy on the perturbed images, which
    ends the rounds, is that under noise.
    """
    options: PUE = task.options
    network, device = task.network(), task.images.device
    draws, noise = task.stream("perturbation"), task.stream("perturbation noise", device)
    noisy = NoisyWeights(network, options.sigma, draws, noise)
    task.keep.hold(draws=draws, noise=noise)
    number = precision(options.surrogate.precision, device)

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        noisy.eval()
        drawn = [F.cross_entropy(forward(noisy, x, number)[0], labels) for _ in range(options.draws)]
        return loss_scale(number) * torch.stack(drawn).mean()

    return minimise(task, noisy, loss)


class NoisyWeights(nn.Module):
    """A network whose weights get fresh Gaussian noise in every forward pass; gradients reach its own weights.

    Args:
        network: its buffers (the statistics of batch norm) stay free of noise.
        sigma: largest standard deviation; that of a pass is uniform in [0, sigma].
        generator: of the standard deviations, on the CPU.
        noise: of the noise itself, on the weights' device.
    """

    def __init__(self, network: nn.Module, sigma: float, generator: torch.Generator, noise: torch.Generator) -> None:
        super().__init__()
        self.network, self.sigma, self.generator, self.noise = network, sigma, generator, noise

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W), float in [0, 1], to the logits and features of one draw."""
        scale = self.sigma * float(torch.rand((), generator=self.generator))
        weights = {
            name: weight + scale * torch.randn(weight.shape, generator=self.noise, device=weight.device)
            for name, weight in self.network.named_parameters()
        }
        return functional_call(self.network, weights, (x,))


@torch.no_grad()
def noisy_accuracies(network: nn.Module, images: Images, *, sigma: float, draws: int, seed: int = 0) -> list[float]:
    """Accuracies on `images` of `draws` copies of `network` with N(0, sigma^2) noise on every weight, ascending."""
    noise = seeds.stream(seed, "certificate noise", next(network.parameters()).device)
    found = []
    for _ in range(draws):
        noisy = copy.deepcopy(network)
        for weight in noisy.parameters():
            weight.add_(sigma * torch.randn(weight.shape, generator=noise, device=weight.device))
        found.append(loop.accuracy(noisy, images))
    return sorted(found)


def learnability_bound(
    accuracies: Sequence[float], *, eta: float, sigma: float, q: float = 0.9, confidence: float = 0.99
) -> float:
    """Certified (q, eta)-learnability from accuracies under noise; the statement stands with `certify`.

    The j-th smallest of n independent draws lies below the q'-quantile with probability at most
    1 - BinomialCDF(j - 1; n, q'); the bound is the smallest draw for which that is at most 1 - confidence.

    Returns:
        One of `accuracies`, or 1.0, which says nothing, where they are too few for this eta.
    """
    from scipy.stats import binom, norm  # a second to import, and only needed here

    _check(eta=eta, sigma=sigma, q=q, confidence=confidence)
    shifted = norm.cdf(norm.ppf(q) + eta / sigma)
    above = int(binom.ppf(confidence, len(accuracies), shifted))
    return sorted(accuracies)[above] if above < len(accuracies) else 1.0


def certify(
    network: nn.Module,
    images: Images,
    *,
    etas: Sequence[float],
    sigma: float = 0.25,
    q: float = 0.9,
    draws: int = 1000,
    confidence: float = 0.99,
    seed: int = 0,
) -> dict[float, float]:
    """Bound the accuracy of classifiers whose weights lie near those of `network`: certified (q, eta)-learnability.

    Write A(w) for the accuracy on `images` of this architecture with weights w, and w0 for the weights of `network`.
    Statement: with probability at least `confidence` over the draws made here, for every shift v with `|v|_2 <= eta`,

        P( A(w0 + v + e) <= bound ) >= q,   e ~ N(0, sigma^2 I).

    Why: let t be the q'-quantile of A(w0 + e), q' = Phi(Phi^-1(q) + eta / sigma). The event A > t has probability at
    most 1 - q' under N(w0, sigma^2 I), hence at most Phi(Phi^-1(1 - q') + eta / sigma) = 1 - q under N(w0 + v,
    sigma^2 I), by the lemma of Neyman and Pearson (so Chiang et al., "Detection as Regression: Certified Object
    Detection with Median Smoothing", NeurIPS 2020). `learnability_bound` puts an order statistic of the draws above t.

    What it takes for granted, and what it does not say:

    - All weights move, in the coordinates of `network`; the buffers (statistics of batch norm) are those of `network`.
    - It holds for a classifier with Gaussian noise on its weights, with probability q over that noise. It is no bound
      for the one classifier w0 + v, and none for classifiers further away than eta, as those trained from another
      start are, by far.
    - `images` are the population: what is bounded is accuracy on these images.
    - Noise that ruins every network gives a low bound for all of them. Compare with the bound of a network trained on
      clean images, at the same sigma. (A small_resnet trained without noise on clean Digits-M, accuracy 0.36 after 8
      epochs on 1,000 images, had 0.16 to 0.33 at sigma 0.01 and chance from 0.05 upwards, in 6 draws each.)

    Args:
        network: trained on the perturbed images; returns (logits, features).
        images: clean test images.
        etas: L2 distances of the weights; each bound holds with `confidence` on its own.
        sigma: standard deviation of the noise on each weight.
        q: the share of noisy classifiers that is bounded, in (0, 1).
        draws: noisy networks to measure.
        confidence: in (0, 1).
        seed: of the draws.

    Returns:
        The bound in [0, 1] by eta; 1.0 where `draws` are too few: the default 1,000 reach eta = 1.32 sigma.
    """
    for eta in etas:
        _check(eta=eta, sigma=sigma, q=q, confidence=confidence)
    if draws < 1:
        raise InputError(f"draws: {draws}; it must be above 0")
    found = noisy_accuracies(network, images, sigma=sigma, draws=draws, seed=seed)
    return {eta: learnability_bound(found, eta=eta, sigma=sigma, q=q, confidence=confidence) for eta in etas}


def _check(*, eta: float, sigma: float, q: float, confidence: float) -> None:
    if not eta >= 0:
        raise InputError(f"eta: {eta}; a distance must be 0 or above")
    if not sigma > 0:
        raise InputError(f"sigma: {sigma}; it must be above 0")
    for name, value in (("q", q), ("confidence", confidence)):
        if not 0 < value < 1:
            raise InputError(f"{name}: {value}; it must lie between 0 and 1")
