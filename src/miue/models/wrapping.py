"""`wrap`: any classifier with a linear head (of timm, torchvision, transformers, or one's own) as a `Network`."""

import copy
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from miue.errors import InputError
from miue.models.network import Network, Size

ANY = "any"
PROBE = 64  # px of the images on which a module is tried that says no size


class Wrapped(Network):
    """A network that `wrap` made; its `spec` says how images are normalised and resized.

    Args:
        body: the module, with nothing in place of its head: what it returns are features.
        head: its head.
        spec: name, n_classes, channels, head (its path), size (height and width that images are resized to, or "any"),
            mean, std.
        place: of the features among the tensors that the module returns.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, head: nn.Linear, spec: dict[str, Any], place: int) -> None:
        super().__init__(body, head, spec)
        self.size, self.place = None if spec["size"] == ANY else tuple(spec["size"]), place
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(spec[name])[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W), float in [0, 1], of any size, to logits (B, n_classes) and features (B, d)."""
        features = returned(self.body(prepared(x, self.mean, self.std, self.size)), self.place)
        return self.head(features), features

    def extra_repr(self) -> str:
        """Say what happens to images."""
        return ", ".join(f"{name}={self.spec[name]}" for name in ("mean", "std", "size"))


@fx.wrap  # torch.fx would follow neither the question for the size nor that for the kind of output
def prepared(x: Tensor, mean: Tensor, std: Tensor, size: Size | None) -> Tensor:
    """Resize images (B, C, H, W), float in [0, 1], bilinearly where they have another size, and normalise them."""
    if len(mean) != x.shape[1]:
        raise InputError(f"images: {x.shape[1]} channels; the network takes {len(mean)}, as its mean says")
    if size is not None and tuple(x.shape[2:]) != size:
        x = F.interpolate(x, size, mode="bilinear", antialias=True)
    return (x - mean) / std


@fx.wrap
def returned(output: Any, place: int) -> Tensor:
    """One of the tensors that a module returned: of its `logits` where it has them, as those of transformers have."""
    output = getattr(output, "logits", output)
    return output[place] if isinstance(output, tuple | list) else output


def wrap(
    module: nn.Module,
    *,
    head: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | Sequence[int] | str | None = None,
    name: str | None = None,
) -> Wrapped:
    """Make a network of this package, a victim or a surrogate, of any classifier whose last step is a linear layer.

        miue.models.wrap(timm.create_model("resnet50", pretrained=True, num_classes=10))
        miue.models.wrap(torchvision.models.resnet50(num_classes=10), mean=0.5, std=0.25)

    Its logits are the module's own, on images that are resized and normalised first, differentiably; its features are
    what feeds the linear layer. The module is tried on two images of noise to find that layer.

    Args:
        module: maps images (B, C, H, W) to logits (B, n_classes), or to something with such `.logits`. It is copied,
            with its weights, and stays as it is.
        head: path of the linear layer, as in "fc" or "classifier.1"; by default it is found: the one `nn.Linear` whose
            output is what the module returns.
        mean, std: of the normalisation (x - mean) / std of images in [0, 1]: one number, or one for each channel. They
            may be left out where the module carries them, as those of timm do. Modules of torchvision and transformers
            do not: take those that the weights were trained with, or for fresh weights mean 0.5 and std 0.25, those of
            `miue.models.build`.
        size: in pixels, one number or height and width, that images of another size are resized to (bilinear,
            antialiased); "any" to leave all images as they are. By default what the module says: the size that a
            transformer of timm or torchvision was made for, `config.image_size` of transformers; else "any".
        name: for records and messages; by default the architecture that timm names, or the module's class.

    Returns:
        The network, in evaluation mode; `spec` and its repr say how images are normalised and resized.

    Raises:
        InputError: not a module; a normalisation that is neither found nor given, or out of range; a size that the
            module does not take; no linear head, or several; a head that does not exist, or that does more than to
            give the logits.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"module: a {type(module).__name__}; it must be a torch.nn.Module")
    told = _config_of_timm(module)
    kind = name or told.get("architecture") or type(module).__name__
    wanted = _pixels(_size(module, told) if size is None else size)
    body = copy.deepcopy(module).eval()
    mean, std = (told.get(key) if value is None else value for key, value in (("mean", mean), ("std", std)))
    means, stds = _normalisation(body, mean, std, kind)
    noise = torch.rand(2, len(means), *(wanted or (PROBE, PROBE)), generator=torch.Generator().manual_seed(0))
    noise = noise.to(next(body.parameters(), noise).device)
    path, place, logits = _find_head(body, head, noise, kind)
    layer = body.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    for alias, other in list(body.named_modules(remove_duplicate=False)):
        if other is layer:
            body.set_submodule(alias, nn.Identity())
    with torch.no_grad():
        features = returned(body(noise), place)
    if features.shape != (2, layer.in_features) or not torch.allclose(layer(features), logits, atol=1e-5):
        raise InputError(f"head: {path!r}; the logits of the {kind} are not what it gives for features (B, d)")
    spec = {"name": f"wrap({kind})", "n_classes": layer.out_features, "channels": len(means), "head": path}
    spec |= {"size": ANY if wanted is None else list(wanted), "mean": means, "std": stds}
    return Wrapped(body, layer, spec, place).to(noise.device).eval()


def _config_of_timm(module: nn.Module) -> dict[str, Any]:
    """What timm writes on its modules."""
    told = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    return told if isinstance(told, dict) else {}


def _normalisation(body: nn.Module, mean: Any, std: Any, kind: str) -> tuple[list[float], list[float]]:
    """Mean and std for each channel: as many as are given, or else as the first convolution takes, or three."""
    stem = next((layer for layer in body.modules() if isinstance(layer, nn.Conv2d)), None)
    counts = [len(values) for values in (mean, std) if isinstance(values, Sequence)]
    channels = counts[0] if counts else 3 if stem is None else stem.in_channels
    if counts and counts != [channels] * len(counts):
        raise InputError(f"std: {std}; it must have as many numbers as the mean, {mean}")
    means, stds = _numbers("mean", mean, channels, kind), _numbers("std", std, channels, kind)
    if not all(0 <= value <= 1 for value in means):
        raise InputError(f"mean: {mean}; the images lie in [0, 1], so it must, too")
    if not all(0 < value <= 1 for value in stds):
        raise InputError(f"std: {std}; the images lie in [0, 1], so it must be above 0 and at most 1")
    return means, stds


def _numbers(argument: str, value: Any, channels: int, kind: str) -> list[float]:
    if value is None:
        raise InputError(
            f"{argument}: missing, and the {kind} carries none; weights of ImageNet usually want "
            "mean=(0.485, 0.456, 0.406) and std=(0.229, 0.224, 0.225), fresh weights mean=0.5 and std=0.25"
        )
    numbers = list(value) if isinstance(value, Sequence) else [value] * channels
    if not numbers or not all(isinstance(number, Real) for number in numbers):
        raise InputError(f"{argument}: {value!r}; it must be one number, or one for each channel")
    return [float(number) for number in numbers]


def _size(module: nn.Module, told: dict[str, Any]) -> Any:
    """The size that a module says it was made for; "any" where it says none."""
    if told.get("fixed_input_size"):  # the size of the weights; the module may have been made for another
        made_for = (inner.img_size for inner in module.modules() if getattr(inner, "img_size", None))
        return next(made_for, told["input_size"][1:])
    return getattr(module, "image_size", None) or getattr(getattr(module, "config", None), "image_size", None) or ANY


def _pixels(size: Any) -> Size | None:
    """Height and width; None for any."""
    if size == ANY:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(pair) != 2 or not all(type(pixels) is int and pixels > 0 for pixels in pair):
        raise InputError(f"size: {size!r}; it must be pixels, one number or height and width, or 'any'")
    return pair


def _find_head(body: nn.Module, head: str | None, noise: Tensor, kind: str) -> tuple[str, int, Tensor]:
    """The path of the linear layer whose output `body` returns, its place in what is returned, and these logits."""
    gave: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        return lambda layer, inputs, output: gave.__setitem__(path, output)

    linear = [(path, layer) for path, layer in body.named_modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(keep(path)) for path, layer in linear]
    try:
        with torch.no_grad():
            output = body(noise)
    except Exception as error:  # whatever somebody's code raises
        shown, why = " x ".join(map(str, noise.shape[1:])), " ".join(str(error).split())
        raise InputError(f"size: the {kind} fails on images of {shown}; say the size that it takes ({why})") from error
    finally:
        for hook in hooks:
            hook.remove()
    output = getattr(output, "logits", output)
    tensors = output if isinstance(output, tuple | list) else [output]
    # By their place in memory: values could agree by chance, as those of two heads that both begin with zeros do.
    found = {
        path: (place, tensor)
        for path, logits in gave.items()
        for place, tensor in enumerate(tensors)
        if isinstance(tensor, Tensor) and tensor.ndim == 2 and tensor.data_ptr() == logits.data_ptr()
    }
    paths = " and ".join(found)
    if not found:
        raise InputError(f"module: no nn.Linear of the {kind} gives what it returns, so it has no linear head")
    if head is None and len(found) > 1:
        raise InputError(f"head: the {kind} has {len(found)} that give what it returns, {paths}; name one of them")
    if head is not None and head not in found:
        raise InputError(f"head: {head!r}; what the {kind} returns is given by {paths}")
    path = head or next(iter(found))
    return path, *found[path]
