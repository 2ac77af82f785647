"""A path or URL -> bytes and lines, in bounded memory.

gzip, bzip2 and xz are told by their first bytes, not by the name. A path with `://` is an fsspec
URL. A stream that inflates more than `MAX_RATIO`-fold is refused once `RATIO_FROM` bytes came out.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from medexpert.data.readers.wording import one_line
from medexpert.records import UserError

MAX_LINE = 64 << 20
MAX_RATIO = 200  # text packs 3- to 20-fold; a bomb 1,000-fold and more
RATIO_FROM = 64 << 20
CHUNK = 1 << 20
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a parquet file",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x7fELF": "a program",
}


class Stream(io.RawIOBase):
    """Unpacked bytes of one file. Reading raises UserError for damage and for bombs."""

    def __init__(self, raw: IO[bytes], where: str) -> None:
        self.where = where
        self.count = 0
        self._mark = 0
        self._limit = 0
        self._raw = raw
        try:
            head = raw.read(8)
            raw.seek(0)
        except (OSError, zlib.error, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"cannot be read ({one_line(str(error), 200)})", where=where) from None
        self.packed = next((kind for magic, kind in _PACKED.items() if head.startswith(magic)), "")
        self._inner = _unpacked(raw, self.packed)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            raise ValueError("a stream is read in pieces of bounded size")
        try:
            data = self._inner.read(size)
        except _DAMAGE as error:
            raise self._damaged(error) from None
        except MemoryError:
            what = f"this {self.packed} file asks for too much memory"
            raise UserError(what, where=self.where) from None
        except OSError as error:
            raise self._damaged(error) from None
        self.count += len(data)
        if self.packed and self.count > RATIO_FROM:
            self._check_ratio()
        if self._limit and self.count - self._mark > self._limit:
            raise UserError(f"one record is larger than {self._limit >> 20} MiB", where=self.where)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def mark(self, limit: int) -> None:
        """A record begins here: more than `limit` bytes until the next mark is a UserError."""
        self._mark, self._limit = self.count, limit

    def _check_ratio(self) -> None:
        if self.count > MAX_RATIO * max(self._raw.tell(), 1):
            raise UserError(
                f"this {self.packed} file inflates more than {MAX_RATIO}-fold", where=self.where
            )

    def _damaged(self, error: Exception) -> UserError:
        kind = f"{self.packed} file" if self.packed else "file"
        told = one_line(str(error), 200)
        return UserError(f"damaged or truncated {kind} ({told})", where=self.where)


def _unpacked(raw: IO[bytes], packed: str) -> IO[bytes]:
    if packed == "gzip":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if packed == "bzip2":
        return bz2.BZ2File(raw)
    if packed == "xz":
        return lzma.LZMAFile(raw)
    return raw


@contextmanager
def open_raw(path: str | Path) -> Iterator[IO[bytes]]:
    """The file's own bytes, seekable. Raises UserError when it cannot be opened."""
    path = str(path)
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(_open(path))
        except FileNotFoundError:
            raise UserError("no such file", where=path) from None
        except IsADirectoryError:
            raise UserError("a file is expected, not a folder", where=path) from None
        except ImportError as error:
            raise UserError(
                f"this kind of URL needs another package ({error})", where=path
            ) from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"cannot be opened ({error})", where=path) from None
        yield handle


def _open(path: str) -> AbstractContextManager[IO[bytes]]:
    if "://" not in path:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe would wait for a writer
            raise ValueError("not a regular file but a pipe, socket or device")
        return Path(path).open("rb")
    import fsspec

    # The OpenFile itself is entered: once it is gone, a chained URL's outer file is closed.
    return cast(AbstractContextManager[IO[bytes]], fsspec.open(path, "rb"))


@contextmanager
def open_stream(path: str | Path) -> Iterator[Stream]:
    """The unpacked bytes of a file. Raises UserError."""
    with open_raw(path) as raw:
        yield Stream(raw, str(path))


def lines(
    path: str | Path, index: int = 0, parts: int = 1, block: int = 1
) -> Iterator[tuple[int, bytes | None]]:
    """(line number from 1, bytes without the newline); None for a line over MAX_LINE bytes.

    Of blocks of `block` lines, dealt in turn, only those of `index` come. A byte-order mark is cut
    off. Raises UserError for a file that cannot be read, is damaged, empty or plainly no text.
    """
    number = 0
    with open_stream(path) as stream:
        try:
            for number, line in enumerate(_split(stream), 1):
                if parts == 1 or (number - 1) // block % parts == index:
                    yield number, line
        except UserError as error:
            if error.where == stream.where:
                error = UserError(error.what, where=f"{path}:{number + 1}")
            raise error from None
    if number == 0:
        raise UserError("the file is empty", where=str(path))


def _split(stream: Stream) -> Iterator[bytes | None]:
    data = stream.read(CHUNK)
    for magic, kind in _FOREIGN.items():
        if data.startswith(magic):
            raise UserError(f"text is expected, this is {kind}", where=stream.where)
    data = data.removeprefix(b"\xef\xbb\xbf")
    held: list[bytes] = []
    size = 0
    while data:
        pieces = data.split(b"\n")
        if len(pieces) > 1:
            first = pieces[0]
            yield None if size + len(first) > MAX_LINE else b"".join((*held, first))
            yield from pieces[1:-1]
            held, size = [], 0
        size += len(pieces[-1])
        if size <= MAX_LINE:
            held.append(pieces[-1])
        else:
            held.clear()
        data = stream.read(CHUNK)
    if size:
        yield None if size > MAX_LINE else b"".join(held)
