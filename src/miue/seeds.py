"""Seeds: one seed for whoever asks, one stream of random numbers for each role that it plays.

If perturbation and victim drew from one stream, a victim of the surrogate's architecture would begin with the
surrogate's very weights and meet the pictures in its order. So no two roles share a stream: what a role draws is
decided by a hash of its name and the seed, the same on every machine and in every version.
"""

import hashlib
import operator
from typing import SupportsIndex

import torch

from miue.errors import InputError

ROLES = (
    "perturbation",
    "pgd order",
    "surrogate weights",
    "surrogate order",
    "surrogate augmentation",
    "surrogate defense",
    "victim weights",
    "victim order",
    "victim augmentation",
    "victim defense",
    "part",
    "probe",
    "directions",
    "shuffle",
    "subsamples",
    "critic",
    "ties",
)
"""What a seed decides: delta's own draws; the order of the pictures in pgd passes; weights, order of the pictures,
flips and crops, and the defense, of a surrogate and of a victim; which part of a set is perturbed; the split of a
probe of detection; and of an estimate of information the directions, shuffles, subsamples, critics and tie-breaks."""


def checked(seed: object, argument: str = "seed") -> int:
    """Return `seed` as a plain int, also where NumPy hands it over.

    Raises:
        InputError: it is no whole number of 0 or above; the message names the `argument`.
    """
    if isinstance(seed, SupportsIndex) and not isinstance(seed, bool) and operator.index(seed) >= 0:
        return operator.index(seed)
    raise InputError(f"{argument}: {seed!r}; it must be a whole number, 0 or above")


def derived(seed: int, role: str) -> int:
    """The seed of the stream of one role: below 2^63, from a hash of both.

    Args:
        seed: a whole number, 0 or above, of any size.
        role: one of `ROLES`.

    Raises:
        InputError: see `checked`.
        KeyError: the role does not exist.
    """
    if role not in ROLES:
        raise KeyError(f"role {role!r} does not exist; the roles are {', '.join(ROLES)}")
    return int.from_bytes(hashlib.blake2b(f"{role}:{checked(seed)}".encode(), digest_size=8).digest(), "little") >> 1


def stream(seed: int, role: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers that `seed` decides for `role`, on `device`; see `derived` for the errors."""
    return torch.Generator(device).manual_seed(derived(seed, role))
