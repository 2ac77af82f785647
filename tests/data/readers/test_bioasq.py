from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.readers.bioasq import READERS
from medexpert.data.readers.rows import Change, Drop, Part, read


def question(**change: Any) -> dict[str, Any]:
    page = "http://www.ncbi.nlm.nih.gov/pubmed/"
    row: dict[str, Any] = {"id": "5be", "body": "Is tea warm?", "type": "yesno"}
    row |= {"documents": [page + "12"], "triples": [], "concepts": [], "exact_answer": "yes"}
    snippet = {"text": " Tea is warm.", "document": page + "34", "beginSection": "title"}
    row |= {"snippets": [snippet, snippet], "ideal_answer": ["Tea is warm.", "Yes, warm."]}
    return row | change


def of(tmp_path: Path, *rows: dict[str, Any]) -> list[Any]:
    path = tmp_path / "9B1_golden.json"
    path.write_text(json.dumps({"questions": rows}), encoding="utf-8")
    return list(read(READERS["bioasq"], [Part(str(path))]))


def test_yes_no_question_is_a_task(tmp_path: Path) -> None:
    (item,) = of(tmp_path, question())
    assert (item.id, item.kind, item.template) == ("bioasq-5be", "task", "pubmedqa.lm_eval")
    assert item.fields == {
        "question": "Is tea warm?",
        "contexts": ["Tea is warm."],
        "answer": "yes",
        "long_answer": "Tea is warm.",
    }
    assert item.ids == {"qid": "5be", "pmid": "12 34"}


def test_other_questions_have_their_ideal_answer(tmp_path: Path) -> None:
    row = question(type="factoid", exact_answer=[["warm"]])
    change, item = of(tmp_path, row)
    assert change == Change("bioasq-5be", "other_answers_left_out")
    assert (item.kind, item.fields["answer"]) == ("qa", "Tea is warm.")
    (item,) = of(tmp_path, row | {"ideal_answer": "Warm."})
    assert item.fields["answer"] == "Warm."
    assert of(tmp_path, row | {"ideal_answer": []}) == [Drop("bioasq-5be", "no_answer")]


def test_label_in_another_case_is_counted(tmp_path: Path) -> None:
    change, item = of(tmp_path, question(exact_answer="Yes"))
    assert change == Change("bioasq-5be", "label_normalised")
    assert item.fields["answer"] == "yes"


def test_question_without_snippets(tmp_path: Path) -> None:
    assert of(tmp_path, question(snippets=[])) == [Drop("bioasq-5be", "no_context")]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"exact_answer": "maybe"}, "exact_answer 'maybe'; allowed: yes, no"),
        ({"type": "essay"}, "unknown question type 'essay'; allowed: yesno, factoid"),
        ({"snippets": ["x"]}, "snippets[0]: an object is expected, not a string"),
        ({"documents": [1]}, "documents[0]: a string is expected, not a number"),
        ({"ideal_answer": {"a": 1}}, "field 'ideal_answer': strings are expected"),
        ({"exact_answer": None}, "field 'exact_answer': a string is expected, not null"),
    ],
)
def test_faults(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    (found,) = of(tmp_path, question(**change))
    assert found.where.endswith("9B1_golden.json [record 1]")
    assert found.what.startswith(what)
