"""What all networks are: a feature extractor and a linear head, which return `(logits, features)`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from miue.precision import halves

Size = tuple[int, int]  # height and width of an image in pixels


class Network(nn.Module):
    """A feature extractor and a linear head.

    Args:
        body: maps (B, C, H, W), roughly in [-2, 2], to features (B, d).
        head: maps features to logits (B, n_classes).
        spec: what `miue.models.build` was called with, so that saved weights can find their network again.
    """

    def __init__(self, body: nn.Module, head: nn.Linear, spec: dict[str, Any]) -> None:
        super().__init__()
        self.body, self.head, self.spec = body, head, spec

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W), float in [0, 1], to logits (B, n_classes) and features (B, d)."""
        features = self.body((x - 0.5) / 0.25)
        return self.head(features), features


def forward(model: nn.Module, x: Tensor, precision: str = "float32") -> tuple[Tensor, Tensor]:
    """Run `model` on `x`, its convolutions in the given precision; logits and features come back as float32.

    How float32 itself is multiplied is for `miue.precision.arithmetic` to say, around this and the backward pass.
    """
    with halves(precision, x.device):
        logits, features = model(x.contiguous(memory_format=torch.channels_last))
    return logits.float(), features.float()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Keep `network` in evaluation mode; afterwards it has its own again."""
    mode = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(mode)
