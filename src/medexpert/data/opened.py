"""The rows of any data file, ours or not: JSONL, one JSON value or parquet, told by its bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medexpert.data.readers.json_rows import json_array, json_object
from medexpert.data.readers.rows import Fault, Part, Row, jsonl
from medexpert.data.readers.streams import open_raw, open_stream
from medexpert.data.readers.tables import parquet_rows

_HEAD = 1 << 20
_LISTED = re.compile(rb'\{\s*"([^"\\]*)"\s*:\s*\[\s*\{')
_KEYED = re.compile(rb'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{')


def rows(path: str | Path) -> Iterator[Row | Fault]:
    """("file:line", row) of each record, in order; a `Fault` for each that cannot be read.

    One JSON value is a list of rows, an object with nothing but such a list, or an object of rows
    (a member's key is put into its row as `id`). gzip, bzip2, xz and fsspec URLs
    are read as they are. Raises UserError for a file that cannot be read at all.
    """
    path = str(path)
    with open_raw(path) as handle:
        if handle.read(4) == b"PAR1":
            return parquet_rows()(Part(path))
    with open_stream(path) as stream:
        head = stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        return json_array()(Part(path))
    return _object(head)(Part(path))


def _object(head: bytes) -> Callable[[Part], Iterator[Row | Fault]]:
    """How a file is read that begins with an object: lines of them, or one that holds the rows."""
    first = head.split(b"\n", 1)[0].strip()
    value = _value(first)
    if isinstance(value, dict) and value:
        held = list(value.values())
        if all(isinstance(item, dict) for item in held):
            return json_object()
        listed = len(held) == 1 and isinstance(held[0], list) and held[0]
        if listed and all(isinstance(item, dict) for item in held[0]):
            return json_array(next(iter(value)))
        return jsonl
    listed_under = _LISTED.match(head)
    if listed_under and b"." not in listed_under[1]:
        return json_array(listed_under[1].decode("utf-8", "replace"))
    return json_object() if first == b"{" or _KEYED.match(head) else jsonl


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


# -- what a row is -----------------------------------------------------------------------------

_IDS = {"pmid": ("pmid", "PMID", "pubmed_id", "pubid"), "pmcid": ("pmcid", "PMCID", "pmc")}
_PLAIN = ("id", "source", "kind", "template", "lang", "licence", "license", "ids", "stage", "where")
_NAMES = {name for group in _IDS.values() for name in group} | set(_PLAIN) | {"task", "reason"}


@dataclass(frozen=True)
class Facts:
    """What a row of any shape says about itself; "" where it says nothing.

    `kind` is an Example's own, else document, reject, drop, conversation, mcq, qa, task or row.
    `body` is what is to be read: a document's title and text, an example's fields.
    """

    id: str
    source: str
    kind: str
    template: str
    lang: str
    licence: str
    ids: Mapping[str, str]
    reason: str
    body: Mapping[str, Any]


def facts(row: Mapping[str, Any]) -> Facts:
    """A row of ours or of a source file, looked at in one way."""
    fields = row.get("fields")
    body = fields if isinstance(fields, Mapping) else {
        name: value for name, value in row.items() if name not in _NAMES
    }  # fmt: skip
    if isinstance(row.get("detail"), Mapping):
        body = row["detail"]
    ids = row.get("ids")
    found = {str(k): str(v) for k, v in ids.items() if v} if isinstance(ids, Mapping) else {}
    for scheme, names in _IDS.items():
        for name in names:
            if row.get(name) and isinstance(row[name], str | int):
                found.setdefault(scheme, str(row[name]))
    return Facts(
        id=_word(row, "id"),
        source=_word(row, "source"),
        kind=_word(row, "kind") or _kind(row, body),
        template=_word(row, "template"),
        lang=_word(row, "lang"),
        licence=_word(row, "licence") or _word(row, "license"),
        ids=found,
        reason=_word(row, "reason"),
        body=body,
    )


def _word(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return str(value) if isinstance(value, str | int | float) else ""


def _kind(row: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    if _word(row, "reason") and "fields" not in row:
        return "reject" if isinstance(row.get("detail"), Mapping) else "drop"
    for name, kind in (
        ("messages", "conversation"),
        ("options", "mcq"),
        ("contexts", "task"),
        ("CONTEXTS", "task"),
        ("question", "qa"),
        ("text", "document"),
        ("sections", "document"),
    ):
        if name in body:
            return kind
    return "row"


def texts(value: Any) -> Iterator[str]:
    """Every string inside lists and objects, in order; a flat walk, so no depth is too deep."""
    stack = [value]
    while stack:
        held = stack.pop()
        if isinstance(held, str):
            yield held
        elif isinstance(held, Mapping):
            stack.extend(reversed(list(held.values())))
        elif isinstance(held, list | tuple):
            stack.extend(reversed(held))
