from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data.readers.conversations import READERS, alternate
from medexpert.data.readers.rows import Drop, Fault, Part, read
from medexpert.records import Example, UserError


def of(name: str, path: Path, parts: int = 1) -> list[Any]:
    return list(read(READERS[name], [Part(str(path), i, parts) for i in range(parts)]))


def turns(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"id": "a", "messages": [{"role": r, "content": c} for r, c in pairs]}


def test_conversation_is_made_to_alternate(write_rows: Callable[..., Path]) -> None:
    row = turns(
        ("doctor", "Hello?"), ("patient", "It hurts."), ("patient", "Badly."), ("doctor", ""),
        ("doctor", "Rest."), ("patient", "Thanks."),
    )  # fmt: skip
    *changes, item = of("conversations", write_rows("f.jsonl", [row]))
    assert [c.what for c in changes] == [
        "empty_turn_removed", "opening_assistant_turn_removed", "neighbouring_turns_joined",
        "closing_user_turn_removed",
    ]  # fmt: skip
    assert isinstance(item, Example)
    assert item.fields["messages"] == [
        {"role": "user", "content": "It hurts.\nBadly."},
        {"role": "assistant", "content": "Rest."},
    ]


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([("user", "Hello")], "no_answer"),
        ([("doctor", "Hello")], "no_answer"),
        ([], "no_answer"),
        ([("doctor", "Any pain?"), ("patient", "No.")], "no_answer_after_the_opening"),
    ],
)
def test_conversation_without_an_answer(
    write_rows: Callable[..., Path], pairs: list[tuple[str, str]], reason: str
) -> None:
    *_, item = of("conversations", write_rows("f.jsonl", [turns(*pairs)]))
    assert item == Drop("a", reason)


def test_roles(write_rows: Callable[..., Path]) -> None:
    rows = [turns(("User", "Q"), ("ASSISTANT", "A")), turns(("nurse", "Hello"))]
    change, item, fault = of("conversations", write_rows("f.jsonl", rows))
    assert change.what == "role_normalised"
    assert [m["role"] for m in item.fields["messages"]] == ["user", "assistant"]
    assert fault.where.endswith("f.jsonl:2")
    assert fault.what.startswith("unknown role 'nurse'; allowed: user, assistant")


def test_sharegpt(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    good = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    rows = [
        {"id": "x", "conversations": good},
        {"conversations": [{"from": "tool", "value": "1"}]},
        {"conversations": "x"},
    ]
    first, second, third = of("sharegpt", write_rows("f.jsonl", rows))
    assert first.id == "x"
    assert first.template == "chat.conversation"
    assert second.what.startswith("unknown role 'tool'; allowed: human, user, gpt")
    assert third.what == "field 'conversations': a list is expected, not a string"
    path = tmp_path / "l.json"
    path.write_text(json.dumps([{"conversations": good}]), encoding="utf-8")
    (item,) = of("sharegpt", path)
    assert item.id.startswith("l-1-")


def test_ultramedical(write_rows: Callable[..., Path]) -> None:
    talk = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "So it is A."}]
    row = {"id": "MedQA,7", "type": "Exam", "conversations": talk, "answer": "A", "score": "5"}
    longer = row | {"id": "WikiInstruct,1", "conversations": talk + talk}
    first, second = of("ultramedical", write_rows("f.jsonl", [row, longer]))
    assert (first.kind, first.fields) == ("qa", {"question": "Q", "answer": "So it is A."})
    assert first.ids == {"qid": "MedQA,7"}
    assert second.kind == "conversation"


def meddialog(tmp_path: Path, value: Any) -> list[Any]:
    path = tmp_path / "d.json"
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return of("meddialog", path)


def test_meddialog_json(tmp_path: Path) -> None:
    english = {
        "description": "sore throat",
        "utterances": ["patient: sore throat: what now", "doctor: warm tea."],
    }
    first, second, third = meddialog(
        tmp_path, [english, {"utterances": ["tea"]}, ["病人：嗓子疼", "医生：喝温水。"]]
    )
    assert first.lang == "en"
    assert first.fields["messages"][0]["content"] == "sore throat: what now"
    assert second.what.startswith("utterances[0] names no speaker; allowed: patient:, doctor:")
    assert third.lang == "zh"
    assert [m["content"] for m in third.fields["messages"]] == ["嗓子疼", "喝温水。"]


def test_meddialog_of_the_hub(tmp_path: Path) -> None:
    said = {"speaker": [0, 1], "utterance": ["嗓子疼", "喝温水。"]}
    rows = [
        {"dialogue_id": 1, "dialogue_turns": said},
        {"dialogue_turns": [{"speaker": "医生", "utterance": "您好"}]},
        {"dialogue_turns": {"speaker": [0], "utterance": []}},
        {"dialogue_turns": {"speaker": [2], "utterance": ["x"]}},
    ]
    first, *_, second, third, fourth = meddialog(tmp_path, rows)
    assert [m["role"] for m in first.fields["messages"]] == ["user", "assistant"]
    assert second.reason == "no_answer"
    assert third.what == "field 'dialogue_turns': lists of unlike length"
    assert fourth.what == "unknown speaker 2; allowed: 0, 1"


RAW = """id=1
https://example.org/q/1
Description
I have a sore throat.

Dialogue
Patient:
I have a sore throat.
For two days.
Doctor:
Drink warm tea.

id=2
https://example.org/q/2
Dialogue
病人：
嗓子疼
医生：
喝温水。
Diagnosis and suggestions
温水

id=3
no dialogue here
"""


@pytest.mark.parametrize("parts", [1, 3])
def test_meddialog_raw_text(tmp_path: Path, parts: int) -> None:
    path = tmp_path / "2020.txt"
    path.write_text(RAW, encoding="utf-8")
    first, second, fault = of("meddialog", path, parts)
    assert [m["content"] for m in first.fields["messages"]] == [
        "I have a sore throat.\nFor two days.",
        "Drink warm tea.",
    ]
    assert second.fields["messages"][1]["content"] == "喝温水。"
    assert isinstance(fault, Fault)
    assert fault.where.endswith("2020.txt:23")
    assert fault.what == "a dialogue without a line 'Dialogue'"


def test_meddialog_raw_text_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("Once upon a time\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"x\.txt:1: a MedDialog text file opens with a line id=1"):
        of("meddialog", path)
    path.write_bytes(b"id=1\nDialogue\nPatient:\n\xff\xfe\nhurts\nDoctor:\nRest.\n")
    fault, item = of("meddialog", path)
    assert (fault.where.rpartition(":")[2], fault.what) == ("4", "not UTF-8")
    assert item.fields["messages"][0]["content"] == "hurts"


_TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.sampled_from(["", "a", "b"])}
)


@given(st.lists(_TURN, max_size=8), st.booleans())
def test_alternation(spoken: list[dict[str, str]], told: bool) -> None:
    system = [{"role": "system", "content": "s"}] if told else []
    messages, changes = alternate(system + spoken)
    assert messages[: len(system)] == system
    roles = [message["role"] for message in messages[len(system) :]]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert all(message["content"] for message in messages)
    assert bool(changes) == (messages != system + spoken)
