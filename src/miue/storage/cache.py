"""A cache of what was expensive: a result is made once, by one process, and found by all that determines it."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from miue.errors import choose
from miue.progress import say
from miue.ranks import ALONE, Ranks
from miue.storage.checkpoint import Checkpoint
from miue.storage.files import cache_dir, cache_locked, clear_parts
from miue.storage.tensors import Damaged


def any_threads() -> bool:
    """Whether a result of this processor may be taken that another number of threads made: `$MIUE_ANY_THREADS` is 1.

    Sums are rounded in another order then, so that it is not the same bit for bit.

    Raises:
        InputError: the variable is neither 0 nor 1.
    """
    return choose("MIUE_ANY_THREADS", os.environ.get("MIUE_ANY_THREADS") or "0", ("0", "1")) == "1"


class Kept(Protocol):
    """What `cached` can keep: it saves itself to a file and loads itself from one."""

    def save(self, path: str | Path) -> None:
        """Write to `path`, atomically."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from `path`; raise FileNotFoundError, or `tensors.Damaged`."""


K = TypeVar("K", bound=Kept)


def key(**parts: Any) -> str:
    """Hex digest of what determines a result; every part must be JSON."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def find(kind: type[K], *, foreign: Sequence[str] = (), threads: int | None = None, **parts: Any) -> K | None:
    """Return the result that the arguments determine, as in `cached`, if it lies in the cache, undamaged."""
    found = None if foreign else _find(kind, threads, parts)
    return None if found is None else found[0]


def cached(
    kind: type[K],
    make: Callable[[Checkpoint], K],
    what: str,
    *,
    foreign: Sequence[str] = (),
    threads: int | None = None,
    ranks: Ranks = ALONE,
    folder: Path | None = None,
    **parts: Any,
) -> K:
    """Return the result that `parts` determine: from the cache where it lies there, else from `make`.

    One process makes it, others that want the same wait. It goes on from its last checkpoint if it was stopped.

    Args:
        kind: the class of the result.
        make: makes it, given the checkpoint in which it keeps its state.
        what: name of the result, for what is shown.
        foreign: what takes part in it and stands in no key, as `foreign_code` names it; the result is then made each
            time, and not kept.
        threads: of the processor that makes it. What another number of them made counts where `any_threads` says so.
        ranks: the processes that make it together, each a part of its own; all find their parts, or all make them.
        folder: where it is kept instead of in the cache.
        parts: everything else that determines it: parameters, content hashes, `code_hash`, processor or GPU, torch
            version.

    Raises:
        InputError: the cache folder cannot be written.
    """
    if foreign:
        say(f"{what}: made anew and not kept, for no key can tell when {', '.join(foreign)} changes")
        return make(Checkpoint(ranks=ranks))
    path = _place(kind, threads, parts, folder)
    if ranks.count > 1:
        return _cached_together(kind, make, what, ranks, path)
    if found := _find(kind, threads, parts, folder):
        result, place = found
        if place != path:
            say(f"{what}: from the cache, where {place.stem.rpartition('-')[2]} threads made it")
        return result
    with ExitStack() as locks:
        if threads is not None and any_threads():  # whatever the number of threads, only one makes it
            locks.enter_context(cache_locked(_place(kind, None, parts, folder), what))
        locks.enter_context(cache_locked(path, what))
        clear_parts(path)
        try:
            return kind.load(path)  # by the process that we waited for
        except FileNotFoundError:
            pass
        except Damaged as error:
            aside = path.with_suffix(".damaged")
            os.replace(path, aside)
            say(f"cache: {error}; it is set aside as {aside.name} and made anew")
        if found := _find(kind, threads, parts, folder):  # by one with another number of threads
            return found[0]
        keep = Checkpoint(path.with_suffix(".parts"))
        result = make(keep)
        if _saved(result, path, what):
            keep.forget()
    return result


def _cached_together(kind: type[K], make: Callable[[Checkpoint], K], what: str, ranks: Ranks, path: Path) -> K:
    """What `cached` does, for processes that make a result together; `path` is the place of this one's part."""
    if ranks.number:
        ranks.gather(None)
    with cache_locked(path, what):
        if ranks.number == 0:
            ranks.gather(None)  # the first one's lock comes first, or two such runs could wait for each other
        clear_parts(path)
        try:
            result = kind.load(path)
        except (FileNotFoundError, Damaged):
            result = None
        if all(ranks.gather(result is not None)) and result is not None:
            return result
        keep = Checkpoint(path.with_suffix(".parts"), ranks=ranks)
        result = make(keep)
        if all(ranks.gather(_saved(result, path, what))):
            keep.forget()
    return result


def _saved(result: Kept, path: Path, what: str) -> bool:
    """Save a result that was made; a cache that cannot take it costs no more than that."""
    try:
        result.save(path)
    except OSError as error:
        say(f"{what}: made, but not kept in the cache ({error}); free some space before it is wanted again")
        return False
    return True


def _find(
    kind: type[K], threads: int | None, parts: dict[str, Any], folder: Path | None = None
) -> tuple[K, Path] | None:
    """The result and where it lies: at its own place or, if so asked, at that of another number of threads."""
    places = [_place(kind, threads, parts, folder)]
    if threads is not None and any_threads():
        pattern = key(**parts) + "-*.safetensors"
        places += sorted(set(places[0].parent.glob(pattern)) - set(places))
    for place in places:
        try:
            return kind.load(place), place
        except (FileNotFoundError, Damaged):
            continue
    return None


def _place(kind: type, threads: int | None, parts: dict[str, Any], folder: Path | None = None) -> Path:
    name = key(**parts) if threads is None else f"{key(**parts)}-{threads}"
    return (folder or cache_dir()) / kind.__name__.lower() / f"{name}.safetensors"
