"""What all methods share: `Poison`, the result that knows its pictures, and the sweep over the pictures."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from miue.errors import InputError
from miue.files import atomic
from miue.images import CHUNK, Images
from miue.models import Network, build, forward
from miue.pgd import Budget, fit_to_pictures, pgd
from miue.store import provenance


@dataclass(frozen=True)
class Poison:
    """A perturbation of labelled pictures.

    Args:
        delta: (N, C, H, W) int8 pixel levels.
        ids: (N,) int64, the `Images.ids` that the rows belong to.
        fingerprints: (N,) int64, the `Images.fingerprints` of the clean pictures.
        record: method, options, seed, budget, data and provenance; JSON.
    """

    delta: Tensor
    ids: Tensor
    fingerprints: Tensor
    record: dict[str, Any] = field(default_factory=dict)
    source: str = "this perturbation"

    def apply(self, images: Images) -> Images:
        """Add the perturbation: exact uint8, clipped to 0..255; rows are matched by id, so order does not matter.

        Raises:
            InputError: a picture of `images` has no row here, or its pixels or label are not those it was made for.
        """
        order = torch.argsort(self.ids)
        place = torch.searchsorted(self.ids[order], images.ids.cpu()).clamp(max=len(order) - 1)
        rows = order[place]
        missing = self.ids[rows] != images.ids.cpu()
        if missing.any():
            raise InputError(
                f"{self.source} was made for other images: {int(missing.sum())} of the {len(images)} pictures of "
                f"{images.name} have no row in it"
            )
        other = self.fingerprints[rows] != images.fingerprints
        if self.delta.shape[1:] != images.shape or other.any():
            made_for = self.record.get("data", {})
            raise InputError(
                f"{self.source} was made for other images (content hash {made_for.get('content_hash', 'unknown')}, "
                f"{made_for.get('data', 'unknown')}): {int(other.sum())} of the {len(images)} pictures of "
                f"{images.name} (content hash {images.content_hash}) differ in pixels or label"
            )
        return images.plus(self.delta[rows].to(images.device))

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically; the record goes into its header."""
        tensors = {"delta": self.delta, "ids": self.ids, "fingerprints": self.fingerprints}
        with atomic(path) as part:
            save_file({k: v.contiguous() for k, v in tensors.items()}, part, {"miue": json.dumps(self.record)})

    @classmethod
    def load(cls, path: str | Path) -> "Poison":
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            InputError: no such file, truncated, or no perturbation of this package.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"poison: {path} does not exist")
        try:
            with safe_open(path, "pt") as file:
                delta, ids, fingerprints = (file.get_tensor(k) for k in ("delta", "ids", "fingerprints"))
                record = json.loads(file.metadata()["miue"])
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise InputError(f"poison: {path} is damaged or no perturbation file of miue ({error})") from None
        if (
            delta.ndim != 4
            or delta.dtype != torch.int8
            or ids.shape != delta.shape[:1]
            or fingerprints.shape != ids.shape
        ):
            raise InputError(
                f"poison: {path} holds delta {tuple(delta.shape)} {delta.dtype} for {len(ids)} ids; "
                "it must be (N, C, H, W) int8 with N ids and fingerprints"
            )
        return cls(delta, ids, fingerprints, record, str(path))


Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # of logits (B, classes), features (B, d), labels (B,)


@dataclass(frozen=True)
class Made:
    """What a method returns: delta, (N, C, H, W) int8 levels, and JSON notes on how it went."""

    delta: Tensor
    notes: dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A method: the function that makes delta, and its presets (named instances of its options)."""

    make: Callable[..., Made]
    presets: Mapping[str, Any]


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


def sweep(
    network: nn.Module,
    images: Images,
    delta: Tensor,
    objective: Objective,
    *,
    batch: int,
    budget: Budget,
    step: float,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Improve `delta` in place, once for every picture, by descent on `objective` of the network as it stands.

    Gradients are float32 whatever the victims use: made in bfloat16, source network and gradients, the quick MI-UE
    perturbation of Digits-M left its victim 40 % instead of 17 % (one run each).
    """
    fixed = fuse(network.eval())  # a copy with batch norm folded into the convolutions, a fifth faster

    def loss(pictures: Tensor, labels: Tensor) -> Tensor:
        return objective(*forward(fixed, pictures), labels)

    for index in balanced_batches(images.y, batch, generator):
        x, y = images.batch(index)
        at = index.to(delta.device)
        delta[at] = pgd(loss, x, y, delta[at], budget=budget, step=step, steps=steps)


def make(method: Method, name: str, images: Images, model: str, budget: Budget, options: Any, seed: int) -> Poison:
    """Run `method` on `images` in the order of their ids, so that the order they come in does not matter."""
    order = torch.argsort(images.ids)
    ordered = images.subset(order)
    start = time.perf_counter()
    made = method.make(ordered.on(images.device), model, budget, options, seed)
    seconds = time.perf_counter() - start
    if made.delta.abs().max() > budget.levels:
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
        "model": model,
        "epsilon": budget.epsilon,
        "levels": budget.levels,
        "seed": seed,
        "data": images.record(),
        "seconds": seconds,
        "notes": made.notes,
        **provenance(images.device),
    }
    return Poison(delta, ordered.ids, ordered.fingerprints, record)
