"""Networks that return `(logits, features)`; features are what feeds the last linear layer.

Every network takes images as float in [0, 1] and normalises them itself, so that a perturbation means the same to
each of them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from miue.errors import InputError, choose
from miue.models.plain import lenet5, linear, mlp2, mlp3, small_resnet, wrn34_10
from miue.precision import halves
from miue.specs import parse

__all__ = ["MODELS", "Network", "build", "check", "forward"]

MIN_SIZE = 8
MAX_WIDTH = 8


class Network(nn.Module):
    """A feature extractor and a linear head.

    Args:
        body: maps (B, C, H, W), roughly in [-2, 2], to features (B, d).
        width: d.
        n_classes: number of logits.
        spec: what `build` was called with, so that saved weights can find their network again.
    """

    def __init__(self, body: nn.Module, width: int, n_classes: int, spec: dict) -> None:
        super().__init__()
        self.body, self.head, self.spec = body, nn.Linear(width, n_classes), spec

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W), float in [0, 1], to logits (B, n_classes) and features (B, d)."""
        features = self.body((x - 0.5) / 0.25)
        return self.head(features), features


Size = tuple[int, int]  # height and width of an image in pixels
Builder = Callable[[int, Size, float], tuple[nn.Module, int]]  # of channels, size and width: the body and its features


def _from_torchvision(name: str) -> Builder:
    def builder(channels: int, size: Size, width: float) -> tuple[nn.Module, int]:
        from miue.models.vision import BUILDERS

        return BUILDERS[name](channels, size, width)

    return builder


MODELS: dict[str, Builder] = {
    "small_resnet": small_resnet,
    "linear": linear,
    "mlp2": mlp2,
    "mlp3": mlp3,
    "lenet5": lenet5,
    "vgg11": _from_torchvision("vgg11"),
    "vgg19": _from_torchvision("vgg19"),
    "resnet18": _from_torchvision("resnet18"),
    "resnet50": _from_torchvision("resnet50"),
    "densenet121": _from_torchvision("densenet121"),
    "wrn34_10": wrn34_10,
    "vit": _from_torchvision("vit"),
}
"""The functions that make the bodies of the networks, by name."""


def _read(spec: str) -> tuple[str, float]:
    """The name and the width factor that `spec` asks for."""
    name, options = parse(spec)
    choose("model", name, MODELS)
    if name == "linear" and options:
        raise InputError(f"model: {spec!r}; linear has no options")
    for option in options:
        choose(f"option of {name}", option, ["width"])
    width = options.get("width", 1)
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= MAX_WIDTH:
        raise InputError(f"width of {name}: {width!r}; it must be above 0 and at most {MAX_WIDTH}")
    return name, width


def check(spec: str) -> str:
    """Return `spec` if it names a network of `MODELS`, as in "resnet18" or "resnet18:width=0.25"; nothing is built.

    Raises:
        InputError: unknown network or option, or a width outside (0, 8].
    """
    _read(spec)
    return spec


def builder(spec: str) -> Builder:
    """Return the function that makes the body of the network `spec`; see `check` for the errors."""
    return MODELS[_read(spec)[0]]


def build(spec: str, n_classes: int, *, channels: int = 3, size: int | Sequence[int] = 32, seed: int = 0) -> Network:
    """Make a network with freshly drawn weights.

    Args:
        spec: a name of `MODELS`; with `:width=FACTOR` behind it, channels and hidden units are so many times as wide
            (rounded, at least 1).
        n_classes: number of logits, at least 2.
        channels: of the images.
        size: of the images in pixels, at least 8: one number, or height and width; the stem fits the smaller one.
        seed: of the weights; the global random state is left as it was.

    Raises:
        InputError: see `check`; fewer than two classes; images that are too small, or that `vit` cannot cut up
            (those that are not square, too).

    Example:
        >>> import miue, torch
        >>> network = miue.models.build("small_resnet:width=0.5", 10, size=32, seed=1)
        >>> logits, features = network(torch.rand(2, 3, 32, 32))
        >>> logits.shape, features.shape
        (torch.Size([2, 10]), torch.Size([2, 32]))
    """
    name, width = _read(spec)
    if n_classes < 2:
        raise InputError(f"n_classes: {n_classes}; a classifier needs at least 2")
    height, wide = (size, size) if isinstance(size, int) else size
    if min(height, wide) < MIN_SIZE:
        raise InputError(f"size: images of {min(height, wide)} px; networks need at least {MIN_SIZE}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body, features = MODELS[name](channels, (height, wide), width)
        shown = height if height == wide else [height, wide]
        called = {"name": spec, "n_classes": n_classes, "channels": channels, "size": shown}
        network = Network(body, features, n_classes, called)
    return network.to(memory_format=torch.channels_last)


def forward(model: nn.Module, x: Tensor, precision: str = "float32") -> tuple[Tensor, Tensor]:
    """Run `model` on `x`, its convolutions in the given precision; logits and features come back as float32.

    How float32 itself is multiplied is for `miue.precision.arithmetic` to say, around this and the backward pass.
    """
    with halves(precision, x.device):
        logits, features = model(x.contiguous(memory_format=torch.channels_last))
    return logits.float(), features.float()
