"""Why unlearnable examples work: images, perturbations, victims, mutual information, records."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("miue")
except PackageNotFoundError:
    __version__ = "0+uninstalled"
