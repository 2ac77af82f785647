from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data.readers.mcq import LETTERS, READERS, letters_of, option_lines
from medexpert.data.readers.rows import Change, Drop, Fault, Part, read
from medexpert.prompt.template import ChatFormat, render
from medexpert.records import UserError

MCQ = {"id": "a", "question": "Which?", "options": {"A": "one", "B": "two"}, "answer_idx": "B"}


def of(name: str, path: Path, parts: int = 1) -> list[Any]:
    return list(read(READERS[name], [Part(str(path), i, parts) for i in range(parts)]))


def one(name: str, path: Path) -> Any:
    (item,) = of(name, path)
    return item


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer_idx": "C"}, "answer_is_no_option"),
        ({"answer_idx": ""}, "no_answer"),
        ({"answer_idx": "nan"}, "no_answer"),
        ({"options": {"A": "", "B": "two"}}, "empty_option"),
        ({"options": {"A": "one", "B": ""}}, "empty_option"),
        ({"options": {"B": "two"}}, "empty_option"),
        ({"question": " "}, "no_question"),
    ],
)
def test_mcq_drops(write_rows: Callable[..., Path], change: dict[str, Any], reason: str) -> None:
    assert one("mcq", write_rows("f.jsonl", [MCQ | change])) == Drop("a", reason)


def test_mcq_template_needs_an_explanation(write_rows: Callable[..., Path]) -> None:
    assert one("mcq", write_rows("f.jsonl", [MCQ])).template == "chat.mcq_label"
    item = one("mcq", write_rows("g.jsonl", [MCQ | {"explanation": "because"}]))
    assert item.template == "chat.mcq_reason"
    item = one("mcq", write_rows("h.jsonl", [MCQ | {"explanation": "nan"}]))
    assert item.fields["explanation"] == ""


def test_several_right_answers_fit_the_label_template(write_rows: Callable[..., Path]) -> None:
    row = MCQ | {"answer_idx": "BA", "explanation": "both"}
    *changes, item = of("mcq", write_rows("f.jsonl", [row]))
    assert [c.what for c in changes] == ["label_normalised", "explanation_left_out"]
    assert (item.template, item.fields["answer_idx"]) == ("chat.mcq_label", "AB")
    assert render(item.template, item.fields, chat=ChatFormat(""))[-1].text.startswith("AB")


@pytest.mark.parametrize("written", ["b", " B", "(B)", "Ｂ", "B."])
def test_a_label_written_otherwise_is_counted(
    write_rows: Callable[..., Path], written: str
) -> None:
    change, item = of("mcq", write_rows("f.jsonl", [MCQ | {"answer_idx": written}]))
    assert change == Change("a", "label_normalised")
    assert item.fields["answer_idx"] == "B"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"options": ["one"]}, "field 'options': an object is expected, not a list"),
        ({"options": {"A": "one", "B": 2}}, "field 'B': a string is expected, not a number"),
        ({"options": {"A": "one", "why": "x"}}, "field 'options': 'why' is no option letter"),
        (
            {"options": {"A": "x", "a": "y", "B": "z"}},
            "field 'options': 'A' and 'a' are one letter",
        ),
        ({"answer_idx": "two"}, "unknown answer label 'two'"),
        ({"answer_idx": 1}, "field 'answer_idx': a string is expected, not a number"),
    ],
)
def test_mcq_faults(write_rows: Callable[..., Path], change: dict[str, Any], what: str) -> None:
    found = one("mcq", write_rows("f.jsonl", [MCQ | change]))
    assert isinstance(found, Fault)
    assert found.where.endswith("f.jsonl:1")
    assert found.what.startswith(what)


def test_one_bad_row_does_not_end_the_reading(write_rows: Callable[..., Path]) -> None:
    rows = [MCQ, MCQ | {"id": "b", "answer_idx": "?"}, MCQ | {"id": "c"}, MCQ]
    items = of("mcq", write_rows("f.jsonl", rows))
    assert [isinstance(item, Fault) for item in items] == [False, True, False, True]
    assert "id 'a' occurs twice" in items[3].what


def medqa(**change: Any) -> dict[str, Any]:
    row = {
        "question": "Which sign?",
        "answer": "two",
        "options": {"A": "one", "B": "two", "C": "x", "D": "y"},
        "meta_info": "step1",
        "answer_idx": "B",
    }
    return row | change


def test_medqa(write_rows: Callable[..., Path]) -> None:
    path = write_rows("train.jsonl", [medqa(), medqa()])
    first, second = of("medqa", path)
    assert first.id.startswith("medqa-train-1-")
    assert second.id.startswith("medqa-train-2-")
    assert one("medqa", write_rows("g.jsonl", [medqa(answer="one")])).reason == (
        "answer_and_letter_differ"
    )


def medmcqa(**change: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": "u1", "question": "Which?", "exp": "since", "cop": 4}
    row |= {"opa": "a", "opb": "b", "opc": "c", "opd": "d", "choice_type": "multi"}
    return row | {"subject_name": "X", "topic_name": None} | change


def test_medmcqa_counts_from_one_in_json(write_rows: Callable[..., Path]) -> None:
    item = one("medmcqa", write_rows("f.json", [medmcqa()]))
    assert (item.fields["answer_idx"], item.fields["explanation"]) == ("D", "since")
    assert item.ids == {"qid": "u1"}
    assert one("medmcqa", write_rows("g.json", [medmcqa(cop=None)])) == Drop("u1", "no_answer")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"cop": 0}, "field 'cop': 0; allowed: 1 to 4"),
        ({"cop": 5}, "field 'cop': 5; allowed: 1 to 4"),
        ({"cop": "D"}, "field 'cop': a number is expected, not a string"),
        ({"choice_type": "both"}, "choice_type 'both'; allowed: single, multi"),
    ],
)
def test_medmcqa_faults(write_rows: Callable[..., Path], change: Any, what: str) -> None:
    assert one("medmcqa", write_rows("f.json", [medmcqa(**change)])).what == what


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    table = pytest.importorskip("pyarrow.parquet")
    table.write_table(arrow.Table.from_pylist(rows), path)
    return path


def test_medmcqa_counts_from_zero_on_the_hub(tmp_path: Path) -> None:
    rows = [medmcqa(cop=3), medmcqa(id="u2", cop=-1), medmcqa(id="u3", cop=0)]
    first, second, third = of("medmcqa", parquet(tmp_path / "t.parquet", rows))
    assert first.fields["answer_idx"] == "D"
    assert second == Drop("u2", "no_answer")
    assert third.fields["answer_idx"] == "A"


def headqa_item(**change: Any) -> dict[str, Any]:
    item = {"qid": "1", "qtext": "Which?", "ra": "2", "image": ""} | change
    item.setdefault("answers", [{"aid": i, "atext": t} for i, t in ((1, "one"), (2, "two"))])
    return item


def headqa(tmp_path: Path, *items: Any) -> Path:
    path = tmp_path / "h.json.gz"
    value = {"version": "1.0", "language": "en", "exams": {"E": {"name": "E", "data": items}}}
    path.write_bytes(gzip.compress(json.dumps(value).encode()))
    return path


def test_headqa(tmp_path: Path) -> None:
    item = one("headqa", headqa(tmp_path, headqa_item()))
    assert item.id == "headqa-E-1"
    assert item.fields["answer_idx"] == "B"
    assert item.fields["options"] == {"A": "one", "B": "two"}
    drop = one("headqa", headqa(tmp_path, headqa_item(image="p.png")))
    assert drop == Drop("headqa-E-1", "needs_image")
    for change in ({"ra": "9"}, {"ra": None, "answers": [{"atext": "one"}, {"atext": "two"}]}):
        lost = one("headqa", headqa(tmp_path, headqa_item(**change)))
        assert lost == Drop("headqa-E-1", "no_answer")


def test_headqa_faults_name_the_item_and_spare_the_exam(tmp_path: Path) -> None:
    eleven = [{"aid": i, "atext": "t"} for i in range(11)]
    items: list[Any] = [
        headqa_item(answers=["x"]), headqa_item(qid="2", answers=eleven), headqa_item(qid="3"),
        headqa_item(qid="3"), 7,
    ]  # fmt: skip
    first, second, third, fourth, fifth = of("headqa", headqa(tmp_path, *items))
    assert first.where.endswith("h.json.gz [E, qid 1]")
    assert first.what == "answers[0]: an object is expected, not a string"
    assert second.what == "11 answers; allowed: at most 10"
    assert third.id == "headqa-E-3"
    assert "id 'headqa-E-3' occurs twice" in fourth.what
    assert fifth.what == "an object is expected, not a number"


def test_headqa_of_the_hub(tmp_path: Path) -> None:
    row = headqa_item(name="E", year="2013", category="biology", qid=1, ra=2, image=None)
    (item,) = of("headqa", parquet(tmp_path / "t.parquet", [row]))
    assert (item.id, item.fields["answer_idx"]) == ("headqa-E-1", "B")


def test_mmlu_csv_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "anatomy_test.csv"
    path.write_text('"Which, now?",one,two,three,four,c\nBroken,line\n', encoding="utf-8")
    change, item, fault = of("mmlu", path)
    assert change.what == "label_normalised"
    assert item.fields["question"] == "Which, now?"
    assert item.fields["answer_idx"] == "C"
    assert item.id.startswith("mmlu-anatomy_test-1-")
    assert fault.what == "2 cells, but 6 columns"


def test_mmlu_of_the_hub_counts_from_zero(tmp_path: Path) -> None:
    row = {"question": "Which?", "subject": "anatomy", "choices": list("wxyz"), "answer": 0}
    rows = [row, row | {"answer": 4}]
    item, fault = of("mmlu", parquet(tmp_path / "test.parquet", rows))
    assert item.fields["answer_idx"] == "A"
    assert item.id.startswith("mmlu-anatomy-test-0-")
    assert fault.what == "field 'answer': 4; allowed: 0 to 3"


def test_cmmlu(tmp_path: Path) -> None:
    path = tmp_path / "anatomy_dev.csv"
    path.write_text(",Question,A,B,C,D,Answer\n0,何者为是,甲,乙,丙,丁,B\n", encoding="utf-8")
    item = one("cmmlu", path)
    assert (item.lang, item.fields["answer_idx"]) == ("zh", "B")


def test_cmexam_csv(tmp_path: Path) -> None:
    path = tmp_path / "val.csv"
    header = "Question,Options,Answer,Explanation,Disease Group\n"
    row = '何者为是,"A 甲\nB 乙 丙\n续行\nC 丁",B,乙对。,\n'
    path.write_text(header + row + '何者,"A 甲\nB 乙",,,\n何者,甲,A,,\n', encoding="utf-8")
    first, second, third = of("cmexam", path)
    assert first.fields["options"] == {"A": "甲", "B": "乙 丙\n续行", "C": "丁"}
    assert first.fields["explanation"] == "乙对。"
    assert second.reason == "no_answer"
    assert third.what.startswith("options: '甲' does not begin with A")


def test_cmb(tmp_path: Path) -> None:
    row = {"exam_type": "医师考试", "exam_class": "x", "exam_subject": "y", "question": "何者为是"}
    row |= {"answer": "AC", "question_type": "多项选择题"}
    options = {"A": "甲", "B": "乙", "C": "丙", "D": "丁", "E": ""}
    path = tmp_path / "CMB-train.json"
    path.write_text(json.dumps([row | {"option": options}, row]), encoding="utf-8")
    change, item, fault = of("cmb", path)
    assert change.what == "empty_option_removed"
    assert list(item.fields["options"]) == list("ABCD")
    assert (item.fields["answer_idx"], item.lang) == ("AC", "zh")
    assert fault.what == "field 'option': an object is expected, not null"


def test_options_in_lines() -> None:
    assert option_lines("(A) one.\n(B) A two.\n A three", "w") == {
        "A": "one.",
        "B": "A two.\nA three",
    }
    assert option_lines("A、甲\nＢ．乙\nC", "w") == {"A": "甲", "B": "乙", "C": ""}
    with pytest.raises(UserError, match="does not begin with A; allowed: one option a line"):
        option_lines("one\ntwo", "w")


@given(st.text(max_size=12))
def test_an_answer_cell_is_letters_nothing_or_a_user_error(cell: str) -> None:
    try:
        letters = letters_of(cell, "w")
    except UserError:
        return
    assert list(letters) == sorted(set(letters) & set(LETTERS))
    assert letters_of(letters, "w") == letters
