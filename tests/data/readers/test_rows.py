"""Every way a file can be broken is told with its file and line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from medexpert.data.readers import READERS, rows
from medexpert.records import UserError

GOOD = b'{"id": "a", "question": "q", "answer": "x"}\n'


def broken(tmp_path: Path, raw: bytes, name: str = "f.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (GOOD + b"{oops}\n", r"f\.jsonl:2: not valid JSON: .*column 2"),
        (GOOD + b'{"id": "\xff"}\n', r"f\.jsonl:2: not UTF-8 \(byte 8 of the line\)"),
        (b"", r"f\.jsonl: the file is empty"),
        (GOOD + b"[1]\n", r"f\.jsonl:2: a JSON object is expected, not a list"),
        (GOOD + b'{"id": "b", "question": "q"}\n', r":2: field 'answer' is missing; allowed: this"),
        (
            b'{"id": "b", "question": 3, "answer": ""}\n',
            r":1: field 'question': a string .* number",
        ),
        (b'{"id": 7, "question": "", "answer": ""}\n', r":1: field 'id': a string .* number"),
        (b'{"id": "", "question": "", "answer": ""}\n', r":1: field 'id' is empty"),
        (b'{"id": "\\ud800", "question": "", "answer": ""}\n', r":1: field 'id' holds control"),
        (GOOD + GOOD, r":2: id 'a' occurs twice \(first at .*f\.jsonl:1\)"),
    ],
)
def test_broken_lines(tmp_path: Path, raw: bytes, match: str) -> None:
    with pytest.raises(UserError, match=match):
        list(READERS["qa"]([broken(tmp_path, raw)]))


def test_truncated_gzip(tmp_path: Path) -> None:
    lines = b"".join(GOOD.replace(b'"a"', b'"a%d"' % i) for i in range(5000))
    path = broken(tmp_path, gzip.compress(lines)[:-200], "f.jsonl.gz")
    with pytest.raises(UserError, match=r"f\.jsonl\.gz:\d+: damaged or truncated gzip file"):
        list(READERS["qa"]([path]))


def test_corrupt_gzip(tmp_path: Path) -> None:
    raw = bytearray(gzip.compress(GOOD * 50))
    raw[-6] ^= 0xFF  # the checksum
    with pytest.raises(UserError, match="damaged or truncated gzip file"):
        list(rows.jsonl(broken(tmp_path, bytes(raw), "f.gz")))


def test_empty_gzip(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the file is empty"):
        list(rows.jsonl(broken(tmp_path, gzip.compress(b""), "f.gz")))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        list(rows.jsonl(tmp_path / "absent"))
    with pytest.raises(UserError, match="a file is expected, not a folder"):
        list(rows.jsonl(tmp_path))


def test_gzip_is_told_by_its_bytes_not_its_name(tmp_path: Path) -> None:
    path = broken(tmp_path, gzip.compress(GOOD), "plain.jsonl")
    assert len(list(READERS["qa"]([path]))) == 1


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert [where for where, _ in rows.jsonl(broken(tmp_path, b"\n" + GOOD + b"  \n"))] == [
        f"{tmp_path / 'f.jsonl'}:2"
    ]


def test_whole_json_faults(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"f\.jsonl:2: not valid JSON"):
        rows.whole_json(broken(tmp_path, b'{"a": 1,\n b}'))
    with pytest.raises(UserError, match=r"f\.jsonl:2: not UTF-8"):
        rows.whole_json(broken(tmp_path, b'{"a":\n"\xff"}'))
    with pytest.raises(UserError, match=r'f\.jsonl:3: key "12" occurs twice in one object'):
        rows.whole_json(broken(tmp_path, b'{\n"12": 1,\n"12": 2}'))


def test_duplicate_pmid(write_rows: Callable[..., Path]) -> None:
    row = {"text": "t", "pmid": "12"}
    path = write_rows("d.jsonl", [{"id": "a", **row}, {"id": "b", **row}])
    with pytest.raises(UserError, match=r"d\.jsonl:2: PMID '12' occurs twice"):
        list(READERS["pubmed_abstracts"]([path]))


def test_pmid_of_a_wrong_kind(write_rows: Callable[..., Path]) -> None:
    path = write_rows("d.jsonl", [{"id": "a", "text": "t", "pmid": ["12"]}])
    with pytest.raises(UserError, match=r":1: field 'pmid': a PMID is expected, not a list"):
        list(READERS["documents"]([path]))


def test_every_identifier_of_a_row_is_kept() -> None:
    assert rows.ids_of({"pmid": "1", "pubid": 2, "pubmed_id": "1"}, "here") == {
        "pmid": "1",
        "pubid": "2",
    }
    assert rows.ids_of({"PMID": 7, "pmid": ""}, "here") == {"pmid": "7"}
