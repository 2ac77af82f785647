"""The rows of any data file, ours or not: the one way in which `show`, `stats` and `audit` open it.

What a file is, its name or its bytes tell; what a row is, `facts` looks at in one way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medexpert.data.readers.json_rows import json_array, json_object
from medexpert.data.readers.rows import Fault, Part, Row, jsonl, whole_json
from medexpert.data.readers.streams import lines, open_raw, open_stream
from medexpert.data.readers.tables import csv_rows, first_cells, parquet_rows, xlsx_rows
from medexpert.records import UserError

TEXT = (".txt", ".md", ".text", ".rst", ".tex", ".html", ".htm")
BLOCK = 16_000
"""Characters of one record of a text file."""
OVERLAP = 4_000
"""Characters that a block of text repeats from the one before, so that no item of a benchmark is
cut in two: the longest texts have about 3,000."""
_OTHER = (".pdf", ".docx", ".zip", ".tar", ".tgz", ".xml", ".nxml")
_PACKED = (".gz", ".bz2", ".xz")
_HEAD = 1 << 20
_LONGEST_NAME, _NAME_WORDS = 60, 5  # of a column, in characters and in words
_BY_NUMBER = re.compile(rb'\{\s*"\d+"\s*:\s*\{')
_DEEPEST = 20  # objects in objects that are looked into for rows
_MMLU = ("question", "A", "B", "C", "D", "answer")


def rows(path: str | Path) -> Iterator[Row | Fault]:
    """("file:line", row) of each record, in order; a `Fault` for each that cannot be read.

    JSONL, csv, tsv, xlsx and text by the file's name, a JSON array, one JSON object and parquet by
    their bytes. Of one object the lists of objects inside, at any depth, are the rows, and objects
    of objects (a member's key is put into its row as `id`); what stands beside them is a row too.
    gzip, bzip2, xz and fsspec URLs are read as they are. All streams but one JSON object whose keys
    are no numbers (1 GiB at most) and xlsx. Raises UserError for a file that cannot be read at all.
    """
    path = str(path)
    kind = suffix_of(path)
    if kind in _OTHER:
        raise UserError(
            f"rows are not read from {kind} files",
            where=path,
            allowed="jsonl, json, parquet, csv, tsv, xlsx, txt, md, html; packed with gz, bz2, xz",
        )
    with open_raw(path) as handle:
        if handle.read(4) == b"PAR1":
            return parquet_rows()(Part(path))
    if kind in (".csv", ".tsv"):
        return _table(path, "," if kind == ".csv" else "\t")
    if kind == ".xlsx":
        return xlsx_rows()(Part(path))
    if kind in TEXT:
        return _text(path)
    return _json(path, named_lines=kind == ".jsonl")


def suffix_of(path: str) -> str:
    """The suffix that tells the format, beneath a packer's."""
    name = PurePosixPath(path.split("?")[0])
    if name.suffix.lower() in _PACKED:
        name = name.with_suffix("")
    return ".jsonl" if name.suffix.lower() == ".ndjson" else name.suffix.lower()


# -- JSON --------------------------------------------------------------------------------------


def _json(path: str, *, named_lines: bool) -> Iterator[Row | Fault]:
    with open_stream(path) as stream:
        head = stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if named_lines and not _spread(head):
        return jsonl(Part(path))
    if head.startswith(b"["):
        return json_array("", "text")(Part(path))
    if not _one_object(head):
        return jsonl(Part(path))
    if _BY_NUMBER.match(head):
        return json_object()(Part(path))
    return _whole(path)


def _spread(head: bytes) -> bool:
    """Whether what is called JSON lines is one value spread over lines."""
    first, _, rest = head.partition(b"\n")
    return first.strip() in (b"[", b"{") or (first.startswith(b"[") and not rest.strip())


def _whole(path: str) -> Iterator[Row]:
    for number, row in enumerate(_members(whole_json(path), ""), 1):
        yield f"{path} [record {number}]", row


def _one_object(head: bytes) -> bool:
    """Whether a file that begins so is one JSON object rather than an object a line."""
    if not head.startswith(b"{"):
        return False
    first, newline, rest = head.partition(b"\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        if not newline:
            return len(head) >= _HEAD  # else one short damaged line: a bad row
        # A damaged line before another object is a bad row too.
        return first.rstrip().endswith((b"[", b":")) or not rest.lstrip().startswith(b"{")
    return not rest.strip()


def _members(value: Any, key: str, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Rows inside a JSON value: elements of its lists of objects, members of objects of objects."""
    if isinstance(value, list):
        for item in value:
            yield item if isinstance(item, dict) else {"text": item}
        return
    if not isinstance(value, dict):
        yield {"id": key, "text": value}
        return
    if not key and value and all(name.isdigit() for name in value):
        # PMID -> answer, as PubMedQA publishes its test labels; or PMID -> item.
        for name, held in value.items():
            yield {"id": name, **(held if isinstance(held, dict) else {"text": held})}
        return
    keyed = not key and len(value) > 0 and all(isinstance(held, dict) for held in value.values())
    nested = {name: held for name, held in value.items() if keyed or _holds_rows(held)}
    nested = nested if depth < _DEEPEST else {}
    if not nested:
        yield {"id": key, **value} if key else value
        return
    for name, held in nested.items():
        yield from _members(held, name, depth + 1)
    rest = {name: held for name, held in value.items() if name not in nested}
    if rest:
        yield {"id": key, **rest} if key else rest


def _holds_rows(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) for item in value)
    return isinstance(value, dict) and any(isinstance(held, dict | list) for held in value.values())


# -- tables and text ---------------------------------------------------------------------------


def _table(path: str, delimiter: str) -> Iterator[Row | Fault]:
    """The rows of a table, its first line too where that names no columns (MMLU has no header)."""
    cells = first_cells(path, delimiter)
    found = 0
    is_mmlu = len(cells) == len(_MMLU) and cells[-1] in ("A", "B", "C", "D")
    is_mmlu = is_mmlu and not {"A", "B"} <= set(cells)
    if not is_mmlu and _are_names(cells):
        for row in csv_rows(delimiter=delimiter)(Part(path)):
            found += 1
            yield row
    if found:
        return
    # A lone line is a row: were it a header, it would be one of nothing.
    names = _MMLU if is_mmlu else [f"column {n}" for n in range(1, len(cells) + 1)]
    yield from csv_rows(names, delimiter)(Part(path))


def _are_names(cells: Sequence[str]) -> bool:
    """Whether a table's first line may name its columns: short cells, no two alike."""
    held = [cell for cell in cells if cell]
    short = all(len(cell) <= _LONGEST_NAME and len(cell.split()) <= _NAME_WORDS for cell in held)
    return short and len(set(held)) == len(held)


def _text(path: str) -> Iterator[Row | Fault]:
    """Blocks of a text file; `where` is the line a block starts on."""
    held: list[str] = []
    size, start = 0, 1
    for number, raw in lines(path):
        if raw is None:
            yield Fault(f"{path}:{number}", "the line is too long")
            continue
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            try:
                line = raw.decode("gb18030")
            except UnicodeDecodeError:
                yield Fault(f"{path}:{number}", "neither UTF-8 nor GB 18030")
                continue
        held.append(line)
        size += len(line) + 1
        if size >= BLOCK:
            yield f"{path}:{start}", {"text": "\n".join(held)}
            kept = _tail(held)
            start, held, size = number + 1 - len(kept), kept, sum(map(len, kept)) + len(kept)
    if held:
        yield f"{path}:{start}", {"text": "\n".join(held)}


def _tail(held: list[str]) -> list[str]:
    """The last lines, OVERLAP characters of them; a line longer than that is cut."""
    kept: list[str] = []
    size = 0
    for line in reversed(held):
        if size >= OVERLAP:
            break
        kept.insert(0, line[-OVERLAP:])
        size += len(line) + 1
    return kept


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
