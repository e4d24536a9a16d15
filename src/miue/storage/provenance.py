"""What made a number: versions, commit and code, and the machine."""

import os
import platform
import subprocess
import tomllib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

import miue
from miue.storage.code import PACKAGE, code_hash


@cache
def _commit() -> str | None:
    """The commit of this project's checkout, "+" behind it where sources differ; None where the package is installed.

    A package that is installed into a folder of another repository is no checkout of this one.
    """

    def git(*words: str) -> str:
        asked = subprocess.run(["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, check=True)
        return asked.stdout.strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
        project = tomllib.loads((top / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        if project.get("name") != "miue" or (top / "src" / "miue").resolve() != PACKAGE.resolve():
            return None
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def machine(device: torch.device | str | None = None) -> tuple[str, int | None]:
    """The name of the GPU or processor that the numbers are made on; of the latter, the number of threads too."""
    if torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type == "cuda":
        return torch.cuda.get_device_name(device), None
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine(), torch.get_num_threads()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(device: torch.device | str | None = None) -> str:
    """What `machine` tells, in words."""
    name, threads = machine(device)
    return name if threads is None else f"{name}, {threads} threads"


def environment(device: torch.device) -> dict[str, Any]:
    """What of the machine decides whether a number comes out the same bit for bit."""
    name, threads = machine(device)
    return {"torch": torch.__version__, "device": name, "threads": threads}


def now() -> str:
    """The time as records write it, such as "2026-03-05T10:00:00+00:00"."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def collect(device: torch.device | str | None = None) -> dict[str, Any]:
    """What made a number: versions of package, code, torch and Python, and the device."""
    return {
        "miue": miue.__version__,
        "commit": _commit(),
        "code": code_hash(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(device),
    }
