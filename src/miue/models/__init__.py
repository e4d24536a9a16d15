"""Networks that return `(logits, features)`; features are what feeds the last linear layer.

Every network takes images as float in [0, 1] and normalises them itself, so that a perturbation means the same to
each of them.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from miue import seeds
from miue.data.images import Images
from miue.errors import InputError, choose
from miue.models.dealt import Dealt
from miue.models.handed import Handed, Spec
from miue.models.network import Network, Size, forward
from miue.models.plain import lenet5, linear, mlp2, mlp3, small_resnet, wrn34_10
from miue.models.wrapping import wrap
from miue.specs import is_own, load, parse

__all__ = ["MODELS", "Network", "build", "check", "forward", "wrap"]

MIN_SIZE = 8
MAX_WIDTH = 8


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


def check(spec: Spec) -> Spec:
    """Return `spec` if a network can be made of it; nothing is built.

    Raises:
        InputError: a name that is not of `MODELS`, as "resnet18" and "resnet18:width=0.25" are, or a width outside
            (0, 8], of one of those that a plus joins; an object that is neither a module with a linear `head` nor a
            function.
    """
    builders(spec)
    return spec


def builders(spec: Spec) -> list[Builder | Handed]:
    """Return what makes the network `spec`, see `check` for the errors: for names the functions that make bodies."""
    if isinstance(spec, str) and not is_own(spec):
        return [MODELS[name] for name, _ in _named(spec)]
    return [Handed(load("model", spec) if isinstance(spec, str) else spec)]


def _named(spec: str) -> list[tuple[str, float]]:
    """The names and width factors in `spec`, several being joined by a plus."""
    return [_read(one) for one in spec.split("+")]


def build(spec: Spec, n_classes: int, *, channels: int = 3, size: int | Sequence[int] = 32, seed: int = 0) -> Network:
    """Make a network.

    Args:
        spec: a name of `MODELS`; with `:width=FACTOR` behind it, channels and hidden units are so many times as wide
            (rounded, at least 1). Several, joined by a plus, are one network, see `miue.models.dealt`. Or one of your
            own: a module that returns (logits, features), as `wrap` makes them, of which a copy is returned, with its
            weights. Or a function (n_classes, channels, (height, width)) that makes one, or "FILE.py:NAME" of either,
            which is executed.
        n_classes: number of logits, at least 2.
        channels: of the images.
        size: of the images in pixels, at least 8: one number, or height and width; the stem fits the smaller one.
        seed: of the weights that are drawn; the global random state is left as it was.

    Raises:
        InputError: see `check`; fewer than two classes; images that are too small, or that `vit` cannot cut up
            (those that are not square, too); an object that does not take such images, has another number of classes,
            or does not return (logits, features).

    Example:
        >>> import miue, torch
        >>> network = miue.models.build("small_resnet:width=0.5", 10, size=32, seed=1)
        >>> logits, features = network(torch.rand(2, 3, 32, 32))
        >>> logits.shape, features.shape
        (torch.Size([2, 10]), torch.Size([2, 32]))
    """
    made_by = builders(spec)
    if n_classes < 2:
        raise InputError(f"n_classes: {n_classes}; a classifier needs at least 2")
    height, wide = (size, size) if isinstance(size, int) else size
    if min(height, wide) < MIN_SIZE:
        raise InputError(f"size: images of {min(height, wide)} px; networks need at least {MIN_SIZE}")
    with seeds.globally(seed):
        first = made_by[0]
        if isinstance(first, Handed):
            network = first.make(n_classes, channels, (height, wide))
        else:
            made = [MODELS[name](channels, (height, wide), width) for name, width in _named(str(spec))]
            bodies, each = zip(*made, strict=True)
            body, features = Dealt(bodies, each) if len(made) > 1 else bodies[0], sum(each)
            shown = height if height == wide else [height, wide]
            called = {"name": spec, "n_classes": n_classes, "channels": channels, "size": shown}
            network = Network(body, nn.Linear(features, n_classes), called)
    return network.to(memory_format=torch.channels_last)


def build_for(images: Images, spec: Spec, *, seed: int, outputs: int | None = None) -> Network:
    """Make a network for images like these, with a logit for each of their classes, or `outputs`; see `build`."""
    channels, *size = images.shape
    return build(spec, outputs or len(images.classes), channels=channels, size=size, seed=seed)
