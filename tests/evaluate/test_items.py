"""Small files in the published schemas -> questions, what is left out, and letters as labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate.scoring import by_letters, score
from medexpert.evaluate.tasks import task_named
from medexpert.prompt.options import LETTERS, distinct, letter_of, printed
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

ROW = {"question": "哪一项？", "options": "(A) 甲.\n(B) 乙.\n(C) 丙.", "answer": "(B)"}


def write(root: Path, name: str, rows: list[Any]) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return root


@given(st.lists(st.sampled_from(["a", "b", "a [B]", "a [C]", "a [B] [C]"]), max_size=8))
def test_any_texts_are_told_apart(texts: list[str]) -> None:
    found = distinct(texts)
    assert len(set(found)) == len(texts)
    assert all(new.startswith(old) for new, old in zip(found, texts, strict=True))


@given(st.lists(st.sampled_from(["5 %", "10 %", "20 %", "none"]), max_size=8))
def test_the_printed_texts_come_back(texts: list[str]) -> None:
    assert printed(distinct(texts)) == tuple(texts)


def test_the_right_one_of_two_equal_texts_is_known_by_its_letter() -> None:
    choices = distinct(["5 %", "10 %", "5 %"])
    assert choices == ("5 %", "10 %", "5 % [C]")
    assert letter_of("5 % [C]", choices) == "C"


def test_a_question_with_several_right_answers_is_counted_not_asked(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"answer": "(AC)"}, ROW | {"answer": "(BAC)"}]
    root = write(tmp_path, "eval/cmexam_test_a.jsonl", rows)
    task = task_named("cmexam-a")
    (asked,) = task.load(root, "test")
    assert (asked.choices, asked.answer, asked.lang) == (("甲.", "乙.", "丙."), "乙.", "zh")
    assert asked.ids["benchmark"] == "cmexam"
    assert task.left_out is not None
    assert task.left_out(root, "test") == {"several_right_answers": 2}
    assert task.examples is not None
    assert task.examples(root) == []


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ROW | {"answer": "(X)"}, r"cmexam_test_a.jsonl:2: unknown answer label '\(X\)'"),
        (
            ROW | {"options": "甲\n乙"},
            r"cmexam_test_a.jsonl:2: options: '甲' does not begin with A",
        ),
        ({"question": "q"}, r"cmexam_test_a.jsonl:2: .*options"),
    ],
)
def test_a_row_that_breaks_its_format_stops(tmp_path: Path, row: Any, told: str) -> None:
    root = write(tmp_path, "eval/cmexam_test_a.jsonl", [ROW, row])
    with pytest.raises(UserError, match=told):
        task_named("cmexam-a").load(root, "test")


def test_an_empty_file_has_no_question(tmp_path: Path) -> None:
    root = write(tmp_path, "eval/cmb_single_a.jsonl", [])
    with pytest.raises(UserError, match=r"cmb_single_a\.jsonl"):
        task_named("cmb-a").load(root, "test")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"benchmark 'cmb-a': file not found; allowed: .*cmb_"):
        task_named("cmb-a").load(tmp_path, "test")
    write(tmp_path, "eval/mmlu_medical/virology_test.csv", [])
    with pytest.raises(UserError, match=r"mmlu-medical has no file anatomy_test\.csv"):
        task_named("mmlu-anatomy").load(tmp_path, "test")


def test_mmlu_is_read_by_subject(tmp_path: Path) -> None:
    folder = tmp_path / "eval" / "mmlu_medical"
    folder.mkdir(parents=True)
    (folder / "anatomy_test.csv").write_text("Which?,one,two,one,four,C\n")
    (folder / "anatomy_dev.csv").write_text("Shown?,1,2,3,4,A\n")
    task = task_named("mmlu-anatomy")
    (asked,) = task.load(tmp_path, "test")
    assert asked.choices == ("one", "two", "one [C]", "four")
    assert asked.answer == "one [C]"
    assert (asked.ids["benchmark"], asked.ids["subject"]) == ("mmlu", "anatomy")
    assert task.examples is not None
    assert [q.question for q in task.examples(tmp_path)] == ["Shown?"]


def test_bioasq_asks_yes_and_no_with_snippets(tmp_path: Path) -> None:
    one = {"id": "1", "body": "Is it?", "type": "yesno", "exact_answer": "Yes", "documents": [],
           "ideal_answer": ["Yes, it is."], "snippets": [{"text": "It is."}]}  # fmt: skip
    rows = [one, one | {"id": "2", "snippets": []}, one | {"id": "3", "type": "summary"}]
    path = tmp_path / "stage3" / "bioasq" / "9B1_golden.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"questions": rows}))
    task = task_named("bioasq-yesno")
    (asked,) = task.load(tmp_path, "test")
    assert (asked.answer, asked.contexts, asked.long_answer) == ("yes", ("It is.",), "")
    assert task.left_out is not None
    assert task.left_out(tmp_path, "test") == {"no_context": 1, "kind_qa": 1}


# -- letters as labels -------------------------------------------------------------------------


def made(identity: str, choices: tuple[str, ...], answer: str, choice: str) -> Any:
    question = Question(id=identity, question="?", choices=choices, answer=answer)
    share = 0.5 / (len(choices) - 1)
    shares = {c: 0.5 if c == choice else share for c in reversed(choices)}
    return question, Prediction(identity, choice, answer, {} if choice == NO_ANSWER else shares)


def test_a_tie_is_calibrated_as_it_was_settled() -> None:
    """A vote's probabilities may be equal: what counts is the answer, not the first of them."""
    shares = {"yes": 0.5, "no": 0.5, "maybe": 0.0}
    found = score([Prediction(str(k), "no", "no", shares) for k in range(4)], tuple(shares), seed=0)
    assert found["accuracy"] == 1
    assert found["calibration"]["ece_10_equal_mass"] == pytest.approx(0.5)
    assert found["calibration"]["risk_coverage"]["curve"][-1]["risk"] == 0


def test_unlike_choices_are_counted_by_letter() -> None:
    pairs = [
        made("1", ("aspirin", "ibuprofen", "none"), "aspirin", "aspirin"),
        made("2", ("5 mg", "10 mg", "5 mg [C]", "20 mg"), "5 mg [C]", "5 mg"),
        made("3", ("x", "y", "z"), "z", NO_ANSWER),
    ]
    questions, predictions = [q for q, _ in pairs], [p for _, p in pairs]
    lettered, letters = by_letters(predictions, questions)
    assert letters == ("A", "B", "C", "D") == tuple(LETTERS[:4])
    assert [(p.choice, p.answer) for p in lettered] == [("A", "A"), ("A", "C"), (NO_ANSWER, "C")]
    assert list(lettered[1].probabilities) == ["A", "B", "C", "D"]
    found = score(predictions, (), seed=0, questions=questions)
    assert found["labels"] == "letters"
    assert (found["correct"], found["n"], found["unparsed"]) == (1, 3, 1)
    assert found["histogram"] == {"A": 2, "B": 0, "C": 0, "D": 0, NO_ANSWER: 1}
    assert found["gold_histogram"] == {"A": 1, "B": 0, "C": 2, "D": 0}
    assert found["calibration"]["n"] == 2
