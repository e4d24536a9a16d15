"""The files of a perturbation that several processes share: a shard of each, and one index."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from miue.data.images import Images
from miue.errors import InputError
from miue.ranks import Ranks
from miue.storage import memory, tensors
from miue.storage.files import atomic

if TYPE_CHECKING:
    from miue.poisons.poison import Poison


def save(part: "Poison", path: str | Path, images: Images, ranks: Ranks) -> None:
    """Write the part of each process beside `path`, then the index to `path`; alone, the perturbation itself.

    Nothing takes its place before every process has written its shard, and nothing hidden stays where one of them
    fails. The shards, "delta-0-of-2.safetensors" beside "delta.safetensors", are perturbations of their own images.

    Args:
        part: what this process made.
        path: of the index, in a folder that all processes see.
        images: of all processes.
        ranks: this process among them.

    Raises:
        InputError: the first process does not see a shard.
        OSError: a file cannot be written.
    """
    path = Path(path)
    if ranks.count == 1:
        part.save(path)
        return
    shards = [path.with_stem(f"{path.stem}-{number}-of-{ranks.count}") for number in range(ranks.count)]
    own = shards[ranks.number]
    with atomic(own) as hidden:
        part.save(hidden)
        digests = ranks.gather(tensors.digest(hidden))
    ranks.gather(None)
    if ranks.number == 0:
        if missing := [shard for shard in shards if not shard.exists()]:
            raise InputError(f"out: {missing[0]} is not seen here; give a file in a folder that all machines share")
        order = torch.argsort(images.ids)
        stored = {"ids": images.ids[order], "fingerprints": images.fingerprints[order]}
        named = {shard.name: digest for shard, digest in zip(shards, digests, strict=True)}
        tensors.save(path, stored, part.record | {"data": images.record(), "shards": named})
    ranks.gather(None)


def joined(path: str | Path, index: Mapping[str, Tensor], shards: Mapping[str, str]) -> dict[str, Tensor]:
    """Read the shards of the index `path`: delta, ids and fingerprints of one perturbation, in the order of its ids.

    Args:
        path: of the index; its shards lie beside it.
        index: what it holds: ids, ascending, and fingerprints.
        shards: the name of each shard, and the digest that it was written with.

    Raises:
        Damaged: a shard is missing, is not as it was written, or belongs to something else.
    """
    try:
        parts = [_read(Path(path).with_name(name), digest) for name, digest in shards.items()]
        order = torch.cat([part["ids"] for part in parts]).argsort()
        for name in ("ids", "fingerprints"):
            if not torch.equal(torch.cat([part[name] for part in parts])[order], index[name]):
                raise tensors.Damaged(f"its shards, {', '.join(shards)}, do not hold its images")
        first = parts[0]["delta"]
        delta = memory.zeros((len(order), *first.shape[1:]), first.dtype, "cpu")
        for part in parts:
            delta[torch.searchsorted(index["ids"], part["ids"])] = part["delta"]
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise tensors.Damaged(f"its shards cannot be put together ({error})") from None
    return {**index, "delta": delta}


def _read(file: Path, digest: str) -> dict[str, Tensor]:
    try:
        stored, _ = tensors.load(file)
    except FileNotFoundError:
        raise tensors.Damaged(f"its shard {file.name} is missing") from None
    if tensors.digest(file) != digest:
        raise tensors.Damaged(f"{file.name} is not the shard that it was written with")
    return stored
