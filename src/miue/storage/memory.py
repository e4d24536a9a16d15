"""Tensors that may be larger than memory: in files without a name, or mapped from files that exist."""

import math
import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from miue.storage.files import cache_dir

RESIDENT_BYTES = 8 * 2**30
"""A tensor up to this size, and up to a quarter of a device's memory, is kept on the device whole."""

_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # its value on x86 and ARM; older Pythons have no name for it


def fits(size: int, device: torch.device | str) -> bool:
    """Whether `size` bytes may lie whole in the memory of `device`; perturbations need as much as their images."""
    device = torch.device(device)
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        total = sys.maxsize  # Windows does not tell it so
    return size <= min(RESIDENT_BYTES, total // 4)


def zeros(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Make zeros: on `device` where they fit, else on the CPU, in a file that goes when the tensor goes.

    The file has no name, so that the system deletes it when the process ends, however it ends. It lies in the cache
    folder, and its pages come and go as the page cache sees fit.

    Raises:
        OSError: the disk has no room for it.
    """
    size = math.prod(shape) * dtype.itemsize
    if fits(size, device):
        return torch.zeros(*shape, dtype=dtype, device=device)
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_dir()) as file:
        # A hole in the file would be filled at the first write, and a disk that is full then kills the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=dtype).view(*shape)


def mapped(path: Path, shape: Sequence[int], dtype: torch.dtype, offset: int = 0) -> Tensor:
    """Map a tensor from the bytes of a file that start at `offset`, a multiple of the size of a number.

    It may be larger than memory. A write to it stays in memory and does not reach the file.

    Raises:
        ValueError: the file is too short.
        OSError: it cannot be read.
    """
    count = math.prod(shape)
    if count == 0:
        return torch.zeros(*shape, dtype=dtype)
    how: dict[str, int] = {"access": mmap.ACCESS_COPY}
    if sys.platform == "linux":
        # Without room reserved for writes, which the system would refuse for a file larger than memory.
        how = {"flags": mmap.MAP_PRIVATE | _NO_RESERVE, "prot": mmap.PROT_READ | mmap.PROT_WRITE}
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, **how)
    return torch.frombuffer(pages, dtype=dtype, count=count, offset=offset).view(*shape)
