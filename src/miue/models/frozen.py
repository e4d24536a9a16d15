"""A network as it stands, for gradients by its images: what the pgd passes go through."""

import copy

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from miue.models.network import Network, evaluating, forward
from miue.precision import precision

__all__ = ["Frozen"]

TOGETHER = 64 * 32 * 32
"""Pixels of the images that a CPU takes through a network together. What lies between the layers then stays in its
cache: small_resnet made 1.1 to 1.2 times the image-steps of whole batches of 256, at half width 1.0 to 1.3 times
(cross-entropy and the MI-UE loss, the best of four, one thread of a busy AMD EPYC), and the same bits."""


class Frozen:
    """A copy of a network in evaluation mode, whose weights ask for no gradient.

    Batch norm is folded into the convolutions where torch.fx can follow the network's code: a fifth faster. Code whose
    course its tensors decide, as in many networks from elsewhere, it cannot follow; these compute as they are.

    Args:
        network: returns (logits, features); it may go on training, and `refresh` follows it.
        number: what its convolutions compute in, one of `miue.precision.PRECISIONS`.

    Attributes:
        fixed: whether it computes the same whatever its inputs hold, as our own networks do.
    """

    def __init__(self, network: nn.Module, number: str = "float32") -> None:
        self.number, self._network = number, network
        self.fixed = type(network) is Network
        self.folded = _folded(network).requires_grad_(False)

    def refresh(self) -> None:
        """Take the weights and statistics of the network as they are now; the tensors that hold them stay."""
        self.folded.load_state_dict(_folded(self._network).state_dict())

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, H, W), float in [0, 1], to logits (B, classes) and features (B, d), float32."""
        number = precision(self.number, images.device)
        parts = images.split(max(1, TOGETHER // images[0, 0].numel())) if images.device.type == "cpu" else [images]
        outputs = [forward(self.folded, part, number) for part in parts]
        logits, features = (torch.cat(each) if len(parts) > 1 else each[0] for each in zip(*outputs, strict=True))
        return logits, features


def _folded(network: nn.Module) -> nn.Module:
    with evaluating(network):
        try:
            return fuse(network)
        except Exception:  # torch.fx raises whatever the network's code makes of its stand-ins for tensors
            return copy.deepcopy(network)
