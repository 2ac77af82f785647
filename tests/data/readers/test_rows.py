"""Every way a row can be broken is told with its file and line, and reading goes on."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from medexpert.data.readers import documents, rows
from medexpert.data.readers.rows import Fault, Part, read
from medexpert.records import Document, UserError

GOOD = b'{"id": "a", "text": "x"}\n'
READER = documents.READERS["documents"]


def broken(tmp_path: Path, raw: bytes, name: str = "f.jsonl") -> str:
    path = tmp_path / name
    path.write_bytes(raw)
    return str(path)


def told(path: str) -> list[str]:
    found = read(READER, [Part(path)])
    return [f"{item.where}: {item.what}" for item in found if isinstance(item, Fault)]


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"{oops}\n", r"f\.jsonl:2: not valid JSON: .*column 2"),
        (b'{"id": "\xff"}\n', r"f\.jsonl:2: not UTF-8 \(byte 8 of the line\)"),
        (b"[1]\n", r"f\.jsonl:2: a JSON object is expected, not a list"),
        (b'{"id": "b"}\n', r":2: field 'text' is missing; allowed: this row has id"),
        (b'{"id": "b", "text": 3}\n', r":2: field 'text': a string is expected, not a number"),
        (b'{"id": 7, "text": ""}\n', r":2: field 'id': a string is expected, not a number"),
        (b'{"id": "", "text": ""}\n', r":2: field 'id' is empty"),
        (b'{"id": "\\u0001", "text": ""}\n', r":2: field 'id' holds control"),
        (b'{"id": "b", "text": "\\ud83d"}\n', r":2: a string holds half a surrogate pair"),
        (b'{"id": "b", "text": "\0"}\n', r":2: not valid JSON"),
        (b"[" * 100_000 + b"\n", r":2: not usable JSON: nested too deeply"),
        (b'{"id": ' + b"9" * 5000 + b"}\n", r":2: not valid JSON: a number of thousands of digits"),
        (GOOD, r":2: id 'a' occurs twice \(first at .*f\.jsonl:1\)"),
    ],
)
def test_a_broken_line_is_a_fault_and_the_rest_is_read(
    tmp_path: Path, raw: bytes, match: str
) -> None:
    path = broken(tmp_path, GOOD + raw + b'{"id": "z", "text": "y"}\r\n')
    (fault,) = told(path)
    with pytest.raises(UserError, match=match):
        raise UserError(fault)
    kept = [item.id for item in read(READER, [Part(path)]) if isinstance(item, Document)]
    assert kept == ["a", "z"]


def test_a_whole_surrogate_pair_is_text(tmp_path: Path) -> None:
    (item,) = read(READER, [Part(broken(tmp_path, b'{"id": "b", "text": "\\ud83d\\ude00"}'))])
    assert isinstance(item, Document)
    assert item.text == "\U0001f600"


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert told(broken(tmp_path, b"\xef\xbb\xbf" + GOOD)) == []


def test_a_line_beyond_the_limit_is_skipped_without_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medexpert.data.readers import streams

    monkeypatch.setattr(streams, "MAX_LINE", 4 << 20)
    path = tmp_path / "long.jsonl"
    with path.open("wb") as handle:
        handle.write(GOOD)
        for _ in range(40):
            handle.write(b"x" * (1 << 20))
        handle.write(b'\n{"id": "b", "text": "y"}')
    tracemalloc.start()
    items = list(read(READER, [Part(str(path))]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert items[1] == Fault(f"{path}:2", "the line is longer than 64 MiB")
    assert [type(item) for item in items] == [Document, Fault, Document]
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("kind", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)]
)
def test_truncated_and_corrupt_files(
    tmp_path: Path, kind: str, pack: Callable[[bytes], bytes]
) -> None:
    lines = b"".join(GOOD.replace(b'"a"', b'"%d"' % (i * 7919)) for i in range(5000))
    match = rf"f\.dat:\d+: damaged or truncated {kind} file"
    with pytest.raises(UserError, match=match):
        list(read(READER, [Part(broken(tmp_path, pack(lines)[:-200], "f.dat"))]))
    raw = bytearray(pack(lines))
    raw[len(raw) // 2] ^= 0x55
    with pytest.raises(UserError, match=match):
        list(read(READER, [Part(broken(tmp_path, bytes(raw), "f.dat"))]))
    assert told(broken(tmp_path, pack(lines), "f.dat")) == []
    with pytest.raises(UserError, match="the file is empty"):
        list(read(READER, [Part(broken(tmp_path, pack(b""), "f.dat"))]))


def test_missing_file_folder_and_foreign_files(tmp_path: Path) -> None:
    for name, match in [
        ("absent", "absent: no such file"),
        ("", "a file is expected, not a folder"),
        ("nosuch://x", "nosuch://x: cannot be opened"),
    ]:
        path = name if "://" in name else str(tmp_path / name)
        with pytest.raises(UserError, match=match):
            list(read(READER, [Part(path)]))
    for raw, match in [
        (b"", "the file is empty"),
        (b"PAR1....", "text is expected, this is a parquet file"),
        (b"PK\x03\x04...", "text is expected, this is a zip archive"),
        (b"%PDF-1.7\n", "text is expected, this is a PDF"),
    ]:
        with pytest.raises(UserError, match=match):
            list(read(READER, [Part(broken(tmp_path, raw))]))


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = broken(tmp_path, b"\n" + GOOD + b"  \n\r\n")
    assert [where for where, _ in rows.jsonl(Part(path))] == [f"{path}:2"]  # type: ignore[misc]


def test_a_url_reads_like_a_path() -> None:
    import fsspec

    with fsspec.open("memory://rows/f.jsonl.gz", "wb") as handle:
        handle.write(gzip.compress(GOOD))
    (item,) = read(READER, [Part("memory://rows/f.jsonl.gz")])
    assert isinstance(item, Document)
    with pytest.raises(UserError, match=r"memory://rows/none: no such file"):
        list(read(READER, [Part("memory://rows/none")]))


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 4500), parts=st.integers(1, 7), end=st.sampled_from([b"", b"\n"]))
@example(count=1000, parts=2, end=b"\n")
@example(count=1001, parts=3, end=b"")
def test_parts_hold_every_row_once(tmp_path: Path, count: int, parts: int, end: bytes) -> None:
    raw = b"\n".join(b'{"id": "%d", "text": "t"}' % i for i in range(count)) + end
    path = broken(tmp_path, raw)
    whole = [item.id for item in read(READER, [Part(path)]) if isinstance(item, Document)]
    slices = [list(read(READER, [Part(path, index, parts)])) for index in range(parts)]
    found = [item.id for part in slices for item in part if isinstance(item, Document)]
    assert len(whole) == count
    assert sorted(found) == sorted(whole)
    blocks = [int(item.id) // rows.BLOCK % parts for item in slices[0]
              if isinstance(item, Document)]  # fmt: skip
    assert set(blocks) <= {0}


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=300), at=st.integers(0, 120), cut=st.integers(0, 60))
def test_no_bytes_bring_a_traceback(tmp_path: Path, raw: bytes, at: int, cut: int) -> None:
    text = GOOD * 2 + json.dumps({"id": "é", "text": "\ud800" if at % 2 else "x"}).encode()
    path = broken(tmp_path, text[:at] + raw + text[at + cut :])
    told = path
    try:
        for item in read(READER, [Part(path)]):
            assert isinstance(item, Document | Fault)
    except UserError as error:
        told = str(error)
    assert told.startswith(path)


def test_whole_json_faults(tmp_path: Path) -> None:
    for raw, match in [
        (b'{"a": 1,\n b}', r"f\.jsonl:2: not valid JSON"),
        (b'{"a":\n"\xff"}', r"f\.jsonl:2: not UTF-8"),
        (b'{\n"12": 1,\n"12": 2}', r'f\.jsonl:3: key "12" occurs twice in one object'),
        (b"[" * 100_000, r"f\.jsonl: not usable JSON: nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", r"a number of thousands of digits"),
        (b'["\\ud800"]', r"a string holds half a surrogate pair"),
        (b"", r"the file is empty"),
    ]:
        with pytest.raises(UserError, match=match):
            rows.whole_json(broken(tmp_path, raw))


def test_a_whole_json_file_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_WHOLE", 100)
    with pytest.raises(UserError, match="too large for one JSON value"):
        rows.whole_json(broken(tmp_path, b" " * 101))


def test_duplicate_pmid(write_rows: Callable[..., Path]) -> None:
    row = {"text": "t", "pmid": "12"}
    path = write_rows("d.jsonl", [{"id": "a", **row}, {"id": "b", **row}])
    (fault,) = told(str(path))
    assert fault == f"{path}:2: PMID '12' occurs twice (first at {path}:1)"


def test_ids_may_come_again_in_another_file(write_rows: Callable[..., Path]) -> None:
    row = {"id": "a", "text": "t"}
    paths = [str(write_rows(name, [row])) for name in ("one.jsonl", "two.jsonl")]
    assert all(isinstance(item, Document) for item in read(READER, map(Part, paths)))


def test_pmid_of_a_wrong_kind(write_rows: Callable[..., Path]) -> None:
    path = write_rows("d.jsonl", [{"id": "a", "text": "t", "pmid": ["12"]}])
    (fault,) = told(str(path))
    assert fault == f"{path}:1: field 'pmid': a PMID is expected, not a list"


def test_every_identifier_of_a_row_is_kept() -> None:
    assert rows.ids_of({"pmid": "1", "pubid": 2, "pubmed_id": "1"}, "here") == {
        "pmid": "1",
        "pubid": "2",
    }
    assert rows.ids_of({"PMID": 7, "pmid": ""}, "here") == {"pmid": "7"}


def test_identifiers_are_remembered_in_little_memory() -> None:
    table = rows.Ids("id")
    tracemalloc.start()
    for number in range(50_000):
        table.check(f"row-{number}", f"f:{number + 1}")
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 50_000 * 45
    for number in (0, 12_345, 49_999):
        with pytest.raises(
            UserError, match=rf"id 'row-{number}' occurs twice \(first at f:{number + 1}\)"
        ):
            table.check(f"row-{number}", "f:60000")


@given(st.recursive(st.none() | st.booleans() | st.text() | st.floats() | st.integers(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_typed_fields_accept_or_tell(value: Any) -> None:
    told = []
    for check in (rows.text_of, rows.list_of, rows.optional_text):
        try:
            check({"id": value}, "id", "here")
        except UserError as error:
            told.append(str(error))
    try:
        rows.id_of({"id": value}, "here")
    except UserError as error:
        told.append(str(error))
    assert told
    assert all(line.startswith("here: ") for line in told)


def test_an_identifier_can_be_told_in_a_line() -> None:
    longest = "a" * rows.LONGEST_ID
    assert rows.id_of({"id": longest}, "here") == longest
    with pytest.raises(UserError, match=r"here: field 'id' is 501 characters long; allowed: 1 to"):
        rows.id_of({"id": longest + "a"}, "here")
