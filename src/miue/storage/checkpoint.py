"""Checkpoints: the state of a long computation, kept on disk now and then, so that a stopped one goes on.

A computation names the live objects that it changes, asks how far it had come, and saves after every step:

    keep.hold(network=network, delta=delta, generator=generator, rows=rows)
    for step in range(keep.restore() + 1, steps + 1):
        ...
        keep.save(step)

What is restored is exact, and lies where and as the live objects lie: on their device, in the memory format of the
weights. So on a CPU the end is bit for bit that of a computation that was never stopped.
"""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from miue.progress import say
from miue.ranks import ALONE, Ranks
from miue.storage import tensors
from miue.storage.files import clear_parts

MOST = 1 / 20
"""Share of the time that saving may take; where it takes longer, fewer steps are saved."""


class Stateful(Protocol):
    """A network, an optimizer, a schedule, and whatever else tells its state and takes one."""

    def state_dict(self) -> dict[str, Any]:
        """Nested dicts, lists and tuples of tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take what `state_dict` told."""


Live = Stateful | Tensor | torch.Generator | list[Any]


@dataclass
class Clock:
    """When a computation began, and how many seconds it had taken before."""

    earlier: float = 0.0
    began: float = field(default_factory=lambda: time.perf_counter())


class Checkpoint:
    """The state of one computation, in a file; without a folder nothing is kept.

    Args:
        folder: where the files of this computation and of its parts lie; it belongs to them alone.
        name: of this part.
        clock: of the whole computation; a new one by default.
        ranks: the processes that compute together, each with a folder of its own. They save after the same steps, and
            go on after the last one that all of them have saved: each keeps the one before it, too.
    """

    def __init__(
        self, folder: Path | None = None, name: str = "main", clock: "Clock | None" = None, ranks: Ranks = ALONE
    ) -> None:
        self._folder, self._name, self._ranks = folder, name, ranks
        self._clock = Clock() if clock is None else clock
        self._held: dict[str, Live] = {}
        self._saved, self._took = -float("inf"), 0.0

    def part(self, name: str) -> "Checkpoint":
        """The checkpoint of one part of the computation, in a file of its own."""
        return Checkpoint(self._folder, f"{self._name}-{name}", self._clock, self._ranks)

    def hold(self, **live: Live) -> None:
        """Name objects that the computation changes: they are saved and restored in place, each under its own name."""
        if twice := self._held.keys() & live.keys():
            raise KeyError(f"two objects are held as {sorted(twice)}")
        self._held |= live

    @property
    def seconds(self) -> float:
        """Wall time of the computation and all its parts until now, that before the last saved stop included."""
        return self._clock.earlier + time.perf_counter() - self._clock.began

    def restore(self) -> int:
        """Put the held objects into the state that was saved last; return the number of steps done, 0 if none."""
        if self._folder is not None:
            clear_parts(self._file(self._folder))
        found = self._read()
        if found is None:
            return 0
        stored, record = found
        for name, live in self._held.items():
            _put(live, _unpacked(record["state"][name], stored))
        self._clock.earlier = max(self._clock.earlier, record["seconds"])
        self._saved = time.monotonic()
        say(f"{self._name}: going on after step {record['done']}, where it was stopped")
        return record["done"]

    def save(self, done: int, last: bool = False) -> None:
        """Keep the state after step `done`, unless saving would take too much of the time; the `last` always.

        A disk that is full or fails costs the checkpoint and not the computation.
        """
        began = time.monotonic()
        due = last or began - self._saved >= self._took / MOST
        if self._folder is None or not any(self._ranks.gather(due)):
            return
        stored: dict[str, Tensor] = {}
        state = {name: _packed(_state(live), stored) for name, live in self._held.items()}
        try:
            record = {"done": done, "seconds": self.seconds, "state": state}
            file = self._file(self._folder)
            if self._ranks.count > 1 and file.exists():
                os.replace(file, _before(file))
            tensors.save(file, stored, record)
        except OSError as error:
            say(f"{self._name}: no checkpoint of step {done} ({error}); the computation goes on without it")
        self._saved = time.monotonic()
        self._took = self._saved - began

    def forget(self) -> None:
        """Delete the files of this computation."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, folder: Path) -> Path:
        return folder / f"{self._name}.safetensors"

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was saved last, by all processes."""
        if self._folder is None:
            return None
        file = self._file(self._folder)
        if self._ranks.count == 1:
            return _load(file)
        found = {read[1]["done"]: (read, one) for one in (_before(file), file) if (read := _load(one)) is not None}
        common = set.intersection(*map(set, self._ranks.gather(list(found))))
        if not common:
            return None
        read, last = found[max(common)]
        os.replace(last, file)  # over a later one, which others do not have
        return read


def _before(file: Path) -> Path:
    """Where what was saved before the last step lies."""
    return file.with_suffix(".before")


def _load(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    try:
        return tensors.load(file)
    except FileNotFoundError:
        return None
    except tensors.Damaged as error:
        say(f"checkpoint: {error}; the computation starts anew")
        return None


def _state(live: Live) -> Any:
    if isinstance(live, torch.Generator):
        return live.get_state()
    return live if isinstance(live, Tensor | list) else live.state_dict()


def _put(live: Live, state: Any) -> None:
    if isinstance(live, torch.Generator):
        live.set_state(state.clone())  # it wants the bytes aligned
    elif isinstance(live, Tensor):
        live.copy_(state)
    elif isinstance(live, list):
        live[:] = state
    else:
        own = live.state_dict()
        live.load_state_dict(_placed(state, own, next(_leaves(own), None)))
        if isinstance(live, torch.optim.Optimizer):
            _lay_out(live)


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)


def _placed(value: Any, own: Any, otherwise: Tensor | None) -> Any:
    """Move the tensors of a restored state to where those of the live one lie, or its first where it has no such yet.

    Where the live state has no tensor at all, as that of a new optimizer, they stay on the CPU, and whoever takes them
    knows where they belong.
    """
    if isinstance(value, Tensor):
        like = own if isinstance(own, Tensor) else otherwise
        return value if like is None else value.to(like.device)
    if isinstance(value, dict):
        inside = own if isinstance(own, dict) else {}
        return {key: _placed(item, inside.get(key), otherwise) for key, item in value.items()}
    if isinstance(value, list):
        whole = isinstance(own, list | tuple) and len(own) == len(value)
        return [_placed(item, own[at] if whole else None, otherwise) for at, item in enumerate(value)]
    return value


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer keeps for each weight (momentum) the strides of that weight, which no file knows."""
    for weight, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                kept[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _packed(value: Any, stored: dict[str, Tensor]) -> Any:
    """Turn a nested state into JSON: tensors go into `stored`, dicts become pairs, for a key may be a number."""
    if isinstance(value, Tensor):
        name = str(len(stored))
        stored[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _packed(item, stored)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_packed(item, stored) for item in value]
    return value


def _unpacked(value: Any, stored: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, stored) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return stored[value["tensor"]]
        return {key: _unpacked(item, stored) for key, item in value["dict"]}
    return value
