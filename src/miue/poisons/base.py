"""What all methods share: the sweep over the pictures, and `make`, which turns their work into a `Poison`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from miue.images import CHUNK, Images
from miue.models import Network, build, forward
from miue.pgd import Budget, fit_to_pictures, pgd
from miue.poisons.poison import Poison
from miue.store import provenance

Loss = Callable[[Tensor, Tensor], Tensor]  # of pictures (B, C, H, W), float in [0, 1], and labels (B,)
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits (B, classes), features (B, d), labels (B,)


@dataclass(frozen=True)
class Made:
    """What a method returns: delta, (N, C, H, W) int8 (or int16) levels, and JSON notes on how it went."""

    delta: Tensor
    notes: dict[str, Any]


class Options(Protocol):
    """What the options of every method tell."""

    @property
    def passes(self) -> float:
        """What generation costs at most: forward-and-backward passes over the data."""


@dataclass(frozen=True)
class Method:
    """A method: the function that makes delta, and its presets (named instances of its options).

    Args:
        make: called with pictures, source model, budget, options and seed.
        presets: "quick", "laptop" and "paper".
        bounded: whether it respects the budget; the methods that do not are marked wherever they appear.
    """

    make: Callable[..., Made]
    presets: Mapping[str, Any]
    bounded: bool = True


def source_network(model: str, images: Images, seed: int) -> Network:
    """Build the network whose gradients shape delta, on the images' device."""
    channels, size, _ = images.shape
    return build(model, len(images.classes), channels=channels, size=size, seed=seed).to(images.device)


def balanced_batches(labels: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Shuffle all indices into batches of at most `size` in which every class has its share.

    Each class is spread evenly over [0, 1); reading from left to right then mixes the classes in proportion.
    """
    labels = labels.cpu()
    position = torch.empty(len(labels))
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        place = torch.randperm(len(members), generator=generator) + torch.rand(len(members), generator=generator)
        position[members] = place / len(members)
    return position.argsort().tensor_split(-(-len(labels) // size))


def on_outputs(network: nn.Module, objective: Objective) -> Loss:
    """Turn an objective on a network's outputs into a loss on pictures, with the network as it stands now.

    The loss is float32 whatever the victims use: made in bfloat16, source network and gradients, the quick MI-UE
    perturbation of Digits-M left its victim 40 % instead of 17 % (one run each).
    """
    fixed = fuse(network.eval())  # a copy with batch norm folded into the convolutions, a fifth faster

    def loss(pictures: Tensor, labels: Tensor) -> Tensor:
        return objective(*forward(fixed, pictures), labels)

    return loss


def sweep(
    images: Images,
    delta: Tensor,
    loss: Loss,
    *,
    batch: int,
    budget: Budget,
    step: float,
    steps: int,
    generator: torch.Generator,
    ascend: bool = False,
    begin: Callable[[Tensor], object] = lambda rows: None,
) -> None:
    """Improve `delta` in place, once for every picture, by descent on `loss` (ascent, if so asked).

    Before the steps of each batch, `begin` is told the rows of `images` in it, for a loss that has to know them.
    """
    for index in balanced_batches(images.y, batch, generator):
        x, y = images.batch(index)
        at = index.to(delta.device)
        begin(index)
        delta[at] = pgd(loss, x, y, delta[at], budget=budget, step=step, steps=steps, ascend=ascend)


def make(method: Method, name: str, images: Images, model: str, budget: Budget, options: Any, seed: int) -> Poison:
    """Run `method` on `images` in the order of their ids, so that the order they come in does not matter."""
    ordered = images.subset(torch.argsort(images.ids)).on(images.device)
    start = time.perf_counter()
    made = method.make(ordered, model, budget, options, seed)
    seconds = time.perf_counter() - start
    if method.bounded and made.delta.abs().max() > budget.levels:
        raise AssertionError(f"{name} left its budget of {budget.levels} levels")
    delta = torch.cat(
        [
            fit_to_pictures(made.delta[index.to(made.delta.device)], ordered.batch(index)[0]).cpu()
            for index in torch.arange(len(ordered)).split(CHUNK)
        ]
    )
    record = {
        "method": name,
        "options": asdict(options),
        "passes": options.passes,
        "model": model,
        "bounded": method.bounded,
        "epsilon": budget.epsilon if method.bounded else None,
        "levels": budget.levels if method.bounded else int(delta.abs().max()),
        "seed": seed,
        "data": images.record(),
        "seconds": seconds,
        "notes": made.notes,
        **provenance(images.device),
    }
    return Poison(delta, ordered.ids, ordered.fingerprints, record)
