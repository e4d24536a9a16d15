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
OPTIONAL = {"jupyter-book": "miue book", "papermill": "miue run and miue sweep", "parsl": "miue sweep"}
"""Packages of the extra `book`, which not everything needs, and what each is for."""
VARIABLES = re.compile(r"(MIUE|OMP|MKL)_.+|CUDA_VISIBLE_DEVICES")
LITTLE = 2 * 10**9
"""Bytes of memory below which a training may not find room."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        about: what it is: "torch", "threads", "cifar10".
        found: how it is, in words.
        advice: what to do about it; empty where nothing is to be done.
        facts: the same as numbers and names; JSON.
        mark: "ok" without advice; with one "note", where something could be better, unless it is said to be a
            "problem", where something will not work.
    """

    about: str
    found: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    mark: str = NOTE

    def __post_init__(self) -> None:
        if not self.advice:
            object.__setattr__(self, "mark", OK)


def versions() -> Iterator[Finding]:
    """The package itself, Python, and what is installed beside them."""
    home, facts = str(Path(miue.__file__).parent), {"version": miue.__version__}
    if needs := _needs():
        missing = [name for name in needs if _version(name) is None]
        found = f"{miue.__version__}, imported from {home}" + "".join(f", {name} is missing" for name in missing)
        advice = "install it again with what it needs: pip install -e . in its checkout" if missing else ""
        yield Finding("miue", found, advice, facts | {"home": home, "missing": missing}, PROBLEM)
    else:
        yield Finding("miue", f"not installed, imported from {home}", "pip install -e . in its checkout", facts)
    python = platform.python_version()
    yield Finding("python", f"{python}, {sys.executable}", facts={"version": python})
    for name, purpose in OPTIONAL.items():
        there = _version(name)
        if there is None:
            yield Finding(name, "not installed", f"for {purpose}: pip install 'miue[book]'")
        else:
            other = name == "jupyter-book" and not there.startswith("1.")
            advice = "it reads only books of another kind: pip install 'jupyter-book<2'" if other else ""
            yield Finding(name, there, advice, {"version": there}, PROBLEM)


def device() -> Iterator[Finding]:
    """PyTorch, and what it computes on."""
    import torch

    from miue.precision import precision
    from miue.storage.provenance import device_name

    cuda, driver = torch.version.cuda, _driver()
    built = f"CUDA {cuda}" if cuda else "CPU"
    facts: dict[str, Any] = {"version": torch.__version__, "for": built}
    yield Finding("torch", f"{torch.__version__}, built for {built}", facts=facts)
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        facts = {"name": about.name, "memory": about.total_memory, "driver": driver, "cuda": cuda}
        told = f"{about.name}, {decimal(about.total_memory)}, driver {driver or 'unknown'}"
        yield Finding(f"GPU {number}", told, facts=facts)
    there, hidden = torch.cuda.is_available(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if not there and driver is None:
        advice = "take the presets quick or laptop; paper is meant for a GPU"
        yield Finding("GPU", f"none; {device_name('cpu')}", advice)
    elif not there and hidden is not None:
        advice = f"CUDA_VISIBLE_DEVICES is {hidden!r}; unset it to use the GPU"
        yield Finding("GPU", f"hidden; {device_name('cpu')}", advice)
    elif not there:
        told = f"not seen by PyTorch for {built}, though driver {driver} is there"
        advice = f"install a PyTorch whose CUDA driver {driver} supports: https://pytorch.org/get-started"
        yield Finding("GPU", told, advice, mark=PROBLEM)
    auto = precision("auto", torch.device("cuda" if there else "cpu"))
    speed = "native" if auto == "bfloat16" else "not native, so slower than float32"
    yield Finding("bfloat16", f"{speed}; the precision auto takes {auto}", facts={"native": auto == "bfloat16"})


def threads() -> Iterator[Finding]:
    """Cores, threads of PyTorch, and the environment variables that decide how the package computes."""
    import torch

    from miue.storage.cache import any_threads
    from miue.storage.provenance import cores

    there, usable, taken = os.cpu_count() or 1, cores(), torch.get_num_threads()
    advice = "its affinity is set, by taskset or a queue: ask for more if you want" if usable < there else ""
    if taken > usable:
        advice = f"set OMP_NUM_THREADS={usable}: more threads than cores wait"
    told = f"PyTorch takes {taken}; this process may use {usable} of {there} cores"
    yield Finding("threads", told, advice, {"cores": there, "usable": usable, "torch": taken})
    named = {name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)}
    told, advice = ", ".join(f"{name}={value}" for name, value in named.items()) or "none is set", ""
    try:
        any_threads()
    except InputError as error:
        advice = str(error)
    yield Finding("variables", told, advice, named, PROBLEM)


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
    advice = "end other programs, or take fewer images (n_train) or smaller batches" if free < LITTLE else ""
    yield Finding("memory", found, advice, {"free": free, "total": total})


def checkout() -> Iterator[Finding]:
    """The commit that records name."""
    from miue.storage.provenance import collect

    facts = {name: collect()[name] for name in ("commit", "code")}
    commit = facts["commit"] or "none, for the package is no checkout; records name its version"
    changed = commit.endswith("+")
    told, advice = (f"{commit[:-1]}, with changes", "commit before a run to be published") if changed else (commit, "")
    yield Finding("commit", told, advice, facts)


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
