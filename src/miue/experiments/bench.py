"""Speed of a network on this machine, measured once and kept: what estimates of time rest on."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F

from miue.errors import InputError
from miue.models import build, builder, forward
from miue.models.frozen import Frozen
from miue.poisons.base import on_outputs
from miue.precision import arithmetic
from miue.precision import precision as resolve
from miue.progress import say
from miue.storage import cache, code, files, provenance
from miue.storage.files import cache_dir
from miue.training.loop import default_device

SECONDS = 0.6
"""How long each of the three passes is measured."""


@dataclass(frozen=True)
class Speed:
    """Images per second of one pass through a network, by what the pass is for.

    Args:
        training: forward and backward, with gradients of the weights.
        attack: forward and backward in evaluation mode, with gradients of the images alone, as a step of a
            perturbation takes them; float32 whatever the training's precision is.
        testing: forward only.
        batch: images in a batch when this was measured; below the one asked for where a batch takes long.
        measured: when.
        device: where; a processor with its number of threads.
    """

    training: float
    attack: float
    testing: float
    batch: int
    measured: str
    device: str


def measure(
    model: str,
    *,
    size: int = 32,
    channels: int = 3,
    n_classes: int = 10,
    precision: str = "float32",
    batch: int = 128,
    again: bool = False,
) -> Speed:
    """Measure how fast a network is here, about two seconds of work; found in the cache the next time.

    The speed of a network whose code is not of this package is measured each time.

    A machine that is busy with something else is slower, and that is kept: then measure `again` when it is free.

    Args:
        model: one of `miue.models.MODELS`, with options if wanted: "resnet18:width=0.25".
        size: height and width of the images in pixels.
        channels, n_classes: of the images.
        precision: of training and testing, one of `miue.precision.PRECISIONS`.
        batch: images in a batch, at least 2.
        again: measure although a result is kept.

    Raises:
        InputError: unknown model or precision; a size or number that no network takes.
    """
    if batch < 2:
        raise InputError(f"batch: {batch}; it must be 2 or above, for batch norm trains on no single image")
    device = default_device()
    number, name = resolve(precision, device), provenance.device_name(device)
    key = cache.key(
        model=model,
        shape=[channels, size, n_classes],
        precision=number,
        batch=batch,
        device=name,
        torch=torch.__version__,
        code=[code.code_hash(f"miue.{module}") for module in ("experiments.bench", "models")],
    )
    path = cache_dir() / "bench" / f"{key}.json"
    foreign = code.foreign_code(builder(model))
    if not (again or foreign):
        with suppress(InputError, TypeError):  # nothing was measured before, or the file is damaged
            return Speed(**files.read_json(path))
    passes = _Passes(model, size, channels, n_classes, number, device)
    fitting = _fitting_batch(passes.training, batch)
    say(f"bench: measuring {model}, {channels}x{size}x{size}, {n_classes} classes, {number}, batches of {fitting}")
    found = Speed(
        training=_rate(passes.training, fitting),
        attack=_rate(passes.attack, fitting),
        testing=_rate(passes.testing, fitting),
        batch=fitting,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        device=name,
    )
    if not foreign:
        files.write_json(path, asdict(found))
    return found


def table(models: Sequence[str], sizes: Sequence[int], **what: Any) -> pd.DataFrame:
    """`measure` for each model and size: one row for each, with the columns of `Speed`."""
    pairs = [(model, size) for model in models for size in sizes]
    rows = [{"model": model, "size": size, **asdict(measure(model, size=size, **what))} for model, size in pairs]
    return pd.DataFrame(rows)


class _Passes:
    """The three passes of one network on images of noise, each as a function of the number of images."""

    def __init__(
        self, model: str, size: int, channels: int, n_classes: int, precision: str, device: torch.device
    ) -> None:
        self.network = build(model, n_classes, channels=channels, size=size).to(device)
        self.loss = on_outputs(Frozen(self.network), lambda logits, features, labels: F.cross_entropy(logits, labels))
        self.shape, self.n_classes, self.precision, self.device = (channels, size, size), n_classes, precision, device

    def batch(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.rand(count, *self.shape, device=self.device)
        return images, torch.arange(count, device=self.device) % self.n_classes

    def training(self, count: int) -> None:
        images, labels = self.batch(count)
        with arithmetic(self.precision):
            logits, _ = forward(self.network.train(), images, self.precision)
            self.network.zero_grad()
            F.cross_entropy(logits, labels).backward()
        self._wait()

    def attack(self, count: int) -> None:
        images, labels = self.batch(count)
        with arithmetic("float32"):
            torch.autograd.grad(self.loss(images.requires_grad_(), labels), images)
        self._wait()

    @torch.no_grad()
    def testing(self, count: int) -> None:
        images, _ = self.batch(count)
        with arithmetic(self.precision):
            forward(self.network.eval(), images, self.precision)
        self._wait()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _fitting_batch(run: Callable[[int], None], wanted: int) -> int:
    """The largest batch, by doubling up to `wanted`, whose pass stays well within the time of a measurement."""
    run(2)  # the first pass sets up what later ones find
    count = min(8, wanted)  # fewer would mostly measure the update of the weights
    while count < wanted and _seconds(run, count) < SECONDS / 3:
        count = min(2 * count, wanted)
    return count


def _rate(run: Callable[[int], None], count: int) -> float:
    """Images per second of the fastest of at least three passes; what else the machine does slows the others."""
    took: list[float] = []
    while len(took) < 3 or sum(took) < SECONDS:
        took.append(_seconds(run, count))
    return count / min(took)


def _seconds(run: Callable[[int], None], count: int) -> float:
    began = time.perf_counter()
    run(count)
    return time.perf_counter() - began
