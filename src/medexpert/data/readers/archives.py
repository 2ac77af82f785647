"""Members of zip and tar archives, read in memory one after the other; nothing is extracted.

A member's name is only ever told, never opened as a path; one that points outside the archive is
refused all the same, since no published archive has such names.
"""

from __future__ import annotations

import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, cast

from medexpert.data.readers.rows import Fault, Part, Row, fault
from medexpert.data.readers.streams import MAX_RATIO, RATIO_FROM, open_raw, open_stream
from medexpert.data.readers.wording import one_line
from medexpert.data.readers.xml_rows import parse_xml
from medexpert.records import UserError

MAX_MEMBER = 64 << 20
MAX_MEMBERS = 5_000_000
_ZIP_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
    ValueError, OverflowError, MemoryError, IndexError, KeyError, struct.error,
)  # fmt: skip

Member = tuple[str, bytes]


def members(path: str, suffixes: tuple[str, ...]) -> Iterator[Member | Fault]:
    """(name, bytes) of the members with these suffixes, from a zip or a (packed) tar archive.

    A member over 64 MiB is a Fault. Raises UserError for a damaged archive, a bomb, a name that
    points outside the archive.
    """
    with open_raw(path) as handle:
        head = handle.read(4)
    if head == b"PK\x03\x04" or head == b"PK\x05\x06":
        yield from _zip_members(path, suffixes)
    else:
        yield from _tar_members(path, suffixes)


def xml_members(part: Part, suffixes: tuple[str, ...]) -> Iterator[Row | Fault]:
    """(where, {"xml": root}) of each XML member of an archive that is in this part."""
    for number, found in enumerate(members(part.path, suffixes)):
        if not part.has(number):
            continue
        if isinstance(found, Fault):
            yield found
            continue
        where = where_of(part.path, found[0])
        try:
            yield where, {"xml": parse_xml(found[1], where)}
        except UserError as error:
            yield fault(error, where)


def where_of(path: str, name: str) -> str:
    """How a member is named in a message."""
    return f"{path} [{name}]"


def _check_name(name: str, path: str) -> str:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name[:3]:
        raise UserError(f"member {name[:80]!r} points outside the archive", where=path)
    return name.encode("utf-8", "replace").decode("utf-8")


# -- zip ---------------------------------------------------------------------------------------


def check_zip(handle: IO[bytes], path: str, limit: int) -> None:
    """Raises UserError when a zip file is damaged or its members inflate beyond a bound.

    `limit` is the most bytes of all members together; the handle is left at its beginning.
    """
    try:
        with zipfile.ZipFile(handle) as archive:
            total = sum(member.file_size for member in archive.infolist())
            packed = handle.seek(0, 2)
    except _ZIP_DAMAGE as error:
        what = f"not a readable zip file ({one_line(str(error), 200)})"
        raise UserError(what, where=path) from None
    if total > limit:
        raise UserError(f"unpacks to more than {limit >> 20} MiB", where=path)
    if total > RATIO_FROM and total > MAX_RATIO * packed:
        raise UserError(f"this zip file inflates more than {MAX_RATIO}-fold", where=path)
    handle.seek(0)


def _zip_members(path: str, suffixes: tuple[str, ...]) -> Iterator[Member | Fault]:
    with open_raw(path) as handle:
        packed = handle.seek(0, 2)
        handle.seek(0)
        total = 0
        try:
            with zipfile.ZipFile(handle) as archive:
                for entry in archive.infolist():
                    name = _check_name(entry.filename, path)
                    if entry.is_dir() or not name.lower().endswith(suffixes):
                        continue
                    data = _zip_bytes(archive, entry)
                    if data is None:
                        yield _too_large(path, name)
                        total += MAX_MEMBER
                    else:
                        total += len(data)
                        yield name, data
                    if total > RATIO_FROM and total > MAX_RATIO * packed:
                        what = f"this zip file inflates more than {MAX_RATIO}-fold"
                        raise UserError(what, where=path)
        except _ZIP_DAMAGE as error:
            what = f"damaged or unreadable zip file ({one_line(str(error), 200)})"
            raise UserError(what, where=path) from None


def _zip_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes | None:
    """The member's bytes, None when there are too many, whatever its header says."""
    with archive.open(entry) as member:
        data = member.read(MAX_MEMBER + 1)
    return data if len(data) <= MAX_MEMBER else None


def _too_large(path: str, name: str) -> Fault:
    return Fault(where_of(path, name), f"the member is larger than {MAX_MEMBER >> 20} MiB")


# -- tar ---------------------------------------------------------------------------------------


class _Cut(Exception):
    """A header after the first that is damaged: tarfile itself would end there in silence."""


class _Header(tarfile.TarInfo):
    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the blocks of zeros at a proper end
                raise
            raise _Cut(str(error)) from None


def _tar_members(path: str, suffixes: tuple[str, ...]) -> Iterator[Member | Fault]:
    with open_stream(path) as stream:
        try:
            with tarfile.open(
                fileobj=cast(Any, stream), mode="r|", tarinfo=_Header, errorlevel=1
            ) as archive:
                for entry in archive:
                    cast(Any, archive).members = []  # tarfile would keep every header
                    name = _check_name(entry.name, path)
                    if not entry.isfile() or not name.lower().endswith(suffixes):
                        continue
                    if entry.size > MAX_MEMBER:
                        yield _too_large(path, name)
                        continue
                    member = archive.extractfile(entry)
                    data = member.read() if member else b""
                    if len(data) != entry.size:
                        raise _Cut(f"member {name!r} is cut off")
                    yield name, data
        except (_Cut, tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
            what = f"damaged or truncated tar archive ({one_line(str(error), 200)})"
            raise UserError(what, where=path) from None
