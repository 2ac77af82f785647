from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.readers import bioasq, conversations, examples, instructions, mcq, questions
from medexpert.data.readers.examples import cited, numbered
from medexpert.data.readers.rows import Change, Drop, Fault, Part, Reader, read
from medexpert.records import Document, Example, UserError

MODULES = (bioasq, conversations, examples, instructions, mcq, questions)
TABLE: dict[str, Reader] = {k: v for module in MODULES for k, v in module.READERS.items()}


def of(name: str, path: Path, parts: int = 1) -> list[Any]:
    return list(read(TABLE[name], [Part(str(path), i, parts) for i in range(parts)]))


def one(name: str, path: Path) -> Any:
    (item,) = of(name, path)
    return item


def test_no_two_modules_use_one_name() -> None:
    assert len(TABLE) == sum(len(module.READERS) for module in MODULES)


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


def test_qa_of_a_wrong_kind(write_rows: Callable[..., Path]) -> None:
    rows = [{"id": "a", "question": 3, "answer": "x"}, {"id": "b", "question": "q"}]
    first, second = of("qa", write_rows("f.jsonl", rows))
    assert first.where.endswith("f.jsonl:1")
    assert first.what == "field 'question': a string is expected, not a number"
    assert second.what.startswith("field 'answer' is missing; allowed: this row has id, question")


def test_reasoning_prefers_the_open_question(write_rows: Callable[..., Path]) -> None:
    row = {"id": "a", "question": "q", "rationale": "r", "answer": "x"}
    assert one("reasoning", write_rows("f.jsonl", [row])).fields["question"] == "q"
    row |= {"open_question": "oq", "open_answer": "ox"}
    item = one("reasoning", write_rows("g.jsonl", [row]))
    assert item.fields == {"question": "oq", "rationale": "r", "answer": "ox"}


def pqau(tmp_path: Path, items: dict[str, Any]) -> Path:
    path = tmp_path / "u.json"
    path.write_text(json.dumps(items), encoding="utf-8")
    return path


def test_pqau_is_a_question_with_its_conclusion(tmp_path: Path) -> None:
    row = {
        "QUESTION": "Does warm tea help?",
        "CONTEXTS": ["Forty drank tea.", " "],
        "LABELS": ["METHODS", "RESULTS"],
        "LONG_ANSWER": "Warm tea helped.",
        "PMCID": "PMC9",
    }
    item = one("pqau", pqau(tmp_path, {"123": row}))
    assert (item.kind, item.template, item.id) == ("qa", "chat.qa", "pqau-123")
    assert item.fields == {
        "question": "Does warm tea help?",
        "answer": "Warm tea helped.",
        "contexts": ["Forty drank tea."],
    }
    assert item.ids == {"pmid": "123", "pmcid": "PMC9"}
    bad = of("pqau", pqau(tmp_path, {"x1": row, "4": {**row, "CONTEXTS": [1]}}))
    assert [found.what for found in bad] == [
        "key 'x1' is no PMID",
        "CONTEXTS[0]: a string is expected, not a number",
    ]


def test_names_of_rows_without_one() -> None:
    first = numbered("/a/b/train.jsonl.gz:12", "text")
    assert first == numbered("C:\\x\\train.jsonl:12", "text") == "train-12-" + first[-8:]
    assert numbered("/a/train.json [record 12]", "text") == first
    assert numbered("s3://bucket/b/train.parquet [row 12]", "text") == first
    assert numbered("/a/train.jsonl.gz:12", "other") != first
    assert numbered("nowhere", "text").startswith("nowhere-0-")


def test_cited_pubmed_addresses() -> None:
    found = cited(
        "http://www.ncbi.nlm.nih.gov/pubmed/12", "https://pubmed.ncbi.nlm.nih.gov/34/", "12"
    )
    assert found == {"pmid": "12 34"}
    assert cited("https://www.ncbi.nlm.nih.gov/pmc/articles/PMC12/") == {}


@pytest.mark.parametrize(
    ("name", "file", "kept", "dropped"),
    [
        ("qa", "medquad_qa.jsonl.gz", 16407, {}),
        ("qa", "consumer_health_qa.jsonl.gz", 6315, {}),
        ("qa", "zh_medical_qa.jsonl.gz", 22302, {}),
        ("qa", "zh_safety_qa.jsonl.gz", 144, {}),
        ("chatdoctor", "genmedgpt_5k.json.gz", 5452, {}),
        ("medqa", "medqa_us_mcq.jsonl.gz", 2302, {}),
        ("headqa", "train_HEAD_EN.json.gz", 2589, {"needs_image": 68}),
        ("mcq", "openstax_medical_mcq.jsonl.gz", 1154, {}),
        ("mcq", "openstax_general_mcq.jsonl.gz", 806, {}),
        ("cmexam", "cmexam_val_mcq.jsonl.gz", 6810, {"no_answer": 1}),
        ("reasoning", "o1_reasoning_demo.jsonl.gz", 198, {}),
        ("promptcblue", "promptcblue_toy.jsonl.gz", 160, {}),
        (
            "conversations",
            "doctor_patient_dialogues_en.jsonl.gz",
            1712,
            {"no_answer_after_the_opening": 190, "no_answer": 6},
        ),
        ("conversations", "zh_conversations.jsonl.gz", 3000, {}),
        ("conversations", "general_instructions.jsonl.gz", 2998, {"no_answer": 1}),
    ],
)
def test_published_files_read_whole(
    real_data: Path, name: str, file: str, kept: int, dropped: dict[str, int]
) -> None:
    items = of(name, real_data / "stage2" / file, parts=2)
    assert not [item for item in items if isinstance(item, Fault)]
    assert sum(isinstance(item, Example) for item in items) == kept
    reasons = [item.reason for item in items if isinstance(item, Drop)]
    assert {reason: reasons.count(reason) for reason in reasons} == dropped


def test_published_stage_3_files_read_whole(real_data: Path) -> None:
    found = [
        item
        for path in sorted((real_data / "stage3" / "bioasq").glob("*.gz"))
        for item in of("bioasq", path)
    ]
    assert not [item for item in found if isinstance(item, Fault | Drop)]
    kinds = [item.kind for item in found if isinstance(item, Example)]
    assert (kinds.count("task"), kinds.count("qa")) == (409, 1088)
    path = real_data / "stage3" / "pqau_style_from_pmc.json"
    assert sum(isinstance(item, Example) for item in of("pqau", path)) == 69


_LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_VALUE = st.recursive(
    _LEAF,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
_FIELDS = [
    "id", "question", "answer", "options", "answer_idx", "messages", "conversations", "input",
    "instruction", "output", "target", "Question", "Options", "Answer", "Response", "Complex_CoT",
    "cop", "opa", "opb", "opc", "opd", "choices", "qid", "qtext", "ra", "answers", "name", "body",
    "type", "snippets", "documents", "exact_answer", "ideal_answer", "utterances", "from", "pmid",
    "dialogue_turns", "questions", "QUESTION", "CONTEXTS", "LONG_ANSWER", "references", "subject",
    "message", "option", "A", "B", "C", "D", "role", "content", "text", "answer_icliniq",
]  # fmt: skip
# These get an XML element or a joined row, never JSON as it came.
_JOINED = {"medquad", "cmedqa2"}


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(_FIELDS), _VALUE, max_size=12))
def test_any_row_is_items_or_a_user_error(row: dict[str, Any]) -> None:
    for name, reader in TABLE.items():
        if name in _JOINED:
            continue
        try:
            items = list(reader.convert("f.jsonl:1", row))
        except UserError:
            continue
        assert all(isinstance(item, Example | Document | Drop | Change) for item in items)
