"""What all methods share: the sweep over the pictures, and `make`, which turns their work into a `Poison`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from miue import memory
from miue.checkpoint import Checkpoint
from miue.images import Images
from miue.models import Network, build, forward
from miue.pgd import Budget, fit_to_pictures, pgd
from miue.poisons.poison import Poison
from miue.progress import tell
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
        make: called with pictures, source model, budget, options, seed, and the checkpoint in which it keeps its state.
        presets: "quick", "laptop" and "paper".
        bounded: whether it respects the budget; the methods that do not are marked wherever they appear.
    """

    make: Callable[..., Made]
    presets: Mapping[str, Any]
    bounded: bool = True


def source_network(model: str, images: Images, seed: int) -> Network:
    """Build the network whose gradients shape delta, on the images' device."""
    channels, *size = images.shape
    return build(model, len(images.classes), channels=channels, size=size, seed=seed).to(images.device)


def blank(images: Images, dtype: torch.dtype = torch.int8) -> Tensor:
    """Make a delta of zeros, (N, C, H, W): on the images' device, or in a file where it would not fit."""
    return memory.zeros((len(images), *images.shape), dtype, images.device)


def put(delta: Tensor, index: Tensor, levels: Tensor) -> None:
    """Write `levels`, (B, C, H, W) of whole numbers, into the rows `index` of `delta`, wherever that lies."""
    delta[index.to(delta.device)] = levels.to(delta)


def uniform(images: Images, budget: Budget, generator: torch.Generator) -> Tensor:
    """Draw a delta, (N, C, H, W) int8: every whole level of the budget is as likely; `generator` is on the CPU."""
    delta, most = blank(images), budget.levels
    for index in images.chunks():
        shape = (len(index), *images.shape)
        put(delta, index, torch.randint(-most, most + 1, shape, generator=generator, dtype=torch.int8))
    return delta


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
    keep: Checkpoint | None = None,
) -> None:
    """Improve `delta` in place, once for every picture, by descent on `loss` (ascent, if so asked).

    Before the steps of each batch, `begin` is told the rows of `images` in it, for a loss that has to know them. A long
    sweep has a checkpoint of its own, `keep`, and goes on at the batch where it was stopped.
    """
    order = balanced_batches(images.y, batch, generator)
    keep = Checkpoint() if keep is None else keep
    keep.hold(delta=delta, generator=generator)
    for number in range(keep.restore(), len(order)):
        index = order[number]
        x, y = images.batch(index)
        start = delta[index.to(delta.device)].to(x.device)
        begin(index)
        put(delta, index, pgd(loss, x, y, start, budget=budget, step=step, steps=steps, ascend=ascend))
        tell(pictures=steps * len(y))
        keep.save(number + 1)


def make(
    method: Method,
    name: str,
    images: Images,
    model: str,
    budget: Budget,
    options: Any,
    seed: int,
    keep: Checkpoint | None = None,
) -> Poison:
    """Run `method` on `images` in the order of their ids, so that the order they come in does not matter."""
    about = images.record()  # before the pictures are ordered, so that they are hashed once
    ordered = images.subset(torch.argsort(images.ids)).on(images.device)
    keep = Checkpoint() if keep is None else keep
    made = method.make(ordered, model, budget, options, seed, keep)
    largest = 0
    for index in ordered.chunks():
        x, _ = ordered.batch(index)
        levels = made.delta[index.to(made.delta.device)].to(x.device)
        if method.bounded and int(levels.abs().max()) > budget.levels:
            raise AssertionError(f"{name} left its budget of {budget.levels} levels")
        fitted = fit_to_pictures(levels, x)
        largest = max(largest, int(fitted.abs().max()))
        put(made.delta, index, fitted)
    record = {
        "method": name,
        "options": asdict(options),
        "passes": options.passes,
        "model": model,
        "bounded": method.bounded,
        "epsilon": budget.epsilon if method.bounded else None,
        "levels": budget.levels if method.bounded else largest,
        "seed": seed,
        "data": about,
        "seconds": keep.seconds,
        "notes": made.notes,
        **provenance(images.device),
    }
    return Poison(made.delta.cpu(), ordered.ids, ordered.fingerprints, record)
