"""Records: round trip, and bad lines told with file:line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.records import (
    Document,
    Prediction,
    Question,
    UserError,
    digest,
    from_mapping,
    read_jsonl,
    to_json,
    unknown_name,
)


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_round_trip(name: str, text: str, ids: dict[str, str]) -> None:
    import json

    document = Document(name, text, "s", ids=ids)
    assert from_mapping(Document, json.loads(to_json(document)), where="x") == document
    question = Question(name, text, ("yes", "no"), "yes", contexts=(text,))
    assert from_mapping(Question, json.loads(to_json(question)), where="x") == question


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "1"', r"d\.jsonl:2: not a JSON line"),
        (b"\xff\xfe", r"d\.jsonl:2: not a JSON line in UTF-8"),
        (b"[1]", "a JSON object is expected, not list"),
        (b'{"id": "1", "text": "t"}', "Document lacks 'source'"),
        (b'{"id": "1", "text": "t", "source": "s", "langg": "en"}', "did you mean 'lang'"),
    ],
)
def test_bad_lines(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"id": "0", "text": "t", "source": "s"}\n' + line + b"\n")
    with pytest.raises(UserError, match=message):
        list(read_jsonl(path, Document))


def test_errors_read_as_one_line() -> None:
    error = unknown_name("task", "pubmedq", ["pubmedqa", "trialgen"], where="--task")
    assert str(error) == (
        "--task: unknown task 'pubmedq'; allowed: pubmedqa, trialgen; did you mean 'pubmedqa'?"
    )


def test_no_answer_is_never_correct() -> None:
    assert not Prediction("1", "NO_ANSWER", "yes").correct
    assert Prediction("1", "yes", "yes").correct


def test_digest_ignores_key_order() -> None:
    assert digest({"a": 1, "b": [1.5, "x"]}) == digest({"b": [1.5, "x"], "a": 1})
