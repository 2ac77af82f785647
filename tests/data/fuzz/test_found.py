"""What the campaign found, each as a small test of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checks import is_text
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data.readers import READERS
from medexpert.data.readers.benchmarks import BENCHMARK_READERS
from medexpert.data.readers.evidence_rows import evidence_tables
from medexpert.data.readers.json_rows import _Guarded, json_array
from medexpert.data.readers.rows import Fault, Part, jsonl, read
from medexpert.data.readers.streams import Stream
from medexpert.data.readers.tables import parquet_rows
from medexpert.data.readers.wording import MOST, one_line
from medexpert.data.readers.xml_rows import root_name, xml_records
from medexpert.data.show import show
from medexpert.records import UserError


def faults(name: str, path: Path, parts: int = 1) -> list[Fault]:
    slices = [Part(str(path), index, parts) for index in range(parts)]
    return [item for item in read(READERS[name], slices) if isinstance(item, Fault)]


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert one_line("a\nb\x1b[31m\u202e字 \u3000\udcff") == r"a\nb\x1b[31m\u202e字 　\udcff"
    assert len(one_line("\u202e" * 5000)) == len(one_line("x" * 5000)) == MOST + 1
    assert one_line("plain") == "plain"


def test_keys_of_a_row_cannot_break_its_message(write_rows: Callable[..., Path]) -> None:
    path = write_rows("f.jsonl", [{"id": "a", "\nmedexpert: done\x1b[2J": 1, "k" * 9000: 2}])
    (found,) = faults("qa", path)
    assert found.where == f"{path}:1"
    assert is_text(found.what)
    assert len(found.what) <= MOST + 1


def test_a_key_that_names_a_record_is_shown_safely(tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    path.write_text(json.dumps({"1\n\u202e" + "k" * 5000: 3}), encoding="utf-8")
    (found,) = faults("pubmedqa_a", path)
    assert found.where.startswith(rf"{path} [1\n\u202ekkk")
    assert found.where.endswith("…]")
    assert len(found.where) < len(str(path)) + 100


def test_a_benchmarks_bad_row_is_told_in_one_line(write_rows: Callable[..., Path]) -> None:
    path = write_rows("b.jsonl", [{"a\nb\x07": 1}])
    with pytest.raises(UserError, match=r"b\.jsonl:1: field 'question' is missing") as told:
        list(BENCHMARK_READERS["file"]([str(path)]))
    assert is_text(str(told.value))


def test_libraries_cannot_write_controls_into_a_message(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1\x0e\n\x0f" * 30 + b"\x15\x00\x00\x00PAR1")
    with pytest.raises(UserError, match="not a readable parquet file") as told:
        list(parquet_rows()(Part(str(path))))
    assert is_text(str(told.value))
    path.write_text("<a>\n<b></\ufeffb></a>", encoding="utf-8")
    with pytest.raises(UserError, match="not valid XML") as told:
        list(xml_records("b", roots=("a",))(Part(str(path))))
    assert is_text(str(told.value))


def test_an_exam_that_cannot_be_read_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    exams = {"E": {"data": 7}, "F": {"data": [], "name": "\ud800"}}
    path.write_text(json.dumps({"exams": exams}), encoding="utf-8")
    assert len(faults("headqa", path, 3)) == len(faults("headqa", path)) == 2


def test_a_bad_line_of_a_dialogue_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_bytes(b"\xff\xfe\nid=1\nDialogue\nPatient:\nhurts\nDoctor:\n\xff\nRest.\n")
    assert [found.where for found in faults("meddialog", path, 3)] == [f"{path}:1", f"{path}:7"]


def test_a_file_that_cannot_be_read_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "n.csv.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00rubbish")
    assert len(faults("local-text", path, 3)) == 1


def test_a_row_is_named_when_its_article_cannot_be_read(tmp_path: Path) -> None:
    head = "UserID,PromptID,PMCID,Valid Label,Valid Reasoning,Label,Annotations,Label Code\n"
    vote = "0,1,7,True,True,significantly decreased,shorter,-1\n"
    (tmp_path / "a.csv").write_text(head + vote)
    (tmp_path / "p.csv").write_text("PromptID,PMCID,Outcome,Intervention,Comparator\n1,7,a,b,c\n")
    (tmp_path / "txt_files").mkdir()
    (tmp_path / "txt_files" / "PMC7.txt").write_bytes(b"")
    names = ("a.csv", "p.csv", "txt_files")
    (found,) = evidence_tables(*(str(tmp_path / name) for name in names))
    assert isinstance(found, Fault)
    assert found.where == f"{tmp_path / 'p.csv'}:2"
    assert found.what.endswith("PMC7.txt: the file is empty")


@pytest.mark.parametrize("right", [["A", ["B"]], [{"A": 1}], [None, "A"]])
def test_show_takes_any_value_for_the_right_answer(
    write_rows: Callable[..., Path], right: Any
) -> None:
    path = write_rows("m.jsonl", [{"id": "a", "options": {"A": "x"}, "answer_idx": right}])
    lines = "\n".join(show(path))
    assert ("* A. x" in lines) == ("A" in right)


@pytest.mark.timeout(10)
def test_a_long_run_of_backslashes_takes_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    rest = [{"a": "\\" * n + "\U0001f9ea" * 3} for n in range(40)]
    path.write_text(json.dumps([{"a": "\\" * (1 << 20)}, *rest]), encoding="utf-8")
    found = list(json_array()(Part(str(path))))
    assert len(found) == 41
    assert [len(row["a"]) for _, row in found if isinstance(row, dict)][1:] == [
        n + 3 for n in range(40)
    ]


@given(st.lists(st.text(st.sampled_from('\\"[]{}ud8\U0001f9eaé/'), max_size=30), max_size=6),
       st.integers(1, 40))  # fmt: skip
def test_escapes_cut_anywhere_are_read_whole(texts: list[str], size: int) -> None:
    raw = json.dumps(texts).encode()
    guarded = _Guarded(Stream(io.BytesIO(raw), "w"), b"")
    assert b"".join(iter(lambda: guarded.read(size), b"")) == raw


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("n.xml", "<!DOCTYPE" + " " * 60_000 + "x"), ("n.xml", "<!--" * 15_000),
        ("n.xml", "<!DOCTYPE " * 6_000), ("n.xml", "<?x" * 20_000), ("n.html", "<" + "a" * 300_000),
        ("n.html", "<a" + " /" * 300_000), ("n.md", "# " + " " * 19_000 + "x" * 400),
    ],
)  # fmt: skip
def test_no_text_takes_a_pattern_long(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.write_text(text)
    assert list(read(READERS["local-text"], [Part(str(path))]))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("<?xml version='1.0'?><!-- <a> --><!DOCTYPE b [<!ENTITY c '>'>]>\n<p:d e='f'/>", "d"),
        ("<!DOCTYPE b SYSTEM 'x.dtd'><b>", "b"), ("<!-- <a>", ""), ("<!DOCTYPE a [", ""), ("x", ""),
        ("< <b>", "b"),
    ],
)  # fmt: skip
def test_the_root_is_the_first_element(head: str, name: str) -> None:
    assert root_name(head) == name


def test_lines_of_a_fault_keep_their_number(tmp_path: Path) -> None:
    folder = tmp_path / "a\u202eb"
    folder.mkdir()
    path = folder / "f.jsonl"
    path.write_text("{\n")
    (found,) = jsonl(Part(str(path)))
    assert isinstance(found, Fault)
    assert found.where.endswith(r"a\u202eb/f.jsonl:1")
