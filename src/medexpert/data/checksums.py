"""What a published file must be, what it is, and `sources.lock.json`, which remembers it.

A file whose checksum its publisher or the catalogue gives is held to that. For any other file the
SHA-256 measured at the first fetch is recorded in the data folder and enforced from then on.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from medexpert.manifest import atomic, disk_errors, write_json
from medexpert.records import UserError

LOCK = "sources.lock.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Measured:
    """Digests (hex) and size of a file's bytes; `blob` is the id that git gives such a file."""

    sha256: str
    md5: str
    blob: str
    bytes: int


def measure(path: Path, *, unpack: bool = False) -> Measured:
    """Digest a file in one or two passes; `unpack` reads what a gzip file holds.

    Raises UserError for a damaged gzip file.
    """
    size = path.stat().st_size
    if unpack:
        size = sum(len(block) for block in _blocks(path, unpack))
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for block in _blocks(path, unpack):
        for state in (sha256, md5, blob):
            state.update(block)
    return Measured(sha256.hexdigest(), md5.hexdigest(), blob.hexdigest(), size)


def _blocks(path: Path, unpack: bool) -> Iterator[bytes]:
    with path.open("rb") as raw:
        handle = cast(IO[bytes], gzip.GzipFile(fileobj=raw) if unpack else raw)
        try:
            while block := handle.read(_BLOCK):
                yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(
                f"a damaged or cut-short gzip file ({error})", where=str(path)
            ) from None


def copy(source: Path, target: Path, *, unpack: bool) -> None:
    """Put a copy of `source` at `target` whole or not at all: hard link where possible."""
    partial = target.with_name(target.name + ".copying")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        try:
            if unpack or not _link(source, partial):
                with partial.open("wb") as sink:
                    for block in _blocks(source, unpack):
                        sink.write(block)
            partial.replace(target)
        finally:
            # also after a rename onto another link of the same file, which does nothing
            partial.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links: a copy does as well
        return False
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep another process's fetch into the same data folder out while this one writes.

    Raises UserError when there is one.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another fetch is writing into this folder", where=str(folder)
            ) from None
        yield
    finally:
        os.close(handle)


class Lock:
    """`sources.lock.json` of a data folder: file -> {sha256, bytes, from}."""

    def __init__(self, folder: Path) -> None:
        """Read the lock of `folder`, if it has one. Raises UserError for a damaged one."""
        self.path = folder / LOCK
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            try:
                self.rows = json.loads(self.path.read_text("utf-8"))
                sound = all(len(row["sha256"]) == 64 for row in self.rows.values())
            except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError):
                sound = False
            if not sound:
                raise UserError("is damaged: delete it, then fetch again", where=str(self.path))

    def sha256(self, file: str) -> str:
        """The recorded SHA-256 of a file, "" for a new one."""
        return str(self.rows.get(file, {}).get("sha256", ""))

    def record(self, file: str, found: Measured, facts: Mapping[str, str]) -> None:
        """Remember a file on disk at once; an unchanged row is not written again."""
        row = {"sha256": found.sha256, "bytes": found.bytes, **facts}
        if self.rows.get(file, {}).get("sha256") != found.sha256:
            self.rows[file] = row
            write_json(self.path, dict(sorted(self.rows.items())))


def member(archive: Path, name: str, target: Path) -> None:
    """Write one member of a zip file to `target`, whole or not at all.

    Raises UserError: no such member, a damaged archive, a full disk.
    """
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(name) as source,
            atomic(target) as sink,
        ):
            shutil.copyfileobj(source, sink, _BLOCK)
    except KeyError:
        with zipfile.ZipFile(archive) as opened:
            names = ", ".join(sorted(opened.namelist())[:20])
        raise UserError(f"it does not hold {name}", where=str(archive), allowed=names) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"a damaged or cut-short archive ({error})", where=str(archive)) from None
