"""The rows of any training file, whoever made it, and what a row of any schema is asked for.

JSONL, a JSON array, parquet, csv, tsv, xlsx and text stream; a file that is one JSON object is
read whole (1 GiB at most). gzip, bzip2 and xz are unpacked on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from medexpert.data import grams
from medexpert.data.filters import strings
from medexpert.data.quarantine.ids import keys_of
from medexpert.data.quarantine.match import Probe, bare_prints, question_prints
from medexpert.data.readers.rows import Fault, Part, Row, jsonl
from medexpert.records import UserError

TEXT = (".txt", ".md", ".text", ".rst", ".tex", ".html", ".htm")
BLOCK = 16_000
"""Characters of one record of a text file."""
OVERLAP = 4_000
"""Characters that a block of text repeats from the one before, so that no item of a benchmark is
cut in two: the longest texts have about 3,000."""
_PACKED = (".gz", ".bz2", ".xz")
_HEAD = 1 << 16
_LONGEST_NAME, _NAME_WORDS = 60, 5  # of a column, in characters and in words
_TAIL = re.compile(r"(\d+)\]?$")
_IDS = ("pmid", "pubmed", "pubmed_id", "pubid", "pmcid", "pmc", "doi", "qid", "question_id",
        "questionid", "uid", "uuid", "url")  # fmt: skip
_QUESTIONS = ("question", "qtext", "stem", "query", "instruction", "prompt", "input", "body")
_TURNS = ("messages", "conversations", "conversation", "turns", "utterances", "dialogue")
_OPTIONS = ("options", "option", "choices", "answers", "candidates")
_SPREAD = (("opa", "opb", "opc", "opd", "ope"), ("a", "b", "c", "d", "e", "f"),
           ("ending0", "ending1", "ending2", "ending3", "ending4"))  # fmt: skip


def rows_of(path: str) -> Iterator[Row | Fault]:
    """(where, row) of every record of a file. Raises UserError for a file that cannot be read."""
    from medexpert.data import opened
    from medexpert.data.readers.json_rows import json_array
    from medexpert.data.readers.tables import csv_rows, xlsx_rows

    kind = suffix_of(path)
    if kind in (".csv", ".tsv"):
        yield from _table(path, csv_rows(delimiter="," if kind == ".csv" else "\t")(Part(path)))
    elif kind == ".xlsx":
        yield from xlsx_rows()(Part(path))
    elif kind in TEXT:
        yield from _text(path)
    elif kind in (".pdf", ".docx", ".zip", ".tar", ".tgz", ".xml", ".nxml"):
        raise UserError(
            f"an audit does not read {kind} files",
            where=path,
            allowed="jsonl, json, parquet, csv, tsv, xlsx, txt, md, html; packed with gz, bz2, xz",
        )
    elif kind == ".jsonl":
        yield from jsonl(Part(path))
    elif kind != ".parquet" and (first := _head(path)).startswith(b"["):
        yield from json_array("", "text")(Part(path))
    elif kind != ".parquet" and _one_object(first):
        from medexpert.data.readers.rows import whole_json

        for number, row in enumerate(_members(whole_json(path), ""), 1):
            yield f"{path} [record {number}]", row
    else:
        yield from opened.rows(path)


def _table(path: str, rows: Iterator[Row | Fault]) -> Iterator[Row | Fault]:
    """The rows of a table, its first line too where that names no columns (MMLU has no header)."""
    asked = False
    for found in rows:
        if not asked and not isinstance(found, Fault):
            asked = True
            cells = list(found[1])
            if any(len(cell) > _LONGEST_NAME or len(cell.split()) > _NAME_WORDS for cell in cells):
                yield f"{path}:1", {"text": "\n".join(cells)}
        yield found


def suffix_of(path: str) -> str:
    """The suffix that tells the format, beneath a packer's."""
    name = PurePosixPath(path.split("?")[0])
    if name.suffix.lower() in _PACKED:
        name = name.with_suffix("")
    return ".jsonl" if name.suffix.lower() == ".ndjson" else name.suffix.lower()


def line_of(where: str) -> int:
    """The line or record number at the end of a place; 0 where there is none."""
    match = _TAIL.search(where)
    return int(match.group(1)) if match else 0


def _head(path: str) -> bytes:
    from medexpert.data.readers.streams import open_stream

    with open_stream(path) as stream:
        return stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()


def _one_object(head: bytes) -> bool:
    """Whether a file that begins so is one JSON object rather than an object a line."""
    if not head.startswith(b"{"):
        return False
    first, _, rest = head.partition(b"\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return b"\n" in head or len(head) >= _HEAD  # else one short damaged line: a bad row
    return not rest.strip()


def _members(value: Any, key: str) -> Iterator[dict[str, Any]]:
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
    nested = {name: held for name, held in value.items() if _holds_rows(held)}
    if not nested:
        yield {"id": key, **value} if key else value
        return
    for name, held in nested.items():
        yield from _members(held, name)
    rest = {name: held for name, held in value.items() if name not in nested}
    if rest:
        yield {"id": key, **rest}


def _holds_rows(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) for item in value)
    return isinstance(value, dict) and any(isinstance(held, dict | list) for held in value.values())


def _text(path: str) -> Iterator[Row | Fault]:
    """Blocks of a text file; `where` is the line a block starts on."""
    from medexpert.data.readers.streams import lines

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


def name_of(row: Mapping[str, Any]) -> str:
    """A row's own id as text, "" where it has none."""
    for key in ("id", "_id", "ID", "qid", "pmid", "PMID", "pubid"):
        value = row.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()[:200]
    return ""


def probe_of(row: Mapping[str, Any]) -> Probe:
    """What a row of any schema is asked for: all its strings, its ids, its question and options."""
    ids: dict[str, str] = {}
    for part in (row, row.get("ids"), row.get("meta"), row.get("metadata")):
        if isinstance(part, Mapping):
            for key, value in part.items():
                name = str(key).lower()
                if name in _IDS and isinstance(value, str | int) and not isinstance(value, bool):
                    ids.setdefault(name, str(value))
    if "pmc" in ids:
        ids.setdefault("pmcid", ids.pop("pmc"))
    text = "\n".join(strings(dict(row)))
    own = row.get("id")
    name = str(own) if isinstance(own, str | int) and not isinstance(own, bool) else ""
    return Probe(frozenset(keys_of(name, ids)), _prints(row), grams.hashes(text))


def _prints(row: Mapping[str, Any]) -> tuple[int, ...]:
    """Fingerprints of each field that may be a question, with the row's options and without, and of
    each turn of a conversation."""
    inner = row.get("fields")
    if isinstance(inner, Mapping):
        return _prints(inner)
    low = {str(key).lower(): value for key, value in row.items()}
    options = _options(low)
    found: list[int] = []
    for key in _QUESTIONS:
        found += question_prints(low.get(key), options) if options else ()
        found += bare_prints(low.get(key))
    for key in _TURNS:
        turns = low.get(key)
        for turn in turns if isinstance(turns, list) else ():
            for text in turn.values() if isinstance(turn, Mapping) else (turn,):
                found += bare_prints(text)
    return tuple(dict.fromkeys(found))


def _options(row: Mapping[str, Any]) -> object:
    for key in _OPTIONS:
        value = row.get(key)
        if isinstance(value, Mapping):
            return value.get("text", value)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return [text for one in value for text in strings(one)]
        if isinstance(value, list | str) and value:
            return value
    for names in _SPREAD:
        if all(isinstance(row.get(name), str) for name in names[:2]):
            return [row[name] for name in names if isinstance(row.get(name), str)]
    return None
