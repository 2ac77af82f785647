"""Arbitrary bytes into each source of rows: rows and faults, or one UserError; nothing else."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checks import check_fault, check_message, physical_lines, require
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.data import opened
from medexpert.data.readers.json_rows import json_array, json_object
from medexpert.data.readers.rows import Fault, Part, jsonl
from medexpert.data.readers.tables import csv_rows
from medexpert.data.readers.xml_rows import xml_records
from medexpert.records import UserError

Rows = Callable[[Part], Iterator[Any]]
SOURCES: dict[str, Rows] = {
    "jsonl": jsonl,
    "array": json_array(),
    "array-at": json_array("a"),
    "object": json_object(),
    "csv": csv_rows(),
    "csv-head": csv_rows(("a", "b"), delimiter="\t"),
    "xml": xml_records("b", roots=("a", "b")),
    "opened": lambda part: opened.rows(part.path),
}
FILES = {"csv": "f.csv", "xml": "f.xml", "opened": "f.json"}
TOKENS = st.sampled_from(
    [b'{"a": 1}', b'{"a": [1]}', b"[", b"]", b"{", b"}", b'"', b"\\u", b"\\ud800", b"\\", b",",
     b"\n", b"\r", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"1e999", b"NaN", b"null", b":",
     b"<a>", b"<b>", b"</b>", b"</a>", b"&x;", b"<!DOCTYPE a [<!ENTITY x 'y'>]>", b"<![CDATA[",
     b"a,b\n", b"1\t2\n", "字".encode(), "字".encode("gb18030"), b"\x1f\x8b", b" " * 40]
)  # fmt: skip
BYTES = st.one_of(st.binary(max_size=60), st.lists(TOKENS, max_size=14).map(b"".join))


def taken(rows: Rows, path: Path) -> tuple[int, bool]:
    """(rows and faults, whether the file was refused); checks every message."""
    count = 0
    try:
        for found in rows(Part(str(path))):
            count += 1
            if isinstance(found, Fault):
                check_fault(found, str(path), whole=False)
            else:
                assert str(path) in found[0]
    except UserError as error:
        check_message(str(error), str(path))
        require(str(path) in str(error), "a refusal without the file's name")
        return count, True
    return count, False


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=BYTES, packed=st.booleans())
def test_any_bytes(name: str, data: bytes, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / FILES.get(name, "f.jsonl")
    path.write_bytes(gzip.compress(data) if packed else data)
    count, refused = taken(SOURCES[name], path)
    if name == "jsonl" and not refused:
        assert count == physical_lines(path.read_bytes())


ROW = st.dictionaries(
    st.text(max_size=5), st.one_of(st.text(max_size=9), st.integers(), st.none(), st.floats()),
    max_size=3,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(ROW, min_size=1, max_size=5), broken=BYTES, at=st.integers(0, 5))
def test_good_rows_beside_a_bad_line_are_read(
    rows: list[dict[str, Any]], broken: bytes, at: int, tmp_path: Path
) -> None:
    lines = [json.dumps(row).encode() for row in rows]
    at = min(at, len(lines))
    bad = broken.replace(b"\n", b" ").removeprefix(b"\xef\xbb\xbf")
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"\n".join([*lines[:at], b"?" + bad, *lines[at:]]))
    found = list(jsonl(Part(str(path))))
    (fault,) = [item for item in found if isinstance(item, Fault)]
    assert fault.where == f"{path}:{at + 1}"
    assert len(found) == len(rows) + 1
