"""Networks that return `(logits, features)`; features are what feeds the last linear layer.

Every network takes pictures as float in [0, 1] and normalises them itself, so that a perturbation means the same to
each of them.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miue.errors import InputError, choose

PRECISIONS = ("auto", "float32", "bfloat16")


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
        """Map pictures (B, C, H, W), float in [0, 1], to logits (B, n_classes) and features (B, d)."""
        features = self.body((x - 0.5) / 0.25)
        return self.head(features), features


class _Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(inside, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def small_resnet(channels: int, size: int) -> tuple[nn.Module, int]:
    """Three residual blocks of 16, 32 and 64 channels; 12 million multiply-adds at 32 px, 78,000 weights."""
    body = nn.Sequential(
        nn.Conv2d(channels, 16, 3, 1, 1, bias=False),
        _Block(16, 16, 1),
        _Block(16, 32, 2),
        _Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return body, 64


def resnet18(channels: int, size: int) -> tuple[nn.Module, int]:
    """torchvision's ResNet-18; up to 64 px its stem is a 3x3 convolution of stride 1 without pooling."""
    import torchvision  # seconds to import, and only needed here

    body = torchvision.models.resnet18()
    width = body.fc.in_features
    body.fc = nn.Identity()
    if size <= 64:
        body.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
        body.maxpool = nn.Identity()
    elif channels != 3:
        body.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return body, width


MODELS: dict[str, Callable[[int, int], tuple[nn.Module, int]]] = {
    "small_resnet": small_resnet,
    "resnet18": resnet18,
}


def build(name: str, n_classes: int, *, channels: int = 3, size: int = 32, seed: int = 0) -> Network:
    """Make a network with freshly drawn weights.

    Args:
        name: one of `MODELS`.
        n_classes: number of logits, at least 2.
        channels: of the pictures.
        size: height and width of the pictures in pixels; the stem fits it.
        seed: of the weights; the global random state is left as it was.

    Raises:
        InputError: unknown name, or fewer than two classes.
    """
    choose("model", name, MODELS)
    if n_classes < 2:
        raise InputError(f"n_classes: {n_classes}; a classifier needs at least 2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body, width = MODELS[name](channels, size)
        spec = {"name": name, "n_classes": n_classes, "channels": channels, "size": size}
        network = Network(body, width, n_classes, spec)
    return network.to(memory_format=torch.channels_last)


@cache
def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; emulated, it is slower than float32."""
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def precision(wanted: str, device: torch.device) -> str:
    """Resolve `wanted` to "float32" or "bfloat16" on `device`; "auto" is bfloat16 where the chip has it."""
    choose("precision", wanted, PRECISIONS)
    if wanted != "auto":
        return wanted
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if native else "float32"


def forward(model: nn.Module, x: Tensor, precision: str = "float32") -> tuple[Tensor, Tensor]:
    """Run `model` on `x`, its convolutions in the given precision; logits and features come back as float32."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits, features = model(x.contiguous(memory_format=torch.channels_last))
    return logits.float(), features.float()
