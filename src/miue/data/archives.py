"""Archives of images: unpacked once into the cache, and never outside of their folder."""

import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from miue.data.digests import answered, remembered
from miue.data.folders import hidden
from miue.errors import InputError, printable
from miue.progress import say
from miue.storage.files import atomic_folder, cache_dir, cache_locked, clear_parts, file_digest

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
BLOCK = 4096  # what the smallest file takes on a disk
LONGEST_HEADER = 2**20
EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error),
    *(EOFError, ValueError, RuntimeError),  # cut off; names that are no text; encrypted, or packed in an unknown way
)


def find(path: Path) -> Path | None:
    """Return the folder at `path`, or one unpacked from an archive that lies there, or beside with an ending more.

    Raises:
        InputError: the archive cannot be unpacked.
    """
    found = at(path)
    return unpacked(found) if found and not found.is_dir() else found


def at(path: Path) -> Path | None:
    """Return the folder at `path`, or the archive that lies there, or beside with an ending more."""
    if path.is_dir():
        return path
    places = (path, *(path.with_name(path.name + ending) for ending in ENDINGS))
    return next((place for place in places if place.name.lower().endswith(ENDINGS) and place.is_file()), None)


def stem(path: str) -> str:
    """The last part of `path` without the ending of an archive."""
    name = PurePosixPath(path).name
    return next((name[: -len(ending)] for ending in ENDINGS if name.lower().endswith(ending)), name)


def unpacked(archive: Path) -> Path:
    """Unpack `archive` into the cache, once for each content; return the folder that holds more than one folder."""
    folder = cache_dir() / "unpacked" / remembered(_question(archive), lambda: file_digest(archive))
    if not folder.is_dir():
        with cache_locked(folder, f"unpacking {printable(archive.name)}"):
            if not folder.is_dir():
                say(f"unpacking {printable(archive.name)}")
                clear_parts(folder)
                unpack(archive, folder)
    while len(inside := list(folder.iterdir())) == 1 and inside[0].is_dir():
        folder = inside[0]
    return folder


def is_unpacked(archive: Path) -> bool:
    """Whether `unpacked` has `archive` in the cache already; nothing is read or unpacked."""
    known = answered(_question(archive))
    return known is not None and (cache_dir() / "unpacked" / known).is_dir()


def _question(archive: Path) -> str:
    about = archive.stat()
    return f"{archive.resolve()} {about.st_size} {about.st_mtime_ns}"


def unpack(archive: Path, folder: Path, limit: int | None = None) -> None:
    """Unpack a tar or zip file into `folder`, which must not exist: the whole of it, or nothing.

    Files of operating systems are left out: names that begin with a dot, and `__MACOSX`.

    Args:
        archive: one of `ENDINGS`.
        folder: is made, with the folder that it lies in.
        limit: bytes that it may take; by default half of what the disk has free.

    Raises:
        InputError: it is damaged, takes more, or holds something other than folders and ordinary files inside of it.
    """
    taken = 0
    try:
        with atomic_folder(folder) as part:
            room = shutil.disk_usage(part).free // 2 if limit is None else limit
            for name, size, ordinary, extract in _members(archive):
                taken += max(size, BLOCK)
                if fault := _fault(name, ordinary, taken, room):
                    raise InputError(f"data: {printable(str(archive))} is not unpacked; {fault}")
                if not any(map(hidden, PurePosixPath(name).parts)):
                    extract(part)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"data: {printable(f'{archive} is damaged or no archive ({error})')}") from None


Member = tuple[str, int, bool, Callable[[Path], object]]
"""Name, bytes, whether it is a folder or an ordinary file, and what writes it into a folder."""


class _Header(tarfile.TarInfo):
    """The header of a member. One that stands for a longer header is read into memory whole, so it must be short."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in EXTENSIONS and header.size > LONGEST_HEADER):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def _members(archive: Path) -> Iterator[Member]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                ordinary = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
                yield info.filename, info.file_size, ordinary, partial(packed.extract, info)
        return
    with tarfile.open(archive, tarinfo=_Header) as tar:
        for member in tar:
            ordinary = (member.isreg() or member.isdir()) and member.size >= 0
            yield member.name, member.size, ordinary, partial(tar.extract, member, filter="data")


def _fault(name: str, ordinary: bool, taken: int, room: int) -> str | None:
    if not ordinary:  # images need no links, which have been the way out of several unpackers
        return f"{name!r} is neither a folder nor an ordinary file"
    if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
        return f"{name!r} lies outside of its folder"
    if taken > room:
        return f"it takes more than {room / 1e9:.3g} GB, all that it may take of the disk"
    return None
