"""Speeds of networks and estimates on this machine: what estimates of time rest on, and `miue bench` tells."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from miue.errors import InputError
from miue.mi import sliced_mi
from miue.models import build, builders, forward
from miue.models.frozen import Frozen
from miue.poisons.passes import cross_entropy, on_outputs
from miue.precision import arithmetic, halves
from miue.precision import precision as resolve
from miue.progress import say
from miue.storage import cache, code, files, provenance
from miue.storage.files import cache_dir
from miue.training.loop import default_device

SECONDS = 0.6
"""How long each pass, and each convolution, is measured."""

CONVOLUTIONS = ((64, 32), (128, 16), (256, 8))
"""Channels and pixels of the 3 x 3 convolutions whose fastest counts as what the chip can do: those of a ResNet-18."""

INFORMATION = {"n": 10_000, "width": 128, "n_slices": 64}
"""The estimate whose time is told: KSG along so many slices of features of so many samples, as `sliced_mi` takes it."""


@dataclass(frozen=True)
class Speed:
    """Images per second of one pass through a network, by what the pass is for.

    Args:
        training: forward and backward, with gradients of the weights.
        attack: forward and backward in evaluation mode, with gradients of the images alone, as a step of a
            perturbation takes them.
        testing: forward only.
        training_work, attack_work: floating-point operations of one image, those of convolutions done directly.
        batch: images in a batch when this was measured; below the one asked for where a batch takes long.
        measured: when.
        device: where; a processor with its number of threads.
    """

    training: float
    attack: float
    testing: float
    training_work: float
    attack_work: float
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
        precision: one of `miue.precision.PRECISIONS`.
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
    foreign = code.foreign_code(*builders(model))
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
        training_work=_work(passes.training),
        attack_work=_work(passes.attack),
        batch=fitting,
        measured=provenance.now(),
        device=name,
    )
    if not foreign:
        files.write_json(path, asdict(found))
    return found


def peak(precision: str = "float32") -> float:
    """FLOP/s that a convolution of `CONVOLUTIONS` reaches here, forward and backward to the images, measured now.

    Raises:
        InputError: unknown precision.
    """
    device = default_device()
    number = resolve(precision, device)
    with arithmetic(number):
        return max(_convolution(channels, pixels, number, device) for channels, pixels in CONVOLUTIONS)


def _convolution(channels: int, pixels: int, precision: str, device: torch.device, batch: int = 64) -> float:
    """FLOP/s of one convolution, forward and backward to the images."""
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device).to(memory_format=torch.channels_last)
    layer.requires_grad_(False)
    images = torch.rand(batch, channels, pixels, pixels, device=device).contiguous(memory_format=torch.channels_last)

    def both(count: int) -> None:
        x = images[:count].requires_grad_()
        with halves(precision, device):
            out = layer(x)
        torch.autograd.grad(out, x, out.detach())
        _wait(device)

    return 4 * 9 * channels**2 * pixels**2 * _rate(both, _fitting_batch(both, batch))


def information() -> dict[str, float]:
    """Seconds of the estimate that `INFORMATION` describes, its standard errors included, and slices a second."""
    device, generator = default_device(), torch.Generator().manual_seed(0)
    n, width, n_slices = INFORMATION.values()
    x = torch.randn(n, width, generator=generator)
    y = 0.5 * x + 0.75**0.5 * torch.randn(n, width, generator=generator)
    x, y = x.to(device), y.to(device)
    sliced_mi(x[:500], y[:500], n_slices=2)  # what the first call sets up
    began = time.perf_counter()
    sliced_mi(x, y, n_slices=n_slices)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "slices/s": n_slices / seconds}


def table(models: Sequence[str], sizes: Sequence[int], precisions: Sequence[str], **what: Any) -> pd.DataFrame:
    """`measure` for each model, size and precision: one row for each, with the columns of `Speed`."""
    rows = [
        {
            "model": model,
            "size": size,
            "precision": precision,
            **asdict(measure(model, size=size, precision=precision, **what)),
        }
        for model in models
        for size in sizes
        for precision in precisions
    ]
    return pd.DataFrame(rows)


def report(
    models: Sequence[str], sizes: Sequence[int], precisions: Sequence[str] = ("float32",), **what: Any
) -> dict[str, Any]:
    """All that `miue bench` tells of a machine, as plain JSON.

    Returns:
        `networks`: the rows of `table`, each with its `utilisation`, of training and attack, of the `peaks` (FLOP/s by
        precision, see `peak`); `information`: see there; and what made them.
    """
    networks, peaks = table(models, sizes, precisions, **what), {number: peak(number) for number in precisions}
    top = networks["precision"].map(peaks)
    for kind in ("training", "attack"):
        networks[f"{kind}_utilisation"] = networks[kind] * networks[f"{kind}_work"] / top
    rows = networks.to_dict(orient="records")
    return {"networks": rows, "peaks": peaks, "information": INFORMATION | information(), **provenance.collect()}


class _Passes:
    """The three passes of one network on images of noise, each as a function of the number of images."""

    def __init__(
        self, model: str, size: int, channels: int, n_classes: int, precision: str, device: torch.device
    ) -> None:
        self.network = build(model, n_classes, channels=channels, size=size).to(device)
        self.loss = on_outputs(Frozen(self.network, precision), cross_entropy)
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
        _wait(self.device)

    def attack(self, count: int) -> None:
        images, labels = self.batch(count)
        with arithmetic(self.precision):
            torch.autograd.grad(self.loss(images.requires_grad_(), labels), images)
        _wait(self.device)

    @torch.no_grad()
    def testing(self, count: int) -> None:
        images, _ = self.batch(count)
        with arithmetic(self.precision):
            forward(self.network.eval(), images, self.precision)
        _wait(self.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _work(run: Callable[[int], None]) -> float:
    """Floating-point operations of a pass for each image."""
    with FlopCounterMode(display=False) as counter:
        run(2)
    return counter.get_total_flops() / 2


def _fitting_batch(run: Callable[[int], None], wanted: int) -> int:
    """The largest batch, by doubling up to `wanted`, whose pass stays well within the time of a measurement."""
    run(2)  # the first pass sets up what later ones find
    count = min(8, wanted)  # fewer would mostly measure the update of the weights
    while count < wanted and _seconds(run, count) < SECONDS:
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
