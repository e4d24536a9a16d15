"""Seeds: one seed for whoever asks, one stream of random numbers for each role that it plays.

If perturbation and victim drew from one stream, a victim of the surrogate's architecture would begin with the
surrogate's very weights and meet the images in its order. So no two roles share a stream: what a role draws is
decided by a hash of its name and the seed, the same on every machine and in every version.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from miue.data.arrays import whole
from miue.errors import InputError, choose

__all__ = ["TWINS", "Training", "derived", "stream", "surrogate", "victim"]

ROLES = (
    "perturbation",
    "perturbation noise",
    "perturbation critic",
    "certificate noise",
    "pgd order",
    "generator weights",
    "generator order",
    "generator augmentation",
    "surrogate weights",
    "surrogate projection",
    "surrogate order",
    "surrogate augmentation",
    "surrogate defense",
    "surrogate noise",
    "victim weights",
    "victim projection",
    "victim order",
    "victim augmentation",
    "victim defense",
    "victim noise",
    "defense preparation",
    "first purifier",
    "second purifier",
    "purification noise",
    "projection",
    "part",
    "probe",
    "probe cut",
    "linear probe",
    "learned probe",
    "directions",
    "shuffle",
    "subsamples",
    "critic",
    "ties",
    "rank",
)
"""What a seed decides: delta's own draws; noise that it has to withstand; the critic that helps to shape it, and the
noise that certifies it; the order of the images in pgd passes; weights, order of the images, flips and crops of a
network that generates delta, and the weights of a projection behind a surrogate or a victim that learns without
labels; weights, order of the images, flips and crops, the defense, and its noise, of a surrogate and of a victim;
what a defense does before training, the seeds of the networks that it trains for that, and its noise; which part of
a set is perturbed; the split of a probe of detection, what two sets are cut to for it, and the seeds of its
networks; of an estimate of information the directions, shuffles, critics and tie-breaks, and of a rank correlation
the subsamples of its bootstrap; and the seeds of the processes that share a perturbation, but for the first.

Roles that end in "noise" draw on the device that works, since there is too much of it to be carried there: another kind
of device draws other numbers. All others draw on the CPU, the same for every device."""

TWINS = ("none", "weights", "weights+order")
"""What a victim may share with the surrogate is nothing; its first weights; or these and the order of the images."""


def checked(seed: object) -> int:
    """Return `seed` as a plain int, also where NumPy hands it over.

    Raises:
        InputError: it is no whole number of 0 or above.
    """
    return whole("seed", seed, 0)


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
    """The random numbers that `seed` decides for `role`, on `device`; see `derived` for the errors.

    Example:
        >>> import torch
        >>> from miue import seeds
        >>> draws = [torch.rand(1, generator=seeds.stream(0, role)) for role in ("shuffle", "shuffle", "critic")]
        >>> draws[0] == draws[1], draws[1] == draws[2]
        (tensor([True]), tensor([False]))
    """
    return torch.Generator(device).manual_seed(derived(seed, role))


@contextmanager
def globally(seed: int | torch.Generator, device: torch.device | str = "cpu") -> Iterator[None]:
    """Let what draws from PyTorch's global random state, as layers and transforms do, draw what `seed` decides.

    The global state of the CPU and of `device` is put back afterwards. Draws are the same on the same kind of device.

    Args:
        seed: a number, or a generator on the CPU that draws one.
        device: where draws are made.
    """
    number = seed if isinstance(seed, int) else int(torch.randint(2**62, (), generator=seed))
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(number)
        yield


def of_rank(seed: int, number: int) -> int:
    """The seed of one of the processes that share a perturbation: the first has `seed` itself, the others their own."""
    return derived(seed, "rank") + number if number else seed


class Training(NamedTuple):
    """The seeds of one network's training: weights, order of the images, flips and crops, defense, and its noise."""

    weights: int
    order: int
    augmentation: int
    defense: int
    noise: int


def surrogate(seed: int) -> Training:
    """The seeds of the network whose gradients shape a perturbation; see `derived` for the errors."""
    return Training(*(derived(seed, f"surrogate {what}") for what in Training._fields))


def victim(seed: int, twin: str = "none", surrogate_seed: int | None = None) -> Training:
    """The seeds of a victim: its own, or in part those of a surrogate.

    Args:
        seed: of the victim.
        twin: one of `TWINS`. A protector does not know the victim's start, so anything but "none" is a white box.
        surrogate_seed: of the perturbation whose surrogate the victim is a twin of.

    Raises:
        InputError: a wrong seed, an unknown twin, or a twin without `surrogate_seed`.
    """
    own = Training(*(derived(seed, f"victim {what}") for what in Training._fields))
    if choose("twin", twin, TWINS) == "none":
        return own
    if surrogate_seed is None:
        raise InputError(f"surrogate_seed: missing; a victim with twin={twin!r} needs the seed of the perturbation")
    shared = surrogate(surrogate_seed)
    own = own._replace(weights=shared.weights)
    return own if twin == "weights" else own._replace(order=shared.order)
