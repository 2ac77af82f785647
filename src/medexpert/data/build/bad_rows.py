"""Bad rows: how their places are named, and when a source has too many.

With `phi` on, a file's name may be a patient's and a row may name one: places are then told by a
digest of the name (the one that records of the file carry) and the row's number, nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medexpert.data.catalogue import SourceEntry
from medexpert.data.readers.local_files import split_path
from medexpert.records import UserError

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""Endings (before .gz and the like) of files of rows in a user's folder."""
TABLE_ROWS = 20
"""A smaller file of a user's folder has no share of its own: it counts with the folder."""
WITHHELD = "not shown, since phi is on"

_NUMBERED = re.compile(r"(?::\d+| \[[a-z]+ \d+\])$")
_PART = re.compile(r"#[\d#of]{1,40}")
_PACKED = re.compile(r"\.(?:gz|bz2|xz)$")


class Places:
    """Names of files, rows and records as drops and messages tell them."""

    def __init__(self, *, hidden: bool) -> None:
        self.hidden = hidden

    def file(self, path: str) -> str:
        """A part's file, without the mark of the folder that it was found in."""
        place, identifier = split_path(path)
        return hidden_id(identifier) if self.hidden else place

    def row(self, path: str, where: str) -> str:
        """Where in this file a row stands."""
        if not self.hidden:
            return where
        number = _NUMBERED.search(where)
        return self.file(path) + (number[0] if number else "")

    def record(self, identifier: str) -> str:
        """A record's id."""
        return hidden_id(identifier) if self.hidden else identifier

    def what(self, text: str) -> str:
        """What is wrong with a row; may quote the row."""
        return WITHHELD if self.hidden else text

    def reason(self, reason: str) -> str:
        """Why a row was dropped; that of an unknown kind of file holds the name's ending."""
        unknown = self.hidden and reason.startswith("unknown_kind_")
        return "unknown_kind" if unknown else reason


def hidden_id(identifier: str) -> str:
    """As `privacy` hides the ids of documents, but of what follows # only numbers stay."""
    path, mark, part = identifier.partition("#")
    number = f"{mark}{part}" if _PART.fullmatch(f"{mark}{part}") else ""
    value = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
    return f"text-{value[:16]}{number}"


def is_table(entry: SourceEntry, path: str) -> bool:
    """Whether a file holds rows; in a user's folder most files are one document each."""
    return entry.reader != "local-text" or _PACKED.sub("", path.lower()).endswith(TABLES)


def by_file(entry: SourceEntry, table: bool, rows: int) -> bool:
    """Whether a file has a share of bad rows of its own; else it counts with the whole source."""
    return table and (rows >= TABLE_ROWS or entry.reader != "local-text")


def check_shares(entry: SourceEntry, shards: Iterable[Mapping[str, Any]], allowed: float) -> None:
    """Raises UserError for a file of a source, or for all its documents, with too many bad rows.

    `shards`: their facts.
    """
    rows: dict[str, list[int]] = {}
    faults: dict[str, list[tuple[str, str]]] = {}
    for facts in shards:
        for file, (read, bad, table) in facts["files"].items():
            held = rows.setdefault(file, [0, 0, table])
            held[0] += read
            held[1] += bad
        for file, where, what in facts["faults"]:
            faults.setdefault(file, []).append((where, what))
    together = []
    for file, (read, bad, table) in rows.items():
        if not by_file(entry, bool(table), read):
            together.append(file)
        elif bad > allowed * read:
            raise too_many(file, read, bad, allowed, faults.get(file, []))
    read, bad = (sum(rows[file][i] for file in together) for i in (0, 1))
    if bad > allowed * read:
        told = [fault for file in together for fault in faults.get(file, [])]
        raise too_many(f"source {entry.name!r}", read, bad, allowed, told)


def too_many(
    place: str, rows: int, bad: int, allowed: float, faults: Sequence[Sequence[str]]
) -> UserError:
    """The summary with which a file of bad rows stops a build; `faults`: (where, what)."""
    shown = "; ".join(f"{where}: {what}" for where, what in faults[:3])
    return UserError(
        f"{bad:,} of {rows:,} rows are bad ({bad / max(rows, 1):.1%}); first: {shown}",
        where=place,
        allowed=f"at most {allowed:.0%} bad rows (data.max_bad_rows)",
    )
