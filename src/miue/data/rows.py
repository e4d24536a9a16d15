"""`Rows`: what `Images` hold their pixels and their perturbation as."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from miue.storage import memory


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a tensor, looked up as they are read, so that a tensor in a file is never copied whole.

    Args:
        tensor: (R, ...), shared.
        rows: (M,) int64, where the tensor lies or on the CPU; by default all, in order.
    """

    tensor: Tensor
    rows: Tensor | None = None

    def read(self, index: Tensor, device: torch.device) -> Tensor:
        """The rows at `index` ((B,) int64), (B, ...) on `device`."""
        rows = index if self.rows is None else self.rows[index.to(self.rows.device)]
        return self.tensor[rows.to(self.tensor.device)].to(device, non_blocking=True)

    def subset(self, index: Tensor) -> "Rows":
        """The rows at `index` ((B,) int64), not yet read."""
        return Rows(self.tensor, index.cpu() if self.rows is None else self.rows.cpu()[index.cpu()])

    def on(self, device: torch.device) -> "Rows":
        """On `device` whole where they fit; what lies there already stays as it is, shared."""
        count = len(self.tensor) if self.rows is None else len(self.rows)
        size = count * math.prod(self.tensor.shape[1:]) * self.tensor.element_size()
        if self.tensor.device.type == device.type:
            return self if self.rows is None else Rows(self.tensor, self.rows.to(device))
        if not memory.fits(size, device):
            return self
        return Rows((self.tensor if self.rows is None else self.tensor[self.rows]).to(device))
