"""Digests of files, remembered, since large ones are read slowly, and of images."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from miue.errors import InputError, printable
from miue.storage.files import atomic, cache_dir


def digest(content: bytes) -> bytes:
    """16 bytes that tell contents apart."""
    return hashlib.blake2b(content, digest_size=16).digest()


def fingerprint(pixels: np.ndarray, label: int | np.integer) -> bytes:
    """Eight bytes that tell images apart: a BLAKE2 digest of pixels (C, H, W) uint8 and label."""
    return hashlib.blake2b(pixels.tobytes() + f"{label}".encode(), digest_size=8).digest()


def fingerprints(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """`fingerprint` of each image of batches (pixels and labels), (N,) int64."""
    found: list[bytes] = []
    with ThreadPoolExecutor() as pool:
        for batch in batches:
            x, y = (part.cpu().numpy() for part in batch)
            found += (pool.map if x[0].size > 2**15 else map)(fingerprint, x, y)  # threads do not pay for smaller ones
    return torch.from_numpy(np.frombuffer(b"".join(found), dtype="<i8").copy())


def remembered(question: str, answer: Callable[[], str]) -> str:
    """Return a hex digest that is expensive to take: `answer()`, or what it was for this `question` before."""
    if known := answered(question):
        return known
    found = answer()
    with atomic(_note(question)) as part:
        part.write_text(found)
    return found


def answered(question: str) -> str | None:
    """The digest that `remembered` took for this `question` before; None where it took none."""
    file = _note(question)
    known = file.read_bytes() if file.exists() else b""
    return known.decode() if re.fullmatch(rb"[0-9a-f]{32}", known) else None


def _note(question: str) -> Path:
    return cache_dir() / "images" / f"{digest(question.encode(errors='surrogateescape')).hex()}.key"


def contents(path: Path, relative: list[str]) -> str:
    """Digest of images' names and contents, remembered by sizes and times so that unchanged files are not read again.

    Args:
        path: a folder.
        relative: the images, by their paths in it.

    Raises:
        InputError: one is no ordinary file.
    """
    stats = []
    for r in relative:
        try:
            found = os.stat(path / r)
        except OSError as error:  # a link to nothing, for one
            raise InputError(printable(f"data: {path / r} cannot be read ({error.strerror})")) from None
        if not stat.S_ISREG(found.st_mode):
            raise InputError(printable(f"data: {path / r} is no ordinary file"))
        stats.append((r, found.st_size, found.st_mtime_ns))

    def read() -> str:
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(lambda r: digest((path / r).read_bytes()), relative))
        return digest(f"{list(zip(relative, digests, strict=True))}".encode()).hex()

    return remembered(f"{path.resolve()} {stats}", read)
