"""The conclusion rule against gold: figures right, no test item ever read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medexpert.data.construct.agreement import agreement, write_agreement
from medexpert.data.readers.pubmedqa import (
    CHOICES,
    fold_questions,
    official_split,
    read_pubmedqa,
    test_questions,
)
from medexpert.records import Question, UserError

test_questions.__test__ = False  # type: ignore[attr-defined]


def item(number: int, gold: str, conclusion: str) -> Question:
    return Question(
        id=str(number),
        question="Does velotine reduce gastric pain?",
        choices=CHOICES,
        answer=gold,
        long_answer=conclusion,
    )


def test_precision_coverage_and_recall() -> None:
    yes, no = "Velotine reduced gastric pain.", "Velotine did not reduce gastric pain."
    found = agreement(
        [
            item(1, "yes", yes),
            item(2, "yes", no),
            item(3, "yes", "Nurses left. They came back."),
            item(4, "no", no),
            item(5, "maybe", yes),
        ]
    )
    assert (found.items, found.spoken, found.right) == (5, 4, 2)
    assert (found.coverage, found.accuracy) == (0.8, 0.5)
    of_yes, of_maybe = found.labels["yes"], found.labels["maybe"]
    assert (of_yes.gold, of_yes.spoken, of_yes.given, of_yes.right) == (3, 2, 2, 1)
    assert (of_yes.precision, of_yes.coverage, of_yes.recall) == (0.5, 0.6667, 0.3333)
    assert of_yes.low == pytest.approx(0.0945, abs=1e-4)  # Wilson, 1 of 2
    assert of_maybe.precision is None
    assert found.confusion["yes>none"] == 1
    assert found.by_why == {
        "no: plain": {"right": 1, "given": 2},
        "yes: plain": {"right": 1, "given": 2},
    }


def test_no_test_item_reaches_the_measurement(pqal: Path) -> None:
    for question in test_questions(pqal, keep_long_answer=True)[:3]:
        with pytest.raises(UserError, match=r"PubMedQA test item .* must not be read"):
            agreement([question])
        renamed = replace(question, id="x")
        with pytest.raises(UserError, match="must not be read"):
            agreement([renamed])
    test = set(official_split().test)
    for part in fold_questions(pqal, 0):
        assert not test & {q.id for q in part}
        assert agreement(part).items == len(part)


def test_an_item_without_its_conclusion_is_refused(pqal: Path) -> None:
    items = read_pubmedqa(pqal / "stage3" / "pubmedqa")
    first = replace(items[official_split().folds[0][0]], long_answer="")
    with pytest.raises(UserError, match="has no long answer"):
        agreement([first])


def test_the_figures_are_written(pqal: Path, tmp_path: Path) -> None:
    file = tmp_path / "results" / "agreement.json"
    found = write_agreement(pqal, file)
    value = json.loads(file.read_text("utf-8"))
    assert value["test_items_read"] == 0
    assert value["figures"]["tuned_on"]["items"] == 450
    assert value["figures"]["untouched"]["items"] == 50
    assert found["untouched"].items == 50
