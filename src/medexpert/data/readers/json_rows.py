"""Items of one large JSON value, streamed: the members of an array or of an object.

JSON cannot be resumed after a syntax error, so a file that breaks midway is a UserError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from medexpert.data.readers.rows import Fault, Part, Row, kind_of
from medexpert.data.readers.streams import Stream, open_stream
from medexpert.data.readers.wording import one_line
from medexpert.records import UserError

MAX_ITEM = 64 << 20  # bytes between two items
MAX_DEPTH = 200
_BUFFER = 1 << 20  # bytes; the parser scans a string anew with every piece of it
MARK = "\ufdd0"  # Unicode keeps this code point for a program's own use: no text has it

Rows = Callable[[Part], Iterator[Row | Fault]]


def json_array(pointer: str = "", under: str = "") -> Rows:
    """Rows of the array at `pointer` (keys joined by dots; empty = the file is the array).

    An item that is no object is a Fault, or the row `{under: item}` when `under` is given.
    """

    def rows(part: Part) -> Iterator[Row | Fault]:
        for number, (_, value) in enumerate(_items(part.path, pointer, keyed=False), 1):
            if part.has(number - 1):
                if under and not isinstance(value, dict):
                    value = {under: value}
                yield _row(f"{part.path} [record {number}]", value)

    return rows


def json_object(pointer: str = "", key: str = "id") -> Rows:
    """Rows of the object at `pointer`; a member's name is put into its row under `key`."""

    def rows(part: Part) -> Iterator[Row | Fault]:
        for number, (name, value) in enumerate(_items(part.path, pointer, keyed=True)):
            if part.has(number):
                found = _row(f"{part.path} [{one_line(name, 80)}]", value)
                yield found if isinstance(found, Fault) else (found[0], {**found[1], key: name})

    return rows


def _row(where: str, value: Any) -> Row | Fault:
    if not isinstance(value, dict):
        return Fault(where, f"a JSON object is expected, not {kind_of(value)}")
    if _marked(value):
        return Fault(where, "a string holds half a surrogate pair")
    return where, value


def _marked(value: Any) -> bool:
    """Whether a string anywhere in a value holds the mark of half a surrogate pair."""
    if isinstance(value, str):
        return not value.isascii() and MARK in value
    if isinstance(value, dict):
        return any(_marked(key) or _marked(held) for key, held in value.items())
    return isinstance(value, list) and any(map(_marked, value))


class _Guarded:
    """The bytes of a stream on their way to the parser, which would let two things through.

    JSON nested deeper than MAX_DEPTH is refused (brackets outside strings are counted), and half a
    surrogate pair, for which the parser would write a question mark, is marked as MARK.
    """

    _MARKS = re.compile(rb'\\.|["\[\]{}]', re.S)
    _ESCAPES = re.compile(
        rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
        rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
        re.S,
    )
    _LONGEST = 12  # bytes of an escaped pair

    def __init__(self, stream: Stream, first: bytes) -> None:
        self._stream, self._first = stream, first
        self._held = b""  # the beginning of an escape, for the next piece
        self._depth, self._in_string = 0, False

    def read(self, size: int) -> bytes:
        if not size:
            return b""
        data = b""
        while not data:
            read, self._first = self._first or self._stream.read(size), b""
            data, self._held = self._held + read, b""
            if not read:
                break
            if b"\\" in data[-self._LONGEST :]:
                cut = self._last_whole(data)
                data, self._held = data[:cut], data[cut:]
        for mark in self._MARKS.findall(data):
            if mark == b'"':
                self._in_string = not self._in_string
            elif not self._in_string:
                if mark in b"[{":
                    self._depth += 1
                    if self._depth > MAX_DEPTH:
                        raise UserError("nested too deeply", where=self._stream.where)
                elif mark in b"]}":
                    self._depth -= 1
        if b"\\ud" in data or b"\\uD" in data:
            data = self._ESCAPES.sub(lambda found: b"\\ufdd0" if found[1] else found[0], data)
        return data

    def _last_whole(self, data: bytes) -> int:
        """Where the escape begins that may be cut in two by the end of the data."""
        near = len(data) - self._LONGEST
        end = 0
        for found in self._ESCAPES.finditer(data):
            if found.start() > near:
                return found.start()
            end = found.end()
        lone = data.find(b"\\", max(end, near))
        return len(data) if lone < 0 else lone


def _items(path: str, pointer: str, *, keyed: bool) -> Iterator[tuple[str, Any]]:
    """(name or "", value) of each member. Raises UserError."""
    import ijson

    with open_stream(path) as stream:
        first = _start(stream, path)
        if not pointer:
            _check_start(first, path, keyed)
        source = _Guarded(stream, first)
        count = 0
        array = f"{pointer}.item" if pointer else "item"
        try:
            found = (
                ijson.kvitems(source, pointer, use_float=True, buf_size=_BUFFER)
                if keyed
                else ijson.items(source, array, use_float=True, buf_size=_BUFFER)
            )
            stream.mark(MAX_ITEM)
            for item in found:
                count += 1
                stream.mark(MAX_ITEM)
                yield item if keyed else ("", item)
        except (ijson.JSONError, ValueError, OverflowError, RecursionError) as error:
            told = one_line((str(error).strip().splitlines() or ["cut off"])[0], 200)
            what = f"not valid JSON ({told}), after {count} items or more"
            raise UserError(what, where=path) from None
    if not count and pointer:
        kind = "object" if keyed else "list"
        raise UserError(f"no item in the {kind} {pointer!r} of this file", where=path)


def _start(stream: Stream, path: str) -> bytes:
    first = stream.read(1 << 16).removeprefix(b"\xef\xbb\xbf")
    while first.isspace():
        first = stream.read(1 << 16)
    if not first:
        raise UserError("the file is empty", where=path)
    return first


def _check_start(first: bytes, path: str, keyed: bool) -> None:
    head = first.lstrip()[:1]
    if head != (b"{" if keyed else b"["):
        kinds = {b"{": "an object", b"[": "a list", b'"': "a string"}
        expected = "an object" if keyed else "a list"
        raise UserError(
            f"the file: {expected} is expected, not {kinds.get(head, 'something else')}",
            where=path,
        )
