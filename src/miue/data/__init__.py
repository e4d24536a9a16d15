"""Images: data sets by name, anybody's folder, and `Images`, which everything else reads in batches."""

from miue.data.images import Images
from miue.data.loading import DATASETS, load

__all__ = ["DATASETS", "Images", "load"]
