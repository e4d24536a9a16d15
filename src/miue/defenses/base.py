"""What all defenses share: they change nothing until told how."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from miue.data.images import Images
from miue.errors import Options
from miue.training.loop import BatchContext


@dataclass(frozen=True)
class Defense(Options):
    """What someone who trains on images may do about perturbations, without knowing of any.

    A defense is a frozen dataclass of its options, which are checked as `miue.errors.Options` are, and overrides one of
    the two methods, or both.
    """

    def prepare(self, images: Images, seed: int) -> Images:
        """Change the training images once, before training.

        Args:
            images: training images, uint8.
            seed: of everything random.

        Returns:
            Images of the same number, shape, labels and ids.
        """
        return images

    def batch(self, x: Tensor, y: Tensor, context: BatchContext) -> tuple[Tensor, Tensor]:
        """Turn a batch, after flip and crop, into what is trained on.

        Args:
            x: (B, C, H, W) uint8.
            y: (B,) int64.
            context: of the training.

        Returns:
            Images (B, C, H, W), float in [0, 1], and targets: labels (B,) or probabilities (B, classes).
        """
        return x.float() / 255, y

    def record(self) -> dict[str, Any]:
        """What a record says of it, as JSON: its name and options; equal defenses have equal records."""
        return {"defense": type(self).__name__, **asdict(self)}
