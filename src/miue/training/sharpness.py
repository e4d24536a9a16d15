"""Sharpness: how much the loss can change by moving one layer a little, and how many layers still learn.

Ye, Su & Qian, "How Far Are We from True Unlearnability?", ICLR 2025, read unlearnability off the training instead of
its end: where images are unlearnable, most layers come to lie where the loss is flat, and a step moves nothing. Their
sharpness-aware learnability (SAL, definition 1) is `sharpness` here, their unlearnable distance (UD, definition 3)
`unlearnable_distance`. What is unclear in the text we read as in the authors' code.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from miue.data.images import Images
from miue.errors import InputError
from miue.models.network import evaluating
from miue.precision import arithmetic
from miue.training.loop import Trained

__all__ = ["sharpness", "unlearnable_distance"]

REACH = 2.5
"""Steps are so many times as long, together, as the radius, so that they can walk along its sphere."""


def sharpness(given: nn.Module | Trained, images: Images, *, radius: float = 0.05, steps: int = 10) -> dict[str, float]:
    """Measure by how much the loss can change when one layer's weights move a little: SAL of every layer.

    For weights W of a convolution or linear layer, all others held fixed, it is the most that L(W + D) differs from
    L(W) over all D with a norm of at most `radius` times that of W (both Frobenius), L being the mean cross-entropy on
    `images` in evaluation mode. It is searched by steps of one length along the gradient, once up and once down, and
    kept within the radius; so it is a lower bound, exact where the loss has one slope. Published is the search by SGD
    at a learning rate of 0.1, in batches, ten passes each way, at a radius of 0.05; ours takes one step a pass along
    the gradient over all images, whatever its size, so that it reaches the sphere also where the loss is nearly flat.

    Args:
        given: a network that returns (logits, features), or a victim; it is left as it was.
        images: those that it is trained on, to ask how much it may still learn of them; no augmentation.
        radius: as a share of the norm of the weights, above 0.
        steps: each way, at least 1.

    Returns:
        For each layer, by its name in the network and in its order, nats, 0 or more. Each layer takes
        `2 * steps + 1` passes over the images, forward and backward, so a few hundred images are advised.

    Raises:
        InputError: radius or steps out of range.

    Example:
        >>> import miue
        >>> from miue.training.sharpness import sharpness
        >>> train, _ = miue.load("digits_m", n_train=40, n_test=20)
        >>> found = sharpness(miue.models.build("mlp2:width=0.1", 10), train)
        >>> list(found), min(found.values()) > 0
        (['body.hidden1.0', 'head'], True)
    """
    if not 0 < radius < math.inf:
        raise InputError(f"radius: {radius}; it must be a number above 0")
    if steps < 1:
        raise InputError(f"steps: {steps}; it must be at least 1")
    network = given if isinstance(given, nn.Module) else given.model
    view = images.on(next(network.parameters()).device)
    with evaluating(network), arithmetic("float32"):
        return {name: max(_changes(network, name, view, radius, steps)) for name in _layers(network)}


def _layers(network: nn.Module) -> list[str]:
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return [name for name, layer in network.named_modules() if isinstance(layer, kinds)]


def _changes(network: nn.Module, name: str, images: Images, radius: float, steps: int) -> Iterator[float]:
    """How far the loss rises, and how far it falls, at the most."""
    weights = network.get_parameter(f"{name}.weight").detach()
    reach = radius * weights.norm()
    length = min(1.0, REACH / steps) * reach
    start, slope = _loss(network, name, weights, images)
    for sign in (1, -1):
        moved, gradient, found = torch.zeros_like(weights), slope, [0.0]
        for _ in range(steps):
            moved = moved + sign * length * gradient / gradient.norm().clamp(min=1e-12)
            moved = moved * reach / torch.maximum(moved.norm(), reach).clamp(min=1e-12)
            loss, gradient = _loss(network, name, weights + moved, images)
            found.append(sign * (loss - start))
        yield max(found)


def _loss(network: nn.Module, name: str, weights: Tensor, images: Images) -> tuple[float, Tensor]:
    """The mean loss with `weights` in place of a layer's own, and its gradient in them."""
    weights = weights.clone().requires_grad_(True)
    total, gradient = torch.zeros((), device=weights.device), torch.zeros_like(weights)
    for index in images.chunks():
        x, y = images.batch(index)
        logits, _ = functional_call(network, {f"{name}.weight": weights}, (x.float() / 255,))
        loss = F.cross_entropy(logits, y, reduction="sum") / len(images)
        gradient += torch.autograd.grad(loss, weights)[0]
        total += loss.detach()
    return float(total), gradient


def unlearnable_distance(suspect: Sequence[Mapping[str, float]], clean: Sequence[Mapping[str, float]]) -> float:
    """Compare how many layers still learn from images with how many learn from clean ones: UD.

    A layer learns in an epoch where its sharpness exceeds a threshold: the mean, over the epochs of clean training, of
    the middle between the two centres that best divide the sharpnesses of all layers in two (2-means). UD is the
    number of layers that learn, on the average over epochs, in the one training over that in the other. The authors'
    code counts layers, as here; their text says parameters.

    Args:
        suspect: what `sharpness` found after each epoch of a training on the images in question.
        clean: the same of a training of the same network on clean images.

    Returns:
        0 or more: 1 where both trainings learn alike, the less the more unlearnable.

    Raises:
        InputError: no epoch, other layers, or all layers of the clean training are equally sharp.

    Example:
        >>> from miue.training.sharpness import unlearnable_distance
        >>> clean = [{"first": 0.1, "second": 2.1, "third": 1.9}, {"first": 0.2, "second": 1.8, "third": 2.2}]
        >>> unlearnable_distance([{"first": 0.1, "second": 0.3, "third": 1.6}], clean)
        0.5
    """
    for argument, epochs in (("clean", clean), ("suspect", suspect)):
        if not epochs or any(epoch.keys() != clean[0].keys() for epoch in epochs):
            raise InputError(f"{argument}: it must have an epoch, and the same layers in all epochs of both trainings")
    threshold = sum(_middle(sorted(epoch.values())) for epoch in clean) / len(clean)
    ours, theirs = (
        sum(value > threshold for epoch in epochs for value in epoch.values()) / len(epochs)
        for epochs in (suspect, clean)
    )
    if not theirs:
        raise InputError("clean: all layers are equally sharp, so that none can be said to learn")
    return ours / theirs


def _middle(values: Sequence[float]) -> float:
    """The middle between the centres of the best division of sorted values in two, the exact 2-means."""

    def spread(part: Sequence[float]) -> float:
        mean = sum(part) / len(part)
        return sum((value - mean) ** 2 for value in part)

    if len(values) == 1:
        return values[0]
    cut = min(range(1, len(values)), key=lambda at: spread(values[:at]) + spread(values[at:]))
    return (sum(values[:cut]) / cut + sum(values[cut:]) / (len(values) - cut)) / 2
