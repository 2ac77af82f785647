"""Counts of a small file known by hand, bad rows, memory and odd values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data import stats as module
from medexpert.data.stats import as_json, as_text, stats
from medexpert.records import Document, Example, UserError, to_json

ROWS = [
    Document("d1", "One two three", "books", licence="CC0", ids={"pmid": "1", "pmcid": "PMC1"}),
    Document("d2", "one  TWO three", "books", licence="CC0"),
    Document("d3", "二甲双胍 metformin", "zh", lang="zh"),
    Example("m", "exam", "mcq", "chat.mcq_label",
            {"question": "Which?", "options": {"A": "a", "B": "b"}, "answer_idx": "A",
             "explanation": "Because."}, licence="MIT"),
    Example("m", "exam", "mcq", "chat.mcq_label",
            {"question": "What?", "options": {"A": "a", "B": "b"}, "answer_idx": "A",
             "explanation": ""}, licence="MIT"),
    Example("t", "pqa", "task", "pubmedqa.lm_eval",
            {"question": "Is it?", "contexts": ["A."], "answer": "maybe"}, licence="MIT",
            ids={"pmid": "2"}),
    Example("c", "talk", "conversation", "chat.conversation",
            {"messages": [{"role": "user", "content": "Hi"},
                          {"role": "assistant", "content": "Hello"}]}, licence="MIT"),
]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    text = "".join(to_json(row) + "\n" for row in ROWS) + "{broken\n\n[1]\n"
    path.write_text(text, encoding="utf-8")
    return path


def test_counts(file: Path) -> None:
    found = stats(file)
    assert found["records"] == 7
    assert found["bad_rows"]["count"] == 2
    assert found["bad_rows"]["first"][0]["where"] == f"{file}:8"
    assert "not valid JSON" in found["bad_rows"]["first"][0]["what"]
    assert found["bad_rows"]["first"][1]["where"] == f"{file}:10"
    assert found["tokens"]["cjk_characters"] == 4
    assert found["by"]["kind"]["document"] == {"records": 3, "characters": 41}
    assert found["by"]["source"]["exam"]["records"] == 2
    assert found["by"]["lang"] == {
        "en": {"records": 6, "characters": found["characters"] - 14},
        "zh": {"records": 1, "characters": 14},
    }
    assert found["by"]["template"]["chat.mcq_label"]["records"] == 2
    assert found["duplicates"] == {"text": 1, "id": 1}
    assert found["ids"] == {"pmid": 2, "pmcid": 1}
    assert found["mcq"] == {"records": 2, "with_explanation": 1}
    assert found["turns"] == {"2": 1}
    assert found["labels"] == {"maybe": 1}
    assert found["empty_fields"] == {"title": 3, "licence": 1, "explanation": 1}


def test_words_and_lengths(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    rows = [{"id": str(k), "text": "x" * k} for k in range(1, 101)]
    path.write_text("\n".join(map(json.dumps, rows)))
    length = stats(path)["length"]
    assert (length["min"], length["max"], length["mean"]) == (1, 100, 50.5)
    assert length["percentiles"] == {
        "1": 1, "5": 5, "25": 25, "50": 50, "75": 75, "95": 95, "99": 99,
    }  # fmt: skip
    assert length["histogram"][0] == {"from": 1, "to": 1, "records": 1}
    assert sum(bar["records"] for bar in length["histogram"]) == 100


def test_text_and_json(file: Path) -> None:
    found = stats(file)
    assert json.loads(as_json(found)) == found
    text = as_text(found)
    for part in ("7 records", "2 rows cannot be read", f"{file}:8", "by licence:", "  (none)",
                 "exact duplicates: 1 (14.3 %)", "pmid 2 (28.6 %)", "explained: 1 (50.0 %)",
                 "labels: maybe 1", "messages a conversation: 2: 1", "###"):  # fmt: skip
        assert part in text


def test_drops_have_reasons_and_no_lengths(tmp_path: Path) -> None:
    path = tmp_path / "drops.jsonl"
    rows = [{"source": "s", "id": str(k), "reason": "duplicate"} for k in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = stats(path)
    assert found["by"]["reason"] == {"duplicate": {"records": 3, "characters": 0}}
    assert found["duplicates"]["text"] == 0
    assert "characters a record" not in as_text(found)


def test_names_without_end_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 5)
    path = tmp_path / "rows.jsonl"
    rows = [{"id": str(k), "source": f"s{k}", "text": str(k)} for k in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    by_source = stats(path)["by"]["source"]
    assert len(by_source) == 6
    assert by_source[module.OTHERS]["records"] == 15


def test_long_texts_are_counted_to_three_digits(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "a", "text": "x" * 12_345}))
    found = stats(path)
    assert found["length"]["max"] == 12_300
    assert found["characters"] == 12_345


def test_progress_is_told(write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAY_EVERY", 0.0)
    said: list[str] = []
    stats(write_rows("r.jsonl", [{"id": "a", "text": "b"}]), say=said.append)
    assert "1 records" in said[0]


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    odd = "\x1b[31m\u202e\x07"
    row = {"id": odd, "source": odd, "kind": "task", "ids": {odd: "1"}, odd: "",
           "fields": {"answer": odd, odd: ""}}  # fmt: skip
    path.write_text(json.dumps(row) + "\n{" + odd)
    assert not set(as_text(stats(path))) & set(odd.replace("[31m", ""))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        stats(tmp_path / "none.jsonl")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UserError, match="a file is expected, not a folder"):
        stats(folder)


@given(st.lists(st.dictionaries(
    st.sampled_from(["id", "text", "fields", "ids", "kind", "source", "detail", "reason", "lang"]),
    st.recursive(st.none() | st.floats() | st.text(), lambda i: st.lists(i) | st.dictionaries(
        st.sampled_from(["messages", "answer", "explanation", "x"]), i), max_leaves=5),
    max_size=5), max_size=4))  # fmt: skip
def test_any_rows_are_counted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [{"id": "1"}, *rows]))
    found = stats(path)
    assert found["records"] + found["bad_rows"]["count"] == len(rows) + 1
    as_text(found)
    as_json(found)


def test_real_files_have_no_bad_row(real_data: Path) -> None:
    found = stats(real_data / "stage2" / "cmexam_val_mcq.jsonl.gz")
    assert (found["records"], found["bad_rows"]["count"]) == (6811, 0)
    assert found["mcq"]["records"] == 6811
    assert found["tokens"]["cjk_characters"] > 500_000
