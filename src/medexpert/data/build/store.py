"""Intermediate files of a build: a local folder or any fsspec URL, each file whole or not there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from medexpert.manifest import atomic, disk_errors
from medexpert.records import UserError


class Store:
    """A folder of files named by relative paths. Cheap to open; every task opens its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder = None if "://" in url else Path(url)
        self._fs: Any = None
        self._root = url
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        if self._folder is None:
            import fsspec

            try:
                self._fs, self._root = fsspec.core.url_to_fs(url)
            except (ImportError, ValueError) as error:
                raise UserError(f"this URL cannot be opened ({error})", where=url) from None

    def name(self, name: str) -> str:
        """The path or URL of a file, as a reader takes it."""
        return f"{self.url.rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        if self._folder is not None:
            return (self._folder / name).is_file()
        return bool(self._fs.exists(f"{self._root}/{name}"))

    def size(self, name: str) -> int:
        """Bytes of a file, -1 when it is not there."""
        try:
            if self._folder is not None:
                return (self._folder / name).stat().st_size
            return int(self._fs.size(f"{self._root}/{name}"))
        except FileNotFoundError:
            return -1

    @contextmanager
    def writer(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; it appears when the block ends without an error."""
        if self._folder is not None:
            # Named by process: what a killed run's worker still writes is not written into.
            place = self._folder / name
            partial = place.with_name(f"{place.name}.{os.getpid()}")
            with atomic(partial) as handle:
                yield handle
            partial.replace(place)
            return
        with tempfile.TemporaryDirectory() as scratch:
            local = Path(scratch) / "file"
            with local.open("wb") as handle:
                yield handle
            self._fs.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(local), f"{self._root}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        with self.writer(name) as handle:
            handle.write(data)

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""
        if self._folder is not None:
            return (self._folder / name).read_bytes()
        return bytes(self._fs.cat_file(f"{self._root}/{name}"))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file."""
        # Escaped: the name of a file may hold bytes that are not UTF-8 (lone surrogates).
        self.write(name, json.dumps(value).encode("ascii"))

    def read_json(self, name: str) -> Any:
        """Parse a JSON file; None when it is missing or torn."""
        try:
            return json.loads(self.read(name))
        except (FileNotFoundError, ValueError):
            return None

    def local(self, name: str) -> Path:
        """A local path of the file, copied from a remote store once."""
        if self._folder is not None:
            return self._folder / name
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="medexpert-")
        copy = Path(self._copies.name) / name.replace("/", "__")
        if not copy.exists():
            self._fs.get_file(f"{self._root}/{name}", str(copy))
        return copy

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        if self._folder is not None:
            (self._folder / name).unlink(missing_ok=True)
        elif self.exists(name):
            self._fs.rm_file(f"{self._root}/{name}")

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        import shutil

        if self._folder is not None:
            with disk_errors(self._folder):
                shutil.rmtree(self._folder, ignore_errors=True)
        elif self._fs.exists(self._root):
            self._fs.rm(self._root, recursive=True)

    def names(self, folder: str, ending: str) -> list[str]:
        """Names of the files of a folder that end so, sorted; none where there is no folder."""
        if self._folder is not None:
            return sorted(path.name for path in (self._folder / folder).glob(f"*{ending}"))
        try:
            # Other processes write here, so a listing that was kept is too old.
            self._fs.invalidate_cache(f"{self._root}/{folder}")
            found = self._fs.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(n).rpartition("/")[2] for n in found if str(n).endswith(ending))

    def local_folder(self) -> Path | None:
        """The folder on this machine's disk, None for another kind of store."""
        if self._folder is not None:
            return self._folder
        protocol = self._fs.protocol
        names = (protocol,) if isinstance(protocol, str) else protocol
        return Path(self._root) if "file" in names else None
