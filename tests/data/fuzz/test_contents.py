"""Encodings, line ends, doubled ids, labels: what is in a row that it should not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemas

from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Fault, Part, read

ROW = '{"id": "%s", "text": "Warm tea."}\n'


def items(name: str, path: Path) -> list[Any]:
    return list(read(READERS[name], [Part(str(path))]))


def faults(name: str, path: Path) -> list[Fault]:
    return [item for item in items(name, path) if isinstance(item, Fault)]


def test_nul_bytes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    a, b, c = ((ROW % x).strip().encode() for x in "abc")
    path.write_bytes(a + b"\r\n" + b + b"\r" + c + b"\n\0\n" + c.replace(b"Warm", b"W\0rm") + b"\n")
    found = faults("documents", path)
    assert [f.where.rpartition(":")[2] for f in found] == ["2", "3", "4"]
    assert len(items("documents", path)) == 4


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16", "utf-32", "gb18030"])
def test_another_encoding_is_a_fault_of_each_line(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(f'{{"id": "a", "text": "{schemas.ZH}"}}\n{{"id": "b"}}\n'.encode(encoding))
    found = faults("documents", path)
    assert found
    assert found[0].where == f"{path}:1"


def test_a_byte_order_mark_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + (ROW % "a").encode() + b"\xef\xbb\xbf" + b'{"id": "b"}\n')
    first, second = items("documents", path)
    assert first.id == "a"
    assert second.where == f"{path}:2"


@pytest.mark.parametrize("text", [r"\ud800", r"\udc00x", r"\ud83d\u0041"])
def test_half_a_surrogate_pair_is_a_fault(tmp_path: Path, text: str) -> None:
    line = f'{{"id": "a", "text": "{text}"}}'
    path = tmp_path / "f.jsonl"
    path.write_text(line + "\n" + ROW % "b")
    (found,) = faults("documents", path)
    assert found.what == "a string holds half a surrogate pair"
    path = tmp_path / "f.json"
    path.write_text(f'[{{"instruction": "a", "input": "", "output": "{text}"}}]')
    (found,) = faults("alpaca", path)
    assert found.what == "a string holds half a surrogate pair"


def test_duplicated_ids_and_labels_in_the_wrong_case(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    row = {**schemas.MCQ, "answer_idx": "b"}
    rows = [schemas.MCQ, schemas.MCQ, {**row, "id": "n"}, {**row, "id": "o", "answer_idx": "Z"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = items("mcq", path)
    assert found[1].what == f"id 'm' occurs twice (first at {path}:1)"
    assert found[2].what == "label_normalised"
    assert found[3].fields["answer_idx"] == "B"
    assert len(found) == 5
