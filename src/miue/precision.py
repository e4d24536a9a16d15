"""The precisions that networks compute in, by name, and the switches of PyTorch that each of them needs.

On a GPU PyTorch multiplies float32 in convolutions as TF32 (10 bits of fraction instead of 23) unless that is switched
off, so a name alone says little: `arithmetic` sets what it says, for forward and backward passes alike. These run under
the setting of the moment at which they run, hence it goes around whole loops.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from miue.errors import InputError, choose

__all__ = ["PRECISIONS", "arithmetic", "precision"]

PRECISIONS = ("auto", "float32", "tf32", "float16", "bfloat16")
"""float32 is IEEE single precision; tf32 the same, but products round their factors to TF32; in float16 and bfloat16
convolutions and linear layers take and give halves, while weights stay float32; auto is bfloat16 where the chip has it.
"""

LOSS_SCALE = 2.0**10
"""What a loss is multiplied by where gradients are float16, which would lose those below 6e-8."""

_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@cache
def _cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively; emulated, it is slower than float32."""
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16"))


def precision(wanted: str, device: torch.device) -> str:
    """Resolve `wanted`, one of `PRECISIONS`, on `device`: anything but "auto" comes back as it is.

    Raises:
        InputError: there is no such precision, or not on this device.
    """
    choose("precision", wanted, PRECISIONS)
    if wanted == "tf32" and device.type == "cpu":
        raise InputError("precision: 'tf32' on a CPU, which does not have it; take 'float32' or 'bfloat16'")
    if wanted != "auto":
        return wanted
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if native else "float32"


def halves(precision: str, device: torch.device) -> torch.autocast:
    """Where networks compute in halves if `precision` (resolved) says so, and in float32 if it does not."""
    dtype = _HALVES.get(precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def loss_scale(precision: str) -> float:
    """What a loss is multiplied by, before its gradient is taken, in `precision` (resolved): `LOSS_SCALE`, or 1."""
    return LOSS_SCALE if precision == "float16" else 1.0


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Multiply float32 as `precision` (resolved) says: as TF32 for "tf32", else as IEEE; afterwards as before.

    The switches are the process's own, whatever thread computes.
    """
    before = _switches()
    _switch(*(("tf32", "high") if precision == "tf32" else ("ieee", "highest")))
    try:
        yield
    finally:
        _switch(*before)


def _switches() -> tuple[str, str]:
    """How float32 is multiplied: in convolutions "ieee" or "tf32", in matrices "highest", "high" or "medium"."""
    cudnn: Any = torch.backends.cudnn
    if not hasattr(cudnn, "conv"):  # before PyTorch 2.9
        return "tf32" if cudnn.allow_tf32 else "ieee", torch.get_float32_matmul_precision()
    on_cpu, on_gpu = (of.matmul.fp32_precision for of in (torch.backends.mkldnn, torch.backends.cuda))
    matrices = "medium" if on_cpu == "bf16" else "high" if on_gpu == "tf32" else "highest"
    return "tf32" if cudnn.conv.fp32_precision == "tf32" else "ieee", matrices


def _switch(convolutions: str, matrices: str) -> None:
    """Set what `_switches` tells, by both generations of PyTorch's switches, so that either can still be read."""
    cudnn: Any = torch.backends.cudnn
    cudnn.allow_tf32 = convolutions == "tf32"
    torch.set_float32_matmul_precision(matrices)
    if hasattr(cudnn, "conv"):
        cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = convolutions
