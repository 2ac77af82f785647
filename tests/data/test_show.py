"""Records as lines: what is shown of each shape, and that no control character gets through."""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data.show import columns, safe, show, wrap
from medexpert.records import Document, Example, UserError, to_json

Write = Callable[..., Path]


def shown(file: Path, **settings: Any) -> str:
    return "\n".join(show(file, **settings))


def records(tmp_path: Path, *rows: Document | Example) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(to_json(row) + "\n" for row in rows), encoding="utf-8")
    return file


MCQ = Example(
    "m1", "exam", "mcq", "chat.mcq_label",
    {"question": "Which?", "options": {"A": "alpha", "B": "beta"}, "answer_idx": "B",
     "explanation": "Beta fits."},
    licence="MIT", ids={"qid": "7"},
)  # fmt: skip


def test_header_and_marked_option(tmp_path: Path) -> None:
    assert shown(records(tmp_path, MCQ)).splitlines() == [
        "#1  m1",
        "    exam · mcq · chat.mcq_label · en · MIT · qid=7",
        "    question: Which?",
        "    A. alpha",
        "  * B. beta",
        "    explanation: Beta fits.",
    ]


def test_several_right_options(tmp_path: Path) -> None:
    fields = {**MCQ.fields, "answer_idx": "AB"}
    text = shown(records(tmp_path, Example("m", "s", "mcq", "chat.mcq_label", fields)))
    assert "  * A. alpha" in text
    assert "  * B. beta" in text


def test_conversation_roles(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hello\nthere"}, {"role": "assistant", "content": "Hi"}]
    row = Example("c", "s", "conversation", "chat.conversation", {"messages": turns})
    text = shown(records(tmp_path, row))
    assert "    user: Hello\n      there\n    assistant: Hi" in text


def test_documents_wrap_and_are_shortened_unless_full(tmp_path: Path) -> None:
    file = records(tmp_path, Document("d", "word " * 1000, "s", title="Words"))
    text = shown(file, width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert "title: Words" in text
    assert "… (5,000 characters)" in text
    assert "…" not in shown(file, full=True)
    assert shown(file, full=True).count("word") == 1000


def test_contexts_are_shortened(tmp_path: Path) -> None:
    row = {"question": "Is it?", "contexts": ["long " * 200, "short"], "answer": "yes"}
    text = shown(records(tmp_path, Example("t", "s", "task", "pubmedqa.lm_eval", row)))
    assert "… (1,000 characters)" in text
    assert "    context: short\n    answer: yes" in text


def test_drops_and_rejects(write_rows: Write) -> None:
    file = write_rows(
        "drops.jsonl",
        [
            {"source": "s", "id": "x", "reason": "duplicate", "stage": "adapt"},
            {"id": "y", "where": "f:3", "reason": "unparsed", "detail": {"written": "Hm."}},
        ],
    )
    text = shown(file)
    assert "    s · drop\n    dropped: duplicate" in text
    assert "    reject\n    dropped: unparsed · f:3\n    written: Hm." in text


def test_bad_rows_are_shown_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(
        b'{"id": "a", "text": "fine"}\n{broken\n\xff\xfe\n{"id": "b", "text": "too"}\n'
    )
    text = shown(file, width=300)
    assert f"#2  cannot be read: {file}:2: not valid JSON" in text
    assert f"#3  cannot be read: {file}:3: not UTF-8" in text
    assert "#4  b" in text


def test_start_count_and_search(write_rows: Write) -> None:
    rows = [{"id": f"r{k}", "text": "a tall\n Tree" if k % 4 == 0 else "stone"} for k in range(20)]
    file = write_rows("rows.jsonl.gz", rows)
    assert [line for line in show(file, start=3, count=2) if line.startswith("#")] == [
        "#3  r2", "#4  r3",
    ]  # fmt: skip
    found = [line for line in show(file, start=2, count=2, search="TALL tree") if line[:1] == "#"]
    assert found == ["#5  r4", "#9  r8"]
    assert sum(line.startswith("#") for line in show(file, count=0)) == 20


def test_a_json_object_an_array_and_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    keyed = tmp_path / "object.json"
    keyed.write_text(json.dumps({"123": {"QUESTION": "Is it?", "CONTEXTS": ["A."]}}))
    assert "#1  123" in shown(keyed)
    array = tmp_path / "array.json.gz"
    array.write_bytes(gzip.compress(json.dumps([{"id": "a"}, {"id": "b"}], indent=1).encode()))
    assert "#2  b" in shown(array)
    table = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": ["p"], "text": ["Hello"]}), table)
    assert "    text: Hello" in shown(table)


def test_colour_only_when_asked_for(tmp_path: Path) -> None:
    file = records(tmp_path, MCQ)
    assert "\x1b" not in shown(file)
    assert "\x1b[32m  * B. beta\x1b[0m" in shown(file, color=True)


ODD = "\x1b]0;title\x07 \x9b31m \u202e right \u2066 \ufeff \x00 \r back \x08 \u2028 tab\t."


def test_what_a_terminal_would_obey_is_written_out(tmp_path: Path) -> None:
    fields = {"question": ODD, "options": {ODD: ODD}, "messages": [{"role": ODD, "content": ODD}]}
    row = {"id": ODD, "source": ODD, "licence": ODD, "ids": {ODD: ODD}, "reason": ODD, ODD: ODD,
           "fields": {**fields, ODD: [ODD]}}  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n" + json.dumps(ODD) + "\n" + ODD.replace("\n", ""))
    text = shown(file)
    assert "\\x1b" in text
    assert {unicodedata.category(c) for c in text if c != "\n"}.isdisjoint(
        {"Cc", "Cf", "Cs", "Zl", "Zp"}
    )


@given(st.text(), st.integers(20, 60))
def test_wrapping_keeps_the_words_and_the_width(text: str, width: int) -> None:
    clean = safe(text)
    lines = wrap(clean, width)
    assert all(columns(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(clean.split())


def test_chinese_takes_two_columns() -> None:
    assert wrap("二甲双胍是一线药物", 8) == ["二甲双胍", "是一线药", "物"]
    assert columns("e\u0301二") == 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"start": 0}, "start 0.*start from 1"),
        ({"count": -1}, "count -1"),
        ({"width": 3}, "width 3"),
        ({"start": 5}, "no record 5; the file has 1"),
        ({"search": "nowhere"}, "no record holds 'nowhere'"),
    ],
)
def test_what_cannot_be_shown(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        shown(records(tmp_path, MCQ), **settings)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        shown(tmp_path / "none.jsonl")
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"")
    with pytest.raises(UserError, match="the file is empty"):
        shown(empty)
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"id": "a"}\n' * 9)[:-9])
    with pytest.raises(UserError, match="damaged or truncated gzip"):
        shown(cut)
    parquet = tmp_path / "bad.parquet"
    parquet.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(UserError, match="not a readable parquet file"):
        shown(parquet)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["id", "text", "messages", "options", "contexts", "fields", "ids",
                         "detail", "reason", "answer_idx", "kind", "sections", "x"]),
        inner, max_size=6),
    max_leaves=20,
))  # fmt: skip
def test_any_json_is_shown_or_told_as_a_bad_row(
    tmp_path_factory: pytest.TempPathFactory, value: Any
) -> None:
    file = tmp_path_factory.mktemp("any") / "rows.jsonl"
    file.write_text('{"id": "first"}\n' + json.dumps(value) + "\n")
    text = shown(file)
    assert text.count("#1") >= 1
    assert "\x1b" not in text
