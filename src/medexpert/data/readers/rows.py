"""Raw bytes -> checked rows. Every fault is a UserError that names the file and the line or key."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexpert.records import Document, Example, UserError

GZIP_MAGIC = b"\x1f\x8b"


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


Item = Document | Example | Drop | Change


class Unique:
    """Refuses a second row with the same identifier."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: dict[str, str] = {}

    def check(self, value: str, where: str) -> None:
        first = self.seen.setdefault(value, where)
        if first != where:
            raise UserError(f"{self.name} {value!r} occurs twice (first at {first})", where=where)


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of a plain or gzip'd file. Raises UserError; also when it is empty."""
    number = 0
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == GZIP_MAGIC
        with gzip.open(path, "rb") if packed else path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                yield number, line
    except FileNotFoundError:
        raise UserError("no such file", where=str(path)) from None
    except IsADirectoryError:
        raise UserError("a file is expected, not a folder", where=str(path)) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"damaged or truncated gzip file ({error})", where=f"{path}:{number + 1}"
        ) from None
    if number == 0:
        raise UserError("the file is empty", where=str(path))


def jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", object) for each line that is not blank."""
    for number, line in raw_lines(path):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        row = _parse(line, where)
        if not isinstance(row, dict):
            raise UserError(f"a JSON object is expected, not {_kind(row)}", where=where)
        yield where, row


def _parse(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 (byte {error.start} of the line)", where=where) from None
    except json.JSONDecodeError as error:
        what = f"not valid JSON: {error.msg} (column {error.colno})"
        raise UserError(what, where=where) from None


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


def whole_json(path: Path) -> Any:
    """The one JSON value of a file. A key that occurs twice in an object is an error."""
    data = b"".join(line for _, line in raw_lines(path))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"not UTF-8 (byte {error.start})", where=f"{path}:{line}") from None
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise UserError(
            f"not valid JSON: {error.msg} (column {error.colno})", where=f"{path}:{error.lineno}"
        ) from None
    except _DuplicateKey as error:
        key = json.dumps(str(error), ensure_ascii=False)
        at = text.find(key, text.find(key) + 1)
        line = text.count("\n", 0, at) + 1
        raise UserError(f"key {key} occurs twice in one object", where=f"{path}:{line}") from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true/false"}
    names |= {int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def text_of(row: Mapping[str, Any], name: str, where: str) -> str:
    """A string field that must be there; may be empty. Raises UserError."""
    if name not in row:
        raise UserError(
            f"field {name!r} is missing", where=where, allowed="this row has " + ", ".join(row)
        )
    value = row[name]
    if not isinstance(value, str):
        raise UserError(f"field {name!r}: a string is expected, not {_kind(value)}", where=where)
    return value


def optional_text(row: Mapping[str, Any], name: str, where: str) -> str:
    """A string field that may be absent or null."""
    return "" if row.get(name) is None else text_of(row, name, where)


def list_of(row: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """A list field that must be there. Raises UserError."""
    if name not in row:
        raise UserError(
            f"field {name!r} is missing", where=where, allowed="this row has " + ", ".join(row)
        )
    value = row[name]
    if not isinstance(value, list):
        raise UserError(f"field {name!r}: a list is expected, not {_kind(value)}", where=where)
    return value


def object_of(value: Any, name: str, where: str) -> dict[str, Any]:
    """A JSON object. Raises UserError."""
    if not isinstance(value, dict):
        raise UserError(f"{name}: an object is expected, not {_kind(value)}", where=where)
    return value


def id_of(row: Mapping[str, Any], where: str) -> str:
    """The row's `id`, a non-empty string. Raises UserError."""
    value = text_of(row, "id", where)
    if not value:
        raise UserError("field 'id' is empty", where=where)
    if not value.isprintable():
        raise UserError("field 'id' holds control characters or half a surrogate", where=where)
    return value


def ids_of(row: Mapping[str, Any], where: str) -> dict[str, str]:
    """Outside identifiers of a row, by scheme, so that a quarantine can find them."""
    found: dict[str, str] = {}
    for name in ("pmid", "PMID", "pubmed_id", "pubid"):
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is not None and not isinstance(value, str):
            raise UserError(f"field {name!r}: a PMID is expected, not {_kind(value)}", where=where)
        if value and value not in found.values():
            found["pmid" if "pmid" not in found else name] = value
    return found
