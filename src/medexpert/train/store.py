"""Pieces on disk: written once, read through a memory map by every process.

A folder of plain .npy arrays and a manifest, written last. P pieces, I tokens in all:

    inputs, targets (I,)   the tokens of all pieces, end to end
    ends (P,)              where each piece ends in them
    targets_of, prefix, task (P,)   number of targets; `Piece.prefix`; `Piece.task`
    breaks, breaks_of      `Piece.breaks` of all pieces, and which piece each belongs to
    reference, reference_of   the same for `Piece.reference`

Only what is read is in memory, and the processes of a machine share it. While it is being written
the folder has another name, so that a killed run leaves nothing that could be taken for a store.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from numpy.typing import NDArray

from medexpert import manifest
from medexpert.records import UserError
from medexpert.train.batches import IGNORE, Account, Piece

Say = Callable[[str], None]
FORMAT = 2
COLUMNS = {
    "inputs": "<i4", "targets": "<i4", "ends": "<i8", "targets_of": "<i4", "prefix": "<i4",
    "task": "<i4", "breaks": "<i4", "breaks_of": "<i8", "reference": "<f8", "reference_of": "<i8",
}  # fmt: skip
BUFFER = 1 << 20
"""Tokens held before they are written."""
SAY_EVERY = 5.0
"""Seconds between two progress lines."""


class Store(Sequence[Piece]):
    """The pieces of a finished folder, and the account of the reading that made them."""

    def __init__(self, folder: Path, account: Account) -> None:
        self.folder, self.account = folder, account
        self._columns = {name: _mapped(folder / f"{name}.npy") for name in COLUMNS}
        ends = self._columns["ends"]
        self._starts = np.concatenate([np.zeros(1, np.int64), ends])
        self.lengths: NDArray[np.int32] = np.diff(self._starts).astype(np.int32)
        self.target_counts: NDArray[np.int32] = self._columns["targets_of"]
        self.tasks: NDArray[np.int32] = self._columns["task"]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, at: int) -> Piece: ...
    @overload
    def __getitem__(self, at: slice) -> list[Piece]: ...
    def __getitem__(self, at: int | slice) -> Piece | list[Piece]:
        """A piece whose arrays are views of the files: read-only."""
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        number = range(len(self))[at]
        here = slice(int(self._starts[number]), int(self._starts[number + 1]))
        return Piece(
            self._columns["inputs"][here],
            self._columns["targets"][here],
            prefix=int(self._columns["prefix"][number]),
            task=int(self.tasks[number]),
            breaks=tuple(self._of(number, "breaks").tolist()),
            reference=tuple(self._of(number, "reference").tolist()),
        )

    def _of(self, number: int, column: str) -> NDArray[Any]:
        owners = self._columns[f"{column}_of"]
        if not len(owners):
            return owners
        first, last = np.searchsorted(owners, [number, number + 1])
        return self._columns[column][first:last]


def _mapped(path: Path) -> NDArray[Any]:
    # A plain array over the mapping: slices of numpy's memmap class take ten times as long.
    # Nothing can be mapped of a file without values.
    mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped.view(np.ndarray)


def open_store(
    folder: Path, key: str, say: Say | None = None, *, checksums: bool = True
) -> Store | None:
    """The store in `folder` when it is whole and was made from `key`, else None.

    A damaged one is told through `say`. Without `checksums` only names and sizes of the files are
    compared: for the other processes, when one has read all.
    """
    if not (folder / manifest.MANIFEST).is_file():
        return None
    try:
        entry = manifest.verify(folder, checksums=checksums)
    except UserError as error:
        if say:
            say(f"the token store is damaged and not used: {error}")
        return None
    if entry["key"] != _key(key):
        return None
    account = Account()
    account.restore(entry["account"])
    return Store(folder, account)


def build_store(
    pieces: Iterable[Piece],
    folder: Path,
    key: str,
    say: Say,
    account: Account | None = None,
    *,
    items: int = 0,
) -> Store:
    """Write `pieces` into `folder`, replacing what is there; the store, opened and verified.

    `key` is a digest of all that the pieces are made from: data, tokenizer, settings. `account` is
    the one that reading `pieces` fills; it is kept with the store. Without one the pieces
    themselves are counted. `items` (0 = unknown) is how many the account will count, for the time
    left. Memory is bounded whatever the number of pieces. One process at a time. Raises UserError
    when the disk is full; after any error there is no store, and an older one is as it was.
    """
    counted = account or Account()
    if account is None:
        pieces = _counted(pieces, counted)
    staged = folder.with_name(folder.name + ".partial")
    with manifest.disk_errors(folder):
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        try:
            _write(pieces, staged, _Progress(say, counted, items))
            kept = {"account": counted.facts()}
            files = [staged / f"{name}.npy" for name in COLUMNS]
            manifest.write_manifest(staged, key=_key(key), files=files, facts=kept)
            shutil.rmtree(folder, ignore_errors=True)
            staged.rename(folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
    made = open_store(folder, key, say, checksums=False)
    if made is None:
        raise UserError("the token store could not be read back", where=str(folder))
    return made


def count_lines(path: Path) -> int:
    """Lines of a JSONL file: the `items` of a store that is built from it."""
    with path.open("rb") as handle:
        return sum(block.count(b"\n") for block in iter(lambda: handle.read(1 << 20), b""))


def _counted(pieces: Iterable[Piece], account: Account) -> Iterator[Piece]:
    for piece in pieces:
        account.items += 1
        account.add(piece)
        yield piece


def _key(key: str) -> str:
    return f"{key}/store{FORMAT}"


def _write(pieces: Iterable[Piece], folder: Path, progress: _Progress) -> None:
    with ExitStack() as stack:
        columns = {
            name: stack.enter_context(_Column(folder / f"{name}.npy", kind))
            for name, kind in COLUMNS.items()
        }
        number = end = held = 0
        for number, piece in enumerate(pieces):
            end += len(piece)
            columns["inputs"].extend(piece.inputs)
            columns["targets"].extend(piece.targets)
            count = int(np.count_nonzero(piece.targets != IGNORE))
            values = {"ends": end, "targets_of": count, "prefix": piece.prefix, "task": piece.task}
            for name, value in values.items():
                columns[name].extend((value,))
            for name, several in (("breaks", piece.breaks), ("reference", piece.reference)):
                columns[name].extend(several)
                columns[f"{name}_of"].extend((number,) * len(several))
            held += len(piece)
            if held >= BUFFER:
                for column in columns.values():
                    column.flush()
                held = 0
            progress.tell(number + 1, end)
        progress.tell(number + 1 if end else 0, end, last=True)


class _Column:
    """One .npy file, appended to; its header gets the true length when it is closed."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind, self.length = path, np.dtype(kind), 0
        self.waiting: list[NDArray[Any]] = []
        self.single: list[float] = []
        self.handle: IO[bytes] = path.open("wb")

    def __enter__(self) -> _Column:
        self._header()
        self.room = self.handle.tell()
        return self

    def extend(self, values: Sequence[float] | NDArray[np.int32]) -> None:
        if isinstance(values, np.ndarray):
            self.waiting.append(values)
        else:
            self.single.extend(values)

    def flush(self) -> None:
        """Write what waits."""
        arrays = [*self.waiting, *([np.asarray(self.single)] if self.single else [])]
        self.waiting, self.single = [], []
        if arrays:
            block = np.concatenate(arrays).astype(self.kind, copy=False)
            self.handle.write(block.data)
            self.length += len(block)

    def __exit__(self, *error: object) -> None:
        try:
            self.flush()
            self.handle.seek(0)
            self._header()
            if self.handle.tell() != self.room:
                raise AssertionError("numpy's header leaves room for a growing first axis")
            self.handle.flush()
            os.fsync(self.handle.fileno())
        finally:
            self.handle.close()

    def _header(self) -> None:
        facts = {"descr": self.kind.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self.handle, facts)


class _Progress:
    """A line every few seconds: tokens, rate, time left."""

    def __init__(self, say: Say, account: Account, items: int) -> None:
        self.say, self.account, self.items = say, account, items
        self.started = self.said = time.monotonic()

    def tell(self, pieces: int, tokens: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self.said < SAY_EVERY:
            return
        self.said = now
        seconds = max(now - self.started, 1e-9)
        line = f"tokens on disk: {tokens} in {pieces} pieces, {tokens / seconds:.0f} tokens/s"
        read = self.account.items + self.account.not_read
        if not last and 0 < read <= self.items:
            done = read / self.items
            left = math.ceil(seconds * (1 - done) / done)
            line += f", {done:.0%} read, ETA {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        self.say(line)
