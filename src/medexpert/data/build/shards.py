"""What a cleaning task leaves behind: the records of one shard as lines, an index, and its facts.

Names under the work folder: `clean/NNNNN.jsonl` (lines, one a part of a record), `.npz` (index),
`.drops.jsonl`, `.json` (facts, written last: the shard is done). Everything later reads the index
and fetches lines by position, so no stage has to fit in memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medexpert.data.build.store import Store
from medexpert.data.minhash import BANDS

Array = NDArray[Any]

RECORD = {
    "first": np.int64,  # number of its first line in the shard
    "lines": np.int32,
    "rank": np.uint64,  # seeded hash of its id: an order that no file's order changes
    "name": np.uint64,  # hash of its id: the same id twice in a source shows
    "detail": np.uint64,  # hash of its numbers, question, answer: what tells alike texts apart
    "prefer": np.uint8,  # which copy of a duplicate stays: the least
    "words": np.uint32,
    "chars": np.uint32,
    "licence": np.int16,  # positions in the shard's tables
    "lang": np.int16,
    "label": np.int16,  # -1: no label
}
LINE = {
    "offset": np.int64,
    "length": np.int32,
    "size": np.int32,  # characters of text
    "tokens": np.int32,  # its share of the record's words, by characters
}


class Row(NamedTuple):
    """One record's line in the index; the fields of `RECORD` after `lines`, with texts as texts."""

    rank: int
    name: int
    detail: int
    prefer: int
    words: int
    chars: int
    licence: str
    lang: str
    label: str
    exact: bytes
    bands: Array | None


class Writer:
    """Collects one shard. Lines stream to the file; the index waits for the shard's end.

    It holds about 730 bytes a record here (measured; 250 in the file).
    """

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._end = 0
        self._lines: list[tuple[int, ...]] = []
        self._records: list[tuple[int, ...]] = []
        self._exact: list[bytes] = []
        self._bands: list[Array] = []
        self.tables: dict[str, dict[str, int]] = {"licence": {}, "lang": {}, "label": {}}

    def add(self, row: Row, parts: Iterable[tuple[str, int]]) -> None:
        """One record: its row and its lines with their characters."""
        first = len(self._lines)
        pieces = list(parts)
        total, before, told = sum(size for _, size in pieces) or 1, 0, 0
        for line, size in pieces:
            raw = line.encode("utf-8") + b"\n"
            self._handle.write(raw)
            before += size
            tokens = row.words * before // total - told  # the parts sum to the whole
            told += tokens
            self._lines.append((self._end, len(raw), size, tokens))
            self._end += len(raw)
        codes = (
            self._code("licence", row.licence),
            self._code("lang", row.lang),
            self._code("label", row.label) if row.label else -1,
        )
        self._records.append(
            (
                first,
                len(self._lines) - first,
                row.rank,
                row.name,
                row.detail,
                row.prefer,
                row.words,
                row.chars,
                *codes,
            )
        )
        self._exact.append(row.exact)
        if row.bands is not None:
            self._bands.append(row.bands)

    def _code(self, table: str, value: str) -> int:
        return self.tables[table].setdefault(value, len(self.tables[table]))

    def index(self) -> bytes:
        """The index as an uncompressed .npz (its bytes depend on the records alone)."""
        columns: dict[str, Array] = {}
        for (name, kind), values in zip(
            RECORD.items(), _columns(self._records, RECORD), strict=True
        ):
            columns[name] = np.array(values, dtype=kind)
        for (name, kind), values in zip(LINE.items(), _columns(self._lines, LINE), strict=True):
            columns[name] = np.array(values, dtype=kind)
        exact = np.frombuffer(b"".join(self._exact), dtype="<u8").reshape(-1, 2)
        columns["exact"] = exact
        bands = np.array(self._bands, dtype=np.uint64).reshape(-1, BANDS)
        for band in range(BANDS):  # a column each: a task reads the one it compares
            columns[f"band{band}"] = np.ascontiguousarray(bands[:, band])
        target = io.BytesIO()
        np.savez(target, allow_pickle=False, **columns)
        return target.getvalue()


def _columns(rows: Sequence[tuple[int, ...]], names: Mapping[str, Any]) -> list[tuple[int, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * len(names)


@dataclass(frozen=True)
class ShardInfo:
    """A finished shard: its number in the plan, its source, and its facts."""

    number: int
    source: str
    facts: Mapping[str, Any]

    @property
    def stem(self) -> str:
        return f"clean/{self.number:05d}"


class Index:
    """Chosen columns over all shards of a stage, and the way back from record number to lines.

    Record numbers run through the shards in their order. `columns` are concatenated arrays; `shard`
    and `local` say where record r lies.
    """

    def __init__(self, store: Store, shards: Sequence[ShardInfo], columns: Sequence[str]) -> None:
        self.store, self.shards = store, list(shards)
        held: dict[str, list[Array]] = {name: [] for name in columns}
        counts = []
        for shard in self.shards:
            with np.load(store.local(f"{shard.stem}.npz"), allow_pickle=False) as file:
                counts.append(len(file["rank"]))
                for name in columns:
                    held[name].append(file[name])
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
        self.columns = {
            name: np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)
            for name, parts in held.items()
        }

    def __len__(self) -> int:
        return int(self.starts[-1])

    def shard_of(self, records: Array) -> Array:
        """Position (in `shards`) of each record's shard."""
        found: Array = np.searchsorted(self.starts, records, side="right") - 1
        return found

    def sources(self) -> list[str]:
        """Source name of each shard."""
        return [shard.source for shard in self.shards]


class Lines:
    """Lines of shards by position; a few files stay open."""

    OPEN = 64

    def __init__(self, store: Store) -> None:
        self._store = store
        self._handles: dict[str, IO[bytes]] = {}

    def read(self, stem: str, offset: int, length: int) -> bytes:
        """`length` bytes of the shard's lines from `offset`."""
        handle = self._handles.get(stem)
        if handle is None:
            if len(self._handles) >= self.OPEN:
                self._handles.pop(next(iter(self._handles))).close()
            handle = self._handles[stem] = self._store.local(f"{stem}.jsonl").open("rb")
        handle.seek(offset)
        return handle.read(length)

    def close(self) -> None:
        """Close the files."""
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()
