"""Why unlearnable examples work: images, perturbations, victims, mutual information, records."""

from importlib.metadata import PackageNotFoundError, version

from miue.data import load
from miue.images import Images

try:
    __version__ = version("miue")
except PackageNotFoundError:
    __version__ = "0+uninstalled"

__all__ = ["Images", "load"]
