"""Several networks as one: each batch is dealt to them, so that a surrogate is not of one architecture alone."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dealt(nn.Module):
    """Bodies of which each takes its share of a batch: of K, the k-th takes every K-th image from the k-th on.

    So several networks train together for the cost of one, and a perturbation that meets them in random batches learns
    to suit all of them. Features of one body are zero where those of the others stand; a linear layer behind them is
    a head for each, but for the bias, which they share.

    Args:
        bodies: map (B, C, H, W) to features (B, d).
        features: d of each.
    """

    def __init__(self, bodies: Sequence[nn.Module], features: Sequence[int]) -> None:
        super().__init__()
        self.bodies, self.features = nn.ModuleList(bodies), list(features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to features (B, the sum of all d); a batch too small for all goes to the first ones."""
        count = max(1, min(len(self.bodies), len(x) // 2))  # batch norm cannot train on one image
        places = [torch.arange(first, len(x), count, device=x.device) for first in range(count)]
        ends = list(accumulate(self.features))
        parts = [
            F.pad(body(x[place]), (ends[number] - self.features[number], ends[-1] - ends[number]))
            for number, (body, place) in enumerate(zip(self.bodies, places, strict=False))
        ]
        return torch.cat(parts)[torch.cat(places).argsort()]
