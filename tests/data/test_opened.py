"""Formats told by their bytes, and rows of every shape looked at in one way."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.opened import facts, rows, texts
from medexpert.data.readers.rows import Fault
from medexpert.records import UserError


def read(path: Path, raw: bytes) -> list[Any]:
    path.write_bytes(raw)
    return [found if isinstance(found, Fault) else found[1] for found in rows(path)]


ROW: dict[str, Any] = {"id": "a", "text": "x"}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_packed_lines(tmp_path: Path, pack: Any) -> None:
    assert read(tmp_path / "f", pack(json.dumps(ROW).encode() + b"\n")) == [ROW]


@pytest.mark.parametrize("indent", [None, 1])
def test_objects_and_arrays(tmp_path: Path, indent: int | None) -> None:
    keyed = json.dumps({"7": {"QUESTION": "Is it?"}, "8": {"QUESTION": "So?"}}, indent=indent)
    assert read(tmp_path / "o.json", keyed.encode()) == [
        {"id": "7", "QUESTION": "Is it?"}, {"id": "8", "QUESTION": "So?"},
    ]  # fmt: skip
    array = json.dumps([ROW, ROW], indent=indent)
    assert read(tmp_path / "a.json", b"\xef\xbb\xbf" + array.encode()) == [ROW, ROW]


@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_that_holds_the_list(tmp_path: Path, indent: int | None) -> None:
    value = json.dumps({"questions": [ROW, ROW]}, indent=indent)
    assert read(tmp_path / "o.json", value.encode()) == [ROW, ROW]
    line = json.dumps({"messages": [{"role": "user"}], "id": "a"})
    assert len(read(tmp_path / "o.jsonl", f"{line}\n{line}\n".encode())) == 2


def test_a_large_object_on_one_line(tmp_path: Path) -> None:
    value = {str(k): {"QUESTION": "x" * 1000} for k in range(1500)}
    assert len(read(tmp_path / "o.json", json.dumps(value).encode())) == 1500


def test_a_bad_first_line_is_a_bad_row(tmp_path: Path) -> None:
    first, second = read(tmp_path / "f.jsonl", b'{"id": "a", \n{"id": "b"}\n')
    assert isinstance(first, Fault)
    assert first.where.endswith("f.jsonl:1")
    assert second == {"id": "b"}


def test_lists_inside_objects(tmp_path: Path) -> None:
    exams = {"e1": {"name": "e1", "data": [ROW, ROW]}, "e2": {"name": "e2", "data": [ROW]}}
    value = {"version": "1", "language": "en", "exams": exams}
    found = read(tmp_path / "h.json", json.dumps(value).encode())
    assert found == [
        ROW, ROW, {"id": "e1", "name": "e1"}, ROW, {"id": "e2", "name": "e2"},
        {"version": "1", "language": "en"},
    ]  # fmt: skip


def test_values_by_number(tmp_path: Path) -> None:
    raw = json.dumps({"7": "yes", "8": "no"}).encode()
    assert read(tmp_path / "t.json", raw) == [{"id": "7", "text": "yes"}, {"id": "8", "text": "no"}]


def test_deep_objects_are_rows(tmp_path: Path) -> None:
    value: dict[str, Any] = {"x": [ROW]}
    for _ in range(300):
        value = {"a": value}
    assert len(read(tmp_path / "d.json", json.dumps(value).encode())) == 1


def test_tables(tmp_path: Path) -> None:
    assert read(tmp_path / "f.csv", b"id,text\na,x\n") == [ROW]
    assert read(tmp_path / "f.tsv.gz", gzip.compress(b"id\ttext\na\tx\n")) == [ROW]
    assert read(tmp_path / "one.csv", b"a,b\n") == [{"column 1": "a", "column 2": "b"}]
    mmlu = b"Is 2 two?,1,1,2,3,A\nWhat?,1,2,3,4,B\n"
    assert [row["question"] for row in read(tmp_path / "m.csv", mmlu)] == ["Is 2 two?", "What?"]
    header = b"id,question,A,B,C,D\n1,Q,1,2,3,4\n"
    assert [row["id"] for row in read(tmp_path / "h.csv", header)] == ["1"]
    assert [row["column 2"] for row in read(tmp_path / "t.csv", b"1,1\n2,1\n")] == ["1", "1"]


def test_text_is_read_in_blocks(tmp_path: Path) -> None:
    assert read(tmp_path / "t.txt", b"One.\nTwo.\n") == [{"text": "One.\nTwo."}]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows are not read from \.docx files; allowed: jsonl"):
        read(tmp_path / "t.docx", b"PK")


def test_the_published_files(real_data: Path) -> None:
    def count(*names: str) -> int:
        return sum(not isinstance(one, Fault) for one in rows(real_data.joinpath(*names)))

    assert count("eval", "dev_HEAD_EN.json") > 1000
    assert count("stage3", "pubmedqa", "test_ground_truth.json") == 500


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"kind": "qa", "fields": {}}, "qa"),
        ({"text": "x"}, "document"),
        ({"sections": []}, "document"),
        ({"messages": []}, "conversation"),
        ({"question": "x", "options": {}}, "mcq"),
        ({"QUESTION": "x", "CONTEXTS": []}, "task"),
        ({"question": "x", "answer": "y"}, "qa"),
        ({"reason": "empty", "id": "x"}, "drop"),
        ({"reason": "empty", "detail": {}}, "reject"),
        ({"other": 1}, "row"),
    ],
)
def test_kinds(row: dict[str, Any], kind: str) -> None:
    assert facts(row).kind == kind


def test_ids_from_every_place() -> None:
    found = facts(
        {"id": 5, "pubid": 7, "PMCID": "PMC1", "ids": {"qid": "3", "pmid": "", "x": None}}
    )
    assert found.id == "5"
    assert found.ids == {"qid": "3", "pmid": "7", "pmcid": "PMC1"}


def test_texts_in_order_at_any_depth() -> None:
    assert list(texts({"a": "1", "b": ["2", {"c": "3"}], "d": 4, "e": "5"})) == ["1", "2", "3", "5"]
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert list(texts(deep)) == ["x"]
