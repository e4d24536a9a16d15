"""A protected copy of somebody's own images: perturbed so that networks learn less of them.

How little or how much that protects is measured; see `miue.audit` and the chapter *Protecting your own images*.
"""

from miue.protect.making import Protected, check, images
from miue.protect.settings import Settings

__all__ = ["Protected", "Settings", "check", "images"]
