"""Library transforms that obey a generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Let transforms that draw from PyTorch's global random state draw what `generator` (CPU) decides.

    The global state of the CPU and of `device` is put back afterwards. The same generator gives the same draws on the
    same kind of device.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
