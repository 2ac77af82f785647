from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Change, Drop
from medexpert.records import Example, UserError

MCQ = {"id": "a", "question": "Which?", "options": {"A": "one", "B": "two"}, "answer_idx": "B"}


def one(reader: str, path: Path) -> Any:
    (item,) = READERS[reader]([path])
    return item


def test_qa(write_rows: Callable[..., Path]) -> None:
    path = write_rows("f.jsonl", [{"id": "a", "question": " q ", "answer": "x", "pubid": 12}])
    item = one("qa", path)
    assert (item.template, item.fields) == ("chat.qa", {"question": "q", "answer": "x"})
    assert item.ids == {"pmid": "12"}


@pytest.mark.parametrize(
    ("field", "reason"), [("answer", "no_answer"), ("question", "no_question")]
)
def test_qa_without_an_answer(write_rows: Callable[..., Path], field: str, reason: str) -> None:
    row = {"id": "a", "question": "q", "answer": "x", field: " "}
    assert one("qa", write_rows("f.jsonl", [row])) == Drop("a", reason)


def test_reasoning_prefers_the_open_question(write_rows: Callable[..., Path]) -> None:
    row = {"id": "a", "question": "q", "rationale": "r", "answer": "x"}
    assert one("reasoning", write_rows("f.jsonl", [row])).fields["question"] == "q"
    row |= {"open_question": "oq", "open_answer": "ox"}
    item = one("reasoning", write_rows("g.jsonl", [row]))
    assert item.fields == {"question": "oq", "rationale": "r", "answer": "ox"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer_idx": "AB"}, "several_right_answers"),
        ({"answer_idx": "C"}, "answer_is_no_option"),
        ({"answer_idx": ""}, "no_answer"),
        ({"options": {"A": "one", "B": ""}}, "empty_option"),
        ({"options": {"B": "two"}}, "empty_option"),
    ],
)
def test_mcq_drops(write_rows: Callable[..., Path], change: dict[str, Any], reason: str) -> None:
    assert one("mcq", write_rows("f.jsonl", [MCQ | change])) == Drop("a", reason)


def test_mcq_template_needs_an_explanation(write_rows: Callable[..., Path]) -> None:
    assert one("mcq", write_rows("f.jsonl", [MCQ])).template == "chat.mcq_label"
    item = one("mcq", write_rows("g.jsonl", [MCQ | {"explanation": "because"}]))
    assert item.template == "chat.mcq_reason"


def test_mcq_options_of_a_wrong_kind(write_rows: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r":1: field 'options': an object is expected, not a list"):
        one("mcq", write_rows("f.jsonl", [MCQ | {"options": ["one"]}]))
    with pytest.raises(UserError, match=r":1: field 'B': a string is expected, not a number"):
        one("mcq", write_rows("g.jsonl", [MCQ | {"options": {"A": "one", "B": 2}}]))


def test_conversation_is_made_to_alternate(write_rows: Callable[..., Path]) -> None:
    turns = [
        ("doctor", "Hello?"), ("patient", "It hurts."), ("patient", "Badly."), ("doctor", ""),
        ("doctor", "Rest."), ("patient", "Thanks."),
    ]  # fmt: skip
    row = {"id": "a", "messages": [{"role": r, "content": c} for r, c in turns]}
    *changes, item = READERS["conversations"]([write_rows("f.jsonl", [row])])
    assert [c.what for c in changes if isinstance(c, Change)] == [
        "empty_turn_removed", "opening_assistant_turn_removed", "neighbouring_turns_joined",
        "closing_user_turn_removed",
    ]  # fmt: skip
    assert isinstance(item, Example)
    assert item.fields["messages"] == [
        {"role": "user", "content": "It hurts.\nBadly."},
        {"role": "assistant", "content": "Rest."},
    ]


def test_conversation_without_an_answer(write_rows: Callable[..., Path]) -> None:
    row = {"id": "a", "messages": [{"role": "user", "content": "Hello"}]}
    *_, item = READERS["conversations"]([write_rows("f.jsonl", [row])])
    assert item == Drop("a", "no_answer")


def test_unknown_role(write_rows: Callable[..., Path]) -> None:
    row = {"id": "a", "messages": [{"role": "nurse", "content": "Hello"}]}
    with pytest.raises(UserError, match=r":1: unknown role 'nurse'; allowed: user, assistant"):
        one("conversations", write_rows("f.jsonl", [row]))


def headqa(tmp_path: Path, **change: Any) -> Path:
    item = {"qid": "1", "qtext": "Which?", "ra": "2", "image": ""} | change
    item.setdefault("answers", [{"aid": i, "atext": t} for i, t in ((1, "one"), (2, "two"))])
    path = tmp_path / "h.json.gz"
    value = {"exams": {"E": {"data": [item]}}}
    path.write_bytes(gzip.compress(json.dumps(value).encode()))
    return path


def test_headqa(tmp_path: Path) -> None:
    item = one("headqa", headqa(tmp_path))
    assert item.id == "headqa-E-1"
    assert item.fields["answer_idx"] == "B"
    assert item.fields["options"] == {"A": "one", "B": "two"}
    assert one("headqa", headqa(tmp_path, image="p.png")) == Drop("headqa-E-1", "needs_image")
    assert one("headqa", headqa(tmp_path, ra="9")) == Drop("headqa-E-1", "no_answer")
    unnumbered = [{"atext": "one"}, {"atext": "two"}]
    lost = one("headqa", headqa(tmp_path, ra=None, answers=unnumbered))
    assert lost == Drop("headqa-E-1", "no_answer")


def test_headqa_faults_name_the_item(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"h\.json\.gz \[E, qid 1\]: answers\[0\]: an object"):
        one("headqa", headqa(tmp_path, answers=["x"]))
    with pytest.raises(UserError, match="11 answers; allowed: at most 10"):
        one("headqa", headqa(tmp_path, answers=[{"aid": i, "atext": "t"} for i in range(11)]))
