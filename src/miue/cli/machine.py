"""What `miue doctor` finds of this machine: versions, GPU, threads, memory, checkout."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from rich.filesize import decimal

import miue
from miue.errors import InputError

OK, NOTE, PROBLEM = "ok", "note", "problem"
OPTIONAL = {
    "jupyter-book": ("book", "miue book"),
    "papermill": ("book", "miue run and miue sweep"),
    "parsl": ("book", "miue sweep"),
}
"""Packages that not everything needs: the extra that installs each, and what it is for."""
VARIABLES = re.compile(r"(MIUE|OMP|MKL)_.+|CUDA_VISIBLE_DEVICES")
LITTLE = 2 * 10**9
"""Bytes of memory below which a training may not find room."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        about: what it is: "torch", "threads", "cifar10".
        found: how it is, in words.
        mark: "ok"; "note" where something could be better; "problem" where something will not work.
        advice: what to do about it; empty where nothing is to be done.
        facts: the same as numbers and names; JSON.
    """

    about: str
    found: str
    mark: str = OK
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def versions() -> Iterator[Finding]:
    """The package itself, Python, and what is installed beside them."""
    home, facts = str(Path(miue.__file__).parent), {"version": miue.__version__}
    if needs := _needs():
        missing = [name for name in needs if _version(name) is None]
        found = f"{miue.__version__}, imported from {home}" + "".join(f", {name} is missing" for name in missing)
        advice = "install it again with what it needs: pip install -e . in its checkout" if missing else ""
        yield Finding("miue", found, PROBLEM if missing else OK, advice, facts | {"home": home, "missing": missing})
    else:
        yield Finding("miue", f"not installed, imported from {home}", NOTE, "pip install -e . in its checkout", facts)
    python = platform.python_version()
    yield Finding("python", f"{python}, {sys.executable}", facts={"version": python})
    for name, (extra, purpose) in OPTIONAL.items():
        found_version = _version(name)
        if found_version is None:
            yield Finding(name, "not installed", NOTE, f"for {purpose}: pip install 'miue[{extra}]'")
        elif name == "jupyter-book" and not found_version.startswith("1."):
            advice = "it reads only books of another kind: pip install 'jupyter-book<2'"
            yield Finding(name, found_version, PROBLEM, advice, {"version": found_version})
        else:
            yield Finding(name, found_version, facts={"version": found_version})


def device() -> Iterator[Finding]:
    """PyTorch, and what it computes on."""
    import torch

    from miue.precision import precision
    from miue.storage.provenance import device_name

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    yield Finding(
        "torch", f"{torch.__version__}, built for {built}", facts={"version": torch.__version__, "for": built}
    )
    driver = _driver()
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        facts = {"name": about.name, "memory": about.total_memory, "driver": driver, "cuda": torch.version.cuda}
        told = f"{about.name}, {decimal(about.total_memory)}, driver {driver or 'unknown'}"
        yield Finding(f"GPU {number}", told, facts=facts)
    if not torch.cuda.is_available():
        name = device_name("cpu")
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        if driver is None:
            yield Finding("GPU", f"none; {name}", NOTE, "take the presets quick or laptop; paper is meant for a GPU")
        elif hidden is not None:
            yield Finding(
                "GPU", f"hidden; {name}", NOTE, f"CUDA_VISIBLE_DEVICES is {hidden!r}; unset it to use the GPU"
            )
        else:
            advice = f"install a PyTorch whose CUDA driver {driver} supports: https://pytorch.org/get-started"
            yield Finding("GPU", f"not seen by PyTorch for {built}, though driver {driver} is there", PROBLEM, advice)
    here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    auto = precision("auto", here)
    speed = "native" if auto == "bfloat16" else "not native, so slower than float32"
    yield Finding("bfloat16", f"{speed}; the precision auto takes {auto}", facts={"native": auto == "bfloat16"})


def threads() -> Iterator[Finding]:
    """Cores, threads of PyTorch, and the environment variables that decide how the package computes."""
    import torch

    from miue.storage.cache import any_threads

    there, taken = os.cpu_count() or 1, torch.get_num_threads()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    facts = {"cores": there, "usable": usable, "torch": taken}
    told = f"PyTorch takes {taken}; this process may use {usable} of {there} cores"
    if taken > usable:
        yield Finding("threads", told, NOTE, f"set OMP_NUM_THREADS={usable}: more threads than cores wait", facts)
    elif usable < there:
        yield Finding(
            "threads", told, NOTE, "its affinity is set, by taskset or a queue: ask for more if you want", facts
        )
    else:
        yield Finding("threads", told, facts=facts)
    named = {name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)}
    told = ", ".join(f"{name}={value}" for name, value in named.items()) or "none is set"
    try:
        any_threads()
        yield Finding("variables", told, facts=named)
    except InputError as error:
        yield Finding("variables", told, PROBLEM, str(error), named)


def memory() -> Iterator[Finding]:
    """Memory, and how much of it a data set may take."""
    from miue.storage.memory import RESIDENT_BYTES

    if not hasattr(os, "sysconf"):
        return  # Windows does not tell it so
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    info = Path("/proc/meminfo")
    told = re.search(r"MemAvailable:\s+(\d+) kB", info.read_text() if info.exists() else "")
    free = int(told[1]) * 1024 if told else total
    whole = decimal(min(RESIDENT_BYTES, total // 4))
    found = (
        f"{decimal(free)} free of {decimal(total)}; images up to {whole} stay in it whole, others are read from disk"
    )
    little = free < LITTLE
    advice = "end other programs, or take fewer images (n_train) or smaller batches" if little else ""
    yield Finding("memory", found, NOTE if little else OK, advice, {"free": free, "total": total})


def checkout() -> Iterator[Finding]:
    """The commit that records name."""
    from miue.storage.provenance import collect

    made_by = collect()
    commit, facts = made_by["commit"], {"commit": made_by["commit"], "code": made_by["code"]}
    if commit is None:
        yield Finding("commit", "none, for the package is no checkout; records name its version", facts=facts)
    elif commit.endswith("+"):
        yield Finding("commit", f"{commit[:-1]}, with changes", NOTE, "commit before a run to be published", facts)
    else:
        yield Finding("commit", commit, facts=facts)


def _needs() -> list[str]:
    """Names of the packages that this one needs; none where it is not installed."""
    try:
        return [re.split(r"[^\w.-]", line)[0] for line in requires("miue") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        return []


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Version of the NVIDIA driver; None where there is none, or the system does not tell."""
    about = Path("/proc/driver/nvidia/version")
    found = re.search(r"Kernel Module.*?(\d+\.\d[\d.]*)", about.read_text()) if about.exists() else None
    return found[1] if found else None
