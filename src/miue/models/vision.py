"""The networks of torchvision, with stems that fit small images and a width factor.

Importing torchvision takes seconds, so `miue.models` imports this module only when one of them is built. Up to
`plain.STEM` px the residual and dense networks start with a 3x3 convolution of stride 1, without max-pooling; larger
images get torchvision's own stem. Builders take and return what those of `miue.models.plain` do.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import DenseNet, ResNet, VisionTransformer
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.vgg import cfgs, make_layers

from miue.errors import InputError
from miue.models.plain import STEM, Every, draw_he, scaled


class _ScaledResNet(ResNet):
    """torchvision's ResNet with all planes scaled; its own `width_per_group` scales bottlenecks only.

    Shortcuts with a stride keep every so many pixels first, see `plain.Every`.
    """

    def __init__(self, block: Any, blocks: list[int], width: float) -> None:
        self._width = width
        super().__init__(block, blocks)

    def _make_layer(self, block: Any, planes: int, *args: Any, **named: Any) -> nn.Sequential:
        if planes == 64:  # the first stage: what enters it comes from the stem
            self.inplanes = scaled(64, self._width)
        stage = super()._make_layer(block, scaled(planes, self._width), *args, **named)
        shortcut = stage[0].downsample
        if shortcut is not None:
            every = Every(shortcut[0].stride[0])
            shortcut[0].stride = (1, 1)
            stage[0].downsample = nn.Sequential(OrderedDict([("every", every), *shortcut.named_children()]))
        return stage


def resnet(
    channels: int, size: tuple[int, int], width: float, *, block: Any, blocks: list[int]
) -> tuple[nn.Module, int]:
    """He et al., "Deep Residual Learning for Image Recognition", CVPR 2016."""
    body = _ScaledResNet(block, blocks, width)
    body.fc = nn.Identity()
    first = scaled(64, width)
    if width != 1:
        body.bn1 = nn.BatchNorm2d(first)
    if min(size) <= STEM:
        body.conv1 = nn.Conv2d(channels, first, 3, 1, 1, bias=False)
        body.maxpool = nn.Identity()
    elif channels != 3 or width != 1:
        body.conv1 = nn.Conv2d(channels, first, 7, 2, 3, bias=False)
    return body, scaled(512, width) * block.expansion


def vgg(channels: int, size: tuple[int, int], width: float, *, plan: str) -> tuple[nn.Module, int]:
    """Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015; the variant with batch norm.

    A stage ends in pooling only while the map is more than one pixel high and wide; the features are averaged over what
    is left. The two hidden layers of 4,096 units are left out, as is usual for small images, at every size.
    """
    layers = list(make_layers([n if n == "M" else scaled(int(n), width) for n in cfgs[plan]], batch_norm=True))
    layers[0] = nn.Conv2d(channels, scaled(64, width), 3, padding=1)
    body, stage, shorter = nn.Sequential(), nn.Sequential(), min(size)
    for layer in layers:
        if not isinstance(layer, nn.MaxPool2d):
            stage.append(layer)
            continue
        if shorter > 1:
            stage.append(layer)
        shorter //= 2
        body.add_module(f"stage{len(body) + 1}", stage)
        stage = nn.Sequential()
    body.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
    draw_he(body)
    return body, scaled(512, width)


def densenet121(channels: int, size: tuple[int, int], width: float = 1) -> tuple[nn.Module, int]:
    """Huang et al., "Densely Connected Convolutional Networks", CVPR 2017; `width` scales growth rate and stem."""
    first = scaled(64, width)
    body = DenseNet(growth_rate=scaled(32, width), num_init_features=first)
    features = body.classifier.in_features
    body.classifier = nn.Identity()
    if min(size) <= STEM:
        body.features.conv0 = nn.Conv2d(channels, first, 3, 1, 1, bias=False)
        body.features.pool0 = nn.Identity()
    elif channels != 3:
        body.features.conv0 = nn.Conv2d(channels, first, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(body.features.conv0.weight)
    return body, features


def vit(channels: int, size: tuple[int, int], width: float = 1) -> tuple[nn.Module, int]:
    """Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; the features are the class token.

    Above 64 px it is ViT-B/16: 12 layers of 768 units with 12 heads. Smaller images get 7 layers of 384 units with 6
    heads, and patches of 4 px up to 32 px, of 8 px above. `width` scales the units of each head.
    """
    side, wide = size
    if side != wide:
        raise InputError(f"vit: images of {side} x {wide} px; they must be square")
    patch, depth, heads = (16, 12, 12) if side > 64 else (8 if side > 32 else 4, 7, 6)
    if side % patch:
        raise InputError(f"vit: images of {side} px; cut into patches of {patch} px, they must be a multiple of that")
    units = heads * scaled(64, width)
    body = VisionTransformer(side, patch, depth, heads, units, 4 * units)
    body.heads = nn.Identity()
    if channels != 3:
        body.conv_proj = nn.Conv2d(channels, units, patch, patch)
        nn.init.trunc_normal_(body.conv_proj.weight, std=math.sqrt(1 / (channels * patch**2)))
        nn.init.zeros_(body.conv_proj.bias)
    return body, units


BUILDERS: dict[str, Callable[[int, tuple[int, int], float], tuple[nn.Module, int]]] = {
    "vgg11": partial(vgg, plan="A"),
    "vgg19": partial(vgg, plan="E"),
    "resnet18": partial(resnet, block=BasicBlock, blocks=[2, 2, 2, 2]),
    "resnet50": partial(resnet, block=Bottleneck, blocks=[3, 4, 6, 3]),
    "densenet121": densenet121,
    "vit": vit,
}


def local_weights() -> dict[str, Path]:
    """Weights of torchvision's classifiers that lie on this machine, by the networks' names; nothing is downloaded."""
    there = {file.name: file for file in (Path(torch.hub.get_dir()) / "checkpoints").glob("*.pth")}
    found: dict[str, Path] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name) if there else ():
            if (file := weights.url.rpartition("/")[2]) in there:
                found[name] = there[file]
    return found
