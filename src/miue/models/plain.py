"""The networks that are short enough to write down: linear, MLPs, LeNet-5, a small ResNet and WideResNet-34-10.

Every builder takes the images' channels, their size (height, width) in pixels and a width factor for the layers, and
returns the body of a `miue.models.Network` with the number of its features. `Linear` is a whole network by itself.
"""

import math
from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

STEM = 64
"""Up to this size in pixels (of the shorter side) residual and dense networks start with a 3x3 convolution of stride 1,
without pooling."""


def scaled(units: int, width: float) -> int:
    """`units` times the width factor, rounded, at least 1."""
    return max(1, round(units * width))


def draw_he(body: nn.Module) -> None:
    """Draw the convolutions anew by He et al., "Delving Deep into Rectifiers", ICCV 2015 (fan-out); biases are 0."""
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def linear(channels: int, size: tuple[int, int], width: float = 1) -> tuple[nn.Module, int]:
    """Nothing but the head: the features are the pixels."""
    return nn.Flatten(), channels * math.prod(size)


def _dense(inside: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inside, out), nn.ReLU())


def mlp2(channels: int, size: tuple[int, int], width: float = 1) -> tuple[nn.Module, int]:
    """Two linear layers, the head included, with 512 hidden units between them."""
    units = scaled(512, width)
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), hidden1=_dense(channels * math.prod(size), units))), units


def mlp3(channels: int, size: tuple[int, int], width: float = 1) -> tuple[nn.Module, int]:
    """Three linear layers, the head included, with 512 hidden units after each of the first two."""
    body, units = mlp2(channels, size, width)
    body.add_module("hidden2", _dense(units, units))
    return body, units


def lenet5(channels: int, size: tuple[int, int], width: float = 1) -> tuple[nn.Module, int]:
    """LeNet-5 (LeCun et al., Proc. IEEE 1998) with rectifiers and max-pooling; 61,706 weights for grey digits.

    As there, images below 32 px are set into a frame of 32 px. Larger ones have a larger first linear layer.
    """
    high, wide = (max(0, 32 - pixels) for pixels in size)
    frame = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
    places = math.prod(((max(32, pixels) - 4) // 2 - 4) // 2 for pixels in size)
    maps1, maps2, hidden, units = (scaled(n, width) for n in (6, 16, 120, 84))
    body = nn.Sequential(
        OrderedDict(
            frame=nn.ZeroPad2d(frame),
            conv1=nn.Sequential(nn.Conv2d(channels, maps1, 5), nn.ReLU(), nn.MaxPool2d(2)),
            conv2=nn.Sequential(nn.Conv2d(maps1, maps2, 5), nn.ReLU(), nn.MaxPool2d(2)),
            flatten=nn.Flatten(),
            hidden1=_dense(maps2 * places, hidden),
            hidden2=_dense(hidden, units),
        )
    )
    return body, units


class Linear(nn.Module):
    """A linear function of all pixels without bias, so that f(x - p) = f(x) - f(p); its features are those pixels.

    Args:
        inputs: number of values in an image.
        n_classes: number of logits.
        scale: what the pixels are multiplied by.
    """

    def __init__(self, inputs: int, n_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Linear(inputs, n_classes, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images or perturbations (B, C, H, W), float, to logits (B, n_classes) and scaled pixels (B, C H W)."""
        pixels = self.scale * x.flatten(1)
        return self.head(pixels), pixels


class Every(nn.Module):
    """Keep every `stride`-th pixel of every `stride`-th row; a 1x1 convolution of stride 1 then follows.

    The values are those of a convolution with that stride. But the gradient in the weights of such a one writes past
    its memory for fewer than 16 channels, channels last (torch 2.15, processor with AVX-512; 8 channels from 48 px on).
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / stride, W / stride), rounded up."""
        return x[:, :, :: self.stride, :: self.stride]


class _Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.every = Every(stride)
        self.shortcut = nn.Conv2d(inside, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(self.every(x)))


def small_resnet(channels: int, size: tuple[int, int], width: float = 1) -> tuple[nn.Module, int]:
    """Three residual blocks of 16, 32 and 64 channels; 12 million multiply-adds at 32 px, 78,000 weights."""
    first, second, third = (scaled(n, width) for n in (16, 32, 64))
    body = nn.Sequential(
        nn.Conv2d(channels, first, 3, 1, 1, bias=False),
        _Block(first, first, 1),
        _Block(first, second, 2),
        _Block(second, third, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return body, third


class _WideBlock(nn.Module):
    """Norm and rectifier come before each convolution; a shortcut that changes shape starts after the first pair."""

    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.every = Every(stride)
        self.shortcut = None if inside == out and stride == 1 else nn.Conv2d(inside, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(self.every(y))
        return self.conv2(F.relu(self.norm2(self.conv1(y)))) + shortcut


def wrn34_10(channels: int, size: tuple[int, int], width: float = 1) -> tuple[nn.Module, int]:
    """WideResNet-34-10 (Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016), without dropout."""
    first, *stages = (scaled(n, width) for n in (16, 160, 320, 640))
    small = min(size) <= STEM
    body = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(channels, first, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False),
            stem=nn.Identity() if small else nn.MaxPool2d(3, 2, 1),
        )
    )
    inside = first
    for number, out in enumerate(stages, 1):
        blocks = [_WideBlock(inside, out, 1 if number == 1 else 2)] + [_WideBlock(out, out, 1) for _ in range(4)]
        body.add_module(f"stage{number}", nn.Sequential(*blocks))
        inside = out
    for layer in (nn.BatchNorm2d(inside), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()):
        body.append(layer)
    draw_he(body)
    return body, inside
