"""Files of tensors and a JSON record: safetensors with a digest, so that damage is found and nothing can run code."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from miue.errors import InputError
from miue.storage import memory
from miue.storage.files import atomic

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
OF_NAME = {name: kind for kind, name in TYPES.items()}
CHUNK = 2**26  # bytes
BLANK = b"0" * 32  # where the digest stands, while it is taken


class Damaged(InputError):
    """A file is not what was written: cut off, changed, or made by something else."""


def save(path: str | Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write a safetensors file, atomically.

    Tensors are written piece by piece, so that one that is mapped from a file is never in memory as a whole; the
    library's own writer would copy it.

    Args:
        path: the file.
        tensors: by name; they come back contiguous and on the CPU.
        record: JSON, kept in the header.
    """
    fields: dict[str, Any] = {}
    end = 0
    # The widest numbers first, so that each tensor begins at a multiple of its numbers' size and can be mapped.
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        fields[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = {"__metadata__": {"digest": BLANK.decode(), "miue": json.dumps(record)}} | fields
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    digest = hashlib.blake2b(head, digest_size=16)
    with atomic(path) as part, open(part, "wb") as file:
        file.write(head)
        for tensor in tensors.values():
            for piece in _pieces(tensor):
                file.write(piece)
                digest.update(piece)
        file.seek(0)
        file.write(head.replace(BLANK, digest.hexdigest().encode(), 1))


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save` wrote: the tensors, mapped from the file, and the record.

    A write to one of the tensors stays in memory and does not reach the file.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is no file of `save`, or not as it was written.
        OSError: the system could not read it, which says nothing about the file.
    """
    with open(path, "rb") as file:
        try:
            _check_layout(path)
            length = int.from_bytes(file.read(8), "little")
            fields = json.loads(file.read(length))
            about = fields.pop("__metadata__")
            record, digest = json.loads(about["miue"]), about["digest"]
            if _digest(path, digest.encode()) != digest:
                raise Damaged(f"{path} is not as it was written: its digest does not fit")
            start = 8 + length
            whole = memory.mapped(Path(path), [Path(path).stat().st_size - start], torch.uint8, start)
            return {name: _tensor(whole, field) for name, field in fields.items()}, record
        except Damaged:
            raise
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise Damaged(f"{path} is cut off or no file of this package ({error})") from None


def digest(path: str | Path) -> str:
    """The digest that `save` gave a file; whether the file is still as it was written, `load` finds out."""
    with open(path, "rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]["digest"]


def _check_layout(path: str | Path) -> None:
    """Let the library check types, shapes and offsets."""
    try:
        with safe_open(path, "numpy"):
            pass
    except FileNotFoundError as error:  # what it says of any file that it cannot open
        raise OSError(f"{path} cannot be opened") from error


def _tensor(whole: Tensor, field: dict[str, Any]) -> Tensor:
    begin, end = field["data_offsets"]
    return whole[begin:end].view(OF_NAME[field["dtype"]]).view(field["shape"])


def _digest(path: str | Path, written: bytes) -> str:
    """Digest of a file in which that digest is blank."""
    with open(path, "rb") as file:
        length = file.read(8)
        found = hashlib.blake2b(length, digest_size=16)
        found.update(file.read(int.from_bytes(length, "little")).replace(written, BLANK, 1))
        while piece := file.read(CHUNK):
            found.update(piece)
    return found.hexdigest()


def _pieces(tensor: Tensor) -> Iterator[bytes]:
    """The bytes of a tensor in its contiguous order."""
    flat = tensor.detach().contiguous().view(-1)
    for piece in flat.split(max(1, CHUNK // tensor.element_size())):
        yield piece.cpu().view(torch.uint8).numpy().tobytes()
