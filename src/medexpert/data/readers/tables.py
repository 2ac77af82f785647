"""Rows of csv, parquet and xlsx files, in bounded memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import IO, Any, cast

from medexpert.data.readers.archives import check_zip
from medexpert.data.readers.rows import BLOCK, Fault, Part, Row
from medexpert.data.readers.streams import Stream, open_raw, open_stream
from medexpert.data.readers.wording import one_line
from medexpert.records import UserError

MAX_CELL = 16 << 20  # characters
MAX_ROW_GROUP = 4 << 30  # bytes of a parquet row group, unpacked
SAMPLE = 4 << 20  # bytes looked at to choose an encoding
MAX_SHEET = 512 << 20

Rows = Callable[[Part], Iterator[Row | Fault]]


# -- csv ---------------------------------------------------------------------------------------


def csv_rows(
    header: Sequence[str] | None = None,
    delimiter: str = ",",
    encodings: Sequence[str] = ("utf-8", "gb18030"),
    required: Sequence[str] = (),
) -> Rows:
    """Rows of strings by column name; `where` is the file and the line a row ends on.

    `header` None: the first row names the columns. Of `encodings` the first that can read the
    beginning of the file is used; bytes it cannot read later make a Fault of their row.
    """

    def rows(part: Part) -> Iterator[Row | Fault]:
        csv.field_size_limit(MAX_CELL)
        with open_stream(part.path) as stream:
            first = stream.read(SAMPLE)
            _check(first, part.path)
            joined = _Joined(first, stream)
            encoding = _encoding(first, encodings, part.path)
            text = io.TextIOWrapper(
                io.BufferedReader(joined, 1 << 20), encoding, errors="surrogateescape", newline=""
            )
            yield from _csv_rows(_Lines(text), part, header, delimiter, required)

    return rows


def first_cells(path: str, delimiter: str = ",") -> list[str]:
    """The cells of a csv file's first line that is not empty; none where it cannot be told.

    Raises UserError for a file that is empty, no csv or cannot be read.
    """
    with open_stream(path) as stream:
        first = stream.read(SAMPLE)
    _check(first, path)
    text = first.decode(_encoding(first, ("utf-8", "gb18030"), path), "replace")
    csv.field_size_limit(MAX_CELL)
    try:
        cells = next(filter(None, csv.reader(io.StringIO(text), delimiter=delimiter)), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


def _check(first: bytes, path: str) -> None:
    if not first:
        raise UserError("the file is empty", where=path)
    if first.startswith((b"PK\x03\x04", b"PAR1", b"%PDF")):
        raise UserError("this is no csv file", where=path)


def _csv_rows(
    lines: _Lines, part: Part, header: Sequence[str] | None, delimiter: str, required: Sequence[str]
) -> Iterator[Row | Fault]:
    names = list(header) if header is not None else None
    reader = csv.reader(lines, delimiter=delimiter)
    number = -1
    while True:
        told = ""
        cells: list[str] | None = None
        try:
            cells = next(reader, None)
        except csv.Error as error:
            told = f"not valid csv ({error})"
        for at in lines.long:
            if part.has(max(number, 0)):
                yield Fault(f"{part.path}:{at}", f"the line is longer than {MAX_CELL >> 20} MiB")
        lines.long.clear()
        if cells is None and not told:
            return
        if cells and names is None:
            names = _names(cells, required, part.path)
        elif cells or told:
            number += 1
            if part.has(number):
                where = f"{part.path}:{lines.number}"
                yield Fault(where, told) if told else _csv_row(cells or [], names or [], where)


def _csv_row(cells: list[str], names: list[str], where: str) -> Row | Fault:
    if len(cells) != len(names):
        return Fault(where, f"{len(cells)} cells, but {len(names)} columns")
    for cell in cells:
        if not cell.isascii():
            try:
                cell.encode("utf-8")
            except UnicodeEncodeError:
                return Fault(where, "bytes that are not in the file's encoding")
    return where, dict(zip(names, cells, strict=True))


def _names(cells: list[str], required: Sequence[str], path: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    missing = [name for name in required if name not in names]
    if missing:
        told = one_line(", ".join(names), 300)
        raise UserError(f"column {missing[0]!r} is missing", where=path, allowed=told)
    twice = next((name for name in names if name and names.count(name) > 1), "")
    if twice:
        raise UserError(f"column {twice[:80]!r} occurs twice", where=path)
    return names


def _encoding(first: bytes, encodings: Sequence[str], path: str) -> str:
    if first.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    whole = first if len(first) < SAMPLE else first[: first.rfind(b"\n") + 1 or len(first)]
    for encoding in encodings:
        try:
            whole.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    if len(encodings) == 1 or b"\0" not in first:
        return encodings[0]
    raise UserError("not a text in a known encoding", where=path, allowed=", ".join(encodings))


class _Joined(io.RawIOBase):
    """Bytes already read, then the rest of the stream."""

    def __init__(self, first: bytes, stream: Stream) -> None:
        self._first, self._stream = io.BytesIO(first), stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._first.read(len(buffer)) or self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Lines:
    """The lines of a text, counted. One of MAX_CELL characters or more is left out and noted."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.number = 0
        self.long: list[int] = []

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(MAX_CELL):
            self.number += 1
            if len(line) < MAX_CELL or line.endswith("\n"):
                yield line
                continue
            self.long.append(self.number)
            while (rest := self._text.readline(1 << 20)) and not rest.endswith("\n"):
                pass


# -- parquet -----------------------------------------------------------------------------------


def parquet_rows(columns: Sequence[str] = (), optional: Sequence[str] = ()) -> Rows:
    """Rows with these columns and those of `optional` that the file has; none named: all columns.

    Read batch by batch; `where` is the file and the row number from 0.
    """

    def rows(part: Part) -> Iterator[Row | Fault]:
        arrow, parquet = _arrow(part.path)
        with open_raw(part.path) as handle:
            try:
                with parquet.ParquetFile(handle) as table:
                    yield from _parquet_rows(table, part, columns, optional)
            except (arrow.ArrowException, OSError, MemoryError) as error:
                what = f"not a readable parquet file ({one_line(str(error), 200)})"
                raise UserError(what, where=part.path) from None

    return rows


def _arrow(path: str) -> tuple[Any, Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            "reading parquet needs pyarrow", where=path, allowed="pip install pyarrow"
        ) from None
    return arrow, parquet


def _parquet_rows(
    table: Any, part: Part, columns: Sequence[str], optional: Sequence[str]
) -> Iterator[Row | Fault]:
    names = table.schema_arrow.names
    missing = [name for name in columns if name not in names]
    if missing:
        told = one_line(", ".join(names), 300)
        raise UserError(f"column {missing[0]!r} is missing", where=part.path, allowed=told)
    wanted = [*columns, *(name for name in optional if name in names)] or None
    start = 0
    for group in range(table.num_row_groups):
        size = table.metadata.row_group(group).num_rows
        if table.metadata.row_group(group).total_byte_size > MAX_ROW_GROUP:
            what = f"row group {group} is larger than {MAX_ROW_GROUP >> 30} GiB"
            raise UserError(what, where=part.path)
        rows = chain(range(start, start + size, BLOCK), (start + size - 1,))
        if any(part.has(row) for row in rows):
            batches = table.iter_batches(
                batch_size=BLOCK, row_groups=[group], columns=wanted, use_threads=False
            )
            yield from _batches(batches, part, start)
        start += size


def _batches(batches: Any, part: Part, number: int) -> Iterator[Row | Fault]:
    for batch in batches:
        for position in range(batch.num_rows):
            if part.has(number + position):
                break
        else:
            number += batch.num_rows
            continue
        try:
            held = batch.to_pylist()
        except UnicodeDecodeError:
            held = [_one(batch, position) for position in range(batch.num_rows)]
        for row in held:
            if part.has(number):
                where = f"{part.path} [row {number}]"
                yield (where, row) if row is not None else Fault(where, "a text is not UTF-8")
            number += 1


def _one(batch: Any, position: int) -> dict[str, Any] | None:
    try:
        return cast(dict[str, Any], batch.slice(position, 1).to_pylist()[0])
    except UnicodeDecodeError:
        return None


# -- xlsx --------------------------------------------------------------------------------------


def xlsx_rows(required: Sequence[str] = ()) -> Rows:
    """Rows of the first sheet by the names in its first row; cells as openpyxl reads them."""

    def rows(part: Part) -> Iterator[Row | Fault]:
        with open_raw(part.path) as handle:
            check_zip(handle, part.path, MAX_SHEET)
            yield from _xlsx_rows(handle, part, required)

    return rows


def _xlsx_rows(handle: IO[bytes], part: Part, required: Sequence[str]) -> Iterator[Row | Fault]:
    import openpyxl

    try:
        book = openpyxl.load_workbook(handle, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        found = sheet.iter_rows(values_only=True)
        heads = ["" if cell is None else str(cell) for cell in next(found, ())]
        names = _names(heads, required, part.path)
        for number, cells in enumerate(found):
            if part.has(number) and any(cell is not None for cell in cells):
                row = dict(zip(names, cells, strict=False))
                yield f"{part.path} [row {number + 2}]", row
    except UserError:
        raise
    except Exception as error:  # openpyxl lets errors of half a dozen libraries through
        what = f"not a readable xlsx file ({type(error).__name__}: {one_line(str(error), 200)})"
        raise UserError(what, where=part.path) from None
