"""The base of all readers: a part of a file -> checked rows -> items, in bounded memory.

A reader is a source of rows and a function that converts one row. A row that breaks its format is
a Fault that names file and line (or record), and reading goes on; a file that cannot be read at
all (missing, damaged, another format) is a UserError.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from medexpert.data.readers.streams import MAX_LINE as MAX_LINE
from medexpert.data.readers.streams import lines, open_stream
from medexpert.data.readers.wording import one_line
from medexpert.records import Document, Example, UserError

BLOCK = 1000
MAX_WHOLE = 1 << 30  # bytes of a file that has to be read as one JSON value
LONGEST_ID = 500  # characters: an identifier is written into messages and lists of drops
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_SURROGATE = re.compile(rb"\\u[dD]")
_decode = json.JSONDecoder().decode
_TAIL_NUMBER = re.compile(r"(\d+)\]?$")


@dataclass(frozen=True)
class Part:
    """A file, or one of `parts` slices of its rows: the blocks of 1,000 rows dealt in turn.

    `path` is a local path or any fsspec URL.
    """

    path: str
    index: int = 0
    parts: int = 1

    def has(self, number: int) -> bool:
        """Whether the row with this number, from 0, is in this part."""
        return self.parts == 1 or number // BLOCK % self.parts == self.index


@dataclass(frozen=True)
class Fault:
    """A row that breaks its format; `where` is file:line or file [record n]. Both are one line."""

    where: str
    what: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", one_line(self.where, 10 * len(self.where)))
        object.__setattr__(self, "what", one_line(self.what))


@dataclass(frozen=True)
class Drop:
    """A row that is well formed but not usable; the build counts it under its reason."""

    id: str
    reason: str


@dataclass(frozen=True)
class Change:
    """Something a reader altered in the row that follows; the build counts it."""

    id: str
    what: str


Row = tuple[str, Mapping[str, Any]]
Item = Document | Example | Drop | Change | Fault
_RECORDS = (Document, Example)


@dataclass(frozen=True)
class Reader:
    """One published format. `convert` raises UserError for a row that breaks the schema.

    `splits` is False when slices would gain nothing: the first part is then the whole file.
    `unique` names schemes of `Document.ids` (such as pmid) that may occur once in a file.
    """

    rows: Callable[[Part], Iterator[Row | Fault]]
    convert: Callable[[str, Mapping[str, Any]], Iterable[Document | Example | Drop | Change]]
    splits: bool = True
    unique: tuple[str, ...] = ()


def read(reader: Reader, parts: Iterable[Part]) -> Iterator[Item]:
    """The items of the parts, in order. A record whose id its file had before is a Fault.

    Raises UserError for a file that cannot be read.
    """
    path = None
    convert = reader.convert
    for part in parts:
        if part.path != path:
            path = part.path
            ids, schemes = Ids("id"), [Ids(name) for name in reader.unique]
        if not reader.splits:
            if part.index:
                continue
            part = Part(part.path)
        for found in reader.rows(part):
            if isinstance(found, Fault):
                yield found
                continue
            where, row = found
            try:
                items = list(convert(where, row))
                for item in items:
                    if isinstance(item, _RECORDS):
                        ids.check(item.id, where)
                        for scheme in schemes:
                            if scheme.name in item.ids:
                                scheme.check(item.ids[scheme.name], where)
            except UserError as error:
                yield fault(error, where)
                continue
            yield from items


def fault(error: UserError, where: str) -> Fault:
    """A UserError about one row as a Fault; `where` serves when the error names no place."""
    told = UserError(error.what, allowed=error.allowed, nearest=error.nearest)
    return Fault(error.where or where, str(told))


class Ids:
    """Refuses an identifier that came before; 8-byte hashes and row numbers, no strings.

    Two of a billion identifiers share a hash with a chance of 3 %, two of ten million with 3 in a
    million. An open-addressing table: 16 bytes a slot, at most 60 % full.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._keys = array("Q", bytes(8 << 10))
        self._numbers = array("Q", bytes(8 << 10))
        self._count = 0
        self._mask = len(self._keys) - 1

    def check(self, value: str, where: str) -> None:
        """Raises UserError when `value` came before, naming the row where it first did."""
        raw = value.encode("utf-8", "surrogatepass")
        key = int.from_bytes(blake2b(raw, digest_size=8).digest(), "little") or 1
        keys, mask = self._keys, self._mask
        at = key & mask
        while held := keys[at]:
            if held == key:
                raise self._twice(value, where, self._numbers[at])
            at = (at + 1) & mask
        keys[at] = key
        tail = where.rpartition(":")[2]
        self._numbers[at] = int(tail) if tail.isdecimal() and len(tail) < 19 else _number(where)
        self._count += 1
        if self._count * 10 > mask * 6:
            self._grow()

    def _twice(self, value: str, where: str, number: int) -> UserError:
        tail = _TAIL_NUMBER.search(where)
        first = ""
        if tail and number:
            first = f" (first at {where[: tail.start(1)]}{number}{where[tail.end(1) :]})"
        name = self.name if self.name == "id" else self.name.upper()
        return UserError(f"{name} {value!r} occurs twice{first}", where=where)

    def _grow(self) -> None:
        old_keys, old_numbers = self._keys, self._numbers
        size = 2 * len(old_keys)
        keys, numbers = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        mask = size - 1
        for key, number in zip(old_keys, old_numbers, strict=True):
            if key:
                at = key & mask
                while keys[at]:
                    at = (at + 1) & mask
                keys[at], numbers[at] = key, number
        self._keys, self._numbers, self._mask = keys, numbers, mask


class Unique:
    """Refuses a second row with the same identifier, keeping the strings; for small files."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: dict[str, str] = {}

    def check(self, value: str, where: str) -> None:
        """Raises UserError when `value` came before, at another place."""
        first = self.seen.setdefault(value, where)
        if first != where:
            raise UserError(f"{self.name} {value!r} occurs twice (first at {first})", where=where)


def _number(where: str) -> int:
    tail = _TAIL_NUMBER.search(where)
    return int(tail[1]) if tail and len(tail[1]) < 19 else 0


# -- JSON --------------------------------------------------------------------------------------


def jsonl(part: Part) -> Iterator[Row | Fault]:
    """("file:line", object) for each line that is not blank; a Fault for any other line."""
    path = part.path
    for number, line in lines(path, part.index, part.parts, BLOCK):
        where = f"{path}:{number}"
        if line is None:
            yield Fault(where, f"the line is longer than {MAX_LINE >> 20} MiB")
        elif line and not line.isspace():
            yield object_row(line, where)


def object_row(line: bytes, where: str) -> Row | Fault:
    """The JSON object of one line, or why it is none."""
    try:
        row = parse(line, where)
    except UserError as error:
        return fault(error, where)
    if isinstance(row, dict):
        return where, row
    return Fault(where, f"a JSON object is expected, not {kind_of(row)}")


def parse(line: bytes, where: str) -> Any:
    """The JSON value of one line. Raises UserError."""
    try:
        value = _decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 (byte {error.start} of the line)", where=where) from None
    except json.JSONDecodeError as error:
        what = f"not valid JSON: {error.msg} (column {error.colno})"
        raise UserError(what, where=where) from None
    except ValueError:
        raise UserError("not valid JSON: a number of thousands of digits", where=where) from None
    except RecursionError:
        raise UserError("not usable JSON: nested too deeply", where=where) from None
    # Only an escape can bring half a surrogate pair in, and it could never be written out again.
    if b"\\u" in line and _SURROGATE.search(line) and has_half_pair(value):
        raise UserError("a string holds half a surrogate pair", where=where)
    return value


def has_half_pair(value: Any) -> bool:
    """Whether a string anywhere in a JSON value holds an unpaired surrogate."""
    if isinstance(value, str):
        return not value.isascii() and _HALF_PAIR.search(value) is not None
    if isinstance(value, dict):
        return any(has_half_pair(key) or has_half_pair(held) for key, held in value.items())
    return isinstance(value, list) and any(map(has_half_pair, value))


class _DuplicateKey(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return value


def whole_json(path: str | Path) -> Any:
    """The one JSON value of a file of at most 1 GiB. A key twice in an object is a UserError."""
    data = _whole(path)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"not UTF-8 (byte {error.start})", where=f"{path}:{line}") from None
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise UserError(
            f"not valid JSON: {error.msg} (column {error.colno})", where=f"{path}:{error.lineno}"
        ) from None
    except ValueError:
        raise UserError(
            "not valid JSON: a number of thousands of digits", where=str(path)
        ) from None
    except RecursionError:
        raise UserError("not usable JSON: nested too deeply", where=str(path)) from None
    except _DuplicateKey as error:
        key = json.dumps(str(error), ensure_ascii=False)
        at = text.find(key, text.find(key) + 1)
        line = text.count("\n", 0, at) + 1
        raise UserError(f"key {key} occurs twice in one object", where=f"{path}:{line}") from None
    if "\\ud" in text.lower() and has_half_pair(value):
        raise UserError("a string holds half a surrogate pair", where=str(path))
    return value


def _whole(path: str | Path) -> bytes:
    pieces = []
    with open_stream(path) as stream:
        while piece := stream.read(1 << 20):
            pieces.append(piece)
            if stream.count > MAX_WHOLE:
                what = f"larger than {MAX_WHOLE >> 30} GiB, too large for one JSON value"
                raise UserError(what, where=str(path))
    if not pieces:
        raise UserError("the file is empty", where=str(path))
    return b"".join(pieces).removeprefix(b"\xef\xbb\xbf")


def raw_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of a plain or packed file. Raises UserError; also when it is empty."""
    for number, line in lines(path):
        if line is None:
            raise UserError("the line is too long", where=f"{path}:{number}")
        yield number, line


# -- fields ------------------------------------------------------------------------------------


def kind_of(value: Any) -> str:
    """A JSON value's kind, in words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true/false"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _missing(row: Mapping[str, Any], name: str, where: str) -> UserError:
    has = ", ".join(map(str, row))
    return UserError(f"field {name!r} is missing", where=where, allowed=f"this row has {has[:300]}")


def text_of(row: Mapping[str, Any], name: str, where: str) -> str:
    """A string field that must be there; may be empty. Raises UserError."""
    if name not in row:
        raise _missing(row, name, where)
    value = row[name]
    if not isinstance(value, str):
        what = f"field {name!r}: a string is expected, not {kind_of(value)}"
        raise UserError(what, where=where)
    return value


def optional_text(row: Mapping[str, Any], name: str, where: str) -> str:
    """A string field that may be absent or null."""
    return "" if row.get(name) is None else text_of(row, name, where)


def list_of(row: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """A list field that must be there. Raises UserError."""
    if name not in row:
        raise _missing(row, name, where)
    value = row[name]
    if not isinstance(value, list):
        raise UserError(f"field {name!r}: a list is expected, not {kind_of(value)}", where=where)
    return value


def object_of(value: Any, name: str, where: str) -> dict[str, Any]:
    """A JSON object. Raises UserError."""
    if not isinstance(value, dict):
        raise UserError(f"{name}: an object is expected, not {kind_of(value)}", where=where)
    return value


def id_of(row: Mapping[str, Any], where: str, name: str = "id") -> str:
    """The row's identifier: a string of 1 to LONGEST_ID characters. Raises UserError."""
    value = text_of(row, name, where)
    if not 0 < len(value) <= LONGEST_ID:
        what = f"field {name!r} is " + (f"{len(value):,} characters long" if value else "empty")
        raise UserError(what, where=where, allowed=f"1 to {LONGEST_ID} characters")
    if not value.isprintable():
        raise UserError(f"field {name!r} holds control characters or a half pair", where=where)
    return value


def ids_of(row: Mapping[str, Any], where: str) -> dict[str, str]:
    """Outside identifiers of a row, by scheme, so that a quarantine can find them."""
    found: dict[str, str] = {}
    for name in ("pmid", "PMID", "pubmed_id", "pubid"):
        value = row.get(name)
        if value is None or value == "":
            continue
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            what = f"field {name!r}: a PMID is expected, not {kind_of(value)}"
            raise UserError(what, where=where)
        if value not in found.values():
            found["pmid" if "pmid" not in found else name] = value
    return found
