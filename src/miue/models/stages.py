"""The stages of a network from input to features, so that a quantity can be measured layer by layer."""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from miue.errors import InputError
from miue.models.network import Network, evaluating, forward
from miue.precision import arithmetic
from miue.specs import parse

__all__ = ["activations", "layers"]


def _numbered(path: str, name: str, last: int) -> dict[str, str]:
    return {path.format(number): name.format(number) for number in range(1, last + 1)}


_RESNET = {"maxpool": "stem"} | _numbered("layer{}", "stage{}", 3)
_VGG = _numbered("stage{}", "stage{}", 4)

STAGES: dict[str, dict[str, str]] = {
    "linear": {},
    "mlp2": {},
    "mlp3": {"hidden1": "hidden1"},
    "lenet5": {"conv1": "conv1", "conv2": "conv2", "hidden1": "hidden1"},
    "vgg11": _VGG,
    "vgg19": _VGG,
    "small_resnet": {"0": "stem"} | _numbered("{}", "stage{}", 2),
    "resnet18": _RESNET,
    "resnet50": _RESNET,
    "densenet121": {"features.pool0": "stem"} | _numbered("features.denseblock{}", "stage{}", 4),
    "wrn34_10": {"stem": "stem"} | _numbered("stage{}", "stage{}", 3),
    "vit": {f"encoder.layers.encoder_layer_{number}": f"block{number + 1}" for number in range(12)},
}
"""Path of each stage in a network's body, and its name. A last stage whose average the features are is left out."""


def layers(model: Network) -> list[tuple[str, nn.Module]]:
    """List the stages of a network in the order in which images pass them; the last one is its body, "features".

    Raises:
        InputError: `model` was not made by `miue.models.build`.
    """
    called = model.spec["name"] if type(model) is Network else ""
    name = None if "+" in called else parse(called)[0]
    if name not in STAGES:
        raise InputError(f"model: the stages of a {type(model).__name__} are unknown; use one that models.build made")
    inside = dict(model.body.named_modules())
    stages = [(name, inside[path]) for path, name in STAGES[name].items() if path in inside]
    return [*stages, ("features", model.body)]


def _pool(output: Tensor) -> Tensor:
    """Average (B, d, H, W) over space and (B, tokens, d) over tokens; (B, d) stays."""
    if output.ndim == 4:
        return output.mean((2, 3))
    return output.mean(1) if output.ndim == 3 else output


@torch.no_grad()
def activations(model: Network, images: Tensor, precision: str = "float32") -> dict[str, Tensor]:
    """Run a network in evaluation mode and return what each of its stages puts out.

    Args:
        model: a network that `miue.models.build` made; its mode and its hooks are left as they were.
        images: (B, C, H, W), float in [0, 1], on the model's device; split large sets into batches.
        precision: one of `miue.precision.PRECISIONS`, resolved.

    Returns:
        float32 tensors (B, d) by the names of `layers`, in that order: maps averaged over space; for `vit` averaged
        over all tokens, the class token included (which alone is "features").

    Raises:
        InputError: see `layers`.

    Example:
        >>> import miue, torch
        >>> from miue.models.stages import activations
        >>> seen = activations(miue.models.build("lenet5", 10), torch.rand(2, 3, 32, 32))
        >>> {name: tuple(output.shape) for name, output in seen.items()}
        {'conv1': (2, 6), 'conv2': (2, 16), 'hidden1': (2, 120), 'features': (2, 84)}
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = _pool(output.float())  # at once: a later layer may work in place

        return hook

    with evaluating(model), arithmetic(precision), ExitStack() as hooks:
        for name, module in layers(model):
            hooks.enter_context(module.register_forward_hook(keep(name)))
        forward(model, images, precision)
    return seen
