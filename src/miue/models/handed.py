"""Networks that are handed over as objects, and not by name."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from miue.errors import InputError
from miue.models.network import Network, Size

Maker = Callable[[int, int, Size], nn.Module]  # of classes, channels and size: the network
Spec = str | nn.Module | Maker
"""How a network may be asked for: by name ("resnet18:width=0.25"); as a module that returns (logits, features), with
its weights; as a function of the number of classes, of the channels and of (height, width) that makes one."""


def title(spec: Spec) -> str:
    """What a network is called in records and messages; one that was handed over says so."""
    if isinstance(spec, str):
        return spec
    name = spec.spec["name"] if isinstance(spec, Network) else getattr(spec, "__qualname__", type(spec).__name__)
    return f"{name} (handed over)"


@dataclass(frozen=True, eq=False)
class Handed:
    """A module or a `Maker`.

    Raises:
        InputError: it is neither, or a module without a linear `head`.
    """

    thing: nn.Module | Maker

    def __post_init__(self) -> None:
        if isinstance(self.thing, nn.Module):
            self._check_head(self.thing)
        elif not callable(self.thing):
            raise InputError(
                f"model: a {type(self.thing).__name__}; it must be a name, a network, or a function (n_classes, "
                "channels, size) that makes one"
            )

    def make(self, n_classes: int, channels: int, size: Size) -> Network:
        """Return a copy of the module, or of what the function makes, once it has been tried on images of this shape.

        Raises:
            InputError: it does not take them, or does not return (logits, features), or has another number of classes.
        """
        name = title(self.thing)
        made = self.thing if isinstance(self.thing, nn.Module) else self.thing(n_classes, channels, size)
        if not isinstance(made, nn.Module):
            raise InputError(f"model: {name} made a {type(made).__name__}; it must make a network")
        self._check_head(made)
        network = cast(Network, copy.deepcopy(made).eval())
        images = torch.rand(2, channels, *size).to(network.head.weight.device)
        try:
            with torch.no_grad():
                returned = network(images)
        except Exception as error:  # whatever somebody's code raises
            shown, why = " x ".join(map(str, images.shape[1:])), " ".join(str(error).split())
            raise InputError(f"model: {name} fails on images of {shown} ({why})") from error
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise self._plain()
        logits, features = returned
        if features.shape != (2, network.head.in_features):
            raise self._plain()
        if logits.shape != (2, n_classes):
            raise InputError(
                f"model: {name} has {logits.shape[1]} logits; it must have {n_classes}, one for each class"
            )
        if not isinstance(network, Network):
            network.spec = {"name": name, "n_classes": n_classes, "channels": channels, "size": list(size)}
        return network.train()

    def _check_head(self, module: nn.Module) -> None:
        if not isinstance(getattr(module, "head", None), nn.Linear):
            raise self._plain()

    def _plain(self) -> InputError:
        return InputError(
            f"model: {title(self.thing)} does not return (logits, features), the features being what feeds its linear "
            "`head`; hand over miue.models.wrap(module)"
        )
