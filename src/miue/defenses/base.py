"""What all defenses share: they change nothing until told how."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from miue.errors import Options
from miue.images import Images
from miue.train import Moment


@dataclass(frozen=True)
class Defense(Options):
    """What someone who trains on pictures may do about perturbations, without knowing of any.

    A defense is a frozen dataclass of its options, which are checked as `miue.errors.Options` are, and overrides one of
    the two methods, or both.
    """

    def prepare(self, images: Images, seed: int) -> Images:
        """Change the training pictures once, before training.

        Args:
            images: training pictures, uint8.
            seed: of everything random.

        Returns:
            Pictures of the same number, shape, labels and ids.
        """
        return images

    def batch(self, x: Tensor, y: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """Turn a batch, after flip and crop, into what is trained on.

        Args:
            x: (B, C, H, W) uint8.
            y: (B,) int64.
            moment: of the training.

        Returns:
            Pictures (B, C, H, W), float in [0, 1], and targets: labels (B,) or probabilities (B, classes).
        """
        return x.float() / 255, y

    def record(self) -> dict[str, Any]:
        """What a record says of it, as JSON: its name and options; equal defenses have equal records."""
        return {"defense": type(self).__name__, **asdict(self)}
