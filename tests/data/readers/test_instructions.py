from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medexpert.data.readers.instructions import READERS
from medexpert.data.readers.rows import Part, read


def of(name: str, path: Path) -> list[Any]:
    return list(read(READERS[name], [Part(str(path))]))


def listed(tmp_path: Path, rows: list[Any]) -> Path:
    path = tmp_path / "set.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_alpaca(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    row = {"instruction": "Sum up.", "input": "", "output": "Done."}
    rows = [row, row | {"input": "A text."}, row | {"output": None}, [1]]
    first, second, third, fourth = of("alpaca", listed(tmp_path, rows))
    assert first.fields == {"question": "Sum up.", "answer": "Done."}
    assert second.fields["question"] == "Sum up.\nA text."
    assert first.id.startswith("set-1-")
    assert third.what == "field 'output': a string is expected, not null"
    assert fourth.what == "a JSON object is expected, not a list"
    assert of("alpaca", write_rows("f.jsonl", [row]))[0].fields == first.fields


def test_chatdoctor_takes_the_patients_words(tmp_path: Path) -> None:
    row = {"instruction": "If you are a doctor, answer.", "input": "It hurts.", "output": "Rest."}
    first, second = of("chatdoctor", listed(tmp_path, [row, row | {"input": ""}]))
    assert first.fields == {"question": "It hurts.", "answer": "Rest."}
    assert second.fields["question"] == "If you are a doctor, answer."


def test_icliniq_takes_the_doctors_answer(tmp_path: Path) -> None:
    row = {"input": "It hurts.", "answer_icliniq": "Hello. Rest.", "answer_chatgpt": "No."}
    row |= {"answer_chatdoctor": "Maybe."}
    first, second = of("chatdoctor", listed(tmp_path, [row, row | {"answer_icliniq": ""}]))
    assert first.fields["answer"] == "Hello. Rest."
    assert second.reason == "no_answer"


def test_promptcblue(write_rows: Callable[..., Path]) -> None:
    row = {"input": "何者？\n选项：甲，乙\n答：", "target": "甲", "answer_choices": ["甲", "乙"]}
    row |= {"task_type": "cls", "task_dataset": "CHIP-CTC", "sample_id": "train-1"}
    old = row | {"type": "cls", "target": None}
    first, second = of("promptcblue", write_rows("train.json", [row, old]))
    assert (first.lang, first.ids) == ("zh", {"qid": "train-1"})
    assert first.fields["answer"] == "甲"
    assert second.what == "field 'target': a string is expected, not null"


def test_medical_o1(tmp_path: Path) -> None:
    row = {"Question": "Why?", "Complex_CoT": "Let me see.", "Response": "So."}
    first, second, third = of(
        "medical_o1", listed(tmp_path, [row, row | {"Complex_CoT": ""}, {"Question": "Why?"}])
    )
    assert first.template == "chat.reasoning"
    assert first.fields == {"question": "Why?", "rationale": "Let me see.", "answer": "So."}
    assert second.reason == "no_rationale"
    assert third.what.startswith("field 'Complex_CoT' is missing")
